"""The page of one run: read from its folder, with its family's own sections."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from winnow.engine.best_arrays import FILE as DETECTIONS
from winnow.errors import ConfigError, DataError
from winnow.protocols import Evaluation
from winnow.reading import read_arrays, read_json, read_yaml, reason
from winnow.report.page import FILE, render
from winnow.run_folder import write_whole
from winnow.sections import Block, Cell, Commands, Lines, Section, Series, Table, Text
from winnow.tracking.epoch_table import FILE as EPOCHS
from winnow.tracking.epoch_table import read_epochs

logger = logging.getLogger(__name__)

_MOST_LINES = 8


@dataclass(frozen=True)
class RunFiles:
    """What a run folder holds, as far as it is there: ``result`` is ``result.json``, ``facts`` is ``environment.json``,
    ``epochs`` are the rows of ``metrics.csv``, ``overrides`` what its command changed, None where that was not recorded."""

    folder: Path
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    facts: Mapping[str, Any]
    epochs: Sequence[Mapping[str, float]]
    overrides: Sequence[str] | None

    @classmethod
    def read(cls, folder: Path) -> RunFiles:
        """Read the files of ``folder``. Raises ConfigError where it is no run's, or holds a damaged file."""
        if not (folder / "config.yaml").exists():
            raise ConfigError(f"{folder} is no run folder: it has no config.yaml")
        config = read_yaml(folder / "config.yaml", "a run's config", ConfigError)
        if not isinstance(config, dict):
            raise ConfigError(
                f"{folder / 'config.yaml'} holds {type(config).__name__}, where a run records values by name"
            )
        return cls(
            folder=folder,
            config=config,
            result=_optional(folder / "result.json"),
            facts=_optional(folder / "environment.json"),
            epochs=read_epochs(folder / EPOCHS),
            overrides=_overrides(folder),
        )

    @property
    def title(self) -> str:
        """Return what tells the run from others: model, data, learning rate."""
        lr = _value(self.config, "training.optimizer.lr")
        return " · ".join(
            [_target_name(self.config, "model"), _data_name(self.config), *([f"lr {lr:g}"] if lr else [])]
        )


def write_run_report(
    folder: Path,
    evaluation: Evaluation,
    data: Any = None,
    num_pictures: int | None = None,
    result: Mapping[str, Any] | None = None,
    path: Path | None = None,
) -> Path:
    """Write ``path``, by default ``folder``/report.html, and return it.

    ``data`` is the run's, None where it can't be had: then no image is shown. ``result`` is what ``result.json`` will hold, None
    where it does already. Raises ConfigError where the folder is no run's, or what it holds is damaged; OSError.
    """
    files = RunFiles.read(folder)
    if result is not None:
        files = replace(files, result=result)
    try:
        own = [
            Section("Overview", overview(files)),
            Section("Curves", curves(files.epochs, str(_value(files.config, "objective.metric")))),
        ]
        title = files.title
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise ConfigError(
            f"config.yaml, result.json or environment.json of {folder} holds what no run writes: {reason(error)}"
        ) from error
    sections = [
        *own,
        *family_sections(files, evaluation, data, num_pictures),
        Section("Speed and cost", speed(files.epochs)),
        Section("What to do next", [next_commands(files)]),
    ]
    path = path or folder / FILE
    write_whole(path, render(title, str(folder.absolute()), sections))
    return path


def family_sections(files: RunFiles, evaluation: Evaluation, data: Any, num_pictures: int | None) -> list[Section]:
    """Return what the run's family shows of what its best evaluation found; none where nothing was kept."""
    path = files.folder / DETECTIONS
    report = getattr(evaluation, "report", None)
    if report is None or not path.exists():
        return []
    arrays = read_arrays(path, DataError)
    try:
        sections: list[Section] = report(arrays, data, num_pictures)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path} does not hold what an evaluation of this family keeps: {error}") from error
    of = Text(f"What the best evaluation found, at epoch {int(arrays['epoch'])}.")
    return [Section(sections[0].title, [of, *sections[0].blocks]), *sections[1:]] if sections else []


