"""Secrets in addresses and texts: one mask over them for whatever winnow writes, logs or prints, and the ways by which they reach
other processes without standing in an argument or a file."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, TextIO, cast
from urllib.parse import unquote

MASK = "***"
VARIABLE = "WINNOW_SECRET_"
"""How the environment variables begin by which a sweep's jobs get what their command lines must not hold."""

_SECRET_NAME = (
    r"(?:[\w.-]{0,60}(?:passw(?:or)?d|passphrase|pwd|token|secret|api_?key|access_?key|credential)s?"
    r"|pass|auth|sig|signature|odbc_connect)"
)
_OWN_REFERENCE = re.compile(r"\$\{oc\.env:(" + VARIABLE + r"\d+)\}")
_PATTERNS = (  # with bounded lengths and begun at the start of a word: they pass over megabytes of output in one go
    # user:SECRET@ up to the last @ before a path; what SQLAlchemy takes for a password may hold / and ?, up to the first @
    re.compile(r"((?<![\w+.-])[\w+.-]{1,200}://[^\s:/?#@'\"\[]{0,300}:)([^\s/?#'\"]{1,2000})(?=@)"),
    re.compile(r"((?<![\w+.-])[\w+.-]{1,200}://[^\s:/?#@'\"\[]{0,300}:)(?!\d{1,9}(?:[/?#]|$))([^\s@'\"]{1,2000})(?=@)"),
    re.compile(
        r"\A([a-zA-Z][\w+.-]{0,40}://[^\s:/?#@'\"\[]{0,300}:)([^\s@]{0,1000}['\"][^\s@]{0,1000})(?=@\S*\Z)"
    ),  # nothing but an address: quotes too
    re.compile(r"(https?://)([^\s:/?#@'\"]{1,2000})(?=@)"),  # a user without a password is a token there
    re.compile(rf"([?&;]{_SECRET_NAME}=)([^\s&#'\"]+)", re.IGNORECASE),
    # a driver's keywords, quoted or not; and a tracker's key of such a name in an override
    re.compile(r"((?<![\w?&])(?:ssl)?(?:password|passwd|pwd)\s*=\s*)('(?:[^'\\]|\\.)+'|[^\s,;)'\"&]+)", re.IGNORECASE),
    re.compile(rf"(\btracking\.{_SECRET_NAME}=)(\S+)", re.IGNORECASE),
    re.compile(r"(authorization\W{1,5}(?:basic|bearer)\s+)([\w.~+/=-]+)", re.IGNORECASE),
)
_MASKED = re.compile(r"://[^\s/?#@]*\*\*\*@|=\*\*\*(?![^\s&#'\"])")
_IS_SECRET_NAME = re.compile(_SECRET_NAME, re.IGNORECASE)
_SHORTEST_WORD = 6
_ENVIRONMENT = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD")

_words: dict[str, None] = {}
_looked_up: set[str] = set()


def masked(text: str) -> str:
    """Return ``text`` with ``***`` in the place of each secret that an address, a query or a driver's keyword in it holds."""
    text = _OWN_REFERENCE.sub(lambda match: os.environ.get(match[1], MASK), text)
    if "=" not in text and "://" not in text and "uthorization" not in text:
        return text
    for pattern in _PATTERNS:
        text = pattern.sub(_hide, text)
    return text


def masked_override(override: str) -> str:
    """Return a command line's override masked, so that it can be read again: quoted where its value came by the environment."""
    key, equals, value = override.partition("=")
    if not _OWN_REFERENCE.fullmatch(value):
        return masked(override)
    value = masked(value)
    if re.search(r"[=&,;'\"{}\[\]()\s]", value):
        value = "'" + value.replace("'", "\\'") + "'"
    return f"{key}{equals}{value}"


def masked_tree(value: Any) -> Any:
    """Return a nested config or a part of one with every text in it masked."""
    if isinstance(value, Mapping):
        return {key: masked_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked_tree(item) for item in value]
    return masked(value) if isinstance(value, str) else value


