"""Does the language model help? The cells that `benchmarks/maps.py --parts cells` and `--parts synthetic` compare.

`cells`: map_rendered, trained in Boston and Queenstown and judged in Holland Village, with a language model of the shape of
SmolLM2-135M's first four layers: none, frozen of random weights, frozen pretrained. `synthetic`: 256 drawn scenes, judged on
16 others, with a tiny frozen one of random weights."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SHAPE = {
    "hidden_size": 576, "intermediate_size": 1536, "num_layers": 4, "num_heads": 9, "num_key_value_heads": 3,
    "vocab_size": 1024,
    "initializer_range": 0.05,  # 0.15 at a width of 64 makes outputs as large as this at 576
}  # fmt: skip
RANDOM = ["model.llm=frozen", *(f"model.llm_random.{key}={value}" for key, value in SHAPE.items())]
PRETRAINED = ["model.llm=frozen", "model.llm_layers=4"]
BYPASS = {True: "model.bypass=true", False: "model.bypass=false"}
CELLS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "cells": {
        "none, bypass": ["model.llm=none", BYPASS[True]],
        "random, bypass": [*RANDOM, BYPASS[True]],
        "random": [*RANDOM, BYPASS[False]],
        "pretrained, bypass": [*PRETRAINED, BYPASS[True]],
        "pretrained": [*PRETRAINED, BYPASS[False]],
    },
    "synthetic": {
        "random, bypass": ["model.llm=frozen", BYPASS[True]],
        "none, bypass": ["model.llm=none", BYPASS[True]],
        "random": ["model.llm=frozen", BYPASS[False]],
    },
}


def common(part: str, nuscenes: Path) -> list[str]:
    """Return what all cells of a part have in common."""
    lasting = ["training.max_epochs=1000", "training.eval_interval=1000", "training.save_interval=1000"]
    if part == "synthetic":
        return [*lasting, "data=map_synthetic", "training.batch_size=8", "training.max_iter=1500"]
    # 14 tokens of the prompt, 96 of the scene, 20 instances, 400 points: 530 positions
    data = ["data=map_rendered", f"data.root={nuscenes}", "model.num_instances=20"]
    return [*lasting, *data, "training.batch_size=4", "training.max_iter=1000"]


def cells_of(part: str, gguf: Path | None) -> dict[str, list[str]]:
    """Return the cells that can be run, by name: without a file of SmolLM2 none that is pretrained."""
    own = {name: list(overrides) for name, overrides in CELLS[part].items()}
    if gguf is None:
        return {name: overrides for name, overrides in own.items() if not name.startswith("pretrained")}
    for name, overrides in own.items():
        if name.startswith("pretrained"):
            overrides.append(f"model.llm_path={gguf}")
    return own


def table(found: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    """Return markdown of (cell, metrics) per run: a row per cell, mean ± standard deviation over its runs."""
    shown = ("val/map", "val/map_strict", "val/recall", "val_raw/map")
    by_class = sorted({name for _, metrics in found for name in metrics if name.startswith("val/map_class/")})
    columns = [*shown[:1], *by_class, *shown[1:]]
    yield "| cell | seeds | " + " | ".join(name.removeprefix("val/") for name in columns) + " |"
    yield "|---" * (2 + len(columns)) + "|"
    for cell in dict.fromkeys(cell for cell, _ in found):
        rows = [metrics for own, metrics in found if own == cell]
        values = [_spread([row[name] for row in rows if row.get(name) is not None]) for name in columns]
        yield f"| {cell} | {len(rows)} | " + " | ".join(values) + " |"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"
