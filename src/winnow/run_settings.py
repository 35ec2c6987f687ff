"""The whole config of a run as typed values: each group's own settings class, put together."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from winnow.engine.settings import Objective, TrainingSettings
from winnow.settings import Settings


class BudgetSettings(Settings):
    """The ``budget`` group; its limits are applied while composing, by ``${cap:…}``."""

    name: str
    max_epochs: int | None = Field(gt=0)
    max_samples: int | None = Field(gt=0)
    max_image_size: int | None = Field(ge=16)


class StageSettings(Settings):
    """The ``stage`` group."""

    name: str


class RunSettings(Settings):
    """``model``, ``data``, ``evaluation`` and ``tracking`` are other objects' constructor arguments and are checked by those."""

    objective: Objective
    training: TrainingSettings
    budget: BudgetSettings
    stage: StageSettings
    model: dict[str, Any]
    data: dict[str, Any]
    evaluation: dict[str, Any]
    tracking: dict[str, Any]
    trusted_targets: list[str]
