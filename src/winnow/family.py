"""Which family a builder belongs to: what samples, targets and predictions are. Data, model and evaluation of a run share one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from winnow.errors import ConfigError

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
