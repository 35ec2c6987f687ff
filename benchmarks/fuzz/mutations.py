"""Changes of files at random: of what they hold, node by node, and of their bytes. A function of the random numbers alone."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import yaml

CANARY = "executed-by-a-file"
"""Name of the folder, in the current one, that what a case plants makes where it is run."""


class Raw(str):
    """Text that is written into a file as it is, and not as a value."""

    __slots__ = ()


_DEEP = 100_000
_LAUGHS = "\n".join(["&a0 [x, x]", *(f"- &a{level} [*a{level - 1}, *a{level - 1}]" for level in range(1, 40))])
TARGETS: tuple[Any, ...] = (
    {"_target_": "os.mkdir", "_args_": [CANARY]},
    {"_target_": "os.makedirs", "name": CANARY},
    {"_target_": "winnow.run_folder.os.mkdir", "path": CANARY},
    {"_target_": "builtins.exec", "_args_": [f"import os; os.mkdir({CANARY!r})"]},
    {"_target_": "hydra.utils.get_method", "path": "os.system"},
    {"_target_": "subprocess.run", "args": ["mkdir", CANARY]},
    {"_target_": 7},
    {"_target_": "torch.optim.AdamW", "_partial_": True, "params": {"_target_": "os.mkdir", "path": CANARY}},
)
OTHER_FILE = "etc/passwd"
"""What a changed name may lead to: a file that is there and is none of the set's."""
TEXTS = (
    "", " ", "\x00", "a\x00b", "\x1b[31mred", "\r\n\t", "\ud800", "\U0001f4a9", "é" * 3, "\u202e\u200b", "[/a/b]", "[bold]x",
    "[link=x]",
    "[red", "x" * 5000, f"../../../../{OTHER_FILE}", "/", ".", "~", "nan", "-inf", "1e999", "9" * 400, "9" * 5000, "1_000",
    "0x1f", "null",
    "true", "${oc.env:HOME}", "${now:%Y}", "${a.b}", "${", "$", "???", "%s%n", "{0}{x}", "'\"\\", "a=b", "~a", "+a", "++a=1",
    "--help",
    "hydra.run.dir=x", "trusted_targets=[os]", "os.system", "_target_", "*", "a,b", "choice(1,2)", "interval(0,1)", "[1,2",
    "{a:1}", "a\x00b/c.png", "\ud800/c.png", "../c.png", "a/" + "x" * 300, "c\\d.png",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, -(10**400), 0.5, -0.0, 1e308, 1e-308, 5e-324, float("nan"), float("inf"),
    float("-inf"),
    True, False,
)  # fmt: skip
OTHERS: tuple[Any, ...] = (None, [], {}, [[]], [None], [1, 2, 3], {"": None}, {"a": {"b": 1}}, [{}] * 3, ["a", "b"])
RAW_JSON = (
    "9" * 400, "-" + "9" * 400, "9" * 5000, "1e999", "1E-400", "NaN", "-Infinity", "[" * _DEEP, '{"a":' * _DEEP,
    "[" * _DEEP + "]" * _DEEP, '"' + "[" * _DEEP + '"', '"\\ud800"', "0x10", "tru", "'a'", "-", "1,", '"', "\\", "/* */ 1",
    "[" * 90 + "]" * 90,
)  # fmt: skip
RAW_YAML = (
    "9" * 400, "9" * 5000, "[" * _DEEP, "{a: " * 3000, "[" * 500 + "]" * 500, "!!int x", "!!float x", "!!bool x",
    "!!timestamp x", "!!binary x",
    "!!null x", "!!set {a}", "!!omap [a]", "!!pairs [a]", "!!str [a]", "!!map x", "!!seq x",
    f"!!python/object/apply:os.mkdir [{CANARY}]",
    f"!!python/object/new:os.mkdir [{CANARY}]", "!!python/name:os.system ''", "!x y", "*nowhere", "&a [*a]", "&a {a: *a}",
    _LAUGHS, "2020-99-99",
    "2020-01-01", "2020-01-01 10:00:00 +99:99", "0o17", "0x", "1:30", ".inf", ".nan", "? [a]\n: b", "? {a: 1}\n: b", "<<: 3",
    "{<<: [1]}", "|\n x",
    "%x", "@a", "`a", "\t- x", "{? a}", "--- 1\n--- 2", "=", "~", "yes", "'", "\ufeff",
)  # fmt: skip


def odd_value(rng: random.Random, raw: Sequence[str] = (), own: Sequence[Any] = ()) -> Any:
    """Return a value that nobody expects, of ``own`` ones and ``raw`` texts too."""
    kinds: list[Sequence[Any]] = [TEXTS, NUMBERS, OTHERS, TARGETS]
    kinds += [own] * 2 if own else []
    kinds += [[Raw(text) for text in raw]] * 2 if raw else []
    return rng.choice(rng.choice(kinds))


def mutated(rng: random.Random, tree: Any, odd: Callable[[], Any]) -> Any:
    """Return ``tree``, which is changed in place, after one to four changes of its nodes."""
    holder = [tree]
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3, 4))):
        places = list(_places(holder))
        # Shallow places are few, and decide the most: a third of all changes.
        depth = rng.choice((0, 1, 2, 99, 99, 99, 99, 99))
        near = [place for place in places if place[2] <= depth] or places
        container, key, _ = rng.choice(near)
        _change(rng, container, key, odd, places)
    return holder[0]


def _places(holder: Any) -> Any:
    """Yield (container, key, depth) of every node."""
    seen: set[int] = set()
    stack = [(holder, 0)]
    while stack:
        node, depth = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        items = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
        for key, value in items:
            yield node, key, depth
            if isinstance(value, dict | list):
                stack.append((value, depth + 1))