def masked_tracking(node: Any) -> Any:
    """Return the node ``tracking`` masked, where a text under a key such as ``api_key`` or ``token`` is a secret as well."""
    if not isinstance(node, Mapping):
        return masked_tree(node)
    return {
        key: MASK
        if isinstance(item, str) and _IS_SECRET_NAME.fullmatch(str(key)) and "${" not in item
        else masked_tracking(item)
        for key, item in node.items()
    }


def masked_output(text: str) -> str:
    """Return ``text`` masked, and without the secrets that this process has been told of, wherever they stand in it."""
    for word in _words:
        if word in text:
            text = text.replace(word, MASK)
    return masked(text)


def has_secret(text: str) -> bool:
    """Tell whether ``text`` holds a secret in the open."""
    return masked(text) != text


def is_masked(value: Any) -> bool:
    """Tell whether a recorded value has lost its secret, so that it must not be used as it stands."""
    return isinstance(value, str) and (value == MASK or _MASKED.search(value) is not None)


def remember(*addresses: str) -> None:
    """Keep the secrets of ``addresses``, as they are written and decoded, out of all output from here on. One that is short, or
    also the name of something in its address, would hide other words."""
    for address in addresses:
        rest = masked(address)
        for secret in dict.fromkeys(part for found in _secrets(address) for part in (found, unquote(found))):
            if len(secret) >= _SHORTEST_WORD and secret not in rest:
                _words[secret] = None


def remember_looked_up(values: Mapping[str, Any]) -> None:
    """Keep what the environment gave for keys of ``tracking`` out of records, and what is an address or called a secret out of
    all output."""
    for key, value in values.items():
        if isinstance(value, str) and value:
            _looked_up.add(value)
            remember(value)
            name = key.rpartition(".")[2]
            if len(value) >= _SHORTEST_WORD and ("://" in value or _IS_SECRET_NAME.fullmatch(name)):
                _words[value] = None


def recorded(value: Any) -> Any:
    """Return a value of ``tracking`` as it is recorded: masked, and ``***`` where the environment gave it."""
    if not isinstance(value, str):
        return value
    return MASK if value in _looked_up else masked(value)


def usable(kept: Any, given: Any = MASK, environment: Mapping[str, str] = os.environ) -> Any:
    """Return what a recorded value ``kept`` stands for: itself where it is whole; else ``given``, the command's own, where that
    is the same address; else the address without its secret, where ``environment`` holds that for the client.

    A value that was ``***`` altogether is whatever the command gives; ``given`` is ``***`` where it gives nothing. Returns
    ``kept`` as it is, masked, where neither has it.
    """
    if not is_masked(kept):
        return kept
    if not is_masked(given) and (kept == MASK or masked(str(given)) == kept):
        return given
    return _supplied_by_environment(str(kept), environment) or kept


def usable_tree(kept: Any, given: Any) -> Any:
    """Return a recorded config, nested, with ``usable`` values where the command's config ``given`` or the environment has
    them."""
    if isinstance(kept, Mapping):
        return {
            key: usable_tree(item, given.get(key, MASK) if isinstance(given, Mapping) else MASK)
            for key, item in kept.items()
        }
    if isinstance(kept, list) and isinstance(given, list) and len(kept) == len(given):
        return [usable_tree(*pair) for pair in zip(kept, given, strict=True)]
    return usable(kept, given)


def by_environment(value: str, environment: MutableMapping[str, str] = os.environ) -> str:
    """Put ``value`` into ``environment``, which processes started from here inherit, and return the interpolation by which a
    config looks it up."""
    names = [name for name in environment if name.startswith(VARIABLE)]
    name = next((name for name in names if environment[name] == value), f"{VARIABLE}{len(names)}")
    environment[name] = value
    return f"${{oc.env:{name}}}"


def is_reference(text: str) -> bool:
    """Tell whether ``text`` is an interpolation that ``by_environment`` gave."""
    return _OWN_REFERENCE.fullmatch(text) is not None


