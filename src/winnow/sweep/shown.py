"""What a study's own tracked run shows people: the search space, the best values, and the table of its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from winnow.protocols import Tracker
from winnow.sweep.objectives import Objectives
from winnow.sweep.table import Row, counts, ranking, values_text, why_nothing_was_learned
from winnow.tracking.experiment_view import NOT_CONCLUDED, NOTE, metric_column, param_column, view_of
from winnow.tracking.provenance import command_line


def record_search(tracker: Tracker, study: str, folder: Path, space: Mapping[str, str], objectives: Objectives) -> None:
    """Track what is searched, key (of a group too) → its values in words, as params ``search.KEY``; and ask for the experiment's
    view of this study: its trials, the best first, with their objectives and the searched values as columns."""
    tracker.log_params({f"search.{key}": words for key, words in space.items()})
    metrics = [metric_column(f"best/{name.removeprefix('val/')}") for name in objectives.names]
    columns = [*metrics, *map(param_column, space), metric_column("epoch"), metric_column("cost/seconds")]
    only = f"tags.`winnow.study` = '{study}'" if "'" not in study else ""
    tracker.set_tags({
        "winnow.command": command_line(), "winnow.run_folder": str(folder.absolute()),
        NOTE: _description(NOT_CONCLUDED, space, folder),
        **view_of(study, list(dict.fromkeys(columns)), metrics[0], objectives.maximize[0], only),
    })  # fmt: skip


def record_ranking(
    tracker: Tracker, rows: Sequence[Row], folder: Path, space: Mapping[str, str], objectives: Objectives, is_over: bool
) -> None:
    """Track what was found: in the description, and where the study ``is_over`` as params ``best.KEY``, which a tracker keeps for
    ever. Nothing is best where all trials are worth the same, nor of several objectives."""
    ended = ", ".join(f"{count} {status}" for status, count in counts(rows).items()) or "no trial has ended"
    best = next(iter(ranking(rows, objectives.maximize[0])), None)
    if best is None or objectives.are_several or why_nothing_was_learned(rows, objectives.names) is not None:
        tracker.set_tags({NOTE: _description(ended, space, folder)})
        return
    values = {key.lstrip("+~"): str(value) for key, value in best.params.items()}
    words = "  ".join(f"{key}={value}" for key, value in values.items())
    found = f"**{values_text(best.values, objectives.names)}** in trial {best.number}: `{words}`"
    tracker.set_tags({NOTE: _description(f"{found}\n\n{ended}", space, folder)})
    if is_over:
        tracker.log_params({f"best.{key}": value for key, value in values.items()})


def _description(found: str, space: Mapping[str, str], folder: Path) -> str:
    searched = "\n".join(f"* `{key}`: {words}" for key, words in space.items())
    return f"{found}\n\nSearched:\n\n{searched}\n\nFolder: `{folder.absolute()}`\n\n```\n{command_line()}\n```\n"
