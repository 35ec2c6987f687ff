"""``@builder``: the mark of what a config may build, with its settings, its family and the check of its data."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ConfigDict, create_model

from winnow.errors import ConfigError
from winnow.settings import Settings, build_settings

B = TypeVar("B", bound=Callable[..., Any])

_FAMILIES = "winnow.families."
_MARK = "winnow_builder"


@dataclass(frozen=True)
class Builder:
    """What ``@builder`` says of a function or class."""

    settings_class: type[Settings] | None = None
    check: Callable[..., Any] | None = None
    family: str | None = None


def builder(
    settings_class: type[Settings] | None = None,
    *,
    check: Callable[..., Any] | None = None,
    family: str | None = None,
) -> Callable[[B], B]:
    """Mark what the ``_target_`` of a config node may name: a builder of data, of a model, of an evaluation, or a tracker.

    * ``settings_class``: the fields that the builder takes as ``**values``, so that the node is checked before anything is
      built. Without one, the builder's signature is what the node is checked against.
    * ``check``: of a data set, what ``winnow data check`` calls: ``check(settings, progress)`` gives a
      ``winnow.data.check.DataReport``. ``settings`` is an object of ``settings_class``, without one the node as a dict;
      ``progress(split, done, total)`` may be called as often as wanted.
    * ``family``: for builders outside of winnow. Data, model and evaluation of a run must be of one family; winnow's own are of
      the one whose folder they lie in (``winnow.families.NAME``). A builder from outside that names none fits any, as a model of
      your own for winnow's detection data does; those that name the same, as ``family="marks"``, fit each other and no others.
    """

    def mark(target: B) -> B:
        setattr(target, _MARK, Builder(settings_class, check, family))
        return target

    return mark


def mark_of(target: Any) -> Builder | None:
    """Return what ``@builder`` says of ``target`` itself, not of a class that it derives from; None without a mark."""
    mark = getattr(target, "__dict__", {}).get(_MARK)
    return mark if isinstance(mark, Builder) else None


def is_own(target: Any) -> bool:
    """Tell whether a builder is one of winnow's own, whose weights are random unless they are marked as loaded."""
    return str(getattr(target, "__module__", "")).startswith(_FAMILIES)


def family_of(target: Any) -> str | None:
    """Return the family of a builder, None where it fits any."""
    mark, home = mark_of(target), str(getattr(target, "__module__", ""))
    if mark is None or mark.family is not None:
        return None if mark is None else mark.family
    return home.removeprefix(_FAMILIES).split(".")[0] if home.startswith(_FAMILIES) else None


def require_one_family(builders: Mapping[str, Any]) -> None:
    """Raise ConfigError where the builders of these config nodes belong to different families."""
    families = {key: family for key, target in builders.items() if (family := family_of(target)) is not None}
    if len(set(families.values())) > 1:
        words = ", ".join(f"{key}={builders[key].__name__} is of {family}" for key, family in families.items())
        raise ConfigError(
            f"model, data and evaluation must be of one family, but {words}; choose others (model=…, data=…, evaluation=…)"
        )


def check_arguments(
    target: Callable[..., Any],
    values: Mapping[str, Any],
    injected: Collection[str],
    key: str,
    optional: Collection[str] = (),
) -> None:
    """Check the config node ``key`` against the signature of what it builds, without building it: its parameters, less those
    ``injected`` by code, are the node's keys, and their annotations say what each may hold; a builder with a settings class
    says it by that. What is ``optional`` code may give too, to those who take it. Raises ConfigError as ``build_settings``
    does, and where the target does not take what is injected, or needs what nobody gives."""
    require_parameters(target, injected, key)
    injected = {*injected, *optional}
    parameters = inspect.signature(target).parameters.values()
    mark = mark_of(target)
    if mark is not None and mark.settings_class is not None:
        build_settings(mark.settings_class, values, key)
        _require_given(target, {*values, *injected}, injected, key)
        return
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.name not in injected and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hints.get(parameter.name, Any), default)
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    config = ConfigDict(extra="allow" if takes_more else "forbid", strict=True, arbitrary_types_allowed=True)
    build_settings(create_model("Arguments", __config__=config, **fields), values, key)


