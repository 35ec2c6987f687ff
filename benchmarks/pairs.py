"""What fusion is worth on pairs: python benchmarks/pairs.py FOLDER [--arms ARM …] [--seeds N].

Every arm is a run of `train.py model=pair_faster_rcnn_tiny`, on one thread, one run after the other, seed by seed.
Those of the fusion ladder train on `data=pairs_synthetic`, each seed on pairs of its own (`data.seed` from 21 on: nothing
was chosen on those), and their last weights are then evaluated in other ways too (one modality alone, the wrong partner,
the other score of late fusion); `llvip_mini` and `kaist_mini` overfit the nine annotated pairs of each excerpt. Runs are
kept in FOLDER: the same command again skips those that completed, goes on with the one that was stopped, and measures
what was not. Results are written after each run; `--table` only prints what is there. docs/pairs.md says what the arms
are."""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from winnow.checkpoints.state_dicts import read_state
from winnow.data.plan import LoadingSettings
from winnow.families.pairs.batch import MODALITIES, PairBatch
from winnow.families.pairs.data import PairData, pairs_synthetic
from winnow.families.pairs.evaluation import pair_evaluation
from winnow.families.pairs.models.pair_faster_rcnn import pair_faster_rcnn_tiny
from winnow.families.pairs.models.task import PairFasterRcnnTask
from winnow.families.pairs.synthetic.ceiling import ceiling
from winnow.families.pairs.synthetic.drawing import draw_pair
from winnow.families.pairs.synthetic.store import SPLITS, SyntheticSettings, make_pairs

REPOSITORY = Path(__file__).resolve().parents[1]
FUSIONS = ("visible", "infrared", "early", "mid", "gated", "late")
SHUFFLED = "mid, trained on shuffled pairs"
MACL = "mid with MACL"
MACL_SHUFFLED = "mid with MACL, trained on shuffled pairs"
UNTRAINED = "mid with MACL, untrained"
SHARED = REPOSITORY.parent / "shared/data"
OVERFIT = {
    "llvip_mini": ["data=llvip", f"data.llvip_root={SHARED}/llvip_mini", "data.llvip_split={train:['01'],val:['01']}",
                   "model.anchor_sizes=[16,32,64]"],
    "kaist_mini": ["data=kaist", f"data.kaist_root={SHARED}/kaist_mini",
                   "data.kaist_split={train:[set06,set08,set09,set10,set11],val:[set06,set08,set09,set10,set11]}",
                   "model.anchor_sizes=[14,26,48]"],
}  # fmt: skip
FLIP_ONLY = [f"data.augmentation.{key}" for key in ("photometric=0.0", "crop=0.0", "resize_scale=[1.0,1.0]")]
MEMORISE = [
    *FLIP_ONLY, "data.image_size=320", "model.anchor_ratios=[2.4]", "training.batch_size=4", "training.max_iter=200",
    "training.max_epochs=1000", "training.save_interval=1000", "training.optimizer.weight_decay=0.0",
]  # fmt: skip
ARMS = (*FUSIONS, SHUFFLED, MACL, *OVERFIT)
FUSED = ("early", "mid", "gated", SHUFFLED, MACL)
COLUMNS = ("map_50", "map", "ceiling", "only_visible", "only_infrared", "wrong_partner", "late_max", "cpu_seconds")
NUM_TRAIN, NUM_VAL = 400, 100
FIRST_DATA_SEED = 21
MACL_WEIGHT = 0.2
SMOKE = ["data.num_train=8", "data.num_val=50", "data.image_size=64", "training.max_iter=1"]


