"""The whole config of a run as typed values: each group's own settings class, put together."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from winnow.engine.settings import Objective, TrainingSettings
from winnow.settings import Settings

SINGLE = "single"
"""The stage that is no stage: its run is the run folder's only one."""


class BudgetSettings(Settings):
    """The ``budget`` group; its limits are applied while composing, by ``${cap:…}``."""

    name: str
    max_epochs: int | None = Field(gt=0)
    max_samples: int | None = Field(gt=0)
    max_image_size: int | None = Field(ge=16)


class StageSettings(Settings):
    """The ``stage`` group: one stage, or with ``stages`` a pipeline of them."""

    name: str = Field(pattern=r"^[\w.-]+$")
    init_from: str | None
    init_allow_missing: list[str] | None
    stages: list[str] | None = Field(min_length=1)

    @property
    def is_alone(self) -> bool:
        """Tell whether the run lies in the run folder itself, and not in a stage's folder within it."""
        return self.name == SINGLE

    @model_validator(mode="after")
    def _one_or_many(self) -> StageSettings:
        if self.stages is not None and self.init_from is not None:
            raise ValueError(
                f"a pipeline itself starts from nothing: init_from={self.init_from!r} belongs into its stages"
            )
        if self.stages is not None and len(set(self.stages)) < len(self.stages):
            raise ValueError(f"stages={self.stages} names a stage twice")
        return self


class RunSettings(Settings):
    """``model``, ``data``, ``evaluation`` and ``tracking`` are other objects' constructor arguments and are checked by
    those."""

    objective: Objective
    training: TrainingSettings
    budget: BudgetSettings
    stage: StageSettings
    model: dict[str, Any]
    data: dict[str, Any]
    evaluation: dict[str, Any]
    tracking: dict[str, Any]
    trusted_targets: list[str]
    report: bool = True
