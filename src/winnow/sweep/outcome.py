"""The outcome of a trial's run, as a fact that is stored on the trial itself before anybody is told."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Self

from winnow.errors import ConfigError
from winnow.masking import masked_output
from winnow.reading import UnreadableError, parse_record

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.trial import FrozenTrial

OUTCOME = "winnow:outcome"
"""Attribute of an Optuna trial that holds an ``Outcome`` as JSON; with several seeds ``winnow:outcome:SEED`` holds each run's."""
OWNER = "winnow:owner"
"""Attribute of a running trial: the stamp of the sweep process that answers for it."""
RELEASED = ""
"""The stamp of an interrupted trial that whoever comes next may go on with at once."""
STARTED = "winnow:started"
"""Attribute of a trial that ran already, if only for a while: its next job resumes."""
OVERRIDES = "winnow:overrides"
"""Attribute of a trial from a list: overrides of its own beside the searched parameters."""

COST = "winnow:cost"
"""Attribute of a trial that runs in a study with a limit: what its run has cost so far, as JSON; with several seeds
``winnow:cost:SEED`` holds each run's."""

# `eliminated` is a table's word for a completed trial that ended below the pruner's floor.
STATUSES = ("completed", "pruned", "eliminated", "diverged", "out_of_memory", "failed", "interrupted")


@dataclass(frozen=True)
class Outcome:
    """``status`` is one of ``STATUSES``; ``values`` are the objectives in the study's order, empty where there are none.

    ``is_retryable`` tells a crash, which may go better a second time, from a mistake in the config, which can't; ``is_of_place``
    that an interrupted run ended by trouble of the place where it worked, as a full disk.
    ``cost`` holds ``images``, ``images_640`` and ``seconds`` of the whole run, its earlier parts included. ``final_objective``,
    ``final_loss`` and, where the family measures it, ``final_map`` are the last evaluation's; outcomes stored by earlier
    versions know no ``final_objective``. ``pruned_at`` is an epoch, ``reason`` one line for people.
    """

    status: str
    values: tuple[float, ...] = ()
    reason: str | None = None
    epochs: int = 0
    cost: dict[str, int | float] = field(default_factory=dict)
    seconds: float = 0.0
    final_objective: float | None = None
    final_map: float | None = None
    final_loss: float | None = None
    pruned_at: int | None = None
    seed: int | None = None
    run_folder: str | None = None
    mlflow_run_id: str | None = None
    is_retryable: bool = False
    is_of_place: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"reason": self.reason and masked_output(self.reason)})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return what ``to_json`` wrote. Raises ValueError for anything else."""
        outcome = parse_record(cls, text)
        if outcome.status not in STATUSES:
            raise UnreadableError(f"no {cls.__name__}: status: {outcome.status!r:.60} is none of {', '.join(STATUSES)}")
        return outcome


def outcome_of(trial: FrozenTrial | Trial, key: str = OUTCOME) -> Outcome | None:
    """Return the outcome that is stored on ``trial``; None where there is none yet. Raises ConfigError for a damaged one."""
    text = trial.user_attrs.get(key)
    try:
        return None if text is None else Outcome.from_json(text)
    except UnreadableError as error:
        raise ConfigError(f"trial {trial.number} holds a damaged {key}: {error}") from None


def interrupted_by_place(why: str) -> Outcome:
    """Return the outcome of a run that trouble of the place ended: nobody's fault, and no last word."""
    return Outcome("interrupted", reason=why, is_of_place=True)


def overrides_of(trial: FrozenTrial) -> list[str]:
    """Return the overrides that a trial from a list has of its own. Raises ConfigError for damaged ones."""
    found = trial.user_attrs.get(OVERRIDES) or []
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ConfigError(f"trial {trial.number} holds damaged {OVERRIDES}: {found!r:.100}")
    return found
