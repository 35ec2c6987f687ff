"""What is known of mutants: a line of JSON each, kept from run to run, and the report that is made of them."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import threading
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mutation.copies import REPOSITORY
from mutation.operators import Mutant
from mutation.targets import TESTS_OF

EQUIVALENT = Path(__file__).with_name("equivalent.toml")
KILLED, TIMED_OUT, SURVIVED = "killed", "killed by time", "survived"


class Results:
    """The file ``results.jsonl`` in ``folder``; the last line of a mutant counts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._path = folder / "results.jsonl"
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        # Taken now, as the copies are: whoever goes on editing meanwhile has other files than those that are tried.
        files = {path: (REPOSITORY / path).read_bytes() for path in {*TESTS_OF, *itertools.chain(*TESTS_OF.values())}}
        self._source = {path: digest(files[path]) for path in TESTS_OF}
        self._tests = {path: digest(*(files[test] for test in tests)) for path, tests in TESTS_OF.items()}
        self._usual = {path: digest(everything(), files[path]) for path in files}
        self._usual_path = folder / "usual.json"
        self.usual: dict[str, dict[str, Any]] = json.loads(text) if (text := read_if_there(self._usual_path)) else {}
        self.equivalent: dict[str, str] = tomllib.loads(EQUIVALENT.read_text())["reasons"]
        lines = [json.loads(line) for line in read_if_there(self._path).splitlines() if line.endswith("}")]
        self._known = {line["mutant"]: line for line in lines}

    def is_equivalent(self, mutant: Mutant) -> bool:
        return mutant.name in self.equivalent

    def is_known(self, mutant: Mutant) -> bool:
        """Return whether the last result still says something: of the same source, and of a survivor the same tests."""
        known = self._known.get(mutant.name)
        if known is None or known["source"] != self._source[mutant.path]:
            return False
        return known["verdict"] != SURVIVED or known["tests"] == self._tests[mutant.path]

    def verdict(self, mutant: Mutant) -> str | None:
        return self._known[mutant.name]["verdict"] if self.is_known(mutant) else None

    def add(self, mutant: Mutant, answer: dict[str, Any], left: int) -> None:
        verdict = TIMED_OUT if answer["timed_out"] else KILLED if answer["code"] else SURVIVED
        by = next(iter(answer.get("failed", [])), "")
        line = {
            "mutant": mutant.name, "line": mutant.line, "verdict": verdict, "by": by, "seconds": round(answer["seconds"], 2),
            "source": self._source[mutant.path], "tests": self._tests[mutant.path],
        }  # fmt: skip
        with self._lock:
            self._known[mutant.name] = line
            with self._path.open("a") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            print(f"{left:4} left  {verdict:14} {answer['seconds']:5.1f} s  {mutant.path}:{mutant.line}", flush=True)

    def usual_of(self, test: str) -> dict[str, float] | None:
        """Return by test what each took of the file ``test``; None where it or what it tests has changed since."""
        known = self.usual.get(test)
        return known["durations"] if known and known["digest"] == self._usual[test] else None

    def add_usual(self, test: str, answer: dict[str, Any]) -> None:
        self.usual[test] = {"digest": self._usual[test], "durations": answer["durations"], "modules": answer["modules"]}
        self._usual_path.write_text(json.dumps(self.usual))


def digest(*contents: bytes) -> str:
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:16]


def everything() -> bytes:
    """Return all code that any test may use."""
    paths = [*(REPOSITORY / "src").rglob("*.py"), *(REPOSITORY / "tests").glob("*.py")]
    return b"\0".join(path.read_bytes() for path in sorted(paths))


def read_if_there(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def print_report(chosen: Sequence[Mutant], results: Results) -> None:
    """Print the score of each file and of the whole sample, and every survivor."""
    counting = [mutant for mutant in chosen if not results.is_equivalent(mutant)]
    by_path: dict[str, Counter[str | None]] = {}
    for mutant in counting:
        by_path.setdefault(mutant.path, Counter())[results.verdict(mutant)] += 1
    for path, verdicts in by_path.items():
        tried = verdicts.total() - verdicts[None]
        print(f"{path:60} {tried - verdicts[SURVIVED]:4} of {tried:4} killed")
    survivors = [mutant for mutant in counting if results.verdict(mutant) == SURVIVED]
    for mutant in survivors:
        print(f"survived, line {mutant.line}: {mutant.name}")
    whole = sum((Counter(verdicts) for verdicts in by_path.values()), Counter[str | None]())
    tried, killed = whole.total() - whole[None], whole[KILLED] + whole[TIMED_OUT]
    print(f"{len(chosen) - len(counting)} of the sample are equivalent (benchmarks/mutation/equivalent.toml)")
    if whole[None]:
        print(f"{whole[None]} have not been tried: run it again to go on")
    if tried:
        low, high = wilson(killed, tried)
        print(
            f"{killed} of {tried} killed ({whole[TIMED_OUT]} by time): {100 * killed / tried:.1f} % "
            f"({100 * low:.1f}–{100 * high:.1f} %)"
        )


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927)."""
    share = successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return middle - half, middle + half
