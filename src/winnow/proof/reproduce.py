"""``winnow reproduce``: a whole run once more, from its beginning, and whether each checkpoint that it kept comes out again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winnow.checkpoints.file import read_checkpoint
from winnow.checkpoints.initial import initial_weights
from winnow.errors import CheckpointError
from winnow.proof.check import repeat_differences
from winnow.proof.moments import Saved, saved_moments
from winnow.proof.repeat import plan_of, repeat
from winnow.reading import UnreadableError, parse_json
from winnow.tracking.provenance import environment, git_state

_OF_THE_PLACE = ("command", "host", "memory_gb", "cpu_count")
"""Facts of environment.json that change no bit of a run."""


@dataclass(frozen=True)
class Original:
    """The run that is repeated: what it ``saved``, the oldest first; ``others``: what of code, packages, machine and history is
    not as it was then, a line each."""

    folder: Path
    saved: tuple[Saved, ...]
    others: tuple[str, ...]

    @property
    def last(self) -> Saved:
        return self.saved[-1]

    @property
    def seconds(self) -> float:
        """Return how long the run itself took."""
        return float(self.last.content["progress"]["cost"]["seconds"])


@dataclass(frozen=True)
class Reproduction:
    """``differences`` by saved checkpoint, in the run's order; of one that the repeat never came to, a line that says so."""

    differences: tuple[tuple[Saved, tuple[str, ...]], ...]

    @property
    def is_same(self) -> bool:
        return not any(lines for _, lines in self.differences)


def prepare(folder: Path) -> Original:
    """Return what a reproduction of the run in ``folder`` repeats. Raises ConfigError where there is no run, CheckpointError
    where none of its checkpoints can be read."""
    saved, damaged = saved_moments(folder)
    if not saved:
        raise CheckpointError("; ".join(damaged))
    return Original(folder, tuple(saved), (*_changes_of_place(folder), *_changes_on_the_way(saved[-1]), *damaged))


def run_reproduction(original: Original, output: Path, trusted: Sequence[str] = ()) -> Reproduction:
    """Repeat the run in ``output`` as far as it goes, and compare. Raises WinnowError where nothing can be repeated, as without
    the data."""
    last = original.last
    plan = plan_of(last.content, last.path, output, None, trusted)
    if plan.settings.training.init_from is not None:
        own = None if plan.settings.stage.is_alone else original.folder.parent
        plan = plan.with_values(
            "training", init_from=str(initial_weights(plan.settings.training.init_from, own).absolute())
        )
    repeated = repeat(plan, [saved.moment for saved in original.saved])
    if repeated.was_stopped:
        raise CheckpointError(f"stopped at {repeated.last}, before the run was repeated")
    found = []
    for saved in original.saved:
        path = repeated.files.get(saved.moment)
        lines = (
            [f"the repeat never stood at {saved.moment}"]
            if path is None
            else list(repeat_differences(saved, read_checkpoint(path)))
        )
        found.append((saved, tuple(lines)))
    return Reproduction(tuple(found))


def _changes_of_place(folder: Path) -> list[str]:
    """Return what of code, packages and machine is not as environment.json says."""
    try:
        then = parse_json((folder / "environment.json").read_bytes())
    except (OSError, UnreadableError):
        return [f"{folder / 'environment.json'} can't be read: code, packages and machine then are not known"]
    if not isinstance(then, dict):
        return [f"{folder / 'environment.json'} holds no facts: code, packages and machine then are not known"]
    git = git_state(Path.cwd())
    now: dict[str, Any] = {"git_commit": git.commit if git else None, **environment()}
    keys = [key for key in dict.fromkeys([*then, *now]) if key not in _OF_THE_PLACE]
    changes = [f"{key}: {then.get(key)} then, {now.get(key)} now" for key in keys if then.get(key) != now.get(key)]
    patch = folder / "git_diff.patch"
    diff = patch.read_text(encoding="utf-8") if patch.is_file() else ""
    if diff != (git.diff if git else ""):
        changes.append("the code had other changes that were not committed (git_diff.patch)")
    return changes


def _changes_on_the_way(last: Saved) -> list[str]:
    resumed = last.content["metadata"].get("resumed_from", ())
    return (
        [
            f"the run was resumed {len(resumed)} times: settings that were changed then hold from the beginning of the repeat"
        ]
        if resumed
        else []
    )
