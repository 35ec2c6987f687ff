"""Changes files of every kind that winnow reads, and reads them: python benchmarks/fuzz_files.py N [--seed S] [--only KIND].

Each case takes a good file, changes it at random (nodes replaced, deleted, doubled, of another type, numbers of 400 digits, lists
100,000 deep, odd tags and encodings; bytes flipped, cut, inserted, spliced), and reads it as the product does. It may be accepted
or refused by an error of winnow's that names the file. All else is a fault: any other exception, a refusal that names no file,
over 10 s of CPU time or 1 GB, a process that died, and above all code that a file had executed: files plant calls that would
make a folder. Prints a table by kind and each distinct fault with its number; ``--case NUMBER`` runs one again and prints all of
it. Cases run in forked workers (--workers, 2). Ends with exit code 1 where there was a fault. Needs Linux.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "tests")]

import torch  # noqa: E402
from fuzz import folders, labels, maps, overrides, pairs, pixels, records, studies, trained, weights  # noqa: E402
from fuzz.pool import Kind, Verdict, kind_of, run_cases  # noqa: E402

MODULES = (labels, pairs, pixels, weights, overrides, records, studies, maps, folders, trained)
KINDS: tuple[Kind, ...] = tuple(kind for module in MODULES for kind in module.KINDS)
CASES_OF_A_SEED = 10**6
SHOWN_EVERY = 500


def fuzz(numbers: Sequence[int], num_workers: int, is_shown: bool = False, seconds: float = math.inf) -> list[Verdict]:
    """Return the verdicts on the cases of these ``numbers``, or on as many as ``seconds`` allow, faults printed as they come."""
    began = time.monotonic()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="winnow-fuzz-") as folder:
        needed = {number % len(KINDS) for number in numbers}
        shared = []
        for index, kind in enumerate(KINDS):
            own = Path(folder) / "shared" / kind.name
            own.mkdir(parents=True)
            shared.append(kind.prepare(own) if index in needed else None)
        seen: set[tuple[str, str]] = set()
        for verdict in run_cases(KINDS, shared, numbers, num_workers, Path(folder)):
            verdicts.append(verdict)
            if len(verdicts) % SHOWN_EVERY == 0:
                faults = sum(bool(one.fault) for one in verdicts)
                print(
                    f"{len(verdicts)} cases, {faults} faults, {(time.monotonic() - began) / 60:.1f} minutes", flush=True
                )
            if time.monotonic() - began > seconds:
                break
            if is_shown:
                print(f"{verdict.kind} {verdict.number}: {verdict.status} {verdict.fault}\n{verdict.details}")
            elif verdict.fault and (verdict.kind, verdict.fault) not in seen:
                seen.add((verdict.kind, verdict.fault))
                last = (verdict.details.strip().splitlines() or [""])[-1]
                print(f"fault  --case {verdict.number}  {verdict.kind}: {verdict.fault}: {last[:150]}", flush=True)
    return verdicts


def show(verdicts: Sequence[Verdict], seconds: float) -> None:
    """Print the table by kind, and each distinct fault with how often it came and its first case."""
    print(
        f"\n{'kind':<16}{'cases':>8}{'accepted':>10}{'refused':>9}{'faults':>8}{'distinct':>10}{'slowest':>9}{'most MB':>9}"
    )
    for name in [*(kind.name for kind in KINDS), "all"]:
        own = [verdict for verdict in verdicts if name in (verdict.kind, "all")]
        if not own:
            continue
        counts = Counter(verdict.status for verdict in own)
        distinct = len({(verdict.kind, verdict.fault) for verdict in own if verdict.fault})
        slowest, most = max(verdict.seconds for verdict in own), max(verdict.grown for verdict in own) / 1e6
        print(f"{name:<16}{len(own):>8}{counts['accepted']:>10}{counts['refused']:>9}{counts['fault']:>8}{distinct:>10}"
              f"{slowest:>8.1f}s{most:>9.0f}")  # fmt: skip
    first: dict[tuple[str, str], int] = {}
    times: Counter[tuple[str, str]] = Counter()
    for verdict in verdicts:
        if verdict.fault:
            times[verdict.kind, verdict.fault] += 1
            first.setdefault((verdict.kind, verdict.fault), verdict.number)
    print(f"{len(first)} distinct faults, {sum('EXECUTED' in fault for _, fault in times.elements())} executed, "
          f"{seconds / 60:.1f} minutes")  # fmt: skip
    for (kind, fault), count in times.most_common():
        print(f"  {count:5d} × {kind}: {fault}  (--case {first[kind, fault]})")


def chosen(count: int, seed: int, only: Sequence[str]) -> list[int]:
    """Return the numbers of the first ``count`` cases of ``seed``, of the kinds ``only`` where any is named."""
    first = seed * CASES_OF_A_SEED
    numbers: list[int] = []
    while len(numbers) < count:
        if not only or kind_of(KINDS, first).name in only:
            numbers.append(first)
        first += 1
    return numbers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], choices=[kind.name for kind in KINDS])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end after so many, and show what was found")
    parser.add_argument("--smoke", action="store_true", help="a case of each kind")
    parser.add_argument("--case", type=int, help="run this one again and show all of it")
    options = parser.parse_args()
    if options.case is not None:
        return int(fuzz([options.case], 1, is_shown=True)[0].status == "fault")
    began = time.monotonic()
    count = len(KINDS) if options.smoke else options.count
    verdicts = fuzz(chosen(count, options.seed, options.only), options.workers, seconds=60 * options.minutes)
    show(verdicts, time.monotonic() - began)
    return int(any(verdict.fault for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
