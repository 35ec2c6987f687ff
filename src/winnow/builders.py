"""Which family a builder belongs to: what samples, targets and predictions are. Data, model and evaluation of a run share one."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, create_model

from winnow.errors import ConfigError
from winnow.settings import Settings, build_settings

F = TypeVar("F", bound=Callable[..., Any])


def of_family(name: str) -> Callable[[F], F]:
    """Mark a builder of data, of a model or of an evaluation, so that two that don't fit are refused before data is read."""

    def mark(builder: F) -> F:
        builder.family = name  # type: ignore[attr-defined]
        return builder

    return mark


def require_one_family(builders: Mapping[str, Any]) -> None:
    """ConfigError where the builders of these config nodes belong to different families. One without a mark, as a user's own
    may be, is taken to fit."""
    families = {key: builder.family for key, builder in builders.items() if hasattr(builder, "family")}
    if len(set(families.values())) > 1:
        words = ", ".join(f"{key}={builders[key].__name__} is of {family}" for key, family in families.items())
        raise ConfigError(
            f"model, data and evaluation must be of one family, but {words}; choose others (model=…, data=…, evaluation=…)"
        )


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
