"""Words of a command line that a shell and Hydra would read otherwise than they are meant: quoted, with ``~`` for the home."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

_PLAIN = re.compile(r"[\w./-]+", re.ASCII)
_KEY = re.compile(r"[+~]{0,2}[\w@./-]+=", re.ASCII)
_IS_PATH = re.compile(r"\.{0,2}/")
_IS_HOME = re.compile(r"~(/|$)")

_LONGEST = 500


def quoted_override(key: str, value: str) -> str:
    """Return ``KEY=VALUE``, a text, as Hydra reads it: in quotes where it needs them."""
    return f"{key}={value if _PLAIN.fullmatch(value) else _in_quotes(value)}"


def for_shell(override: str) -> str:
    """Return a word of a command line as it is typed, in the quotes that are easiest to read."""
    quoted = shlex.quote(override)
    return f'"{override}"' if "'" in override and not re.search(r'["$`\\!]', override) else quoted


def with_home(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which values that begin with ``~/`` are paths in the home folder: shells leave them as they are
    behind an ``=``, and Hydra has another use for the sign."""
    return [_with_home(text) for text in arguments]


def quoting_advice(arguments: Sequence[str]) -> str:
    """Return how those of ``arguments`` are typed that Hydra can't read and that can be meant as a text; empty for none. Of very
    long ones nothing is said: nobody typed them."""
    short = [text for text in arguments if len(text) <= _LONGEST]
    typed = [advice for text in short if (advice := _quoted(text)) is not None]
    return f"\na value with signs of its own is typed in quotes: {' '.join(typed)}" if typed else ""


def _with_home(text: str) -> str:
    key = _KEY.match(text)
    if key is None or not _IS_HOME.match(text[key.end() :]):
        return text
    return quoted_override(key[0][:-1], str(Path(text[key.end() :]).expanduser()))


def _quoted(text: str) -> str | None:
    key = _KEY.match(text)
    if key is None or _can_be_read(text):
        return None
    quoted = quoted_override(key[0][:-1], text[key.end() :])
    return for_shell(quoted) if _can_be_read(quoted) else None


def _can_be_read(text: str) -> bool:
    try:
        override = OverridesParser.create().parse_override(text)
    except (HydraException, RecursionError, ValueError):
        return False
    return not (override.is_sweep_override() and _IS_PATH.match(text.partition("=")[2]))


def _in_quotes(value: str) -> str:
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value) + "'"
