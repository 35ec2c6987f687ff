"""How often is the verdict of `winnow compare` wrong? `python benchmarks/verdicts.py [--bank DIR] [--comparisons 10000]`

Simulated: three seeds a side, normal values, σ estimated on 14 further repeats. Proposals: 100 changes that do nothing, one run
each, kept where they look better. Replayed: the repeats of the bank of recorded runs (benchmarks/curves), two groups of three
drawn without replacement, σ estimated on the others; kσ is added to one group. Beside it a bootstrap over images alone, where
detections were stored. Each rate is given with its number and a 95 % interval (Wilson).
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import nct, norm, t

from winnow.odds.verdict import BETTER, CANT_TELL, Spread, contrast_variance, judge

sys.path.insert(0, str(Path(__file__).parent / "curves"))
from record import BANK, SETS, read_bank

SEEDS, FURTHER = 3, 14
SHIFTS = (0.0, 2.0, 3.0)


def wilson(found: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate."""
    if total == 0:
        return 0.0, 1.0
    z, rate = 1.96, found / total
    centre, half = rate + z**2 / (2 * total), z * math.sqrt(rate * (1 - rate) / total + z**2 / (4 * total**2))
    return (centre - half) / (1 + z**2 / total), (centre + half) / (1 + z**2 / total)


def rate_text(found: int, total: int) -> str:
    """Return ``5.1 % of 10000 [4.7, 5.5]``."""
    low, high = wilson(found, total)
    return f"{100 * found / max(total, 1):5.1f} % of {total:5} [{100 * low:.1f}, {100 * high:.1f}]"


def simulated(comparisons: int) -> dict[float, int]:
    """Return, by shift in σ, how many comparisons of normal values are called different."""
    rng = np.random.default_rng(15)
    found = dict.fromkeys(SHIFTS, 0)
    for shift in SHIFTS:
        for _ in range(comparisons):
            known = Spread(float(np.std(rng.normal(size=FURTHER), ddof=1)), FURTHER - 1, "further repeats")
            found[shift] += (
                judge(rng.normal(size=SEEDS).tolist(), rng.normal(shift, 1, SEEDS).tolist(), known).word != CANT_TELL
            )
    return found


def best_possible(shift: float, degrees: float) -> float:
    """Return how often a t-test with ``degrees`` of freedom finds a shift of that many σ."""
    limit, ratio = t.ppf(0.975, degrees), shift / math.sqrt(2 / SEEDS)
    return float(1 - nct.cdf(limit, degrees, ratio) + nct.cdf(-limit, degrees, ratio))


def proposals(replays: int, number: int = 100) -> dict[str, tuple[float, float, float]]:
    """Return for each rule: how many of ``number`` idle proposals are kept on average, by how many σ the last one kept is too
    high, and by how many what is stated of it."""
    rng = np.random.default_rng(7)
    rules: dict[str, Callable[[float, float, Spread], tuple[bool, float]]] = {
        "keep if the number is higher": lambda old, new, known: (new > old, new),
        "keep if compare says better": _kept_by_verdict,
    }
    results = {}
    for name, rule in rules.items():
        kept, high, stated = [], [], []
        for _ in range(replays):
            known = Spread(float(np.std(rng.normal(size=FURTHER), ddof=1)), FURTHER - 1, "further repeats")
            best, count, says = float(rng.normal()), 0, None
            for value in rng.normal(size=number):
                is_kept, expected = rule(best, float(value), known)
                if is_kept:
                    best, count, says = float(value), count + 1, expected
            kept.append(count)
            if says is not None:
                high.append(best)
                stated.append(says)
        results[name] = (float(np.mean(kept)), float(np.mean(high)), float(np.mean(stated)))
    return results


def _kept_by_verdict(old: float, new: float, known: Spread) -> tuple[bool, float]:
    verdict = judge([old], [new], known)
    return verdict.word == BETTER, verdict.expected if verdict.expected is not None else new