def _change(rng: random.Random, container: Any, key: Any, odd: Callable[[], Any], places: Any) -> None:
    value = container[key]
    kind = rng.choice(
        ("replace", "replace", "replace", "delete", "double", "retype", "retype", "swap", "rename", "nudge", "share")
    )
    if kind == "delete":
        del container[key]
        if isinstance(container, list) and not container:
            container.append(odd())
    elif kind == "double":
        if isinstance(container, list):
            container.insert(key, value)
        else:
            container[rng.choice(TEXTS)] = value
    elif kind == "retype":
        container[key] = rng.choice(_RETYPES)(value)
    elif kind == "swap":
        other, other_key, _ = rng.choice(places)
        if (isinstance(other, dict) and other_key not in other) or (
            isinstance(other, list) and other_key >= len(other)
        ):
            return
        container[key] = other[other_key]
    elif kind == "rename" and isinstance(container, dict):
        container[rng.choice((odd_key(rng), str(key).upper(), f"{key}x"))] = container.pop(key)
    elif kind == "nudge":
        container[key] = _nudged(rng, value)
    elif kind == "share":
        container[key] = container if rng.random() < 0.3 else [value, value]
    else:
        container[key] = odd()


def odd_key(rng: random.Random) -> Any:
    return rng.choice((*TEXTS, 1, 1.5, None, True))


_RETYPES: tuple[Callable[[Any], Any], ...] = (
    str, repr, lambda value: [value], lambda value: {"a": value}, lambda value: [value] * 3,
    lambda value: {str(value)[:50]: value},
    lambda value: bool(value) if isinstance(value, int | float | str | list | dict) else True,
    lambda value: list(value) if isinstance(value, dict) else value, lambda value: dict.fromkeys(map(str,
    value)) if isinstance(value, list) else None,
)  # fmt: skip


def _nudged(rng: random.Random, value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return rng.choice((value + 1, value - 1, -value, value * 1000, value + 0.5 if abs(value) < 2**53 else value))
    if isinstance(value, float):
        return rng.choice((-value, value * 1e6, value * 1e-6, float("nan")))
    if isinstance(value, str) and value:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice((rng.choice(TEXTS), "", value)) + value[at + rng.randint(0, 2) :]
    return value


def json_text(tree: Any) -> str:
    """Return ``tree`` as JSON, with its raw texts as they are. Raises ValueError for what contains itself."""
    return _with_raw(tree, lambda plain: json.dumps(plain, indent=1))


def yaml_text(tree: Any) -> str:
    """Return ``tree`` as YAML, with its raw texts as they are; what contains itself becomes an alias."""
    return _with_raw(tree, lambda plain: yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_multi_representer(str, lambda dumper, value: dumper.represent_str(str(value)))


def _with_raw(tree: Any, write: Callable[[Any], str]) -> str:
    texts: list[str] = []
    copies: dict[int, Any] = {}

    def mark(value: Any) -> Any:
        if isinstance(value, Raw):
            texts.append(value)
            return f"@@{len(texts) - 1}@@"
        if not isinstance(value, dict | list):
            return value
        if id(value) not in copies:
            copy: Any = {} if isinstance(value, dict) else []
            copies[id(value)] = copy  # before its parts, for it may hold itself
            if isinstance(value, dict):
                copy.update({key: mark(item) for key, item in value.items()})
            else:
                copy.extend(map(mark, value))
        return copies[id(value)]

    text = write(mark(tree))
    return re.sub(r"""["']?@@(\d+)@@["']?""", lambda match: texts[int(match[1])], text)


def encoded(rng: random.Random, text: str) -> bytes:
    """Return ``text`` as UTF-8, or rarely in an encoding that is not expected."""
    encoding = rng.choice(("utf-8",) * 12 + ("utf-16", "utf-32", "utf-8-sig", "latin-1", "utf-7", "utf-16-be"))
    return text.encode(encoding, "surrogatepass" if "utf-" in encoding and encoding != "utf-7" else "replace")


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return ``data`` with bytes flipped, cut out, inserted, moved and doubled."""
    data = bytes(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if not data:
            return rng.randbytes(rng.choice((0, 1, 20)))
        at, length = rng.randrange(len(data)), min(len(data), int(2 ** rng.uniform(0, 12)))
        kind = rng.choice(("flip", "flip", "flip", "cut", "drop", "insert", "splice", "zero", "number", "word", "end"))
        if kind == "flip":
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "drop":
            data = data[:at] + data[at + length :]
        elif kind == "insert":
            data = (
                data[:at]
                + rng.choice((rng.randbytes(min(length, 64)), b"\x00" * length, b"\xff\xfe", b"\xef\xbb\xbf"))
                + data[at:]
            )
        elif kind == "splice":
            source = rng.randrange(len(data))
            data = data[:at] + data[source : source + length] + data[at + rng.choice((0, length)) :]
        elif kind == "zero":
            data = data[:at] + rng.choice((b"\x00", b"\xff")) * min(length, len(data) - at) + data[at + length :]
        elif kind == "number":
            found = list(re.finditer(rb"\d+(\.\d+)?", data[:200_000]))
            number = rng.choice((b"9" * 400, b"-1", b"1e999", b"NaN", b"0", b"4294967295", b"9" * 5000, b"99999999"))
            if found:
                match = rng.choice(found)
                data = data[: match.start()] + number + data[match.end() :]
        elif kind == "word":
            data = (
                data[:at]
                + rng.choice(
                    (b"[" * _DEEP, b"!!int x", b"null", b"\xc3\x28", b'"', b"\n", b"<!DOCTYPE a>", b"\xed\xa0\x80")
                )
                + data[at:]
            )
        else:
            data += rng.choice((rng.randbytes(100), data[:1000], b"\n{}", b"\x00" * 1000))
    return data
