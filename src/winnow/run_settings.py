"""The whole config of a run as typed values: each group's own settings class, put together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from winnow.engine.settings import Objective, TrainingSettings
from winnow.settings import Settings


class EvaluationSettings(Settings):
    """The ``evaluation`` node."""

    score_threshold: float = Field(ge=0, le=1)
    max_detections: int = Field(gt=0)
    backend: Literal["winnow", "faster-coco-eval", "pycocotools"]


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
    """``model``, ``data`` and ``tracking`` are other objects' constructor arguments and are checked by those."""

    objective: Objective
    evaluation: EvaluationSettings
    training: TrainingSettings
    budget: BudgetSettings
    stage: StageSettings
    model: dict[str, Any]
    data: dict[str, Any]
    tracking: dict[str, Any]
    trusted_targets: list[str]
