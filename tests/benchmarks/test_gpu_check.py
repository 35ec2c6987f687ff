"""The GPU check's machinery: limits, results after each part, and verdicts that never flatter."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from composed import REPOSITORY

sys.path.append(str(REPOSITORY / "benchmarks"))

from gpu_parts.forked import start
from gpu_parts.leases import held_until_asked, trial_times
from gpu_parts.outcome import Figure, Outcome, Part, Place, Skipped, at_least, at_most, required
from gpu_parts.report import table, write_results
from gpu_parts.runs import COMPARED, differing
from gpu_parts.schedule import closing_words, run_part, run_parts
from gpu_parts.wheels import TARGET, installed_there, lacking

SCRIPT = REPOSITORY / "benchmarks" / "gpu_check.py"


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "work", tmp_path / "data", "cpu", smoke=False)


@pytest.fixture
def run_all(place, tmp_path):
    """Return a function that runs parts and returns the outcomes by name, with what stood in the results after each part."""

    def run(*parts, seconds=20.0, smoke=False):
        stood = []

        def report(outcomes):
            write_results(tmp_path, {"card": "none"}, outcomes)
            stood.append(
                {part["part"]: part["verdict"] for part in json.loads((tmp_path / "results.json").read_text())["parts"]}
            )

        where = Place(place.folder, place.data, place.device, smoke)
        outcomes = run_parts(parts, where, time.monotonic() + seconds, report, tmp_path / "log.txt")
        return {outcome.part: outcome for outcome in outcomes}, stood

    return run


def good(place):
    """a figure with an aim"""
    sys.stdout.write("good was here\n")
    yield at_least("speed", 3.0, 2.0, "×")


def slow(place):
    """a figure, and then none for a minute"""
    yield Figure("first", 1.0)
    (place.folder / "started").write_text(str(os.getpid()))
    time.sleep(60)
    yield Figure("second", 2.0)


def absent(place):
    """something that needs what is not there"""
    yield Figure("before", 1.0)
    raise Skipped("the package kernels is not installed")


def broken(place):
    """an error"""
    yield at_least("speed", 3.0, 2.0)
    raise ValueError("no such thing")


def dying(place):
    """a process that dies"""
    yield at_least("speed", 3.0, 2.0)
    os._exit(3)


def silent(place):
    """nothing found"""
    yield from ()


def test_results_are_written_after_each_part_in_order(run_all, tmp_path):
    outcomes, stood = run_all(Part("one", 20, good), Part("two", 20, good))
    assert stood == [{"one": "passed", "two": "not run"}, {"one": "passed", "two": "passed"}]
    assert closing_words(list(outcomes.values())) == "2 passed; no part is missing"
    assert (tmp_path / "log.txt").read_text() == "== one\ngood was here\n\n== two\ngood was here\n\n"


def test_a_part_is_stopped_at_its_own_limit_and_leaves_what_it_had(run_all, place):
    outcomes, _ = run_all(Part("slow", 1, slow), Part("good", 20, good))
    assert (outcomes["slow"].verdict, outcomes["good"].verdict) == ("stopped", "passed")
    assert [figure.name for figure in outcomes["slow"].figures] == ["first"]
    assert outcomes["slow"].reason == "stopped after 1 s"
    pid = int((place.folder / "parts" / "slow" / "started").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_a_part_started_ends_with_it(place):
    def leaving(place):
        """a process that is left running"""
        child = subprocess.Popen(["sleep", "60"])
        yield Figure("pid", float(child.pid))

    place.folder.mkdir()
    pid = int(run_part(Part("leaving", 10, leaving), place, 10).figures[0].value)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and state_of(pid) != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_script_stops_when_the_time_is_over_and_names_the_missing(run_all, monkeypatch):
    monkeypatch.setattr("gpu_parts.schedule.LEAST_SECONDS", 0.5)
    outcomes, _ = run_all(Part("slow", 60, slow), Part("one", 20, good), Part("two", 20, good), seconds=1.0)
    assert [outcome.verdict for outcome in outcomes.values()] == ["stopped", "not run", "not run"]
    assert outcomes["slow"].reason == "stopped after 1 s"  # what is left, not its own limit
    words = closing_words(list(outcomes.values()))
    assert words == "1 stopped, 2 not run; missing: slow, one, two (again: --only slow one two)"


@pytest.mark.parametrize(("find", "verdict", "reason"), [
    (absent, "skipped", "the package kernels is not installed"),
    (broken, "failed", "ValueError: no such thing"),
    (dying, "failed", "its process ended with 3 and 1 figures"),
    (silent, "failed", "its process ended with 0 and 0 figures"),
])  # fmt: skip
def test_what_did_not_come_to_its_end_never_passes(run_all, find, verdict, reason):
    outcomes, _ = run_all(Part("part", 20, find))
    assert (outcomes["part"].verdict, outcomes["part"].reason) == (verdict, reason)


@pytest.mark.parametrize(("find", "verdict"), [(good, "rehearsed"), (absent, "skipped"), (broken, "failed")])
def test_a_rehearsal_passes_nothing(run_all, find, verdict):
    outcomes, _ = run_all(Part("part", 20, find), smoke=True)
    assert outcomes["part"].verdict == verdict
    assert not {"passed", "missed", "measured"} & {figure.verdict for figure in outcomes["part"].figures}


@pytest.mark.parametrize(("figures", "verdict"), [
    ([Figure("a", 1.0)], "measured"),
    ([Figure("a", 1.0), at_least("b", 2.0, 2.0)], "passed"),
    ([at_least("a", 2.0, 2.0), at_most("b", 1.01, 1.0)], "missed"),
    ([at_least("a", 1.99, 2.0), Figure("b", "no package", verdict="skipped")], "skipped"),
    ([at_most("a", 0.5, 1.0), required("b", False, "different: rng", "equal bits")], "failed"),
    ([], "failed"),
])  # fmt: skip
def test_a_part_is_as_good_as_the_worst_of_its_figures(figures, verdict):
    assert Outcome("part", figures).verdict == verdict


def test_the_table_has_a_row_per_figure_and_per_reason():
    outcomes = [
        Outcome("fast", [at_least("speed", 1.5, 2.0, "×")]),
        Outcome("kernel", ended="skipped", reason="a | b\nc"),
    ]
    assert table(outcomes).splitlines() == [
        "| part   | what  | value   | aim | verdict |",
        "| ------ | ----- | ------- | --- | ------- |",
        "| fast   | speed | 1.5 ×   | ≥ 2 | missed  |",
        "| kernel |       | a / b c |     | skipped |",
    ]


def test_checkpoints_differ_by_one_bit():
    one = dict.fromkeys(COMPARED, 1) | {"model_state_dict": {"weight": torch.tensor([1.0, 2.0])}}
    other = {
        **one,
        "model_state_dict": {"weight": torch.nextafter(one["model_state_dict"]["weight"], torch.tensor(9.0))},
    }
    assert differing(one, one) == []
    assert differing(one, other) == ["model_state_dict"]


@pytest.mark.parametrize("asks", [True, False])
def test_the_sweep_with_the_card_stands_still_until_the_other_asks(tmp_path, place, asks):
    place.folder.mkdir()
    over = tmp_path / "over"

    def hold():
        while not over.exists():
            time.sleep(0.005)

    def ask():
        deadline = time.monotonic() + 20
        while state_of(holder.pid) != "T":  # however long it takes to come to ask
            assert time.monotonic() < deadline
            time.sleep(0.005)
        sys.stdout.write(f"waiting: other sweeps hold 0 (process {holder.pid})" if asks else "shares the card")
        over.touch()

    holder = start(hold, tmp_path / "holder.log")
    other = start(ask, place.folder / "second.log")
    try:
        assert held_until_asked(place, holder, "second", other) == asks
        assert (holder.wait(20), other.wait(20)) == (0, 0)
    finally:
        holder.kill()
        other.kill()


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_trial_lasts_from_its_config_to_its_result(place):
    for number, files in enumerate((("config.yaml", "result.json"), ("config.yaml",))):
        run = place.folder / "first" / str(number)
        run.mkdir(parents=True)
        for moment, name in enumerate(files):
            (run / name).touch()
            os.utime(run / name, (0, 100 * number + moment))
    assert trial_times(place, "first") == [(0, 1), (100, float("inf"))]


@pytest.mark.parametrize(("requirements", "there", "expected"), [
    (["numpy"], {"numpy": None}, []),
    (["numpy>=1.26"], {"numpy": "2.5.2"}, []),
    (["iniconfig>=99"], {"iniconfig": "2.0"}, ["iniconfig"]),  # there, but too old
    (["mlflow"], {}, []),  # not used with tracking=off
    (["Mako; python_version < '3.12'"], {}, []),
    (["Mako"], {}, ["mako", "markupsafe"]),  # and what it needs
])  # fmt: skip
def test_what_is_lacking_there_travels(requirements, there, expected):
    assert [text.partition("==")[0].lower() for text in lacking(requirements, there)] == expected


def test_the_list_of_what_is_there_reads():
    there = installed_there()
    assert there["torch"].startswith("2.")
    assert there["pytest"] is None
    assert TARGET["python_version"] == "3.12"


def test_without_a_device_everything_is_skipped(tmp_path, monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    for name in ("PYTORCH_NVML_BASED_CUDA_CHECK", "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # as it was, afterwards: the script changes both
    import gpu_check

    own = ["gpu_check.py", "--cold", "--only", "precision", "leases", "--seconds", "1e6", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", own)
    assert gpu_check.main() == 0
    assert "2 skipped; no part is missing" in capsys.readouterr().out
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert [(part["part"], part["verdict"], part["reason"]) for part in parts] == [
        ("precision", "skipped", "no CUDA device"), ("leases", "skipped", "no CUDA device"),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_rehearsal_runs_every_part(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--smoke", "--seconds", "1500", "--out", str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    parts = {part["part"]: part for part in json.loads((tmp_path / "results.json").read_text())["parts"]}
    verdicts = {name: part["verdict"] for name, part in parts.items()}
    without_kernel = {"tests": "skipped", "attention": "skipped"}
    # accelerate is an extra: without it the Trainer's figures are skipped.
    race = {
        "race": "skipped" if "skipped" in {figure["verdict"] for figure in parts["race"]["figures"]} else "rehearsed"
    }
    assert verdicts == dict.fromkeys(verdicts, "rehearsed") | without_kernel | race, ended.stdout
    assert "no part is missing" in ended.stdout
    assert ended.returncode == 0