def referred_to(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return what ``by_environment`` moved into the environment, where ``text`` is its interpolation; else ``text`` itself.
    Raises LookupError in a process that did not inherit it."""
    match = _OWN_REFERENCE.fullmatch(text)
    if match is None:
        return text
    if match[1] not in environment:
        raise LookupError(
            f"{match[1]} is not in this process's environment, which it should have inherited from the sweep: it holds an "
            "address with a secret (SLURM: sbatch --export=ALL)"
        )
    return environment[match[1]]


def override_by_environment(override: str) -> str:
    """Return a command line's override with its value moved into this process's environment where that is one text that holds a
    secret; any other override as it is."""
    key, equals, value = override.partition("=")
    if not equals or override.startswith("-") or "${" in value:
        return override
    quote = value[:1]
    if quote in ("'", '"') and value.endswith(quote) and len(value) > 1:
        value = value[1:-1].replace(f"\\{quote}", quote).replace("\\\\", "\\")
    elif re.search(r"[\[\]{}(),]", value):  # a list, a dict, or a sweep over several
        return override
    if not has_secret(value) and not has_secret(f"{key}={value}"):
        return override
    return f"{key}={by_environment(value)}"


def mask_output() -> None:
    """Mask what this process logs and writes to its standard streams from here on, whoever does; may be called twice. Overrides
    of its command line that hold a secret become references to its environment, before anybody has read them.

    ``logging`` is masked where records are made, so in every handler's file too.
    """
    remember(*sys.argv)
    sys.argv[1:] = map(override_by_environment, sys.argv[1:])
    _hide_own_arguments()
    for name in _ENVIRONMENT:
        if len(value := os.environ.get(name, "")) >= _SHORTEST_WORD:
            _words[value] = None
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _MaskedRecords):
        logging.setLogRecordFactory(_MaskedRecords(factory))
    if not isinstance(sys.stdout, _MaskedStream):
        sys.stdout = cast(TextIO, _MaskedStream(sys.stdout))
    if not isinstance(sys.stderr, _MaskedStream):
        sys.stderr = cast(TextIO, _MaskedStream(sys.stderr))


class _MaskedRecords:
    """Makes log records whose message and traceback are masked already."""

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._factory(*args, **kwargs)
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a wrong format is logging's own to report, when a handler meets it
            return record
        if (shown := masked_output(message)) != message:
            record.msg, record.args = shown, None
        if record.exc_info and record.exc_info[0] is not None:
            trace = logging.Formatter().formatException(record.exc_info)
            if (shown := masked_output(trace)) != trace:
                record.exc_text = shown
        return record


class _MaskedStream:
    """A text stream that masks what is written; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(masked_output(text))
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _hide_own_arguments() -> None:
    """Overwrite the secrets in this process's argument list, on Linux: loader processes, which are forks, show the same one."""
    try:
        shown = Path("/proc/self/cmdline").read_bytes()
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5)
    hidden = shown
    for argument in shown.split(b"\0"):
        safe = argument
        for secret in map(os.fsencode, _secrets(os.fsdecode(argument))):
            safe = safe.replace(secret, b"*" * len(secret))
        hidden = hidden.replace(argument, safe)
    if hidden != shown and end - start == len(hidden):
        ctypes.memmove(start, hidden, len(hidden))


def _hide(match: re.Match[str]) -> str:
    return f"{match[1]}{MASK}"


def _secrets(text: str) -> Iterator[str]:
    for pattern in _PATTERNS:
        for match in pattern.finditer(text):
            if MASK not in match[2]:
                yield match[2].strip("'")


def _supplied_by_environment(address: str, environment: Mapping[str, str]) -> str | None:
    """Return ``address`` without what is masked in it, where its client finds that in the environment by itself."""
    if address.startswith(("http://", "https://")):
        has_credentials = "MLFLOW_TRACKING_TOKEN" in environment or "MLFLOW_TRACKING_USERNAME" in environment
        bare = re.sub(r"^(https?://)[^/?#@]*@", r"\1", address)
    else:
        has_credentials = address.startswith("postgresql") and any(
            name in environment for name in ("PGPASSWORD", "PGPASSFILE")
        )
        bare = re.sub(r"[?&]password=\*\*\*(?=&|$)", "", address.replace(f":{MASK}@", "@")).replace("://@", "://")
        if "?" not in bare:
            bare = bare.replace("&", "?", 1)
    return bare if has_credentials and not is_masked(bare) else None
