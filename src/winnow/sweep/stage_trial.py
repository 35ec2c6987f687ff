"""A pipeline's stage as its trial hears it: one axis of epochs over all stages."""

from __future__ import annotations

from collections.abc import Mapping

from winnow.protocols import Trial


class StageTrial:
    """Obeys ``protocols.Trial``: passes a stage's reports on to the ``trial`` of the whole pipeline.

    ``first_epoch`` is the sum of the epochs *planned* for the stages before, so that at one step all trials are in the same
    epoch of the same stage, though some ended a stage early. ``is_compared`` False: the stage has another objective than the
    study, whose pruner would take its values for the study's; it reports nothing and is never pruned. ``cost_before`` is what
    the stages before have cost.
    """

    def __init__(self, trial: Trial, first_epoch: int, is_compared: bool, cost_before: Mapping[str, float]) -> None:
        self._trial = trial
        self._first_epoch = first_epoch
        self._is_compared = is_compared
        self._cost_before = dict(cost_before)

    def report(self, value: float, epoch: int) -> None:
        if self._is_compared:
            self._trial.report(value, self._first_epoch + epoch)

    def spend(self, cost: Mapping[str, float]) -> None:
        names = {**self._cost_before, **cost}
        self._trial.spend({name: self._cost_before.get(name, 0.0) + cost.get(name, 0.0) for name in names})

    def should_prune(self) -> bool:
        return self._is_compared and self._trial.should_prune()
