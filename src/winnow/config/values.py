"""How a value is written in a Hydra override and read back, and how a choice is written into a study.

One rule holds for every searched key: a string in a study is the text of a Hydra value, everything else is itself. So what a
study holds can be read by people, pasted after ``key=``, and read back without knowing how the choices were once written.
"""

from __future__ import annotations

import inspect
import math
import re
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Override,
    OverrideType,
    ParsedElementType,
    Quote,
    QuotedString,
    Transformer,
    ValueType,
)
from hydra.errors import HydraException, OverrideParseException

from winnow.reading import MAX_DEPTH, is_deep, reason

_BARE = re.compile(r"[A-Za-z0-9_ ./@%*?|+-]+")

Stored = str | int | float | bool


def parse_override(line: str) -> Override:
    """Parse ``line`` as Hydra does, but let ``choice(...)`` hold null as ``a,null`` may. Raises HydraException if it
    can't be parsed.
    """
    if is_deep(line):
        raise OverrideParseException(line, f"nests more than {MAX_DEPTH} deep")
    try:
        return _parser().parse_override(line)
    except (RecursionError, ValueError) as error:  # brackets 1,000 deep; a number of 5,000 digits
        raise OverrideParseException(line, reason(error)) from error


@cache
def _parser() -> OverridesParser:
    functions = create_functions()
    choice = functions.functions["choice"]

    def choice_or_null(*choices) -> ChoiceSweep:  # type: ignore[no-untyped-def]  # Hydra checks by annotations
        return choice(*choices)

    functions.functions["choice"] = choice_or_null
    functions.definitions["choice"] = inspect.signature(choice_or_null)
    return OverridesParser(functions)


def override_text(value: Any) -> str:
    """Return the text that stands for ``value`` after ``key=``. Raises ValueError if no override can hold it (a dict's
    key ``"1"``).
    """
    text = _text(value)
    try:
        is_faithful = same(parse_value(text), list(value) if isinstance(value, tuple) else value)
    except ValueError:
        is_faithful = False
    if not is_faithful:
        raise ValueError(f"{value!r} can't be written as a Hydra override")
    return text


def parse_value(text: str) -> Any:
    """Return the one value that Hydra reads in ``key=TEXT``. Raises ValueError if it reads none, or a sweep."""
    try:
        override = parse_override(f"key={text}")
    except HydraException as error:
        raise ValueError(f"{text!r} is not a Hydra value: {one_line(error)}") from None
    if override.value_type is not ValueType.ELEMENT or override.type is not OverrideType.CHANGE:
        raise ValueError(f"{text!r} is a sweep, not a value")
    return plain(override.value())


def plain(element: ParsedElementType | object) -> Any:
    """Return ``element`` of a parsed override without Hydra's marks of quoting. Raises ValueError if a sweep stands
    inside it.
    """
    if isinstance(element, QuotedString):
        return element.text
    if isinstance(element, list):
        return [plain(item) for item in element]
    if isinstance(element, dict):
        return {plain(key): plain(item) for key, item in element.items()}
    if element is None or isinstance(element, str | int | float):
        return element
    raise ValueError("a sweep can't stand inside a value")


def same(left: object, right: object) -> bool:
    """Return whether two plain values are equal with their types, at every depth; NaN is itself, 1 is neither 1.0 nor true."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        keys = {(type(key), key) for key in left} == {(type(key), key) for key in right}
        return keys and all(same(item, right[key]) for key, item in left.items())
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return left == right


def stored_choices(elements: list[Any]) -> list[Stored]:
    """Return how the parsed ``elements`` of a choice stand in a study, in their order.

    As hydra-optuna-sweeper writes them wherever that reads back as the same value, so that its studies go on. A value
    that Optuna takes for an earlier one (true for 1, 1.0 for 1) is written as text.
    """
    stored: list[Stored] = []
    for element in elements:
        value = plain(element)
        form: Any = Transformer.encode(element)
        if isinstance(form, str) and not _reads_as(form, value):
            form = override_text(value)
        elif any(form == other for other in stored):
            form = override_text(form)
        stored.append(form)
    return stored


def read_choice(stored: Any) -> Any:
    """Return the value of a choice as a study holds it."""
    return parse_value(stored) if isinstance(stored, str) else stored


def one_line(error: Exception) -> str:
    """Return the first line of an exception's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^")]
    return lines[0] if lines else type(error).__name__


def _reads_as(text: str, value: object) -> bool:
    try:
        return same(parse_value(text), value)
    except ValueError:
        return False


def _text(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # Other characters may read back alone and not inside a list: a trailing backslash would escape the bracket.
        is_bare = _BARE.fullmatch(value) and _reads_as(value, value)
        return value if is_bare else QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, list | tuple):
        return "[" + ",".join(_text(item) for item in value) + "]"
    if isinstance(value, dict):
        # A dict's keys can't be quoted in Hydra's grammar, only escaped.
        return "{" + ",".join(f"{Transformer.str(key)}:{_text(item)}" for key, item in value.items()) + "}"
    raise ValueError(f"a {type(value).__name__} can't be written as a Hydra override")
