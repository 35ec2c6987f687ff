"""What is said of a search's winner, held against simulated and recorded searches: `python benchmarks/winners.py [--bank DIR]`

Expected value after retraining: 48 true values (of simulated landscapes, or those that the bank's configurations measured),
noise σ on top (of a recorded set: its repeats' own residuals), the best one retrained with other noise. Rank correlation: the
first third of each curve as the search, the whole with other noise as full training. Importances: 48 trials, four parameters,
noise of a quarter of the values' spread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from winnow.odds.importance import importances
from winnow.odds.ranks import rank_forecast
from winnow.odds.winner import expected_values

sys.path.insert(0, str(Path(__file__).parent / "curves"))
from record import BANK, SETS, read_bank
from sources import FAMILIES, SimulatedCurves

Floats = NDArray[np.float64]
TRIALS = 48
FACTORS = {"lr": (1e-5, 1e-1), "weight_decay": (1e-6, 1e-1)}


def random_params(rng: np.random.Generator) -> dict[str, float]:
    params = {name: float(np.exp(rng.uniform(*np.log(limits)))) for name, limits in FACTORS.items()}
    return {**params, "augmentation": float(rng.uniform()), "batch_size": int(rng.choice([8, 16, 32, 64]))}


def winner_replay(
    draw: Callable[[np.random.Generator], tuple[Floats, Floats, float]], replays: int
) -> tuple[float, float, float]:
    """Return, in σ, how much the winner's search value and its expected value are above what retraining gives on average, and how
    often the 80 % interval holds that. ``draw`` gives measured values, values of a second measurement, and σ."""
    naive, bias, held = [], [], 0
    for replay in range(replays):
        values, again, sigma = draw(np.random.default_rng([21, replay]))
        best = int(np.argmax(values))
        expected = expected_values(list(values), sigma)[best]
        naive.append((values[best] - again[best]) / sigma)
        bias.append((expected.value - again[best]) / sigma)
        held += expected.low <= again[best] <= expected.high
    return float(np.mean(naive)), float(np.mean(bias)), held / replays


def simulated_winners(family: str, sigma: float) -> Callable[[np.random.Generator], tuple[Floats, Floats, float]]:
    def draw(rng: np.random.Generator) -> tuple[Floats, Floats, float]:
        source = SimulatedCurves(family, int(rng.integers(1 << 30)))
        truth = np.array([source.truth(random_params(rng)) for _ in range(TRIALS)])
        known = sigma * np.sqrt(rng.chisquare(13) / 13)  # σ estimated from 14 repeats
        return truth + rng.normal(0, sigma, TRIALS), truth + rng.normal(0, sigma, TRIALS), float(known)

    return draw


def recorded_winners(values: Floats, repeats: Floats) -> Callable[[np.random.Generator], tuple[Floats, Floats, float]]:
    centred = (repeats - repeats.mean()) * np.sqrt(len(repeats) / (len(repeats) - 1))

    def draw(rng: np.random.Generator) -> tuple[Floats, Floats, float]:
        truth = rng.choice(values, TRIALS)
        return truth + rng.choice(centred, TRIALS), truth + rng.choice(centred, TRIALS), float(np.std(repeats, ddof=1))

    return draw


def rank_replay(
    draw: Callable[[np.random.Generator], tuple[Floats, Floats, float]], ratio: float, replays: int
) -> tuple[float, float]:
    """Return how often the interval holds the true rank correlation, and how wide it is. ``draw`` gives curves of the search
    [trials, epochs], values of full training, and σ."""
    held, widths = 0, []
    for replay in range(replays):
        curves, full, sigma = draw(np.random.default_rng([22, replay]))
        forecast = rank_forecast(curves.tolist(), sigma, ratio)
        assert forecast is not None
        held += forecast.low <= spearmanr(curves[:, -1], full).statistic <= forecast.high
        widths.append(forecast.high - forecast.low)
    return held / replays, float(np.mean(widths))


def simulated_ranks(
    family: str, epochs: int = 48, searched: int = 16
) -> Callable[[np.random.Generator], tuple[Floats, Floats, float]]:
    def draw(rng: np.random.Generator) -> tuple[Floats, Floats, float]:
        source = SimulatedCurves(family, int(rng.integers(1 << 30)), epochs)
        params = [random_params(rng) for _ in range(TRIALS)]
        curves = np.array([source.draw(one, number, 1) for number, one in enumerate(params)])
        full = np.array([source.draw(one, number, 2)[-1] for number, one in enumerate(params)])
        return curves[:, :searched], full, 0.013  # the luck of a run and the noise of an epoch together

    return draw


def importance_replay(shares: tuple[float, ...], searches: int) -> tuple[float, float]:
    """Return how often the first parameter is named, and how often nothing is. ``shares``: what each explains of the true
    values."""
    right = silent = 0
    for search in range(searches):
        rng = np.random.default_rng([23, search])
        x = rng.uniform(-1, 1, (TRIALS, len(shares)))
        curves = [
            np.sqrt(3) * x[:, k] if (search + k) % 2 else np.sqrt(45 / 4) * (x[:, k] ** 2 - 1 / 3)
            for k in range(len(shares))
        ]
        y = sum(np.sqrt(share) * curve for share, curve in zip(shares, curves, strict=True))
        y = y + rng.normal(0, 0.25 * np.std(y), TRIALS)
        found = importances({f"p{k}": x[:, k].tolist() for k in range(len(shares))}, y.tolist())
        assert found is not None
        right += found.named == "p0"
        silent += found.named is None
    return right / searches, silent / searches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--replays", type=int, default=100)
    options = parser.parse_args()
    number = options.replays
    print(f"winner, {number} replays: search value − retrained, expected − retrained (σ), intervals that hold")
    for family in FAMILIES[:1]:
        for sigma in (0.005, 0.02, 0.05):
            naive, bias, held = winner_replay(simulated_winners(family, sigma), number)
            print(f"  simulated, σ {sigma}: {naive:+.2f}  {bias:+.2f}  {held:.0%}")
    for name in SETS:
        runs = [run for run in read_bank(name, options.bank) if run["status"] == "completed"]
        values, repeats = (
            np.array([max(run["values"]) for run in runs if run["kind"] == kind]) for kind in ("config", "repeat")
        )
        if len(values) < 8 or len(repeats) < 8:
            print(f"  {name}: {len(values)} configurations and {len(repeats)} repeats recorded, 8 of each are needed")
            continue
        naive, bias, held = winner_replay(recorded_winners(values, repeats), number)
        print(f"  {name} ({len(values)} configurations, {len(repeats)} repeats): {naive:+.2f}  {bias:+.2f}  {held:.0%}")
    print(f"rank correlation, {number} replays: intervals that hold the true one, mean width")
    for family in FAMILIES:
        held, width = rank_replay(simulated_ranks(family), 3.0, number)
        print(f"  simulated, {family}: {held:.0%}  {width:.2f}")
    for name in SETS:
        curves, repeats = _curves(name, options.bank)
        if len(curves) < 12 or len(repeats) < 8:
            print(f"  {name}: {len(curves)} curves recorded, 12 are needed, and 8 repeats")
            continue
        held, width = rank_replay(recorded_ranks(curves, repeats), 3.0, number)
        print(f"  {name} ({len(curves)} configurations): {held:.0%}  {width:.2f}")
    print("importances, 200 searches: the most important one named, nothing named")
    for words, shares in (("twice the next", (0.5, 0.25, 0.15, 0.1)), ("two equal", (0.4, 0.4, 0.1, 0.1))):
        right, silent = importance_replay(shares, 200)
        print(f"  {words}: {right:.1%}  {silent:.1%}")


def _curves(name: str, bank: Path) -> tuple[Floats, Floats]:
    """Return the recorded curves of configurations [runs, epochs], and the last values of repeats."""
    runs = [run for run in read_bank(name, bank) if run["status"] == "completed"]
    configs = [run["values"] for run in runs if run["kind"] == "config"]
    most = max(map(len, configs), default=0)
    return (
        np.array([values for values in configs if len(values) == most]),
        np.array([run["values"][-1] for run in runs if run["kind"] == "repeat"]),
    )


def recorded_ranks(curves: Floats, repeats: Floats) -> Callable[[np.random.Generator], tuple[Floats, Floats, float]]:
    centred = repeats - repeats.mean()

    def draw(rng: np.random.Generator) -> tuple[Floats, Floats, float]:
        rows = rng.integers(len(curves), size=min(TRIALS, len(curves)))
        full = curves[rows, -1] + rng.choice(centred, len(rows))
        return curves[rows, : max(2, curves.shape[1] // 3)], full, float(np.std(repeats, ddof=1))

    return draw


if __name__ == "__main__":
    main()