def overview(files: RunFiles) -> list[Block]:
    """Return how the run ended, what it was and where it ran."""
    result, facts = files.result, files.facts
    best = result.get("best") or {}
    ended = [
        ("status", str(result.get("status", "still going on, or killed"))),
        ("best", f"{best['metric']} {best['value']:.4f} at epoch {best['epoch']}" if best else "nothing was evaluated"),
        ("epochs, steps", f"{result.get('epochs', 0)}, {result.get('steps', 0):,}"),
        ("time", _duration(float(result.get("seconds") or 0.0))),
        *([("reason", str(result["reason"]))] if result.get("reason") else []),
    ]
    what = [
        ("model", _target_name(files.config, "model")),
        ("data", _data_name(files.config)),
        ("command", str(facts.get("command") or "")),
        ("code", str(facts.get("git_commit") or "no git repository")),
        *(
            (name, _plain(value))
            for name, value in facts.items()
            if name not in ("command", "git_commit") and "." not in name
        ),
        ("packages", ", ".join(f"{name[8:]} {value}" for name, value in facts.items() if name.startswith("package."))),
        ("folder", str(files.folder.absolute())),
    ]
    changed: list[Block] = []
    if files.overrides:
        changed.append(Table(("changed on the command line", "value"), [_override(text) for text in files.overrides]))
    elif files.overrides is not None:
        changed.append(Text("The command changed nothing: these are the defaults."))
    return [Table(("", ""), [*ended, *what]), *changed, *_numbers(result)]


def curves(epochs: Sequence[Mapping[str, float]], objective: str) -> list[Block]:
    """Return charts of losses, metrics and learning rates by epoch."""
    if not epochs:
        return [Text("No epoch has ended.")]
    names = list(dict.fromkeys(name for row in epochs for name in row))
    losses = ["train/loss", "val/loss", *(name for name in names if name.startswith("train/loss_"))]
    small = [name for name in names if name.startswith("val/") and "/" not in name[4:] and name != "val/loss"]
    metrics = sorted(small, key=lambda name: (name != objective, name not in ("val/map_50", "val/map_75")))
    groups = [
        ("Losses", "loss", losses, None),
        ("Metrics", "value", metrics[:_MOST_LINES], None),
        ("Learning rates", "learning rate", [name for name in names if name.startswith("lr/")], None),
    ]
    blocks: list[Block] = []
    for title, label, wanted, limits in groups:
        series = [_series(epochs, name) for name in wanted[:_MOST_LINES] if any(name in row for row in epochs)]
        if series:
            blocks.append(Lines(title, "epoch", label, series, limits))
    return blocks


def speed(epochs: Sequence[Mapping[str, float]]) -> list[Block]:
    """Return how fast the run was, and what it used."""
    shown = {
        "perf/images_per_second": "images per second", "perf/data_wait_fraction": "share of the time waiting for data",
        "perf/gpu_mem_gb": "GPU memory, GiB", "cost/images": "images seen", "cost/images_640": "the same in images of 640×640",
        "cost/seconds": "seconds",
    }  # fmt: skip
    last = {name: value for row in epochs for name, value in row.items()}
    rows: list[tuple[Cell, ...]] = [(words, last[name]) for name, words in shown.items() if name in last]
    return [Table(("at the last epoch", ""), rows)] if rows else []


def next_commands(files: RunFiles) -> Commands:
    """Return what one may type next."""
    folder = shlex.quote(str(files.folder))
    return Commands([
        ("go on with this run, bit for bit", f"python train.py training.resume={folder}"),
        ("train it longer", f"python train.py training.resume={folder} training.max_epochs=N"),
        ("predict on pictures of your own", f"winnow predict {folder} PICTURES --output predictions"),
        ("compare it with another run", f"winnow compare {folder} OTHER"),
        ("write this page again", f"winnow report {folder}"),
    ])  # fmt: skip


def _numbers(result: Mapping[str, Any]) -> list[Block]:
    metrics = result.get("best_metrics") or {}
    chosen = [(name, value) for name, value in metrics.items() if name.startswith("val/") and "/" not in name[4:]]
    rows: list[tuple[Cell, ...]] = [(name.removeprefix("val/"), value) for name, value in chosen if value is not None]
    return [Table(("best epoch", "value"), rows)] if rows else []


def _series(epochs: Sequence[Mapping[str, float]], name: str) -> Series:
    rows = [row for row in epochs if name in row]
    return Series(name, [row["epoch"] for row in rows], [row[name] for row in rows])


def _overrides(folder: Path) -> list[str] | None:
    """Return the words of the command that began the run; a stage's are those of its pipeline, in the folder above."""
    paths = (place / ".hydra" / "overrides.yaml" for place in (folder, folder.parent))
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return None
    found = read_yaml(path, "a run's overrides", ConfigError)
    return [str(text) for text in found] if isinstance(found, list) else None


def _override(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _optional(path: Path) -> Mapping[str, Any]:
    found = read_json(path, "what a run wrote", ConfigError) if path.exists() else {}
    return found if isinstance(found, dict) else {}


def _value(config: Mapping[str, Any], dotted: str) -> Any:
    node: Any = config
    for name in dotted.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _target_name(config: Mapping[str, Any], node: str) -> str:
    return str(_value(config, f"{node}._target_") or node).rpartition(".")[2]


def _data_name(config: Mapping[str, Any]) -> str:
    return str(_value(config, "data.name") or _target_name(config, "data"))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
