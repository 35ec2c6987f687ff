"""What a record of Optuna's journal must hold, so that replaying it can't fail: anybody may have written the file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

_STATES = {state.value for state in TrialState}
_DIRECTIONS = {direction.value for direction in StudyDirection}


def why_odd(record: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a record: an operation that no Optuna knows, a value that is missing or of another kind. None
    where all is as it should be."""
    operation = record["op_code"]
    wanted = _WANTED.get(operation) if type(operation) is int else None
    if wanted is None:
        return f"op_code is {operation!r:.40}"
    for name, is_right in {"worker_id": _is_text, **wanted}.items():
        if name not in record:
            return f"{name} is missing"
        if not is_right(record[name]):
            return f"{name} is {record[name]!r:.60}"
    if operation == _SET_PARAM:
        return _why_no_parameter(record["distribution"], record["param_value_internal"])
    if operation == _SET_STATE:
        return _why_no_time(record)
    return None if operation != _CREATE_TRIAL else _why_no_trial(record)


def _why_no_trial(record: Mapping[str, Any]) -> str | None:
    """Judge a trial that was made whole, as one of a list; what is not there, is not yet known."""
    for name, is_right in _MAY_HOLD.items():
        if name in record and not is_right(record[name]):
            return f"{name} is {record[name]!r:.60}"
    distributions, params = record.get("distributions", {}), record.get("params", {})
    for name, internal in params.items():
        if name not in distributions or _why_no_parameter(distributions[name], internal) is not None:
            return f"its parameter {name!r:.60} is {internal!r:.60}"
    if any(_distribution(text) is None for text in distributions.values()):
        return "its distributions can't be read"
    value, values = record.get("value"), record.get("values")
    if value is not None and values is not None:
        return "it has value and values"
    is_valued = record.get("state") != TrialState.COMPLETE.value or value is not None or bool(values)
    return None if is_valued else "it is complete and has no value"


def _why_no_parameter(text: str, internal: Any) -> str | None:
    distribution = _distribution(text)
    if distribution is None:
        return f"distribution is {text!r:.100}"
    try:
        distribution.to_external_repr(internal)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return f"param_value_internal is {internal!r:.60}, which is not in {text:.100}"
    return None


def _why_no_time(record: Mapping[str, Any]) -> str | None:
    """Judge a change of a trial's state, which says when it was."""
    state = record["state"]
    needed = {TrialState.RUNNING.value: "datetime_start", TrialState.WAITING.value: None}.get(
        state, "datetime_complete"
    )
    if needed is not None and not _is_time(record.get(needed)):
        return f"{needed} is {record.get(needed)!r:.60}"
    if state == TrialState.COMPLETE.value and not record["values"]:
        return "values are missing"
    return None


@functools.lru_cache(maxsize=1000)
def _distribution(text: str) -> BaseDistribution | None:
    try:
        return json_to_distribution(text)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**1023)


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).astimezone() is not None
    except (OverflowError, ValueError):
        return False


def _is_time_or_none(value: Any) -> bool:
    return value is None or _is_time(value)


def _is_attribute(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1


def _are_texts_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_number_or_none(value: Any) -> bool:
    return value is None or _is_number(value)


def _are_numbers_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_number, value)))


def _are_directions(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int and one in _DIRECTIONS for one in value)


def _is_state(value: Any) -> bool:
    return type(value) is int and value in _STATES


def _are_numbers_by_step(value: Any) -> bool:
    return isinstance(value, dict) and all(
        step.lstrip("-").isdecimal() and _is_number(number) for step, number in value.items()
    )


_CREATE_TRIAL, _SET_PARAM, _SET_STATE = 4, 5, 6
_WANTED: dict[int, dict[str, Callable[[Any], bool]]] = {
    0: {"study_name": _is_text, "directions": _are_directions},
    1: {"study_id": _is_id},
    2: {"study_id": _is_id, "user_attr": _is_attribute},
    3: {"study_id": _is_id, "system_attr": _is_attribute},
    _CREATE_TRIAL: {"study_id": _is_id, "datetime_start": _is_time_or_none},
    _SET_PARAM: {
        "trial_id": _is_id,
        "param_name": _is_text,
        "param_value_internal": _is_number,
        "distribution": _is_text,
    },
    _SET_STATE: {"trial_id": _is_id, "state": _is_state, "values": _are_numbers_or_none},
    7: {"trial_id": _is_id, "step": _is_id, "intermediate_value": _is_number},
    8: {"trial_id": _is_id, "user_attr": _is_attribute},
    9: {"trial_id": _is_id, "system_attr": _is_attribute},
    10: {},
}
"""Of each of Optuna's operations: the values that its records hold."""
_MAY_HOLD: dict[str, Callable[[Any], bool]] = {
    "distributions": _are_texts_by_name, "params": _is_mapping, "datetime_complete": _is_time, "state": _is_state,
    "user_attrs": _is_mapping, "system_attrs": _is_mapping, "value": _is_number_or_none, "values": _are_numbers_or_none,
    "intermediate_values": _are_numbers_by_step,
}  # fmt: skip