@dataclass(frozen=True)
class Run:
    """One training of an arm."""

    arm: str
    seed: int

    def folder(self, root: Path) -> Path:
        return root / f"{self.arm.replace(', ', '_').replace(' ', '_')}_{self.seed}"

    @property
    def data_seed(self) -> int:
        """Return the seed of its drawn pairs."""
        return FIRST_DATA_SEED + self.seed

    def numbers(self, root: Path) -> dict[str, float] | None:
        """Return what was measured, None unless the run completed."""
        path = self.folder(root) / "numbers.json"
        return json.loads(path.read_text()) if path.exists() else None

    def is_trained(self, root: Path) -> bool:
        """Tell whether its training came to its end."""
        return (self.folder(root) / "cpu_seconds.json").exists()

    def train(self, root: Path, more: Sequence[str]) -> None:
        """Train, going on where an earlier try was stopped. Raises RuntimeError with the end of what it printed."""
        folder = self.folder(root)
        command = [
            sys.executable, "train.py", "model=pair_faster_rcnn_tiny", *self.overrides(root), f"training.seed={self.seed}",
            "training.num_workers=0", "training.eval_interval=1000", "training.resume=auto", "tracking=off", *more,
            f"hydra.run.dir={folder}",
        ]  # fmt: skip
        log, before = root / f"{folder.name}.log", _cpu_seconds_of_children()
        with log.open("w") as output:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False
            )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{log.read_text()[-2000:]}")
        (folder / "cpu_seconds.json").write_text(json.dumps(_cpu_seconds_of_children() - before))

    def measure(self, root: Path) -> dict[str, float]:
        """Return what was measured of the trained run, kept beside it."""
        folder = self.folder(root)
        numbers = {"cpu_seconds": json.loads((folder / "cpu_seconds.json").read_text())} | measured(self, folder)
        (folder / "numbers.json").write_text(json.dumps(numbers))
        return numbers

    def overrides(self, root: Path) -> list[str]:
        """Return what the arm trains and on what; drawn pairs are kept in ``root``."""
        if self.arm in OVERFIT:
            return [*OVERFIT[self.arm], *MEMORISE]
        is_shuffled = self.arm in (SHUFFLED, MACL_SHUFFLED)
        pairs = shuffled_pairs(root / "shuffled", self.data_seed) if is_shuffled else root / "pairs"
        fusion = self.arm if self.arm in FUSIONS else "mid"
        weight = MACL_WEIGHT if self.arm in (MACL, MACL_SHUFFLED, UNTRAINED) else 0.0
        return [
            "data=pairs_synthetic", f"data.root={pairs}", f"data.seed={self.data_seed}", f"model.fusion={fusion}",
            f"model.macl.weight={weight}",
            *(["training.max_iter=1", "training.optimizer.lr=1e-12"] if self.arm == UNTRAINED else []),
        ]  # fmt: skip


def measured(run: Run, folder: Path) -> dict[str, float]:
    """Return average precision of the run's last weights by all ways of looking at the validation pairs that its arm allows."""
    result = json.loads((folder / "result.json").read_text())["metrics"]
    values = {name: result[f"val/{name}"] for name in ("map_50", "map")}
    if run.arm in MODALITIES:
        pairs = [draw_pair(run.data_seed, SPLITS.index("val"), index) for index in range(NUM_VAL)]
        values["ceiling"] = ceiling(pairs, MODALITIES.index(run.arm))
    if run.arm in FUSED:
        data, task = restored(folder)
        for name in MODALITIES:
            values[f"only_{name}"] = average_precision(task, restored(folder, modalities=[name])[0])
        values["wrong_partner"] = average_precision(task, data, with_wrong_partner)
    if run.arm == "late":
        data, task = restored(folder, late_score="max")
        values["late_max"] = average_precision(task, data)
    return values


def restored(
    folder: Path, modalities: Sequence[str] | None = None, late_score: str | None = None
) -> tuple[PairData, PairFasterRcnnTask]:
    """Return the data and the task of a run, with its last weights; of the data only some ``modalities``."""
    config: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    nodes = {
        name: {key: value for key, value in config[name].items() if key != "_target_"}
        for name in ("data", "model", "evaluation")
    }
    loading = LoadingSettings(
        batch_size=20, num_workers=0, drop_last=False, seed=0, subset_size=None, subset_seed=0, overfit=None
    )
    nodes["data"] |= {} if modalities is None else {"modalities": list(modalities)}
    nodes["model"] |= {} if late_score is None else {"late_score": late_score}
    data = pairs_synthetic(loading=loading, **nodes["data"])
    task = pair_faster_rcnn_tiny(**pair_evaluation(**nodes["evaluation"]).model_arguments(data), **nodes["model"])
    task.model.load_state_dict(read_state(folder / "checkpoints/last.pth"))
    task.model.eval()
    return data, task


