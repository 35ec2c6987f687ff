"""Whether MACL aligns pairs, with controls: python benchmarks/pair_alignment.py FOLDER [--arms ARM …] [--seeds N].

The arms are runs of `benchmarks/pairs.py`, and FOLDER is the same: what is there is not trained again. They are `mid`
with MACL, without, with MACL on shuffled pairs, and not trained at all, seed by seed. Each is measured on the validation
pairs, of which none is shuffled; what was not trained with a projection is measured with an untrained one. Results are
written after each; `--table` only prints them. docs/pairs.md says what is measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pairs import MACL, MACL_SHUFFLED, UNTRAINED, Run, arguments, read_arguments, restored

from winnow.families.pairs.alignment import draw_alignment, measure_alignment
from winnow.families.pairs.models.macl import AlignmentHead
from winnow.families.pairs.models.network import PairNetwork
from winnow.families.pairs.models.tiny_pyramid import STRIDES

ARMS = (MACL, "mid", MACL_SHUFFLED, UNTRAINED)
COLUMNS = (
    "same_box_r1", "stranger_r1", "place_only_r1", "other_objects_r1", "other_objects_rank", "retrieval_r1",
    "retrieval_rank", "in_pair_r1", "in_pair_guess", "loss_per_object", "loss_of_chance", "map_50",
)  # fmt: skip


def measure(run: Run, root: Path) -> dict[str, float]:
    """Return what was measured of a run's last weights, kept beside them with a picture."""
    folder = run.folder(root)
    data, task = restored(folder)
    network = task.model
    assert isinstance(network, PairNetwork)
    head = network.alignment
    if head is None:
        torch.manual_seed(run.seed)
        channels = next(
            iter(task.forward(next(iter(data.val_batches(data.image_size)))).modalities["visible"].values())
        ).shape[1]
        head = AlignmentHead(channels, STRIDES, sampling_ratio=1)
    alignment, numbers = measure_alignment(task, head, data.val_batches(data.image_size))
    draw_alignment(*alignment.objects(), folder / "alignment.png", f"{run.arm}, seed {run.seed}")
    numbers["map_50"] = json.loads((folder / "result.json").read_text())["metrics"]["val/map_50"]
    (folder / "alignment.json").write_text(json.dumps(numbers, indent=2))
    return numbers


def _table(root: Path, arms: Sequence[str], seeds: int) -> Iterator[str]:
    """Return markdown: the mean over the seeds that completed, and the least and the most."""
    yield "| arm | seeds | " + " | ".join(COLUMNS) + " |"
    yield "|---" * (2 + len(COLUMNS)) + "|"
    for arm in arms:
        paths = [Run(arm, seed).folder(root) / "alignment.json" for seed in range(seeds)]
        rows = [json.loads(path.read_text()) for path in paths if path.exists()]
        cells = [_spread([row[key] for row in rows]) for key in COLUMNS]
        yield f"| {arm} | {len(rows)} | " + " | ".join(cells) + " |"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    spread = f" ({min(values):.3f}–{max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def main() -> None:
    parser = arguments(__doc__, ARMS)
    parser.add_argument(
        "--remeasure", action="store_true", help="measure the runs that are there again; train those that are not"
    )
    options = read_arguments(parser, (MACL, "mid"))
    for run in (Run(arm, seed) for seed in range(options.seeds) for arm in options.arms):
        if not options.table and (options.remeasure or not (run.folder(options.folder) / "alignment.json").exists()):
            if not run.is_trained(options.folder):
                run.train(options.folder, options.more)
            print(run.arm, run.seed, measure(run, options.folder), flush=True)
    for line in _table(options.folder, options.arms, options.seeds):
        print(line)


if __name__ == "__main__":
    main()
