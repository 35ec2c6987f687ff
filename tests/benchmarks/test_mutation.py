"""The mutation run: what it changes, what it draws, and what it takes as known."""

import ast
import sys
import tomllib

import pytest
from composed import REPOSITORY

sys.path.append(str(REPOSITORY / "benchmarks"))

from mutation.operators import Mutant, mutants_of, sample_of
from mutation.results import EQUIVALENT, KILLED, SURVIVED, Results, print_report, wilson
from mutation.targets import TESTS_OF

SOURCE = b'''
"""A docstring with 1 < 2."""
import torch


@torch.no_grad()
def chosen(values: list[int], least: float = 0.5) -> int | None:
    """Return 1."""
    logger.info("of %d", len(values) - 1)
    if not values or values[-1] <= least:
        raise ValueError(f"too few: {len(values) + 1}")
    total = 0
    for value in values:
        if value in ("a", 3):
            continue
        total += value * 2
    with torch.no_grad():
        torch.stack(values, dim=0, out=total).detach().to(device)
    self.total = total
    return max(total, 1)
'''


def changes(source=SOURCE):
    return {(mutant.before, mutant.after) for mutant in mutants_of("a.py", source)}


@pytest.mark.parametrize(("before", "after"), [
    ("0.5", "1.0"), ("1", "2"), ("values[-1] <= least", "(values[-1] < least)"), ("values[-1] <= least", "(values[-1] > least)"),
    ("not values or values[-1] <= least", "(not values and values[-1] <= least)"), ("not values", "values"),
    ('raise ValueError(f"too few: {len(values) + 1}")', "pass"), ("continue", "break"), ("total += value * 2", "pass"),
    ("total += value * 2", "total -= value * 2"), ("value * 2", "(value / 2)"), ('value in ("a", 3)', "(value not in ('a', 3))"),
    ("torch.no_grad()", "(lambda function: function)"), ("torch.no_grad()", "__import__('contextlib').nullcontext()"),
    ("torch.stack(values, dim=0, out=total)", "torch.stack(values, dim=0)"),
    ("torch.stack(values, dim=0, out=total)", "values"), ("self.total = total", "pass"), ("return max(total, 1)", "return None"),
    ("max(total, 1)", "min(total, 1)"), ("max(total, 1)", "total"),
    ("torch.stack(values, dim=0, out=total).detach()", "torch.stack(values, dim=0, out=total)"),
])  # fmt: skip
def test_what_a_bug_could_be_is_offered(before, after):
    assert (before, after) in changes()


def test_words_types_and_devices_are_left_alone():
    offered = changes()
    assert not {
        before for before, _ in offered if "logger" in before or before in ("int | None", "len(values) + 1", "1 < 2")
    }
    moved = "torch.stack(values, dim=0, out=total).detach()"
    assert [after for before, after in offered if before == f"{moved}.to(device)"] == ["pass"]


def test_each_mutant_is_another_program_of_one_change():
    unchanged = ast.dump(ast.parse(SOURCE))
    mutants = mutants_of("a.py", SOURCE)
    assert len({mutant.name for mutant in mutants}) == len(mutants) > 25
    for mutant in mutants:
        assert ast.dump(ast.parse(mutant.applied(SOURCE))) != unchanged
        assert SOURCE[mutant.start : mutant.end].decode().split() == mutant.before.split()


def test_names_and_order_stay_when_a_file_changes_elsewhere():
    longer = "# eine Größe\n".encode() + SOURCE + b"\n\ndef more():\n    return 1 + 1\n"
    before, after = ({mutant.name: mutant for mutant in mutants_of("a.py", source)} for source in (SOURCE, longer))
    assert before.keys() < after.keys()
    assert [mutant.rank(3) for mutant in before.values()] == [after[name].rank(3) for name in before]
    assert {after[name].line - mutant.line for name, mutant in before.items()} == {1}


def test_a_sample_is_spread_over_the_files_and_chosen_by_its_seed():
    files = {"a.py": mutants_of("a.py", SOURCE), "b.py": mutants_of("b.py", b"x = 1 + 2 + 3 + 4\n")}
    sizes = [len(mutants) for mutants in files.values()]
    first, second, other = (list(sample_of(files, 20, seed)) for seed in (0, 0, 1))
    assert first == second != other
    counts = [sum(mutant.path == path for mutant in first) for path in files]
    assert sum(counts) == 20
    assert counts == [pytest.approx(20 * size / sum(sizes), abs=1) for size in sizes]
    assert sorted(sample_of(files, 10**6, 0), key=hash) == sorted(files["a.py"] + files["b.py"], key=hash)


def test_every_file_and_its_tests_are_there():
    assert all(
        (REPOSITORY / path).is_file() for path in [*TESTS_OF, *(test for tests in TESTS_OF.values() for test in tests)]
    )


PATH = "src/winnow/engine/ema.py"


def mutant(number=0, path=PATH):
    return Mutant(path, "Ema.update", 3, 0, 1, "a", "b", number)


def test_survivors_are_tried_again_when_their_tests_change_and_all_when_the_source_does(tmp_path, capsys):
    results = Results(tmp_path)
    assert not results.is_known(mutant())
    for number, code in enumerate((0, 1, -9)):
        results.add(mutant(number), {"code": code, "timed_out": code == -9, "seconds": 1.0, "failed": []}, left=0)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"mutant": "torn')
    again = Results(tmp_path)
    assert [again.verdict(mutant(number)) for number in range(4)] == [SURVIVED, KILLED, "killed by time", None]
    again._tests[PATH] = "changed"
    assert [again.verdict(mutant(number)) for number in range(3)] == [None, KILLED, "killed by time"]
    again._source[PATH] = "changed"
    assert {again.verdict(mutant(number)) for number in range(3)} == {None}


def test_the_report_counts_what_was_tried_and_is_not_equivalent(tmp_path, capsys):
    results = Results(tmp_path)
    for number in range(10):
        results.add(mutant(number), {"code": int(number > 1), "timed_out": number == 9, "seconds": 1.0}, left=0)
    results.equivalent = {mutant(0).name: "because"}
    capsys.readouterr()
    print_report([mutant(number) for number in range(12)], results)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [PATH, "8", "of", "9", "killed"]
    assert lines[1:] == [
        f"survived, line 3: {PATH} Ema.update: a → b (2)",
        "1 of the sample are equivalent (benchmarks/mutation/equivalent.toml)",
        "2 have not been tried: run it again to go on",
        "8 of 9 killed (1 by time): 88.9 % (56.5–98.0 %)",
    ]


@pytest.mark.parametrize(("killed", "tried", "interval"), [
    (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (270, 300, (0.8608, 0.9291)),
])  # fmt: skip
def test_the_interval_is_wilsons(killed, tried, interval):
    assert wilson(killed, tried) == (pytest.approx(interval[0], abs=1e-4), pytest.approx(interval[1], abs=1e-4))


def test_equivalent_mutants_have_a_reason():
    reasons = tomllib.loads(EQUIVALENT.read_text())["reasons"]
    assert all(len(reason) > 20 for reason in reasons.values())
    assert {name.partition(" ")[0] for name in reasons} <= TESTS_OF.keys()
