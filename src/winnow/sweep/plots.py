"""Optuna's plots of a study: pictures, and one interactive page that needs no network."""

from __future__ import annotations

import html
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState
from optuna.visualization import matplotlib as pictures

from winnow.output import visible
from winnow.run_folder import write_whole

logger = logging.getLogger(__name__)

_NAMES = ("optimization_history", "param_importances", "parallel_coordinate", "intermediate_values", "timeline")
_NEEDED = {"optimization_history": 1, "param_importances": 2, "parallel_coordinate": 1, "pareto_front": 1}
"""Completed trials without which a plot can't be drawn."""

T = TypeVar("T")


def write_plots(study: optuna.Study, folder: Path, metrics: Sequence[str], nothing: str | None) -> list[Path]:
    """Write ``NAME.png`` per plot and ``study.html`` with all of them into ``folder``; return the files written. Plots
    that the trials don't suffice for are left out, as are those that the disk refuses, and importances where ``nothing`` says
    why there are none. Raises OSError where the disk refuses the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    completed = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    wanted: Sequence[str] = _NAMES if len(study.directions) == 1 else ("pareto_front", "timeline")
    names = [name for name in wanted if completed >= _NEEDED.get(name, 0)]
    if nothing is not None:
        names = [name for name in names if name != "param_importances"]
    written: list[Path] = []
    sections: list[str] = []
    with mpl.rc_context({"figure.figsize": (10, 6)}):
        for name in names:
            picture = _attempt(name, lambda name=name: _draw(name, study, metrics, folder / f"{name}.png"))  # type: ignore[misc]
            if picture is not None:
                written.append(picture)
            page = _attempt(name, lambda name=name: _interactive(name, study, metrics))  # type: ignore[misc]
            if page is not None:
                sections.append(_section(page, is_first=not sections))
    if sections:
        title = html.escape(visible(study.study_name))
        note = "" if nothing is None else f"<p>{html.escape(nothing)}</p>"
        text = f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1>{note}{''.join(sections)}"
        path = _attempt("study.html", lambda: _stored(folder / "study.html", text))
        if path is not None:
            written.append(path)
    return written


def _stored(path: Path, content: str | bytes) -> Path:
    write_whole(path, content)
    return path


def _draw(name: str, study: optuna.Study, metrics: Sequence[str], path: Path) -> Path:
    figure = _picture(name, study, metrics)
    try:
        content = io.BytesIO()
        figure.savefig(content, dpi=110, bbox_inches="tight")
        return _stored(path, content.getvalue())
    finally:
        plt.close(figure)


def _picture(name: str, study: optuna.Study, metrics: Sequence[str]) -> Figure:
    axes = getattr(pictures, f"plot_{name}")(study, **_target_name(name, metrics))
    first: Any = axes if hasattr(axes, "figure") else axes.flat[0]
    if name == "intermediate_values":
        first.set_ylabel(metrics[0])
    return first.figure


def _interactive(name: str, study: optuna.Study, metrics: Sequence[str]) -> Any:
    figure = getattr(optuna.visualization, f"plot_{name}")(study, **_target_name(name, metrics))
    return figure.update_yaxes(title_text=metrics[0]) if name == "intermediate_values" else figure


def _target_name(name: str, metrics: Sequence[str]) -> dict[str, str]:
    # These don't read the names that the study holds.
    return {"target_name": metrics[0]} if name in ("optimization_history", "parallel_coordinate") else {}


def _section(page: Any, is_first: bool) -> str:
    # The script comes along once: the machine that looks at the page may be offline.
    return str(page.to_html(full_html=False, include_plotlyjs=is_first))


def _attempt(name: str, draw: Callable[[], T]) -> T | None:
    """Draw a plot, or log why not: one that the library can't draw (a parameter with one value, say) must not cost the
    sweep its others.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return draw()
    except Exception as error:  # noqa: BLE001 - other people's drawing code, on whatever the trials gave
        logger.warning("plot %s is left out: %s", name, error)
        return None
