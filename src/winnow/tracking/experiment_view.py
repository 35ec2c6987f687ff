"""What MLflow's pages show besides a run's numbers, made from its tags: a view of the experiment, the data as an input."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from winnow.reading import UnreadableError, parse_json

VIEW_TAG = "winnow.view"
"""A tag that the outbox holds and no run gets: the view of the experiment that the uploader is to make."""
DATA_TAG = "winnow.data"
DATA_SOURCE_TAG = "winnow.data_source"
FINGERPRINT_TAG = "winnow.data_fingerprint"
SHARED_VIEW = "mlflow.sharedViewState."
"""The prefix of the experiment's tag that holds a view; the rest is its key in the address (``viewStateShareKey``)."""
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as the description."""
NOT_CONCLUDED = "Not concluded: it runs, or was killed. `best/…` are the best values so far."
_FIRST_COMPARED = ("best/", "val/", "train/", "lr/", "epoch/", "cost/", "perf/")
_DIGEST_LENGTH = 36  # of MLflow's column


def metric_column(name: str) -> str:
    return f"metrics.`{name}`"


def param_column(name: str) -> str:
    return f"params.`{name}`"


def view_of(name: str, columns: Sequence[str], order_by: str, maximize: bool, only: str = "") -> dict[str, str]:
    """Return the tag that asks for the view ``name``: those ``columns`` of the table in their order, the best of ``order_by``
    first, and ``only`` the runs that MLflow's filter leaves."""
    view = {
        "key": key_of(name), "columns": list(columns), "order_by": order_by, "ascending": not maximize, "filter": only,
    }  # fmt: skip
    return {VIEW_TAG: json.dumps(view)}


def key_of(name: str) -> str:
    """Return the key of the view ``name`` as an address takes it."""
    return "winnow-" + re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)


def experiment_tag(text: str) -> tuple[str, str] | None:
    """Return (view's key, value of the experiment's tag) for the ``VIEW_TAG`` of a run; None where that is damaged.

    The value is the state of MLflow's page as JSON, what the *Share* button of MLflow 2.4 to 3.17 writes as well.
    """
    try:
        view = parse_json(text.encode())
        columns = [str(column) for column in view["columns"]]
        key, order_by, ascending = str(view["key"]), str(view["order_by"]), bool(view["ascending"])
        state = {
            "searchFilter": str(view["filter"]), "orderByKey": order_by, "orderByAsc": ascending, "startTime": "ALL",
            "lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs",
            "selectedColumns": columns, "columnOrder": columns, "columnWidths": {}, "runsHiddenMode": "SHOW_ALL",
            "viewMaximized": False, "runListHidden": False, "isAccordionReordered": False, "groupBy": None,
            "groupsExpanded": {}, "useGroupedValuesInCharts": True, "hideEmptyCharts": True,
        }  # fmt: skip
    except (LookupError, TypeError, UnreadableError):
        return None
    return key, json.dumps(state)


def data_set_in(tags: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the fields of MLflow's ``Dataset`` for the tags of a run; None where they name none."""
    name, fingerprint = tags.get(DATA_TAG), tags.get(FINGERPRINT_TAG)
    if not name or not fingerprint:
        return None
    is_short = len(fingerprint) <= _DIGEST_LENGTH
    digest = fingerprint if is_short else hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
    source = json.dumps({"uri": tags.get(DATA_SOURCE_TAG, name)})
    return {"name": name[:500], "digest": digest, "source_type": "local", "source": source}


def rank_of(name: str) -> int:
    """Return the place among a batch's metrics: MLflow lists names in the order in which it first met them, and compares runs by
    the first."""
    group = name.partition("/")[0] + "/"
    place = _FIRST_COMPARED.index(group) if group in _FIRST_COMPARED else len(_FIRST_COMPARED)
    return 2 * place + (name.count("/") > 1)
