"""Does `winnow verify` find a wrong bit? `python benchmarks/verify_flips.py [--flips 1000] [--clean 200] [--work DIR]`

One run of 20 steps saves after step 10 and at its end. In copies of the newer checkpoint one bit each is flipped, and all
checksums are renewed: the seal at the file's end and, of a bit within a record, the zip's own. Half of the bits are drawn from
the whole file, half from its parts in turn (weights, average, optimizer, random states, loss sums, the pickle with all numbers
and texts, the zip's structure). Each copy gets a whole `winnow verify`, as do clean copies, which must give no alarm. Every
result is a line of DIR/results.jsonl; started again, it goes on with the first that is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from winnow.checkpoints.file import read_checkpoint
from winnow.checkpoints.seal import COMMENT_LENGTH, MARK
from winnow.errors import WinnowError
from winnow.proof.verify import prepare, run_verification

ROOT = Path(__file__).parents[1]
OLDER, NEWER = "checkpoint_epoch_5.pth", "last.pth"
OVERRIDES = (
    "model=fcos_tiny", "data=digits", "training.overfit=8", "training.batch_size=4", "training.max_epochs=10",
    "training.save_interval=5", "training.eval_interval=5", "training.num_workers=0", "training.ema.decay=0.9",
    "training.log_interval=3", "tracking=off", "training.scheduler.warmup_steps=5", "report=false", "data.image_size=64",
    "model.channels=[8,16,16,16]",
)  # fmt: skip


def make_run(folder: Path) -> None:
    """Train the run of 20 steps, unless it is there."""
    if (folder / "result.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(
        [sys.executable, "train.py", *OVERRIDES, f"hydra.run.dir={folder}"], cwd=ROOT, check=True, capture_output=True
    )


class Bits:
    """The bits of a checkpoint by part: each byte of its records, and of what lies between them, but not of the seal."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()[: -COMMENT_LENGTH - 2]
        with zipfile.ZipFile(path) as archive:
            self.records = {info.filename: archive.read(info) for info in archive.infolist()}
            self.starts = {info.filename: _start(self.data, info) for info in archive.infolist()}
        owners = dict(_owners(read_checkpoint(path)))
        if _zip(self.records) != self.data:
            raise RuntimeError(
                f"{path} is not what torch's writer makes of its records, so no checksum in it could be renewed"
            )
        self.part = np.full(len(self.data), "zip", dtype="<U24")
        for name, start in self.starts.items():
            key = name.partition("/")[2]
            owner = owners[int(key[5:])] if key.startswith("data/") else ("pickle" if key == "data.pkl" else "zip")
            self.part[start : start + len(self.records[name])] = owner

    def choose(self, number: int) -> tuple[int, int]:
        """Return which bit of which byte is flipped in copy ``number``."""
        rng = np.random.default_rng([15, number])
        if number % 2 == 0:
            return int(rng.integers(len(self.data))), int(rng.integers(8))
        parts = np.unique(self.part)
        places = np.flatnonzero(self.part == parts[number // 2 % len(parts)])
        return int(rng.choice(places)), int(rng.integers(8))

    def flipped(self, byte: int, bit: int) -> bytes:
        """Return the whole file with that bit flipped and all checksums renewed."""
        data = bytearray(self.data)
        data[byte] ^= 1 << bit
        for name, start in self.starts.items():
            record = self.records[name]
            if start <= byte < start + len(record) and self.part[byte] != "zip":
                return _sealed(_zip({**self.records, name: bytes(data[start : start + len(record)])}))
        return _sealed(bytes(data))


def _start(data: bytes, info: zipfile.ZipInfo) -> int:
    """Return where the content of a record stands in the file."""
    at = info.header_offset
    name, extra = (int.from_bytes(data[at + place : at + place + 2], "little") for place in (26, 28))
    return at + 30 + name + extra


def _owners(content: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield the number of each stored tensor, and under which key of the checkpoint it comes first."""
    seen: dict[int, int] = {}
    for key, value in content.items():
        for tensor in _tensors(value):
            pointer = tensor.untyped_storage().data_ptr()
            if pointer not in seen:
                seen[pointer] = len(seen)
                yield seen[pointer], key


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _zip(records: dict[str, bytes]) -> bytes:
    """Return what torch's own writer makes of the records, without the seal and the two bytes before it."""
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    for name, content in records.items():
        key = name.partition("/")[2]
        if key not in ("version", ".data/serialization_id"):  # the writer's own
            writer.write_record(key, content, len(content))
    writer.write_end_of_file()
    return buffer.getvalue()[:-2]


def _sealed(data: bytes) -> bytes:
    return data + COMMENT_LENGTH.to_bytes(2, "little") + MARK + hashlib.sha256(data).hexdigest().encode()


def verify_copy(run: Path, content: bytes, scratch: Path) -> list[str]:
    """Return what `winnow verify` says of a copy of ``run`` whose newer checkpoint is ``content``."""
    copy = scratch / "run"
    (copy / "checkpoints").mkdir(parents=True)
    for name in (f"checkpoints/{OLDER}", "metrics.csv", "config.yaml"):
        shutil.copyfile(run / name, copy / name)
    (copy / "checkpoints" / NEWER).write_bytes(content)
    try:
        verification = prepare(copy)
        return list(verification.faults) or run_verification(verification, scratch / "again")
    except WinnowError as error:
        return [f"{type(error).__name__}: {error}"]


def jobs(flips: int, clean: int) -> list[int | None]:
    """Return the numbers of the flips, with clean copies (None) spread among them."""
    todo: list[int | None] = list(range(flips))
    for index in range(clean):
        todo.insert(round((index + 0.5) * flips / max(clean, 1)) + index, None)
    return todo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--clean", type=int, default=200)
    parser.add_argument("--work", type=Path, default=ROOT / ".verify_flips")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    make_run(options.work / "run")
    run, results = (options.work / "run").absolute(), options.work / "results.jsonl"
    bits = Bits(run / "checkpoints" / NEWER)
    whole = (run / "checkpoints" / NEWER).read_bytes()
    done = len(results.read_text().splitlines()) if results.exists() else 0
    for number in jobs(options.flips, options.clean)[done:]:
        began = time.monotonic()
        byte, bit = bits.choose(number) if number is not None else (-1, 0)
        with tempfile.TemporaryDirectory(prefix="winnow-flips-") as scratch:
            lines = verify_copy(run, whole if number is None else bits.flipped(byte, bit), Path(scratch))
        part = "clean" if number is None else str(bits.part[byte])
        line = {"number": number, "part": part, "byte": byte, "bit": bit, "found": bool(lines), "says": lines[:1]}
        with results.open("a") as file:
            file.write(json.dumps({**line, "seconds": round(time.monotonic() - began, 2)}) + "\n")
    summarise([json.loads(line) for line in results.read_text().splitlines()])


def summarise(lines: list[dict[str, Any]]) -> None:
    """Print how many flips were found in each part, and how many clean copies gave an alarm."""
    found = Counter(line["part"] for line in lines if line["found"])
    for part, count in sorted(Counter(line["part"] for line in lines).items()):
        print(f"{part:24} {found[part]:5} of {count:5}{' gave an alarm' if part == 'clean' else ' found'}")
    flips = [line for line in lines if line["part"] != "clean"]
    print(f"{'all flips':24} {sum(line['found'] for line in flips):5} of {len(flips):5} found")
    for line in flips:
        if not line["found"]:
            print(f"missed: {line}")


if __name__ == "__main__":
    main()
