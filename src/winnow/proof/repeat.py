"""A run's steps once more, in a folder of their own, up to the moments that it saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from winnow.checkpoints.class_order import ClassHead
from winnow.checkpoints.file import write_checkpoint
from winnow.checkpoints.folder import CheckpointFolder
from winnow.checkpoints.initial import initial_weights, load_initial_weights
from winnow.checkpoints.writer import Recorded
from winnow.config.recorded import followed_config
from winnow.engine.loop import Fit, fit
from winnow.engine.stop import StopRequest
from winnow.proof.moments import Moment
from winnow.run.build import build
from winnow.run.leader import ranks_of_run
from winnow.run.plan import RunPlan
from winnow.run.resume import read_found
from winnow.tracking.null_tracker import NullTracker

_UNTRACKED = {"_target_": "winnow.tracking.null_tracker.NullTracker", "tensorboard": False}


@dataclass
class Repeated:
    """What a repeat came to: the ``files`` of the moments asked for that it reached, and the last moment it stood at."""

    files: dict[Moment, Path] = field(default_factory=dict)
    last: Moment | None = None
    was_stopped: bool = False


def plan_of(
    content: Mapping[str, Any], source: Path, folder: Path, checkpoint: Path | None, trusted: Sequence[str]
) -> RunPlan:
    """Return the plan by which the run that saved ``content`` is repeated in ``folder``, untracked, from ``checkpoint`` or from
    its beginning. Raises ConfigError where it needs code outside of ``trusted``."""
    config = {**followed_config(content, list(trusted), str(source)), "tracking": dict(_UNTRACKED), "report": False}
    return RunPlan.of(config, folder, dict(content["metadata"].get("choices", {})), checkpoint, None)


def repeat(plan: RunPlan, moments: Sequence[Moment]) -> Repeated:
    """Train as planned until the last of ``moments``, or as far as the run goes, and keep a checkpoint of each that is reached in
    ``plan.folder``/checkpoints. Raises WinnowError as a run does."""
    repeated, training, stage = Repeated(), plan.settings.training, plan.settings.stage
    with ranks_of_run(training.num_ranks) as ranks:
        run = build(plan, NullTracker(plan.folder), ranks)
        if plan.checkpoint is not None:
            read_found(plan.checkpoint).restore(run)
        elif training.init_from is not None:
            weights = initial_weights(training.init_from, None)
            head = ClassHead.of(run.task)
            load_initial_weights(run.task.model, weights, stage.init_allow_missing, training.frozen_source, head)
        ranks.broadcast(plan.with_absolute_paths())
        with _StopAt(max(moments), run) as stop:
            kept = _KeptMoments(plan.folder / "checkpoints", moments, repeated, stop)
            fit(replace(run, checkpoints=kept), stop)
            repeated.was_stopped = stop.was_signalled
    return repeated


class _StopAt(StopRequest):
    """Is requested by a signal, and where ``run`` has come to ``moment`` or past it."""

    def __init__(self, moment: Moment, run: Fit) -> None:
        self.was_signalled = self.is_past = False
        self._moment, self._run = moment, run
        super().__init__("stopping after this step")

    @property
    def requested(self) -> bool:
        step = self._run.state.step
        return (
            self.was_signalled
            or self.is_past
            or step > self._moment.step
            or (self._moment.sample > 0 and step == self._moment.step)
        )

    @requested.setter
    def requested(self, value: bool) -> None:
        self.was_signalled = value


class _KeptMoments(CheckpointFolder):
    """Writes what the loop saves at one of ``moments`` to a file of its own, and nothing else."""

    def __init__(self, folder: Path, moments: Sequence[Moment], repeated: Repeated, stop: _StopAt) -> None:
        super().__init__(folder, save_interval=1, keep_last_n=0)
        folder.mkdir(parents=True, exist_ok=True)
        self._moments, self._repeated, self._stop = frozenset(moments), repeated, stop

    def save_last(self, checkpoint: dict[str, Any], recorded: Recorded) -> None:
        del recorded
        moment = Moment.of(checkpoint)
        if not self._stop.is_past:
            self._repeated.last = moment
        if moment in self._moments and moment not in self._repeated.files:
            path = self.folder / f"epoch_{moment.epoch}_sample_{moment.sample}_step_{moment.step}.pth"
            write_checkpoint(path, checkpoint)
            self._repeated.files[moment] = path
        if moment >= max(self._moments):
            self._stop.is_past = True

    def save_epoch(self, checkpoint: dict[str, Any], is_best: bool, recorded: Recorded) -> None:
        del is_best
        self.save_last(checkpoint, recorded)

    def make_room(self, checkpoint: dict[str, Any], still: object = ()) -> None:
        del checkpoint, still