def require_parameters(target: Callable[..., Any], injected: Collection[str], key: str) -> None:
    """Raise ConfigError where ``target`` does not take a parameter that winnow gives to what the config node ``key`` builds."""
    parameters = inspect.signature(target).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    lacking = sorted(set(injected) - {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY})
    if lacking:
        raise ConfigError(
            f"{key}._target_={_name(target)}: it has no parameter {', '.join(lacking)}; what builds {key} is given "
            f"{', '.join(sorted(injected))} besides the keys of its node (docs/your_family.md)"
        )


def _require_given(target: Callable[..., Any], given: Collection[str], injected: Collection[str], key: str) -> None:
    """Raise ConfigError for a parameter without a default that neither the node nor winnow gives."""
    for parameter in inspect.signature(target).parameters.values():
        is_named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if is_named and parameter.default is parameter.empty and parameter.name not in given:
            raise ConfigError(
                f"{key}._target_={_name(target)} needs {parameter.name}, which is no key of {key} and is not among what winnow "
                f"gives it here: {', '.join(sorted(injected)) or 'nothing'} (docs/your_family.md)"
            )


def require_promised(target: Any, protocol: type, key: str) -> None:
    """Raise ConfigError where a target says, by being a class or by its return annotation, that it gives something without the
    methods of ``protocol``."""
    try:
        promised = target if inspect.isclass(target) else typing.get_type_hints(target).get("return")
    except (NameError, TypeError):  # an annotation that only type checkers can resolve
        return
    if promised is type(None):
        raise ConfigError(f"{key}._target_={_name(target)} returns None; {_expected(protocol, key)}")
    if not inspect.isclass(promised) or promised in (object, Any) or getattr(promised, "_is_protocol", False):
        return
    if _answers_by_itself(promised):
        return
    lacking = [name for name in members(protocol) if callable(vars(protocol).get(name)) and not hasattr(promised, name)]
    if lacking:
        raise ConfigError(
            f"{key}._target_={_name(target)} gives {_what(promised)}, which lacks {', '.join(lacking)}; "
            f"{_expected(protocol, key)}"
        )


def require_protocol(built: Any, protocol: type, key: str, target: Any) -> None:
    """Raise ConfigError where what was ``built`` lacks a member of ``protocol``."""
    if built is None:
        raise ConfigError(f"{key}._target_={_name(target)} returned None; {_expected(protocol, key)}")
    lacking = [name for name in members(protocol) if not hasattr(type(built), name) and not hasattr(built, name)]
    if lacking:
        raise ConfigError(
            f"{key}._target_={_name(target)} returned {_what(type(built))}, which lacks {', '.join(lacking)}; "
            f"{_expected(protocol, key)}"
        )


def members(protocol: type) -> list[str]:
    """Return the public names that an object must have to obey ``protocol``, in the order of its definition."""
    names = [*vars(protocol).get("__annotations__", {}), *vars(protocol)]
    return [name for name in names if not name.startswith("_")]


def _expected(protocol: type, key: str) -> str:
    return (
        f"what builds {key} must return an object that obeys winnow.protocols.{protocol.__name__} (docs/your_family.md)"
    )


def _what(kind: type) -> str:
    """Return ``a FCOS``; of a torch module also what to do about it."""
    is_module = any(base.__module__ == "torch.nn.modules.module" for base in kind.__mro__)
    return f"a {kind.__name__}" + (", a torch module without a task around it" if is_module else "")


def _answers_by_itself(kind: type) -> bool:
    """Tell whether a class finds attributes by a ``__getattr__`` of its own; torch's modules have one that looks for
    submodules."""
    own = getattr(kind, "__getattr__", None)
    return own is not None and getattr(own, "__module__", "") != "torch.nn.modules.module"


def _name(target: Any) -> str:
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', target)}"
