"""The page of all settings, made of the types that check them and of the lines of conf/ that explain them: a hook of mkdocs."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from mkdocs.structure.files import File, Files
from pydantic import ConfigDict, create_model

import winnow
from hydra_plugins.winnow_sweeper._settings import SweeperSettings
from hydra_plugins.winnow_sweeper.config import WinnowSweeperConf
from winnow.builders import mark_of
from winnow.config.schema import RunSettings

CONF = Path(__file__).parent.parent.parent / "conf"
INJECTED = {"loading", "run_folder", "parent_folder", "classes", "new_metric", "max_detections", "score_threshold"}
"""What code gives to a builder, and no config."""
BEGINNING = """# Settings

Made from the types that check the values and from the comments in `conf/` when the site is built, so it can't be out of
date. Every key can be set on the command line, `python train.py training.batch_size=8`; a wrong key or value ends the run in
one message. What a command line comes to: `python train.py … --cfg job --resolve`.

"""


def on_files(files: Files, config: Any) -> Files:
    files.append(File.generated(config, "settings.md", content=settings_page()))
    return files


def settings_page() -> str:
    """Return the page as Markdown: a table for each group, or for each choice of a group."""
    run = RunSettings.model_json_schema()
    composed = winnow.compose()
    comments = comments_of(CONF / "winnow.yaml") | comments_of(CONF / "training" / "default.yaml", "training")
    parts = [BEGINNING, "## A run\n\n"]
    own = {name: run["properties"][name] for name in ("objective", "trusted_targets", "report", "stage", "budget")}
    parts.append(_table(own, run, "", composed, comments | comments_of(CONF / "evaluation" / "boxes.yaml")))
    parts.append("\n## `training`\n\n")
    parts.append(_table({"training": run["properties"]["training"]}, run, "", composed, comments))
    for group, title in (("data", "data"), ("model", "model"), ("evaluation", "evaluation"), ("tracking", "tracking")):
        for choice, node, path in choices_of(group):
            parts.append(f"\n## `{title}={choice}`\n\n{_first_line(path)}\n\n")
            schema = schema_of(node["_target_"])
            parts.append(_table(schema["properties"], schema, group, {group: node}, _comments_of_group(path, group)))
    parts.append(
        "\n## `hydra.sweeper`\n\nOf `hydra/sweeper=winnow`; [Sweeps](sweeps.md#settings) explains each key.\n\n"
    )
    sweeper = SweeperSettings.model_json_schema()
    values = {"hydra": {"sweeper": vars(WinnowSweeperConf())}}
    parts.append(_table(sweeper["properties"], sweeper, "hydra.sweeper", values, {}))
    return "".join(parts)


def choices_of(group: str) -> Iterator[tuple[str, dict[str, Any], Path]]:
    """Yield (choice, its composed node, its file) of a group, but for files that others build on."""
    for path in sorted((CONF / group).glob("*.yaml")):
        if "not a choice of its own" in path.read_text().lower():
            continue
        node = winnow.compose(f"{group}={path.stem}")[group]
        if "_target_" in node:
            yield path.stem, node, path


def schema_of(target: str) -> dict[str, Any]:
    """Return the JSON schema of what a ``_target_`` takes from its node."""
    module, _, name = target.rpartition(".")
    found = getattr(__import__(module, fromlist=[name]), name)
    mark = mark_of(found)
    if mark is not None and mark.settings_class is not None:
        return mark.settings_class.model_json_schema()
    hints = typing.get_type_hints(found.__init__ if inspect.isclass(found) else found, include_extras=True)
    fields = {
        parameter.name: (
            hints.get(parameter.name, Any),
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in inspect.signature(found).parameters.values()
        if parameter.name not in INJECTED and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    return create_model(name, __config__=ConfigDict(arbitrary_types_allowed=True), **fields).model_json_schema()


def words_of(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """Return what values a JSON schema allows, in words."""
    if "$ref" in schema:
        return words_of(_resolved(schema, whole), whole)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(words_of(one, whole) for one in schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"`{'true' if one is True else 'false' if one is False else one}`" for one in values)
    kind = {"integer": "whole number", "number": "number", "boolean": "true, false", "string": "text", "null": "null",
            "object": "keys and values"}.get(schema.get("type", ""), "any value")  # fmt: skip
    if schema.get("type") == "array":
        items = schema.get("items") or {}
        if "prefixItems" in schema:
            return f"[{', '.join(words_of(one, whole) for one in schema['prefixItems'])}]"
        return f"list of {words_of(items, whole)}" if items else "list"
    signs = {
        "exclusiveMinimum": ">",
        "minimum": "≥",
        "exclusiveMaximum": "<",
        "maximum": "≤",
        "multipleOf": "multiple of",
    }
    bounds = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema]
    return " ".join([kind, ", ".join(bounds)]).strip()


def comments_of(path: Path, prefix: str = "") -> dict[str, str]:
    """Return dotted key → the comment behind it, or above it, in a YAML file and in those that it builds on within its group."""
    text = path.read_text()
    lines, found = text.splitlines(), {}
    root = yaml.compose(text)

    def walk(node: Any, before: str) -> None:
        for key, value in node.value:
            name = f"{before}.{key.value}".strip(".")
            row = key.start_mark.line
            rest = lines[row][key.end_mark.column :]
            if " # " in rest:
                found[name] = rest.split(" # ", 1)[1].strip()
            elif row and lines[row - 1].strip().startswith("# ") and row > 1:
                found[name] = lines[row - 1].strip("# ").strip()
            if isinstance(value, yaml.MappingNode):
                walk(value, name)

    if isinstance(root, yaml.MappingNode):
        walk(root, prefix)
    inherited: dict[str, str] = {}
    for entry in (yaml.safe_load(text) or {}).get("defaults", []):
        place, package = _inherited(entry, path, prefix)
        if place is not None and place.exists():
            inherited |= comments_of(place, package)
    return inherited | found


def _inherited(entry: Any, path: Path, prefix: str) -> tuple[Path | None, str]:
    """Return the file that an entry of ``defaults`` names within its group, and under which keys its values come."""
    if isinstance(entry, dict):
        ((group, choice),) = entry.items()
        if group.startswith(("override", "/")) or not isinstance(choice, str) or path.parent == CONF:
            return None, ""
        return path.parent / group / f"{choice}.yaml", f"{prefix}.{group}".strip(".")
    name, _, package = entry.partition("@")
    if name == "_self_" or name.startswith("/"):
        return None, ""
    return path.parent / f"{name}.yaml", package or prefix


def _comments_of_group(path: Path, group: str) -> dict[str, str]:
    return comments_of(path, "" if "@package _global_" in path.read_text() else group)


def _table(
    properties: Mapping[str, Any],
    whole: Mapping[str, Any],
    prefix: str,
    values: Mapping[str, Any],
    comments: Mapping[str, str],
) -> str:
    rows = ["| key | default | may be | |", "|---|---|---|---|"]
    for name, schema in properties.items():
        rows += _rows(f"{prefix}.{name}".strip("."), schema, whole, values, comments)
    return "\n".join(rows) + "\n"


def _rows(
    key: str,
    schema: Mapping[str, Any],
    whole: Mapping[str, Any],
    values: Mapping[str, Any],
    comments: Mapping[str, str],
) -> Iterator[str]:
    resolved = _resolved(schema, whole)
    if "properties" in resolved and key.count(".") < 4:
        for name, inner in resolved["properties"].items():
            yield from _rows(f"{key}.{name}", inner, whole, values, comments)
        return
    cells = (f"`{key}`", _default(key, values), words_of(schema, whole), comments.get(key, ""))
    yield "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def _resolved(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a schema refers to; of an object or null, the object."""
    if "$ref" in schema:
        return whole["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    for one in schema.get("anyOf", []):
        if "$ref" in one:
            return _resolved(one, whole)
    return schema


def _default(key: str, values: Any) -> str:
    for part in key.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return ""
        values = values[part]
    if callable(values):
        return ""
    text = "null" if values is None else str(values).lower() if isinstance(values, bool) else str(values)
    return "must be given" if text == "???" else f"`{text}`" if text else '`""`'


def _first_line(path: Path) -> str:
    """Return the comment that a file begins with."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line]
    return lines[0].strip("# ") if lines else ""
