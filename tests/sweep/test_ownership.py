"""Whether the owner of a trial lives: by its process where it can be seen, else by its heartbeats."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from winnow.process import ProcessStamp, process_start
from winnow.sweep.ownership import HEARTBEAT, Heartbeats, Liveness, liveness

STAMP = """
import sys
from winnow.process import ProcessStamp
print(ProcessStamp.this_process().to_json(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other():
    """Start another process that lives until its input ends, and its stamp."""
    process = subprocess.Popen([sys.executable, "-c", STAMP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process, ProcessStamp.from_json(process.stdout.readline())
    process.kill()
    process.communicate()


def judge(owner):
    return liveness(owner, Heartbeats(60))


def test_this_process_lives():
    assert judge(ProcessStamp.this_process()) == Liveness.ALIVE


def test_another_process_lives_until_it_is_killed(other):
    process, owner = other
    assert owner.pid == process.pid
    assert judge(owner) == Liveness.ALIVE
    process.kill()
    deadline = time.monotonic() + 60
    while judge(owner) != Liveness.DEAD:  # nobody has waited for it, so it is a zombie
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert os.path.exists(f"/proc/{process.pid}")
    process.wait()
    assert judge(owner) == Liveness.DEAD


def test_a_later_process_of_the_same_number_is_another(other):
    _, owner = other
    assert judge(replace(owner, start_time=str(int(owner.start_time) - 1))) == Liveness.DEAD


@pytest.mark.parametrize("field", ["host", "boot_id", "pid_namespace"])
def test_nothing_is_said_of_a_process_that_cannot_be_seen(field):
    assert judge(replace(ProcessStamp.this_process(), **{field: "other"})) == Liveness.UNKNOWN


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_a_process_of_another_namespace_is_not_looked_up_here(other):
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", STAMP]
    inside = subprocess.run(command, input="", capture_output=True, text=True, check=True)
    owner = ProcessStamp.from_json(inside.stdout)
    assert owner.pid == 1  # a process of that number lives here
    assert judge(owner) == Liveness.UNKNOWN


def test_a_stamp_is_read_back():
    owner = ProcessStamp.this_process()
    assert ProcessStamp.from_json(owner.to_json()) == owner
    with pytest.raises(ValueError, match="no stamp of a process"):
        ProcessStamp.from_json('{"host": "a"}')


def test_a_process_that_is_not_there_has_no_start():
    assert process_start(2**22 + 1) is None


class Watch:
    """Heartbeats of one owner on a clock that only the test moves."""

    def __init__(self):
        self.now, self.count = 0.0, 0
        self.heartbeats = Heartbeats(60, clock=lambda: self.now)

    def look(self, seconds, num_looks, beats):
        for _ in range(num_looks):
            self.now += seconds
            self.count += beats
            self.heartbeats.look({HEARTBEAT + "far": self.count} if self.count else {})
        return self.heartbeats.liveness("far").value


@pytest.mark.parametrize(("looks", "expected"), [
    ([(5, 1, 1)], "unknown"),
    ([(5, 2, 1)], "alive"),
    ([(5, 2, 1), (5, 11, 0)], "alive"),
    ([(5, 2, 1), (5, 12, 0)], "dead"),
    ([(5, 2, 1), (5, 12, 0), (5, 1, 1)], "alive"),
    ([(5, 1, 1), (5, 11, 0)], "unknown"),
    ([(5, 1, 1), (5, 12, 0)], "dead"),
    ([(5, 2, 1), (3600, 1, 0)], "alive"),   # we were stopped: he may have been too
    ([(5, 2, 1), (3600, 5, 0)], "dead"),
])  # fmt: skip
def test_an_owner_out_of_sight_lives_as_long_as_his_heartbeat_changes(looks, expected):
    watch = Watch()
    assert [watch.look(*look) for look in looks][-1] == expected


def test_an_owner_who_never_beat_is_dead_after_the_observation():
    watch = Watch()
    assert watch.look(5, 1, 0) == "unknown"
    assert watch.look(5, 12, 0) == "dead"
