"""Dense from structural against dense from random weights at the same cost: python benchmarks/ink_stages.py FOLDER [--seeds N].

Both arms go through `train.py`, in bfloat16 on one thread, one run after the other: `stage=ink/all` with `--steps` steps of each
stage, and `stage=ink/dense training.init_from=null` for so many more steps that it computes as long (`--structural-cost`). Drawn
strokes are of all ten levels from the first step, as in the validation set. Runs are kept in FOLDER: the same command again
skips those that completed, and begins the one that did not anew. `--table` only prints what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = REPOSITORY.parent / "shared/data/ink_lines"
STAGED, ALONE = "structural, then dense", "dense from random weights"
SHOWN = (
    "f1_1px", "iou", "f1_0px", "end_point_recall", "end_point_f1", "junction_recall", "junction_f1", "tangent_error_deg",
    "width_error_px",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """``steps`` of each stage in batches of ``batch_size``; a structural step costs ``structural_cost`` of a dense one."""

    steps: int
    batch_size: int
    structural_cost: float
    pages: Path

    def overrides(self, data: str, arm: str, folder: Path) -> list[str]:
        steps = self.steps if arm == STAGED else self.steps + round(self.structural_cost * self.steps)
        stage = ["stage=ink/all"] if arm == STAGED else ["stage=ink/dense", "training.init_from=null"]
        return [
            "model=inktrace", f"data={data}", *stage, *self._of_data(data, folder), "training.max_epochs=1000",
            f"training.max_iter={steps}", f"training.batch_size={self.batch_size}", "training.scheduler.warmup_steps=50",
            "training.eval_interval=1000", "training.save_interval=1000", "training.amp=bf16", "training.num_workers=0",
            "tracking=off",
        ]  # fmt: skip

    def _of_data(self, data: str, folder: Path) -> list[str]:
        if data == "ink_strokes":
            return [
                f"data.root={folder}/strokes",
                "data.curriculum=10",
                "data.easier=0.9",
                f"data.num_val={2 * self.steps}",
            ]
        return [
            f"data.cache={folder}/lines", f"data.train.images={self.pages}/images", f"data.train.annotations={self.pages}/alto",
        ]  # fmt: skip


@dataclass(frozen=True)
class Run:
    data: str
    arm: str
    seed: int

    def folder(self, root: Path) -> Path:
        return root / f"{self.data}_{'staged' if self.arm == STAGED else 'alone'}_{self.seed}"

    def numbers(self, root: Path) -> dict[str, float] | None:
        """Return validation metrics at the end of the dense stage and ``cpu_seconds`` of the command; None unless the run
        completed."""
        folder = self.folder(root)
        if not (folder / "cpu_seconds.json").exists():
            return None
        result: dict[str, Any] = json.loads((folder / "dense/result.json").read_text())
        metrics: dict[str, float] = {name.removeprefix("val/"): value for name, value in result["metrics"].items()}
        return metrics | {"cpu_seconds": json.loads((folder / "cpu_seconds.json").read_text())}

    def train(self, root: Path, plan: Plan) -> None:
        """Train anew, whatever is there. Raises RuntimeError with the end of what it printed."""
        folder = self.folder(root)
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "train.py", *plan.overrides(self.data, self.arm, root)]
        command += [f"training.seed={self.seed}", f"hydra.run.dir={folder}"]
        log = root / f"{folder.name}.log"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        before = _cpu_seconds_of_children()
        with log.open("w") as output:
            done = subprocess.run(
                command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False
            )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{log.read_text()[-2000:]}")
        (folder / "cpu_seconds.json").write_text(json.dumps(_cpu_seconds_of_children() - before))


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where the runs are kept; a temporary one by default")
    parser.add_argument("--data", nargs="+", default=["ink_strokes", "ink_lines"], choices=["ink_strokes", "ink_lines"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250, help="of each stage")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--structural-cost", type=float, default=0.86, help="of a step, in dense ones")
    parser.add_argument("--pages", type=Path, default=PAGES, help="holds images/ and alto/")
    parser.add_argument("--table", action="store_true", help="train nothing, print what is there")
    parser.add_argument(
        "--smoke", action="store_true", help="one seed, 2 steps, drawn strokes: its figures mean nothing"
    )
    options = parser.parse_args()
    if options.smoke:
        options.data, options.seeds, options.steps, options.batch_size = ["ink_strokes"], 1, 2, 2
    with tempfile.TemporaryDirectory() as temporary:
        return compare(options, options.folder or Path(temporary))


def compare(options: argparse.Namespace, folder: Path) -> int:
    root = folder.resolve()
    root.mkdir(parents=True, exist_ok=True)
    plan = Plan(options.steps, options.batch_size, options.structural_cost, options.pages.resolve())
    asked, written = json.dumps(asdict(plan), default=str), root / "plan.json"
    if written.exists() and written.read_text() != asked:
        print(f"{root} holds runs of another plan, {written.read_text()}, not {asked}; choose another folder")
        return 2
    written.write_text(asked)
    # Seed by seed, so that what was stopped early still compares both arms.
    for run in _runs(options.data, options.seeds):
        if not options.table and run.numbers(root) is None:
            run.train(root, plan)
    for line in _table(root, options.data, options.seeds):
        print(line)
    return 0


def _runs(data: Sequence[str], seeds: int) -> Iterator[Run]:
    for seed in range(seeds):
        for name in data:
            for arm in (STAGED, ALONE):
                yield Run(name, arm, seed)


def _table(root: Path, data: Sequence[str], seeds: int) -> Iterator[str]:
    """Return markdown: mean ± standard deviation over the seeds that both arms completed, and of the difference seed by seed."""
    yield "| data, arm | seeds | CPU seconds | " + " | ".join(SHOWN) + " |"
    yield "|---" * (3 + len(SHOWN)) + "|"
    for name in data:
        both = [[Run(name, arm, seed).numbers(root) for arm in (STAGED, ALONE)] for seed in range(seeds)]
        pairs = [(staged, alone) for staged, alone in both if staged is not None and alone is not None]
        if not pairs:
            continue
        differences = [{key: staged[key] - alone[key] for key in staged if key in alone} for staged, alone in pairs]
        for arm, rows in (
            (STAGED, [staged for staged, _ in pairs]), (ALONE, [alone for _, alone in pairs]), ("difference", differences),
        ):  # fmt: skip
            seconds = _spread([row["cpu_seconds"] for row in rows], digits=0)
            cells = [_spread([row[key] for row in rows if key in row], digits=3) for key in SHOWN]
            yield f"| {name}: {arm} | {len(pairs)} | {seconds} | " + " | ".join(cells) + " |"


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


if __name__ == "__main__":
    sys.exit(main())
