"""How a settings class checks its values: every settings class of winnow derives from ``Settings`` and is built by
``build_settings``, so that each wrong value becomes one readable line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from winnow.errors import ConfigError

MAX_IMAGE_SIZE = 1 << 14
"""In px. A larger one, of a command or a file, would take the memory of the machine."""


class Settings(BaseModel):
    """Frozen, typed, without unknown keys and without coercion: ``"3"`` is not a number, ``true`` is not 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


S = TypeVar("S", bound=BaseModel)


def build_settings(settings_class: type[S], values: Mapping[str, Any], key: str) -> S:
    """Build ``settings_class`` from plain values.

    ``key`` is where they stand in the config (``training``, or empty for the whole). Raises ConfigError naming every
    wrong key under it, the value it has, and what is allowed.
    """
    try:
        return settings_class.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(_line(detail, settings_class, key) for detail in error.errors())) from None


def _line(detail: ErrorDetails, settings_class: type[BaseModel], key: str) -> str:
    path = ".".join(str(part) for part in (key, *detail["loc"]) if part != "")
    if detail["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_at(settings_class, detail["loc"][:-1]))
        return f"{path}={detail['input']!r:.200} is not a known key; allowed here: {allowed}"
    if detail["type"] == "missing":
        return f"{path} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    # A contradiction between keys is reported on their whole node, and its message names them.
    value = (
        "" if isinstance(detail["input"], Mapping) and detail["type"] == "value_error" else f"={detail['input']!r:.200}"
    )
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
