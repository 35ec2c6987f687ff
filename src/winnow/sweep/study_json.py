"""A study and a promotion as plain values for programs (schema: docs/programs.md)."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from winnow.sweep.luck import forecast_of, importances_of, luck_of
from winnow.sweep.objectives import pareto_front
from winnow.sweep.promotion import Promotion
from winnow.sweep.stored_study import StoredStudy
from winnow.sweep.table import ranking, why_nothing_was_learned


def study_json(stored: StoredStudy) -> dict[str, Any]:
    """Return all that ``winnow study`` knows of a study."""
    rows, objectives = stored.rows(), stored.objectives
    luck = luck_of(stored, rows)
    best = next(iter(ranking(rows, stored.maximize)), None)
    forecast, mattered = forecast_of(stored, luck.spread), importances_of(stored)
    trials = [
        {
            "number": row.number, "status": row.status, "values": _finite(list(row.values)), "params": _finite(row.params),
            "epochs": row.outcome.epochs, "seconds": row.outcome.seconds, "reason": row.outcome.reason,
            "run_folder": row.outcome.run_folder,
            "expected": asdict(luck.expected[row.number]) if row.number in luck.expected else None,
        }
        for row in rows
    ]  # fmt: skip
    return {
        "schema": 1,
        "study": stored.description["study_name"],
        "objectives": [
            {"name": name, "maximize": up} for name, up in zip(objectives.names, objectives.maximize, strict=True)
        ],
        "trials": trials,
        "best": best.number if best is not None else None,
        "pareto_front": sorted(pareto_front(stored.study)),
        "nothing_learned": why_nothing_was_learned(rows, objectives.names),
        "spread": asdict(luck.spread) if luck.spread is not None else None,
        "rank_forecast": asdict(forecast) if forecast is not None else None,
        "importances": None if mattered is None else {**asdict(mattered), "words": mattered.words},
    }


def promotion_json(promotion: Promotion) -> dict[str, Any]:
    """Return all that ``winnow promote`` says at its end."""
    return {"schema": 1, "is_whole": promotion.is_whole, **asdict(promotion)}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