class Repeats:
    """The recorded repeats of a set: their objectives, and the variance of each pair's difference over resampled images, if all
    detections were stored."""

    def __init__(self, name: str, bank: Path, resamples: int) -> None:
        runs = [run for run in read_bank(name, bank) if run["kind"] == "repeat" and run["status"] == "completed"]
        self.values = np.array([max(run["values"]) for run in runs])
        paths = [bank / name / f"repeat_{run['number']}.npz" for run in runs]
        self.pairs: dict[tuple[int, int], float] | None = None
        if resamples and runs and all(path.exists() for path in paths):
            from winnow.compare.detections import pair_variances

            self.pairs = pair_variances(paths, "val/map", resamples)

    def compare(self, order: Sequence[int], shift: float, with_images: bool) -> tuple[bool, bool | None]:
        """Return whether the first and the next three of ``order`` are called different, with the rest as further repeats; and
        whether a bootstrap over images alone calls them so."""
        first, second, rest = order[:SEEDS], order[SEEDS : 2 * SEEDS], order[2 * SEEDS :]
        a, b, others = (self.values[list(some)] for some in (first, second, rest))
        sigma = float(np.std(others, ddof=1))
        b = b + shift * float(np.std(self.values, ddof=1))
        own, within = (self.image_variance(first, second), None) if self.pairs is not None else (0.0, None)
        if self.pairs is not None:
            within = self.within(first, second)
        use = with_images and self.pairs is not None
        verdict = judge(
            a.tolist(),
            b.tolist(),
            Spread(sigma, len(others) - 1, "others"),
            True,
            own if use else 0.0,
            within if use else None,
        )
        alone = abs(b.mean() - a.mean()) > norm.ppf(0.975) * math.sqrt(own) if self.pairs is not None else None
        return verdict.word != CANT_TELL, alone

    def image_variance(self, first: Sequence[int], second: Sequence[int]) -> float:
        weights = np.zeros(len(self.values))
        weights[list(first)], weights[list(second)] = -1 / len(first), 1 / len(second)
        assert self.pairs is not None
        return contrast_variance(self.pairs, list(weights))

    def within(self, first: Sequence[int], second: Sequence[int]) -> float:
        """Return what of the image variance comes from single runs: half the mean variance of differences within groups."""
        assert self.pairs is not None
        inside = [
            self.pairs[min(i, j), max(i, j)] for some in (first, second) for i, j in itertools.combinations(some, 2)
        ]
        return float(np.mean(inside)) / 2 * (1 / len(first) + 1 / len(second))


def replay(bank: Path, resamples: int) -> None:
    """Print the rates on each recorded set, and pooled."""
    pooled: dict[tuple[float, str], list[int]] = {}
    for name in SETS:
        repeats = Repeats(name, bank, resamples)
        count = len(repeats.values)
        if count < 2 * SEEDS + 2:
            print(f"{name}: {count} repeats recorded, {2 * SEEDS + 2} are needed")
            continue
        print(f"{name}: {count} repeats, mean {repeats.values.mean():.4f}, σ {np.std(repeats.values, ddof=1):.4f}")
        rng = np.random.default_rng(3)
        for shift in SHIFTS:
            orders = [rng.permutation(count).tolist() for _ in range(200 if shift == 0 else 100)]
            for rule, with_images in (("seeds", False), ("seeds and images", True), ("images alone", False)):
                results = [repeats.compare(order, shift, with_images) for order in orders]
                called = [alone if rule == "images alone" else different for different, alone in results]
                if rule != "seeds" and repeats.pairs is None:
                    continue
                sums = pooled.setdefault((shift, rule), [0, 0])
                sums[0] += sum(map(bool, called))
                sums[1] += len(called)
                print(
                    f"  shifted by {shift:g}σ, {rule:17} called different: {rate_text(sum(map(bool, called)), len(called))}"
                )
    for (shift, rule), (found, total) in pooled.items():
        print(f"all sets, shifted by {shift:g}σ, {rule:17} called different: {rate_text(found, total)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--comparisons", type=int, default=10_000)
    parser.add_argument("--resamples", type=int, default=100, help="of the images; 0: none")
    options = parser.parse_args()
    for shift, found in simulated(options.comparisons).items():
        possible = (
            ""
            if shift == 0
            else f"; best possible: {100 * best_possible(shift, FURTHER - 1):.0f} % with σ from 14 repeats, "
        )
        possible += "" if shift == 0 else f"{100 * best_possible(shift, 1e6):.0f} % with a known one, "
        possible += (
            "" if shift == 0 else f"{100 * best_possible(shift, 2 * (SEEDS - 1)):.0f} % with none but the six runs'"
        )
        print(f"simulated, shifted by {shift:g}σ, called different: {rate_text(found, options.comparisons)}{possible}")
    for rule, (kept, high, stated) in proposals(200).items():
        print(f"100 idle proposals, {rule}: {kept:.2f} kept, the last {high:+.2f} σ, stated {stated:+.2f} σ")
    replay(options.bank, options.resamples)


if __name__ == "__main__":
    main()