def average_precision(task: PairFasterRcnnTask, data: PairData, change: Any = None) -> float:
    """Return AP50 on the validation pairs, each batch first changed."""
    metric = task.new_metric()
    with torch.inference_mode():
        for batch in data.val_batches(data.image_size):
            batch = batch if change is None else change(batch)
            metric.update(task.predictions(task.forward(batch), batch), batch)
    return metric.compute()["map_50"]


def with_wrong_partner(batch: PairBatch) -> PairBatch:
    """Return a batch in which each visible image has the infrared one of the next."""
    images = torch.cat([batch.images[:, :3], batch.images[:, 3:].roll(1, dims=0)], dim=1)
    return replace(batch, images=images.contiguous(memory_format=torch.channels_last))


def shuffled_pairs(root: Path, seed: int) -> Path:
    """Return the root of the drawn data set in which each training pair has the infrared image of the next; made if need be."""
    folder = make_pairs(root, SyntheticSettings(num_train=NUM_TRAIN, num_val=NUM_VAL, seed=seed))
    mark = folder / "is_shuffled"  # in the folder of this version: another version is drawn anew, and not shuffled yet
    if not mark.exists():
        files = sorted((folder / "infrared/train").glob("*.png"))
        contents = [file.read_bytes() for file in files]
        for file, content in zip(files, contents[1:] + contents[:1], strict=True):
            file.write_bytes(content)
        mark.touch()
    return root


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _table(root: Path, arms: Sequence[str], seeds: int) -> Iterator[str]:
    """Return markdown: mean ± standard deviation over the seeds that completed."""
    yield "| arm | seeds | " + " | ".join(COLUMNS) + " |"
    yield "|---" * (2 + len(COLUMNS)) + "|"
    for arm in arms:
        rows = [numbers for seed in range(seeds) if (numbers := Run(arm, seed).numbers(root)) is not None]
        cells = [_spread([row[key] for row in rows if key in row], 0 if key == "cpu_seconds" else 3) for key in COLUMNS]
        yield f"| {arm} | {len(rows)} | " + " | ".join(cells) + " |"


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def arguments(description: str, arms: Sequence[str]) -> argparse.ArgumentParser:
    """Return the options that both benchmarks of pairs have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where the runs are kept")
    parser.add_argument("--arms", nargs="+", default=list(arms), choices=arms)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--more", nargs="*", default=[], help="overrides of every run; another folder for each set")
    parser.add_argument("--table", action="store_true", help="train nothing, print what is there")
    parser.add_argument("--smoke", action="store_true", help="two arms, one step on 8 pairs: its figures mean nothing")
    return parser


def read_arguments(parser: argparse.ArgumentParser, smoke_arms: Sequence[str]) -> argparse.Namespace:
    """Return the options, with a folder that exists; ends the program where its runs have other overrides than ``--more``."""
    options = parser.parse_args()
    if options.smoke:
        options.temporary = tempfile.TemporaryDirectory()  # for as long as the options are
        options.folder, options.arms, options.seeds = Path(options.temporary.name), list(smoke_arms), 1
        options.more = SMOKE
    if options.folder is None:
        parser.error("name the folder where the runs are kept")
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    asked, written = json.dumps(list(options.more)), options.folder / "plan.json"
    if written.exists() and written.read_text() != asked:
        parser.error(f"{options.folder} holds runs with {written.read_text()}, not {asked}; choose another folder")
    written.write_text(asked)
    return options


def main() -> None:
    options = read_arguments(arguments(__doc__, ARMS), ("visible", "mid"))
    # Seed by seed, so that what was stopped early still compares all arms.
    for run in (Run(arm, seed) for seed in range(options.seeds) for arm in options.arms):
        if not options.table and run.numbers(options.folder) is None:
            if not run.is_trained(options.folder):
                run.train(options.folder, options.more)
            print(run.arm, run.seed, run.measure(options.folder), flush=True)
    for line in _table(options.folder, options.arms, options.seeds):
        print(line)


if __name__ == "__main__":
    main()
