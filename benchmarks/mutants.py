"""Do the tests notice a bug? python benchmarks/mutants.py [--count 300] [--seed 0] [--all] [--only TEXT], or: make mutants.

Each mutant is one small change of a source file (benchmarks/mutation/operators.py); the tests of that file should fail with it.
A sample is drawn, spread over the files of benchmarks/mutation/targets.py in proportion to what they offer. It works on copies of
the work tree, two mutants at a time. A mutant whose tests take three times as long as without it is ended and counts as killed.
Results are kept in .mutants/, and a run that was stopped goes on there: what was killed is tried again when its source file has
changed, what survived also when its tests have. Prints how many were killed, with the 95 % interval (Wilson), and the survivors;
those that no test could notice stand with the reason in benchmarks/mutation/equivalent.toml and do not count.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

from mutation.copies import REPOSITORY, Copy
from mutation.operators import Mutant, mutants_of, sample_of
from mutation.results import Results, print_report
from mutation.targets import TESTS_OF

LEAST_SECONDS = 20.0
"""A shorter limit would end mutants for what else the machine does."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="mutants of the sample")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--all", action="store_true", help="all mutants instead of a sample")
    parser.add_argument("--only", default="", metavar="TEXT", help="of the sample, those whose name holds it")
    parser.add_argument("--minutes", type=float, default=90.0, help="after which no further mutant is begun")
    parser.add_argument("--workers", type=int, default=2, help="mutants at a time")
    parser.add_argument("--list", action="store_true", help="print the sample and its results, and try nothing")
    parser.add_argument("--smoke", action="store_true", help="two mutants of one file")
    parser.add_argument("--results", type=Path, default=REPOSITORY / ".mutants", help="folder of what is known")
    options = parser.parse_args()
    if options.smoke:
        options.only, options.count, options.workers = "sweep/forecast.py", 100, 1
        with tempfile.TemporaryDirectory() as temporary:
            options.results = Path(temporary)
            return run(options)
    return run(options)


def run(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the copies go with it
    deadline = time.monotonic() + 60 * options.minutes
    by_path = {path: mutants_of(path, (REPOSITORY / path).read_bytes()) for path in TESTS_OF}
    count = sum(map(len, by_path.values())) if options.all else options.count
    chosen = [mutant for mutant in sample_of(by_path, count, options.seed) if options.only in mutant.name]
    results = Results(options.results)
    untried = [mutant for mutant in chosen if not results.is_known(mutant) and not results.is_equivalent(mutant)]
    # In no order of files: what was tried when the time is over is a sample, too.
    waiting = deque(sorted(untried, key=lambda mutant: mutant.rank(options.seed)))
    if options.smoke:
        waiting = deque(list(waiting)[:2])
    print(f"{len(chosen)} mutants of {sum(map(len, by_path.values()))}, {len(waiting)} of them to be tried", flush=True)
    if waiting and not options.list:
        try_all(waiting, results, options.workers, deadline)
    print_report(chosen, results)
    return 0


def try_all(waiting: deque[Mutant], results: Results, workers: int, deadline: float) -> None:
    with tempfile.TemporaryDirectory(prefix="winnow_mutants_") as temporary:
        copies = [Copy(Path(temporary) / f"copy_{number}") for number in range(workers)]
        failures: list[BaseException] = []
        try:
            paths = dict.fromkeys(mutant.path for mutant in waiting)
            usual = measure(copies, list(dict.fromkeys(test for path in paths for test in TESTS_OF[path])), results)
            threads = [
                threading.Thread(target=work, args=(copy, waiting, usual, results, deadline, failures))
                for copy in copies
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            for copy in copies:
                copy.close()
    if failures:
        raise failures[0]


def measure(copies: list[Copy], tests: list[str], results: Results) -> dict[str, dict[str, float]]:
    """Return by test file what each of its tests takes where nothing is changed. Raises RuntimeError if one fails then."""
    for test in tests:
        if results.usual_of(test) is None:
            answer = copies[0].run([test], seconds=900.0, durations={}, stop=False)
            if answer["code"] != 0:
                raise RuntimeError(f"{test} fails where nothing is changed:\n{answer['output']}")
            copies[0].preload(answer["modules"])
            results.add_usual(test, answer)
            print(f"{test}: {len(answer['durations'])} tests, {answer['seconds']:.1f} s", flush=True)
    modules = {name for test in tests for name in results.usual[test]["modules"]}
    for copy in copies:
        copy.preload(sorted(modules))
    return {test: results.usual[test]["durations"] for test in tests}


def work(
    copy: Copy,
    waiting: deque[Mutant],
    usual: dict[str, dict[str, float]],
    results: Results,
    deadline: float,
    failures: list[BaseException],
) -> None:
    """Try mutants until none waits, the time is over or another worker failed."""
    try:
        while waiting and not failures and time.monotonic() < deadline:
            try:
                mutant = waiting.popleft()
            except IndexError:
                return
            tests = TESTS_OF[mutant.path]
            durations = {name: seconds for test in tests for name, seconds in usual[test].items()}
            limit = max(LEAST_SECONDS, 3 * sum(durations.values()))
            with copy.mutated(mutant):
                answer = copy.run(list(tests), seconds=limit, durations=durations, stop=True)
            results.add(mutant, answer, left=len(waiting))
    except BaseException as error:  # noqa: BLE001 - the thread that started this one raises it
        failures.append(error)


if __name__ == "__main__":
    sys.exit(main())
