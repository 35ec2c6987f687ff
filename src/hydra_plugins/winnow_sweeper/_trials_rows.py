"""Reads a list of key/value trials from JSON, YAML or CSV with the line of every key; does not know what the keys mean."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from winnow.config.values import parse_value
from winnow.reading import UnreadableError, parse_json

SUFFIXES = (".json", ".yaml", ".yml", ".csv")


@dataclass(frozen=True)
class Cell:
    """One key of a trial and its value, where it stands in the file."""

    key: str
    value: Any
    line: int


@dataclass(frozen=True)
class Row:
    """One trial; ``line`` is its first."""

    cells: tuple[Cell, ...]
    line: int


class RowsError(Exception):
    """A file that can't be read as a list of trials: ``mistakes`` are (line, what is wrong); line 0 is the whole file."""

    def __init__(self, mistakes: list[tuple[int, str]]) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes


def read_rows(path: Path) -> list[Row]:
    """Read the trials of ``path`` in their order. Raises RowsError with every mistake that can be told from the file alone."""
    readers = {".json": _json_rows, ".yaml": _yaml_rows, ".yml": _yaml_rows, ".csv": _csv_rows}
    if path.suffix.lower() not in readers:
        raise RowsError([(0, f"unknown suffix {path.suffix!r}; allowed: {', '.join(SUFFIXES)}")])
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RowsError([(0, "no such file")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RowsError([(0, f"can't be read as text: {error}")]) from None
    if not text.strip():
        raise RowsError([(0, "is empty; give a list of trials")])
    mistakes: list[tuple[int, str]] = []
    rows = list(readers[path.suffix.lower()](text, mistakes))
    for row in rows:
        mistakes += _doubled_keys(row)
    if not rows and not mistakes:
        mistakes.append((0, "holds no trial"))
    if mistakes:
        raise RowsError(sorted(mistakes))
    return rows


def _doubled_keys(row: Row) -> list[tuple[int, str]]:
    first: dict[str, int] = {}
    mistakes = []
    for cell in row.cells:
        if cell.key in first:
            mistakes.append((cell.line, f"{cell.key} is given twice in one trial, first in line {first[cell.key]}"))
        first.setdefault(cell.key, cell.line)
    return mistakes


_NOT_A_LIST = 'must be a list of trials, as [{"training.optimizer.lr": 1e-4}]'


def _json_rows(text: str, mistakes: list[tuple[int, str]]) -> Iterator[Row]:
    try:
        whole = parse_json(text)
    except UnreadableError as error:
        cause = error.__context__
        if isinstance(cause, json.JSONDecodeError):
            mistakes.append((cause.lineno, f"not JSON: {cause.msg[:1].lower()}{cause.msg[1:]}, column {cause.colno}"))
        else:
            mistakes.append((0, str(error)))
        return
    if not isinstance(whole, list):
        mistakes.append((0, _NOT_A_LIST))
        return
    for start, _ in _json_parts(text, _skip_blanks(text, 0), "]"):
        line = _line_of(text, start)
        if text[start] == "{":
            cells = [Cell(key, value, _line_of(text, at)) for at, key, value in _json_members(text, start)]
            yield Row(tuple(cells), line)
        else:
            mistakes.append((line, "a trial must be a mapping of keys to values"))


def _json_members(text: str, start: int) -> Iterator[tuple[int, str, Any]]:
    """Yield where each key of the object at ``start`` begins, the key and its value; the text is known to be valid JSON."""
    for at, end in _json_parts(text, start, "}"):
        key, _ = json.JSONDecoder().raw_decode(text, at)
        value, _ = json.JSONDecoder().raw_decode(text, end)
        yield at, key, value


def _json_parts(text: str, start: int, closing: str) -> Iterator[tuple[int, int]]:
    """Yield the beginning of each element of the list, or of each key and its value of the object, that opens at ``start``."""
    decoder = json.JSONDecoder()
    at = _skip_blanks(text, start + 1)
    while text[at] != closing:
        _, end = decoder.raw_decode(text, at)
        value_at = at
        if closing == "}":
            value_at = _skip_blanks(text, _skip_blanks(text, end) + 1)
            _, end = decoder.raw_decode(text, value_at)
        yield at, value_at
        at = _skip_blanks(text, end)
        if text[at] == ",":
            at = _skip_blanks(text, at + 1)


def _skip_blanks(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


class _YamlLoader(yaml.SafeLoader):
    """Reads numbers as conf/ is read: 1e-4 is one, which YAML 1.1 takes for text; a date is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # the name and kind are PyYAML's
        first: [pair for pair in pairs if pair[0] not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^([-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?|[-+]?\d[\d_]*[eE][-+]?\d+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def _yaml_rows(text: str, mistakes: list[tuple[int, str]]) -> Iterator[Row]:
    loader = _YamlLoader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.SequenceNode):
            mistakes.append(
                (0, _NOT_A_LIST.replace('[{"training.optimizer.lr": 1e-4}]', "- training.optimizer.lr: 1e-4"))
            )
            return
        for item in node.value:
            line = item.start_mark.line + 1
            if not isinstance(item, yaml.MappingNode):
                mistakes.append((line, "a trial must be a mapping of keys to values"))
                continue
            loader.flatten_mapping(item)  # YAML's `<<: *anchor`
            yield Row(tuple(_yaml_cell(loader, key, value) for key, value in item.value), line)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        mistakes.append((mark.line + 1 if mark else 0, f"not YAML: {error.problem}"))
    finally:
        loader.dispose()


def _yaml_cell(loader: yaml.SafeLoader, key: yaml.Node, value: yaml.Node) -> Cell:
    return Cell(
        str(loader.construct_object(key, deep=True)), loader.construct_object(value, deep=True), key.start_mark.line + 1
    )


def _csv_rows(text: str, mistakes: list[tuple[int, str]]) -> Iterator[Row]:
    """Read a header of keys, then a trial a line; a cell is read as after ``key=`` on the command line, an empty one is
    no key.
    """
    reader = csv.reader(text.splitlines(keepends=True), strict=True, skipinitialspace=True)
    header: list[str] | None = None
    begun = 0
    while True:
        line, begun = begun + 1, begun
        try:
            fields = [field.strip() for field in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            mistakes.append((reader.line_num, f"not CSV: {error}"))
            return
        begun = reader.line_num
        if not any(fields):
            continue
        if header is None:
            header = fields
            if "" in header:
                mistakes.append((line, f"column {header.index('') + 1} of the header has no key"))
        elif len(fields) != len(header):
            mistakes.append((line, f"{len(fields)} cells under {len(header)} keys; quote a cell that holds a comma"))
        else:
            yield Row(tuple(_csv_cells(header, fields, line, mistakes)), line)


def _csv_cells(keys: list[str], fields: list[str], line: int, mistakes: list[tuple[int, str]]) -> Iterator[Cell]:
    for key, field in zip(keys, fields, strict=True):
        if field:
            try:
                yield Cell(key, parse_value(field), line)
            except ValueError as error:
                mistakes.append((line, f"{key}: {error}"))
