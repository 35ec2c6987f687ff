"""A preflight's findings: as values, as JSON for scripts and as text for people."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from winnow.checkpoints.disk_room import in_units

VERSION = 1


@dataclass(frozen=True)
class Finding:
    """``check`` is config, build, steps, gradients, time, evaluation, memory, disk, pictures or shapes."""

    check: str
    message: str


@dataclass(frozen=True)
class GroupReport:
    """A parameter group of the optimizer, or ``frozen``, what none of them holds: ``lr`` and ``weight_decay`` are None there.

    ``weights`` counts the parameter tensors by where their values came from, ``random`` for those that were drawn,
    ``not known`` where a builder from outside said nothing.
    ``gradient_norm`` is the first step's, None where no gradient came.
    """

    name: str
    num_tensors: int
    num_parameters: int
    num_trainable: int
    lr: float | None
    weight_decay: float | None
    weights: dict[str, int]
    gradient_norm: float | None


@dataclass(frozen=True)
class ModuleReport:
    """A part of the model by the first names of its parameters."""

    name: str
    num_parameters: int
    num_trainable: int
    gradient_norm: float | None


@dataclass
class StageReport:
    """One run, a stage of a pipeline or the only one; what a check did not come to stays None or empty."""

    stage: str
    run_folder: str
    device: str | None = None
    precision: str | None = None
    num_ranks: int = 1
    groups: list[GroupReport] = field(default_factory=list)
    modules: list[ModuleReport] = field(default_factory=list)
    losses: dict[str, float] | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, Any] | None = None
    estimate: dict[str, Any] | None = None
    memory: dict[str, Any] | None = None
    shapes: dict[str, Any] | None = None
    disk: dict[str, Any] | None = None
    pictures: list[str] = field(default_factory=list)
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)


@dataclass
class PreflightReport:
    """All stages; ``errors`` are those that came before any stage could be looked at."""

    stages: list[StageReport] = field(default_factory=list)
    errors: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    def all_errors(self) -> list[Finding]:
        return [*self.errors, *(finding for stage in self.stages for finding in stage.errors)]

    @property
    def is_fine(self) -> bool:
        return not self.all_errors()

    def to_json(self) -> str:
        """Return the report as plain values; numbers that JSON lacks (NaN, ±∞) become null."""
        values = {"version": VERSION, "is_fine": self.is_fine, **asdict(self)}
        return json.dumps(_finite(values), indent=1)

    def lines(self) -> Iterator[str]:
        """Return the report for people, line by line."""
        for stage in self.stages:
            yield from _stage_lines(stage)
        for finding in self.errors:
            yield f"ERROR {finding.check}: {finding.message}"
        count, num_warnings = len(self.all_errors()), sum(len(stage.warnings) for stage in self.stages)
        verdict = "all clear"
        if count:
            verdict = f"{count} error{'s' * (count > 1)}: this run would not go well"
        elif num_warnings:
            verdict = f"no errors, {num_warnings} warning{'s' * (num_warnings > 1)}: see above before you start"
        yield f"preflight: {verdict} ({self.seconds:.0f} s)"


def format_duration(seconds: float) -> str:
    """Format seconds for people: ``5400`` → ``1 h 30 min``."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _stage_lines(stage: StageReport) -> Iterator[str]:
    ranks = f", {stage.num_ranks} ranks" if stage.num_ranks > 1 else ""
    where = f", {stage.precision} on {stage.device}{ranks}" if stage.device else ""
    yield f"stage {stage.stage}: {stage.run_folder}{where}"
    if stage.groups:
        header = ("group", "tensors", "parameters", "trainable", "lr", "weight decay", "weights", "gradient norm")
        yield from _table(header, [_group_cells(group) for group in stage.groups])
    if stage.modules:
        rows = [
            (
                module.name,
                f"{module.num_parameters:,}",
                f"{module.num_trainable:,}",
                _number(module.gradient_norm),
            )
            for module in stage.modules
        ]
        yield from _table(("module", "parameters", "trainable", "gradient norm"), rows)
    if stage.losses is not None:
        yield "loss of the first step: " + ", ".join(f"{name} {value:.4g}" for name, value in stage.losses.items())
    for timing in stage.steps:
        images, height, width = timing["largest"]
        yield (
            f"size {timing['image_size']}: {timing['seconds_per_step']:.3f} s per step over {timing['num_steps']} steps, "
            f"{timing['images_per_second']:.1f} images/s, {timing['wait_fraction']:.0%} of it waiting for data; largest batch "
            f"{images} images of {height}×{width}; peak memory {in_units(timing['peak_bytes'])}"
        )
    if stage.estimate is not None:
        yield from _estimate_lines(stage.estimate, stage.evaluation)
    if stage.memory is not None:
        yield f"memory: {stage.memory['words']}"
    if stage.shapes is not None:
        yield from _shape_lines(stage.shapes)
    if stage.disk is not None:
        yield f"disk: {stage.disk['words']}"
    for picture in stage.pictures:
        yield f"picture: {picture}"
    for kind, findings in (("WARNING", stage.warnings), ("ERROR", stage.errors)):
        for finding in findings:
            yield f"{kind} {finding.check}: {finding.message}"


def _estimate_lines(estimate: dict[str, Any], evaluation: dict[str, Any] | None) -> Iterator[str]:
    for size in estimate["sizes"]:
        yield (
            f"estimate: {size['num_epochs']} epochs at size {size['image_size']}, {format_duration(size['epoch_seconds'])} each"
        )
    if evaluation is not None:
        yield (
            f"estimate: {estimate['num_evaluations']} evaluations, {format_duration(evaluation['seconds'])} each "
            f"(from {evaluation['num_batches']} of {evaluation['of_batches']} batches)"
        )
    yield f"estimate: {format_duration(estimate['seconds'])} in all, {estimate['num_steps']} steps"


def _shape_lines(shapes: dict[str, Any]) -> Iterator[str]:
    frozen = f", {in_units(shapes['frozen_weights'])} of them frozen" if shapes["frozen_weights"] else ""
    yield (
        f"memory by shapes: weights {in_units(shapes['weights'])}{frozen}; gradients {in_units(shapes['gradients'])}, optimizer "
        f"{in_units(shapes['optimizer'])}, average {in_units(shapes['average'])}"
    )
    for held, how in ((shapes["activations"], "without"), (shapes["checkpointed"], "with")):
        if held is not None:
            again = f", and {in_units(held['again'])} while a layer is computed again" if held["again"] else ""
            yield f"activations {how} activation checkpointing: {in_units(held['per_sample'])} per sample{again}"
    columns = {"bytes": "in all", "checkpointed_bytes": "with activation checkpointing"}
    shown = [key for key in columns if shapes["batches"][0][key] is not None]
    rows = [(str(row["batch_size"]), *(in_units(row[key]) for key in shown)) for row in shapes["batches"]]
    yield from _table(("samples per step", *(columns[key] for key in shown)), rows)


def _group_cells(group: GroupReport) -> tuple[str, ...]:
    weights = ", ".join(f"{count} {source}" for source, count in group.weights.items())
    rates = ["" if value is None else f"{value:.3g}" for value in (group.lr, group.weight_decay)]
    counts = [f"{count:,}" for count in (group.num_tensors, group.num_parameters, group.num_trainable)]
    return (group.name, *counts, *rates, weights, _number(group.gradient_norm))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  " + "  ".join(cells).rstrip()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
