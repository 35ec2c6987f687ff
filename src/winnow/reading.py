"""Readers of files that anybody may have written: JSON, YAML, XML, compressed arrays, and numbers in them.

All of them end in one short reason, whatever the file holds, and take no more memory than it can mean. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from winnow.errors import WinnowError

if TYPE_CHECKING:
    import xml.etree.ElementTree as ElementTree

    import numpy as np

T = TypeVar("T")

MAX_DEPTH = 100
"""Lists and mappings inside of one another, at most."""
MAX_UNPACKED_BYTES = 1_000_000_000
"""What the compressed arrays of one file may come to."""
_CHUNK = 1 << 22
_LARGE = 1 << 20
NOT_READ = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What parsers, and what builds on them, raise on input that they don't expect."""


class UnreadableError(ValueError):
    """Text or bytes that are not what they should be; says why in one line."""


def read_json(path: Path, as_what: str, error: type[WinnowError]) -> Any:
    """Return the content of a JSON file (UTF-8, -16 or -32). Raises ``error``, naming the file and the place in it, if it can't
    be read ``as_what``, as "a COCO file"."""
    return _read(path, as_what, error, parse_json)


def read_yaml(path: Path, as_what: str, error: type[WinnowError]) -> Any:
    """Return the content of a YAML file as plain values. Raises ``error`` as ``read_json`` does."""
    return _read(path, as_what, error, parse_yaml)


def read_xml(path: Path, as_what: str, error: type[WinnowError]) -> ElementTree.Element:
    """Return the root of an XML file. Raises ``error`` as ``read_json`` does, and for a file that declares entities, which can
    grow without bound."""
    return _read(path, as_what, error, parse_xml)


def read_text(path: Path, as_what: str, error: type[WinnowError]) -> str:
    """Return the text of a file (UTF-8, with or without a byte order mark). Raises ``error`` as ``read_json`` does."""
    return _read(path, as_what, error, _parse_text)


def parse_json(text: str | bytes) -> Any:
    """Return what JSON text means. Raises UnreadableError."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        require_not_deep(data)
        return _parsed(text)
    except UnreadableError:
        raise
    except NOT_READ as error:
        raise UnreadableError(f"not JSON: {reason(error)}") from None


def parse_yaml(text: str | bytes) -> Any:
    """Return what YAML text means, as plain values. Raises UnreadableError."""
    import yaml

    try:
        content = yaml.safe_load(text)
        require_no_growth(content, len(text))
    except UnreadableError:
        raise
    except (*NOT_READ, yaml.YAMLError) as error:
        raise UnreadableError(f"not YAML: {reason(error)}") from None
    return content


def parse_xml(data: bytes) -> ElementTree.Element:
    """Return the root element of XML. Raises UnreadableError."""
    import xml.etree.ElementTree as ElementTree
    from xml.parsers import expat

    def refuse(name: str, *_: Any) -> None:
        raise UnreadableError(f"declares the entity {name!r:.60}, which is never expanded")

    try:
        first = expat.ParserCreate()
        first.EntityDeclHandler = refuse
        first.Parse(data, True)
        return ElementTree.fromstring(data)
    except UnreadableError:
        raise
    except (*NOT_READ, SyntaxError, expat.ExpatError) as error:
        raise UnreadableError(f"not XML: {reason(error)}") from None


def parse_record(kind: type[T], text: str | bytes) -> T:
    """Return the dataclass ``kind`` that JSON text holds, its fields checked by their annotations; keys that it does not have are
    left out. Raises UnreadableError."""
    return as_record(kind, parse_json(text))


def as_record(kind: type[T], values: Any) -> T:
    """Return the dataclass ``kind`` with ``values``, as ``parse_record`` does. Raises UnreadableError."""
    from pydantic import ValidationError

    try:
        built: T = _adapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UnreadableError(f"no {kind.__name__}: {place or 'it'}: {first['msg']}") from None
    return built


def read_arrays(path: Path, error: type[WinnowError]) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` file by name. Raises ``error`` for a damaged file, for objects in it, and for more than
    its headers, or MAX_UNPACKED_BYTES, allow: that is checked while it is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _arrays(archive)
    except (OSError, EOFError, SyntaxError, NotImplementedError, zipfile.BadZipFile, zlib.error, *NOT_READ) as cause:
        raise error(f"{path} can't be read as arrays (.npz): {reason(cause)}") from cause


def as_float(value: Any) -> float:
    """Return a number, or the text of one, as a float: NaN for anything else (``1_000``) and for what no float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and "_" in value):
        return float("nan")
    try:
        return float(value)
    except (OverflowError, ValueError):
        return float("nan")


def require_no_growth(content: Any, num_bytes: int, unwrap: Callable[[Any], Any] = lambda value: value) -> None:
    """Raise UnreadableError where lists and mappings nest more than MAX_DEPTH deep, contain themselves, or, written out, would
    have more entries than ``num_bytes`` of a file can hold, as when each of them names the one before twice. ``unwrap`` gives the
    list or mapping that stands for an object."""
    most = max(num_bytes, 1000)
    sizes: dict[int, tuple[int, int]] = {}  # entries and height of what is done
    open_ones: set[int] = set()
    stack: list[tuple[Any, bool]] = [(content, False)]
    while stack:
        item, is_done = stack.pop()
        if id(item) in sizes:
            continue
        inside = _inside(unwrap(item))
        if not is_done:
            if id(item) in open_ones:
                raise UnreadableError("holds a list or mapping that contains itself")
            open_ones.add(id(item))
            stack.append((item, True))
            stack.extend((other, False) for other in inside if _is_container(unwrap(other)))
            continue
        open_ones.discard(id(item))
        known = [sizes.get(id(other), (1, 0)) for other in inside]
        num_entries, height = 1 + sum(size for size, _ in known), 1 + max((height for _, height in known), default=0)
        if height > MAX_DEPTH:
            raise UnreadableError(f"nests lists and mappings more than {MAX_DEPTH} deep")
        if num_entries > most:
            raise UnreadableError(
                f"its lists and mappings, written out, have over {most} entries, more than the file can hold"
            )
        sizes[id(item)] = num_entries, height


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep Python from looking for garbage inside, where millions of objects are made that stay: it takes longer than making
    them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def naming(place: object, words: str = "") -> Iterator[None]:
    """Prefix errors of winnow's raised inside with ``words`` and ``place``, a file or a study, where they don't name that yet."""
    try:
        yield
    except WinnowError as error:
        if str(place) not in str(error):
            error.args = (f"{words}{place}: {error}", *error.args[1:])
        raise


