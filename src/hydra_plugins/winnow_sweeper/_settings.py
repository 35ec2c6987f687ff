"""The sweeper's settings, typed and checked against each other."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from winnow.settings import Settings
from winnow.sweep.trial import SEED_KEY

COSTS = ("images", "images_640", "seconds")
Positive = Annotated[float, Field(gt=0)]


class SweeperSettings(Settings):
    """The node ``hydra.sweeper`` without its ``_target_``; ``config.WinnowSweeperConf`` says what each key does."""

    sampler: Any
    pruner: Any
    direction: list[Literal["minimize", "maximize"]]
    storage: str | None
    study_name: str | None
    n_trials: int = Field(gt=0)
    n_jobs: int | Literal["auto"]
    max_failure_rate: float = Field(ge=0, le=1)
    params: dict[str, Any] | None
    custom_search_space: str | None
    metrics: list[str] | None
    force_direction: bool
    devices: Literal["auto"] | list[int | str] | None
    trials_file: str | None
    enqueue_default: bool
    seeds: list[int] | None
    repeat_over: str | None
    max_retries: int = Field(ge=0)
    max_failures: int | None = Field(gt=0)
    timeout: Positive | None
    max_cost: dict[str, Positive] | None
    plots: bool
    dry_run: bool
    in_process: bool
    recycle_after: int | None = Field(gt=0)
    warm_up: list[str]
    accept_changes: bool
    fresh: bool

    @field_validator("direction", mode="before")
    @classmethod
    def _as_words(cls, value: Any) -> Any:
        """Return one direction or several as words; they may be given as upstream's enumeration."""
        several = value if isinstance(value, list | tuple) else [value]
        return [getattr(direction, "name", direction) for direction in several]

    @field_validator("max_failure_rate", mode="before")
    @classmethod
    def _as_float(cls, value: Any) -> Any:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("n_jobs")
    @classmethod
    def _some_jobs(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1, or auto")
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int] | None) -> list[int] | None:
        if seeds is not None and (not seeds or len(set(seeds)) != len(seeds)):
            raise ValueError("must be different numbers, or null")
        return seeds

    @field_validator("repeat_over")
    @classmethod
    def _is_key(cls, key: str | None) -> str | None:
        if key is not None and not re.fullmatch(r"\w+(\.\w+)*", key):
            raise ValueError("must name a key of the config, as data.fold")
        return key

    @property
    def repeated_key(self) -> str:
        """Return the key that tells the runs of one configuration apart."""
        return self.repeat_over or SEED_KEY

    @field_validator("max_cost")
    @classmethod
    def _known_costs(cls, max_cost: dict[str, float] | None) -> dict[str, float] | None:
        unknown = sorted(set(max_cost or {}) - set(COSTS))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not a cost; allowed: {', '.join(COSTS)}")
        return max_cost

    @field_validator("study_name")
    @classmethod
    def _is_folder_name(cls, name: str | None) -> str | None:
        if name is not None and (not name.strip() or "/" in name or name.startswith(".")):
            raise ValueError("must be usable as a folder's name")
        return name

    @model_validator(mode="after")
    def _fit_together(self) -> SweeperSettings:
        if self.in_process and self.n_jobs not in (1, "auto"):
            raise ValueError(f"in_process=true runs one job at a time, but n_jobs={self.n_jobs}")
        if self.metrics is not None and len(self.metrics) != len(self.direction):
            raise ValueError(f"metrics={self.metrics} must name one metric per direction, {self.direction}")
        if self.metrics is not None and len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"metrics={self.metrics} names one twice")
        if self.seeds is not None and self.metrics is None and len(self.direction) > 1:
            raise ValueError("seeds with several directions need metrics=[…] to be averaged")
        return self
