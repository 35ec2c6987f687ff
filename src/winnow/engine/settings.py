"""The engine's settings: every key of the ``training`` group, typed and checked against the others."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from winnow.settings import MAX_IMAGE_SIZE, Settings

Pair = Annotated[tuple[int, int], Field(strict=False)]


class ParamGroup(Settings):
    """Parameters whose names match ``pattern`` (``re.search``) and their own learning rate and weight decay."""

    name: str
    pattern: str
    lr: float | None = Field(None, ge=0)
    lr_scale: float | None = Field(None, ge=0)
    weight_decay: float | None = Field(None, ge=0)

    @field_validator("pattern")
    @classmethod
    def _is_pattern(cls, pattern: str) -> str:
        return check_pattern(pattern)

    @model_validator(mode="after")
    def _one_lr(self) -> ParamGroup:
        if self.lr is not None and self.lr_scale is not None:
            raise ValueError(f"group {self.name!r} sets both lr and lr_scale; set one of them")
        return self


class SchedulerSettings(Settings):
    """Linear warm-up, then cosine, steps or nothing."""

    name: Literal["cosine", "multistep", "constant"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    warmup_part: float | None = Field(None, ge=0, lt=1)
    warmup_factor: float = Field(0.01, ge=0, le=1)
    min_factor: float = Field(0.0, ge=0, le=1)
    milestones: list[int] = Field(default_factory=list)
    gamma: float = Field(0.1, gt=0)

    @model_validator(mode="after")
    def _milestones_fit(self) -> SchedulerSettings:
        if (self.name == "multistep") != bool(self.milestones):
            raise ValueError(
                f"milestones={self.milestones} with name={self.name!r}: multistep, and only it, needs them"
            )
        if self.milestones != sorted(set(self.milestones)) or any(epoch < 1 for epoch in self.milestones):
            raise ValueError(f"milestones={self.milestones} must be rising epochs from 1")
        return self


class AutoScaleLr(Settings):
    """The linear rule: lr × samples per step / ``base_batch_size``."""

    base_batch_size: int | None = Field(None, gt=0)


class EmaSettings(Settings):
    """``decay`` of the exponential moving average of the weights, per step; ``also_raw`` evaluates the weights that training
    goes on with as well, as ``val_raw/…``."""

    decay: float | None = Field(None, gt=0, lt=1)
    also_raw: bool = False

    @model_validator(mode="after")
    def _has_both(self) -> EmaSettings:
        if self.also_raw and self.decay is None:
            raise ValueError(
                "also_raw=true with decay=null: without an average val/… is of the raw weights; set one of them"
            )
        return self


class EarlyStopping(Settings):
    """Stop after ``patience`` evaluations that did not improve by more than ``min_delta``, which is for this alone: the best
    checkpoint is the best by plain comparison."""

    patience: int | None = Field(None, gt=0)
    min_delta: float = Field(0.0, ge=0)


class Objective(Settings):
    """The metric that decides which checkpoint is best, and what a sweep optimises."""

    metric: str
    mode: Literal["max", "min"]


def amp_word(value: object) -> object:
    """Return ``training.amp`` as a word: ``true`` and ``false`` are ``auto`` and ``off``."""
    return {True: "auto", False: "off"}.get(value, value) if isinstance(value, bool) else value


class TrainingSettings(Settings):
    """The ``training`` group; ``conf/training/default.yaml`` says what each key does and holds the defaults."""

    max_epochs: int = Field(gt=0)
    max_iter: int | None = Field(gt=0)
    batch_size: int = Field(gt=0)
    accumulate: int = Field(gt=0)
    num_workers: int = Field(ge=0)
    drop_last: bool
    amp: Literal["auto", "off", "bf16", "fp16"]
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    clip_grad_norm: float | None = Field(gt=0)
    optimizer: dict[str, Any]
    param_groups: list[ParamGroup] | None
    no_decay: list[Literal["norm", "bias"]] = Field(default_factory=list)
    freeze: list[str]
    scheduler: SchedulerSettings
    auto_scale_lr: AutoScaleLr
    ema: EmaSettings
    subset_size: int | None = Field(gt=0)
    subset_seed: int
    subset_stratified: bool = False
    class_balance: Literal["none", "repeat_factor"] = "none"
    balance_threshold: float = Field(default=0.001, gt=0, le=1)
    overfit: int | None = Field(gt=0)
    resize_schedule: list[Pair] | None
    eval_interval: int = Field(gt=0)
    save_interval: int = Field(gt=0)
    save_every_steps: int | None = Field(gt=0)
    keep_last_n: int = Field(ge=0)
    log_interval: int = Field(gt=0)
    early_stopping: EarlyStopping
    frozen_weights: Literal["stored", "referenced"] = "stored"
    frozen_source: str | None = None
    max_nonfinite: int = Field(gt=0)
    require_gradients: bool
    oom_retry: bool
    resume: str | None
    init_from: str | None
    seed: int | None = Field(ge=0, lt=2**63)
    deterministic: bool
    compile: bool
    num_ranks: int | None = Field(gt=0)
    sync_batch_norm: bool
    device: str = Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    _amp_word = field_validator("amp", mode="before")(amp_word)

    @field_validator("resize_schedule")
    @classmethod
    def _schedule_rises(cls, schedule: list[Pair] | None) -> list[Pair] | None:
        if schedule is None:
            return None
        epochs = [epoch for epoch, _ in schedule]
        if not epochs or epochs[0] != 1:
            raise ValueError("the schedule must start at epoch 1, as [[1, 640], [20, 800]]")
        if epochs != sorted(set(epochs)):
            raise ValueError(f"its epochs must rise, got {epochs}")
        if any(size < 1 for _, size in schedule):
            raise ValueError("its image sizes must be positive")
        if any(size > MAX_IMAGE_SIZE for _, size in schedule):
            raise ValueError(f"its image sizes must be at most {MAX_IMAGE_SIZE}")
        return schedule

    @field_validator("freeze")
    @classmethod
    def _are_patterns(cls, patterns: list[str]) -> list[str]:
        return [check_pattern(pattern) for pattern in patterns]

    @field_validator("optimizer")
    @classmethod
    def _has_target_and_lr(cls, optimizer: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(optimizer.get("_target_"), str):
            raise ValueError("_target_ must name an optimizer class, as torch.optim.AdamW")
        lr = optimizer.get("lr")
        if isinstance(lr, bool) or not isinstance(lr, int | float) or not lr > 0:
            raise ValueError(f"lr must be a number above 0, got {lr!r}")
        return optimizer

    @field_validator("param_groups")
    @classmethod
    def _names_differ(cls, groups: list[ParamGroup] | None) -> list[ParamGroup] | None:
        names = [group.name for group in groups or []]
        if len(set(names)) != len(names) or "default" in names:
            raise ValueError(f"names must differ from each other and from 'default', got {names}")
        return groups

    @model_validator(mode="after")
    def _fit_together(self) -> TrainingSettings:
        if self.overfit is not None and self.subset_size is not None and self.subset_size < self.overfit:
            raise ValueError(f"overfit={self.overfit} needs more samples than subset_size={self.subset_size} leaves")
        if self.overfit is not None and self.class_balance != "none":
            raise ValueError(f"overfit={self.overfit} trains on each sample once; give class_balance=none")
        late = [epoch for epoch in self.scheduler.milestones if epoch >= self.max_epochs]
        if late:
            raise ValueError(
                f"scheduler.milestones={late} lie at or behind the last epoch, max_epochs={self.max_epochs}"
            )
        return self


def check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern
