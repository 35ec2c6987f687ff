"""Worker processes: what a job does to its process stays with that job."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from dispatch_parts import act, collect, facts, is_alive, job, run_all, wait_for, wait_until

from hydra_plugins.winnow_sweeper._job import CLOSING_SECONDS, Finished
from winnow.errors import WinnowError


def study(tmp_path, number):
    return tmp_path / "multirun" / "study" / str(number)


def test_each_of_16_jobs_knows_its_own_number_and_overrides(shared, new_jobs):
    (slots, folder), jobs = shared, [new_jobs() for _ in range(16)]
    ended = run_all(slots, jobs)
    assert sorted(finish.job.number for finish in ended) == [one.number for one in jobs]
    assert len({facts(folder, one.number)["pid"] for one in jobs}) == 2
    for finish in ended:
        said = facts(folder, finish.job.number)
        assert said["job"] == said["x"] == finish.job.number
        assert finish.outcome.values == (finish.job.number,)


def test_a_freed_slot_takes_the_next_job_while_a_long_one_runs(shared, new_jobs):
    slots, _ = shared
    long, *short = [new_jobs("act=listen"), *(new_jobs() for _ in range(5))]
    slots.submit(long)
    assert [finish.job for finish in run_all(slots, short)] == short
    slots.interrupt({long.number})
    assert collect(slots, 1)[long.number].job == long


def test_a_full_pool_takes_no_more(shared, new_jobs):
    slots, _ = shared
    jobs = [new_jobs("act=listen"), new_jobs("act=listen")]
    for one in jobs:
        slots.submit(one)
    assert slots.num_free() == 0
    with pytest.raises(ValueError, match="taken"):
        slots.submit(new_jobs())
    slots.interrupt()
    collect(slots, 2)


@pytest.mark.parametrize(("what", "death"), [
    ("kill", "killed by SIGKILL"),
    ("segfault", "killed by SIGSEGV"),
    ("os_exit", "exit code 4"),
    ("exit", "exit code 3"),
    ("fork_and_die", "killed by SIGKILL"),
])  # fmt: skip
def test_a_job_that_dies_is_lost_alone_and_its_slot_works_on(shared, new_jobs, what, death):
    slots, folder = shared
    jobs = [new_jobs("act=listen"), new_jobs(f"act={what}"), new_jobs()]
    for one in jobs[:2]:
        slots.submit(one)
    assert collect(slots, 1)[jobs[1].number] == Finished(jobs[1], death=death)
    slots.submit(jobs[2])
    assert collect(slots, 1)[jobs[2].number].outcome.status == "completed"
    wait_until(slots, (study(folder, jobs[0].number) / "begun").exists)
    slots.interrupt({jobs[0].number})
    assert collect(slots, 1)[jobs[0].number].outcome.reason == "saved"


@pytest.mark.parametrize(("overrides", "words"), [
    (("nosuch=1",), "nosuch"),
    (("act='unclosed",), "act="),
    (("act=raise",), "ZeroDivisionError: division by zero"),
    (("act=return_none",), "must return an Outcome, got 7"),
    (("+hydra.job.env_set.A=${nosuch:1}",), "nosuch"),
])  # fmt: skip
def test_what_raises_has_failed_and_its_traceback_lies_in_its_folder(shared, new_jobs, overrides, words):
    slots, folder = shared
    (finish,) = run_all(slots, [new_jobs(*overrides)])
    assert finish.outcome.status == "failed"
    assert words in finish.outcome.reason
    assert "\n" not in finish.outcome.reason
    assert "Traceback" in (study(folder, finish.job.number) / "output.log").read_text()


def test_all_that_a_job_says_goes_to_its_folder_and_nothing_to_the_console(shared, new_jobs, capfd):
    (slots, folder), jobs = shared, [new_jobs("act=speak"), new_jobs()]
    run_all(slots, jobs)
    first, second = (study(folder, one.number) for one in jobs)
    said = (first / "output.log").read_text()
    for line in ("spoken by Python", "spoken by a child", "spoken at the descriptor", "logged"):
        assert line in said
    assert "logged" in (first / "app.log").read_text()
    assert "spoken" not in (second / "output.log").read_text()
    assert capfd.readouterr() == ("", "")


def test_a_crash_leaves_where_it_was_in_the_folder(shared, new_jobs):
    slots, folder = shared
    (finish,) = run_all(slots, [new_jobs("act=segfault")])
    log = (study(folder, finish.job.number) / "output.log").read_text()
    assert "Fatal Python error: Segmentation fault" in log
    assert "dispatch_parts.py" in log


def test_the_next_job_finds_the_process_as_new(tmp_path, open_pool):
    run_all(open_pool(), [job(0, "act=leak"), job(1, "act=leak"), job(2)])
    first, second, third = (facts(tmp_path, number) for number in range(3))
    assert first["pid"] == second["pid"] == third["pid"]
    assert first["random"] != second["random"] != third["random"]
    for name in ("leaked", "cwd", "level"):
        assert first[name] == second[name] == third[name]


def test_job_folders_are_as_the_job_says(shared, new_jobs):
    slots, folder = shared
    (finish,) = run_all(slots, [new_jobs(subdir="3/seed_1", seed=1)])
    assert (study(folder, 3) / "seed_1" / "facts.json").exists()
    assert (study(folder, 3) / "seed_1" / ".hydra" / "overrides.yaml").read_text() == f"- x={finish.job.number}\n"
    assert finish.outcome.seed == 1


def test_a_worker_is_replaced_after_so_many_jobs(tmp_path, open_pool):
    slots = open_pool(recycle_after=2)
    run_all(slots, [job(number) for number in range(5)])
    pids = [facts(tmp_path, number)["pid"] for number in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    slots.close()
    assert not any(is_alive(pid) for pid in pids)


def test_an_idle_worker_that_is_killed_is_replaced(open_pool):
    slots = open_pool()
    run_all(slots, [job(0)])
    (old,) = slots.worker_pids
    os.kill(old, signal.SIGKILL)
    wait_until(slots, lambda: old not in slots.worker_pids)
    assert len(slots.worker_pids) == 1
    assert run_all(slots, [job(1)])[0].outcome.status == "completed"


@pytest.mark.parametrize("what", ["listen", "listen_late"])
def test_a_run_that_listens_saves_and_ends_when_it_is_asked(shared, new_jobs, what):
    (slots, folder), asked, unasked = shared, new_jobs(f"act={what}"), new_jobs("act=listen")
    slots.submit(asked)
    slots.submit(unasked)
    wait_until(slots, (study(folder, asked.number) / "begun").exists)
    slots.interrupt({asked.number})
    (finish,) = collect(slots, 1).values()
    assert (finish.job, finish.outcome.status, finish.outcome.reason) == (asked, "interrupted", "saved")
    assert not slots.wait(0.3), "the other one was not asked"
    slots.interrupt({unasked.number})
    assert collect(slots, 1)[unasked.number].outcome.reason == "saved"


def test_a_job_that_does_not_listen_is_interrupted_all_the_same_and_the_next_one_is_not(shared, new_jobs):
    (slots, folder), deaf = shared, new_jobs("act=stubborn")
    slots.submit(deaf)
    wait_until(slots, (study(folder, deaf.number) / "begun").exists)
    slots.interrupt()
    assert collect(slots, 1)[deaf.number].outcome.status == "interrupted"
    assert [finish.outcome.status for finish in run_all(slots, [new_jobs("seconds=0.3") for _ in range(2)])] == [
        "completed"
    ] * 2


def test_a_job_whose_worker_is_still_starting_is_given_back_at_once(tmp_path, open_pool):
    slots = open_pool()
    slots.submit(job(0))
    slots.interrupt()
    (finish,) = slots.wait(0.0)
    assert finish.outcome.status == "interrupted"
    assert run_all(slots, [job(0, attempt=1)])[0].outcome.status == "completed"


@pytest.mark.parametrize("at_once", [True, False])
def test_closing_leaves_no_process_but_a_detached_one(tmp_path, open_pool, at_once):
    slots = open_pool(2)
    slots.submit(job(0, "act=have_child"))
    slots.submit(job(1, "act=listen"))
    children = study(tmp_path, 0) / "children.json"
    wait_until(slots, lambda: children.exists() and children.read_text() and (study(tmp_path, 1) / "begun").exists())
    workers, (child, detached) = slots.worker_pids, json.loads(children.read_text())
    begun = time.monotonic()
    slots.close(at_once)
    assert time.monotonic() - begun < CLOSING_SECONDS / 2
    wait_for(lambda: not any(is_alive(pid) for pid in [*workers, child]))
    assert is_alive(detached)
    os.kill(detached, signal.SIGKILL)
    assert {finish.outcome.status for finish in slots.wait(0.0)} == (set() if at_once else {"interrupted"})


def test_workers_that_cannot_start_end_the_sweep_with_their_words(open_pool):
    slots = open_pool(warm_up=("no_such_module",))
    slots.submit(job(0))
    with pytest.raises(WinnowError, match=r"(?s)die as they start \(exit code 1\).*No module named 'no_such_module'"):
        collect(slots, 1)


def test_modules_are_warm_before_the_first_job(open_pool):
    slots = open_pool(task=is_warm, warm_up=("wave",))
    assert run_all(slots, [job(0)])[0].outcome.status == "completed"


def is_warm(config):
    assert "wave" in sys.modules
    return act(config)


SCRIPT = """
    import sys, json, os
    from pathlib import Path
    from dispatch_parts import act, compose_work, job, run_all, wait_for
    from hydra_plugins.winnow_sweeper._pool import PoolSlots

    def of_main(config):
        assert type(Here()).__module__ in ("__main__", "__mp_main__")
        return act(config)

    class Here:
        pass

    if __name__ == "__main__":
        folder = Path(sys.argv[1])
        slots = PoolSlots(compose_work(folder, task=of_main), 2)
        slots.submit(job(0, f"act={sys.argv[2]}"))
        slots.submit(job(1, f"act={sys.argv[3]}"))
        (folder / "pids").write_text(json.dumps(slots.worker_pids))
        while len(slots.wait(1.0)) < 9:
            pass
