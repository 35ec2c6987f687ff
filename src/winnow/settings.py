"""How a settings class checks its values: every settings class of winnow derives from ``Settings`` and is built by
``build_settings``, so that each wrong value becomes one readable line."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails

from winnow.errors import ConfigError


class Settings(BaseModel):
    """Frozen, typed, without unknown keys and without coercion: ``"3"`` is not a number, ``true`` is not 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


S = TypeVar("S", bound=BaseModel)
F = TypeVar("F", bound=Callable[..., Any])


def build_settings(settings_class: type[S], values: Mapping[str, Any], key: str) -> S:
    """``settings_class`` from plain values.

    ``key`` is where they stand in the config (``training``, or empty for the whole). Raises ConfigError naming every wrong
    key under it, the value it has, and what is allowed.
    """
    try:
        return settings_class.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(_line(detail, settings_class, key) for detail in error.errors())) from None


def set_by(settings_class: type[Settings]) -> Callable[[F], F]:
    """Mark a builder that takes the fields of ``settings_class`` as ``**values``, so that a config node can be held against
    them before anything is built."""

    def mark(builder: F) -> F:
        builder.settings_class = settings_class  # type: ignore[attr-defined]
        return builder

    return mark


def check_arguments(target: Callable[..., Any], values: Mapping[str, Any], injected: Collection[str], key: str) -> None:
    """Hold a config node against the signature of what it builds, without building it: its parameters, less those ``injected``
    by code, are the node's keys, and their annotations say what each may hold; a builder marked by ``set_by`` says it by its
    settings class. ConfigError as from ``build_settings``."""
    settings_class = getattr(target, "settings_class", None)
    if settings_class is not None:
        build_settings(settings_class, values, key)
        return
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    parameters = inspect.signature(target).parameters.values()
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.name not in injected and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hints.get(parameter.name, Any), default)
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    config = ConfigDict(extra="allow" if takes_more else "forbid", strict=True, arbitrary_types_allowed=True)
    build_settings(create_model("Arguments", __config__=config, **fields), values, key)


def _line(detail: ErrorDetails, settings_class: type[BaseModel], key: str) -> str:
    path = ".".join(str(part) for part in (key, *detail["loc"]) if part != "")
    if detail["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_at(settings_class, detail["loc"][:-1]))
        return f"{path}={detail['input']!r} is not a known key; allowed here: {allowed}"
    if detail["type"] == "missing":
        return f"{path} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    # A contradiction between keys is reported on their whole node, and its message names them.
    value = "" if isinstance(detail["input"], Mapping) and detail["type"] == "value_error" else f"={detail['input']!r}"
    return f"{path}{value}: {message[:1].lower()}{message[1:]}"


def _fields_at(settings_class: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    fields = settings_class.model_fields
    for part in location:
        if part not in fields:
            continue
        annotation = fields[str(part)].annotation
        inner = [annotation, *getattr(annotation, "__args__", ())]
        nested = [kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if nested:
            fields = nested[0].model_fields
    return sorted(fields)
