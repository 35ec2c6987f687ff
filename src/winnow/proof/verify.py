"""``winnow verify``: a run's steps between its newest two checkpoints once more, and whether the newer one is what they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from winnow.checkpoints.differences import count_values, differences
from winnow.checkpoints.file import read_checkpoint
from winnow.config.flat import flat
from winnow.errors import CheckpointError, ConfigError, WinnowError
from winnow.proof.check import clock_differences, config_differences, layout_differences, repeat_differences
from winnow.proof.moments import Saved, saved_moments
from winnow.proof.repeat import plan_of, repeat

ONE_CHECKPOINT = (
    "{folder} holds one checkpoint, of {moment}: nothing can be repeated. training.keep_last_n and training.save_interval say "
    "how many a run keeps"
)


@dataclass(frozen=True)
class Verification:
    """What is to be repeated: from ``older`` to ``newer``; ``faults``: what is wrong before any step is repeated."""

    folder: Path
    older: Saved
    newer: Saved
    faults: tuple[str, ...] = field(default=())

    @property
    def num_steps(self) -> int:
        return self.newer.moment.step - self.older.moment.step

    @property
    def seconds(self) -> float:
        """Return how long the run itself took for these steps."""
        return float(self._seconds(self.newer) - self._seconds(self.older))

    def _seconds(self, saved: Saved) -> float:
        return float(saved.content["progress"]["cost"]["seconds"])

    @property
    def num_values(self) -> tuple[int, int]:
        """Return how many tensors and other values the newer checkpoint holds."""
        return count_values(self.newer.content)


def prepare(folder: Path) -> Verification:
    """Return what a verification of the run in ``folder`` repeats. Raises ConfigError where there is no run or one checkpoint
    alone, CheckpointError where the settings changed between the newest two."""
    saved, damaged = saved_moments(folder)
    if len(saved) < 2:
        if damaged:
            raise CheckpointError("; ".join(damaged))
        raise ConfigError(ONE_CHECKPOINT.format(folder=folder, moment=saved[0].moment))
    older, newer = saved[-2:]
    faults = list(damaged)
    if newer.moment.step < older.moment.step:
        faults.append(
            f"{newer.path.name} ({newer.moment}) is further than {older.path.name} ({older.moment}) with fewer steps"
        )
    faults += _resume_faults(older, newer)
    if not faults:
        faults += clock_differences(newer, older, folder)
        faults += layout_differences(newer, older)
    return Verification(folder, older, newer, tuple(faults))


def run_verification(verification: Verification, scratch: Path, trusted: Sequence[str] = ()) -> list[str]:
    """Repeat the steps in ``scratch`` and return a line for each difference; none where the newer checkpoint is what the older
    one leads to. Raises WinnowError where the steps can't be repeated at all, as without the data."""
    older, newer = verification.older, verification.newer
    try:
        plan = plan_of(newer.content, newer.path, scratch, older.path, trusted)
    except WinnowError as error:
        return [f"{newer.path.name}: {error}"]
    repeated = repeat(plan, [newer.moment])
    if repeated.was_stopped:
        raise CheckpointError("stopped before the steps were repeated")
    if newer.moment not in repeated.files:
        return [f"{newer.path.name} stands at {newer.moment}; the repeat never did, and ended at {repeated.last}"]
    return list(repeat_differences(newer, read_checkpoint(repeated.files[newer.moment])))


def _resume_faults(older: Saved, newer: Saved) -> list[str]:
    """Return what of the newer one's settings and history is not the older one's. Raises CheckpointError where settings were
    changed at a resume between them, elsewhere than at the older one: such steps can't be repeated from there."""
    before, after = (list(saved.content["metadata"].get("resumed_from", ())) for saved in (older, newer))
    newer_metadata, older_metadata = (
        {key: value for key, value in saved.content["metadata"].items() if key != "resumed_from"}
        for saved in (newer, older)
    )
    faults = [
        f"{newer.path.name}: {line} (in the file, and in {older.path.name})"
        for line in differences(newer_metadata, older_metadata, "metadata")
    ]
    if list(differences(after[: len(before)], before)):
        faults.append(f"{newer.path.name}: metadata.resumed_from does not begin as that of {older.path.name}")
    since = after[len(before) :]
    if not since:
        faults += config_differences(newer, older.content["config"], older.path.name)
    elif not _resumed_at(since, older):
        changed = _changed_keys(older.content["config"], newer.content["config"])
        if changed:
            raise CheckpointError(
                f"the run was resumed between {older.moment} and {newer.moment} with other settings ({', '.join(changed[:5])}): "
                "these steps can't be repeated"
            )
    return faults


def _resumed_at(since: Sequence[Mapping[str, Any]], older: Saved) -> bool:
    return len(since) == 1 and (since[0].get("epoch"), since[0].get("step")) == (older.moment.epoch, older.moment.step)


def _changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    old, new = flat(before), flat(after)
    return [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