"""


@pytest.fixture
def start_script(tmp_path):
    def start(*acts):
        (tmp_path / "app.py").write_text(textwrap.dedent(SCRIPT))
        paths = [str(Path(__file__).parent), *sys.path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        processes.append(
            subprocess.Popen(
                [sys.executable, "app.py", str(tmp_path), *acts],
                cwd=tmp_path,
                env=environment,
                start_new_session=True,
                # A shell's background job, and what it starts, is deaf to Ctrl-C.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        )
        wait_for(lambda: all((study(tmp_path, number) / "begun").exists() for number in range(2)))
        return processes[-1], json.loads((tmp_path / "pids").read_text())

    processes = []
    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_when_the_sweep_is_killed_its_running_jobs_save_and_its_workers_end(tmp_path, start_script):
    parent, workers = start_script("listen", "report")
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in workers))
    assert facts(tmp_path, 0)  # it came to its own end


def test_a_terminals_ctrl_c_reaches_the_sweep_alone(tmp_path, start_script):
    parent, workers = start_script("listen", "listen")
    os.killpg(parent.pid, signal.SIGINT)
    parent.wait(120)
    wait_for(lambda: not any(is_alive(pid) for pid in workers))
    # Neither job heard the signal itself: both were asked to save by the workers' own watch over their dead parent.
    assert all(facts(tmp_path, number) for number in range(2))
