"""Verdicts on run folders: which of two groups of runs is better, or that it can't be told, in words and as plain values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from winnow.compare.detections import NAMES, have_same_truth, pair_variances
from winnow.errors import DataError
from winnow.odds.verdict import CANT_TELL, Verdict, contrast_variance, judge
from winnow.results.measured import MeasuredRun, values_of
from winnow.results.spread import known_spread

MOST_RESAMPLED = 3
"""Runs of a group whose detections are resampled: each pair takes seconds."""


@dataclass(frozen=True)
class Judged:
    """``verdict`` on the group ``second`` beside ``first``; ``images`` says what is known of the choice of validation images."""

    first: tuple[MeasuredRun, ...]
    second: tuple[MeasuredRun, ...]
    verdict: Verdict
    images: str


def judge_runs(first: Sequence[MeasuredRun], second: Sequence[MeasuredRun]) -> Judged:
    """Return whether ``second`` is better than ``first``: from seeds, and from images where detections were stored. Can't be told
    where their objectives or validation data differ."""
    runs = (*first, *second)
    difference = float(np.mean(values_of(second)) - np.mean(values_of(first)))
    metrics = {(run.metric, run.maximize) for run in runs}
    if len(metrics) > 1:
        names = " and ".join(sorted(name for name, _ in metrics))
        return _untold(first, second, math.nan, f"the objectives differ: {names}")
    paths = [[run.detections for run in group if run.detections is not None] for group in (first, second)]
    have_all = [len(found) for found in paths] == [len(first), len(second)]
    maximize = first[0].maximize
    signed = difference if maximize else -difference
    try:
        if have_all and not have_same_truth([*paths[0], *paths[1]]):
            return _untold(first, second, signed, "they were evaluated on different validation data")
        variance, within, words = (
            _images(paths, first[0].metric) if have_all else (0.0, None, "not all runs stored detections: seeds alone")
        )
    except DataError as error:
        variance, within, words = 0.0, None, f"seeds alone: {error}"
    verdict = judge(values_of(first), values_of(second), known_spread(first, second), maximize, variance, within)
    return Judged(tuple(first), tuple(second), verdict, words)


def words_of(judged: Judged, names: tuple[str, str] = ("A", "B")) -> list[str]:
    """Return the lines that say a verdict."""
    verdict, metric = judged.verdict, judged.first[0].metric
    means = [float(np.mean(values_of(group))) for group in (judged.first, judged.second)]
    lines = [
        f"{names[1]} is {verdict.word} than {names[0]}"
        if verdict.word != CANT_TELL
        else f"can't tell: {verdict.reason}"
    ]
    counts = [f"{len(group)} run{'s' if len(group) > 1 else ''}" for group in (judged.first, judged.second)]
    lines.append(
        f"{metric}: {names[0]} {means[0]:.4f} ({counts[0]}), {names[1]} {means[1]:.4f} ({counts[1]}); {names[1]} better by "
        f"{verdict.difference:+.4f}{_interval(verdict)}"
    )
    if verdict.probability is not None:
        lines.append(f"odds that {names[1]} is better: {odds_text(verdict.probability)}")
    if verdict.spread is not None:
        lines.append(f"seeds spread by σ = {verdict.spread.sigma:.4f}, from {verdict.spread.source}")
    lines.append(f"images: {judged.images}")
    if verdict.word == CANT_TELL and (verdict.spread is not None or verdict.repeats is not None):
        lines.append(repeats_text(verdict))
    elif verdict.expected is not None:
        lines.append(f"to expect of a new run of {names[1]}: {verdict.expected:.4f}")
    return lines


def repeats_text(verdict: Verdict) -> str:
    """Return what it would take to tell."""
    if verdict.repeats is not None and verdict.spread is None:
        return f"it would take {verdict.repeats} runs a side to find a difference of 3 σ: --group A… --group B…"
    if verdict.repeats is None:
        return "if the true difference is no larger than that, 200 runs a side would not tell"
    return f"it would take {verdict.repeats} runs a side, if the true difference is that large"


def odds_text(probability: float) -> str:
    """Return a probability as odds: ``39 : 1``, ``1 : 1.2``, ``over 1000 : 1``."""
    larger = max(probability, 1 - probability)
    odds = larger / (1 - larger) if larger < 1 else math.inf
    shown = "over 1000" if odds > 1000 else f"{odds:.2g}" if odds < 10 else f"{odds:.0f}"
    return f"{shown} : 1" if probability >= 0.5 else f"1 : {shown}"


def verdict_json(judged: Judged) -> dict[str, Any]:
    """Return a verdict as plain values."""
    verdict, spread = judged.verdict, judged.verdict.spread
    return {
        "verdict": verdict.word,
        "metric": judged.first[0].metric,
        "runs": [[str(run.folder) for run in group] for group in (judged.first, judged.second)],
        "values": [values_of(group) for group in (judged.first, judged.second)],
        "difference": verdict.difference if math.isfinite(verdict.difference) else None,
        "interval": None if verdict.low is None else [verdict.low, verdict.high],
        "probability_better": verdict.probability,
        "sigma": spread.sigma if spread else None,
        "degrees_of_freedom": spread.degrees if spread else None,
        "spread_from": spread.source if spread else None,
        "image_sigma": verdict.image_sigma,
        "images": judged.images,
        "repeats_needed": verdict.repeats,
        "expected": verdict.expected,
        "reason": verdict.reason,
    }


def _images(paths: Sequence[Sequence[Path]], metric: str) -> tuple[float, float | None, str]:
    """Return the variance of the difference over resampled images, what of it single runs explain (None with one run a side), and
    what was done, in words."""
    if metric not in NAMES:
        return 0.0, None, f"stored detections don't give {metric}: seeds alone"
    some = [list(group[:MOST_RESAMPLED]) for group in paths]
    pairs = pair_variances([*some[0], *some[1]], metric)
    sizes = [len(group) for group in some]
    weights = [-1 / sizes[0]] * sizes[0] + [1 / sizes[1]] * sizes[1]
    variance = contrast_variance(pairs, weights)
    inside = [
        pairs[pair]
        for start, size in ((0, sizes[0]), (sizes[0], sizes[1]))
        for pair in itertools.combinations(range(start, start + size), 2)
    ]
    within = float(np.mean(inside)) / 2 * (1 / sizes[0] + 1 / sizes[1]) if inside else None
    return variance, within, f"resampled in pairs, they move the difference by σ = {math.sqrt(max(variance, 0.0)):.4f}"


def _interval(verdict: Verdict) -> str:
    return "" if verdict.low is None else f", 95 % interval {verdict.low:+.4f} to {verdict.high:+.4f}"


def _untold(first: Sequence[MeasuredRun], second: Sequence[MeasuredRun], difference: float, reason: str) -> Judged:
    return Judged(tuple(first), tuple(second), Verdict(CANT_TELL, difference, reason=reason), "not looked at")