def reason(error: BaseException) -> str:
    """Return what an exception says, in one short line."""
    if isinstance(error, RecursionError):
        return "nests too deep"
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else f"{words[:200]} …"


def require_not_deep(data: bytes) -> None:
    """Raise UnreadableError where lists and objects of JSON in UTF-8 nest more than MAX_DEPTH deep."""
    if _may_be_deep(data):
        raise UnreadableError(f"nests lists and objects more than {MAX_DEPTH} deep")


def is_deep(text: str) -> bool:
    """Tell whether brackets in ``text`` stand more than MAX_DEPTH deep: parsers are slow on such, before they give up."""
    return _may_be_deep(text.encode("utf-8", "surrogatepass"))


def _parsed(text: str | bytes) -> Any:
    """Return what JSON means as ``json.loads`` reads it; by a faster parser where the text is large and both read the same."""
    if len(text) < _LARGE:
        return json.loads(text)
    import msgspec

    with collector_paused():
        try:
            return msgspec.json.decode(text)
        # What only Python's reads: NaN, numbers beyond a float, UTF-16, single surrogates. What neither does it says better.
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return json.loads(text)


def _read(path: Path, as_what: str, error: type[WinnowError], parse: Callable[[bytes], T]) -> T:
    try:
        return parse(path.read_bytes())
    except OSError as cause:
        raise error(f"{path} can't be read as {as_what}: {cause.strerror or cause}") from cause
    except UnreadableError as cause:
        raise error(f"{path} can't be read as {as_what}: {cause}") from cause
    except ValueError as cause:  # a name with a character that no file's can have
        raise error(f"{path} can't be read as {as_what}: {reason(cause)}") from cause


def _parse_text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"not text in UTF-8: {reason(error)}") from None


def _is_container(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple | set | frozenset)


def _inside(value: Any) -> list[Any]:
    """Return what a list or mapping holds."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return list(value) if _is_container(value) else []


def _may_be_deep(data: bytes) -> bool:
    """Tell whether brackets stand more than MAX_DEPTH deep; those in texts count only where the others may not do."""
    import numpy as np

    depth = 0
    for start in range(0, len(data), _CHUNK):
        brackets = np.frombuffer(data[start : start + _CHUNK].translate(_STEPS, _NO_BRACKETS), np.int8)
        if not brackets.size:
            continue
        depths = np.cumsum(brackets, dtype=np.int64)
        if depth + depths.max() > MAX_DEPTH:
            return _depth(data) > MAX_DEPTH
        depth += int(depths[-1])
    return False


_BRACKETS = {ord("["): 1, ord("{"): 1, ord("]"): 255, ord("}"): 255}  # 255 is -1 in a byte
_STEPS = bytes(_BRACKETS.get(byte, 0) for byte in range(256))
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in _BRACKETS)


def _depth(data: bytes) -> int:
    """Return how deep the brackets outside of texts stand, at most MAX_DEPTH + 1."""
    depth = most = 0
    is_text = is_escaped = False
    for byte in data:
        if is_text:
            is_text = is_escaped or byte != ord('"')
            is_escaped = byte == ord("\\") and not is_escaped
        elif byte == ord('"'):
            is_text = True
        elif byte in b"[{":
            depth += 1
            most = max(most, depth)
            if most > MAX_DEPTH:
                break
        elif byte in b"]}":
            depth -= 1
    return most


def _arrays(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    import numpy as np

    arrays: dict[str, np.ndarray] = {}
    left = MAX_UNPACKED_BYTES
    for member in archive.infolist():
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
                version
            )
            if header is None:
                raise UnreadableError(f"{member.filename}: arrays of version {version} are not read")
            shape, is_fortran, dtype = header(file)
            if dtype.hasobject:
                raise UnreadableError(f"{member.filename} holds objects, which are never loaded")
            promised = dtype.itemsize * functools.reduce(lambda product, side: product * side, shape, 1)
            if promised > left or promised < 0:
                raise UnreadableError(
                    f"{member.filename} promises {promised} bytes; the arrays of a file may come to {MAX_UNPACKED_BYTES}"
                )
            data = file.read(promised + 1)
            if len(data) != promised:
                more = "more" if len(data) > promised else f"{len(data)}"
                raise UnreadableError(f"{member.filename} promises {promised} bytes and holds {more}")
            left -= promised
        array = np.frombuffer(data, dtype, count=-1 if dtype.itemsize else 0)
        name = member.filename.removesuffix(".npy")
        arrays[name] = array.reshape(shape, order="F" if is_fortran else "C").copy(order="K")
    return arrays


def _adapter(kind: type[Any]) -> Any:
    from pydantic import TypeAdapter

    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


_ADAPTERS: dict[type[Any], Any] = {}
