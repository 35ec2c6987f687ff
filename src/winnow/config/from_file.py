"""What a file may say of a command: values of a run, but never what may be executed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from winnow.errors import ConfigError
from winnow.reading import is_deep, reason

TRUSTED = "trusted_targets"
_DECIDES = (TRUSTED, "hydra")
"""First words of keys, and words of packages (``GROUP@PACKAGE``), that decide what is executed."""


def require_trusted(recorded: Sequence[str], trusted: Sequence[str], source: str) -> None:
    """Raise ConfigError where ``recorded``, the ``trusted_targets`` of a file, names more than those of this command,
    ``trusted``. The file's list is only compared: what may run is never taken from it. ``source`` names the file."""
    added = [name for name in recorded if name not in trusted]
    if added:
        raise ConfigError(
            f"{source} trusts {', '.join(map(repr, added))}, and this command does not: a file may not choose what is executed. "
            f"If that code is to run, add {TRUSTED}=[{','.join([*trusted, *added])}]"
        )


def trusted_by(overrides: Sequence[str]) -> list[str]:
    """Return the packages that overrides of a command line name as trusted. Raises ConfigError for one that can't be read."""
    named: list[str] = []
    for text in trust_overrides(overrides):
        try:
            value = OverridesParser.create().parse_override(text).value()
        except (HydraException, RecursionError, ValueError) as error:
            raise ConfigError(f"{text!r:.200} can't be read: {reason(error)}") from error
        named = [str(name) for name in value] if isinstance(value, list) else [str(value)]
    return named


def trust_overrides(overrides: Sequence[str]) -> list[str]:
    """Return those of a command line that say which code may run: whoever goes on from a file has to say them again."""
    return [text for text in overrides if text.lstrip("+").startswith(f"{TRUSTED}=")]


def require_run_overrides(overrides: Sequence[str], source: str) -> None:
    """Raise ConfigError where ``overrides``, which a file holds, are not values or choices of a run alone: an option of the
    program, a key of Hydra, or ``trusted_targets``. ``source`` names the file."""
    for text in overrides:
        if decides_what_runs(text):
            raise ConfigError(
                f"{source} holds {text!r:.200}: a file may set values of a run, and neither {TRUSTED}, nor keys of hydra, nor "
                "options of the program, for they decide what is executed; give it on the command line"
            )


def decides_what_runs(override: str) -> bool:
    """Tell whether an override says more than values and choices of a run; what Hydra can't read counts as that."""
    if is_deep(override):
        return True
    try:
        (parsed,) = OverridesParser.create().parse_overrides([override])
    except (HydraException, RecursionError, ValueError):
        return True
    key, package = (re.split(r"[./:]", word) for word in (parsed.key_or_group, parsed.package or ""))
    return override.startswith("-") or key[0] in _DECIDES or any(word in _DECIDES for word in package)


def search_path_override(places: Sequence[str]) -> list[str]:
    """Return the override that has Hydra look for config groups in ``places`` too, as ``file:///home/me/own``; nothing for no
    place."""
    return [f"hydra.searchpath=[{','.join(map(_quoted, places))}]"] if places else []


def _quoted(place: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_./:-]+", place):
        return place
    return "'" + place.replace("\\", "\\\\").replace("'", "\\'") + "'"
