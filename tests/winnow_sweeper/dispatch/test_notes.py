"""What a sweep's jobs on other machines read and write, and what becomes of it when the sweep dies."""

import subprocess
import sys

import pytest
from dispatch_parts import wait_for
from small_disk import small_disk

from hydra_plugins.winnow_sweeper._notes import Notes, clear_up
from winnow.sweep.outcome import Outcome

SWEEP = """
import sys, time
from pathlib import Path
from hydra_plugins.winnow_sweeper._notes import Notes
notes = Notes.new(Path(sys.argv[1]))
notes.submit("3-0", "")
print(notes.folder, flush=True)
time.sleep(600)
"""


@pytest.fixture
def other_sweep(tmp_path):
    """Start another process that has submitted a job, and its notes."""
    process = subprocess.Popen([sys.executable, "-c", SWEEP, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    yield process, Notes(tmp_path / process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_a_dead_sweeps_jobs_are_told_to_end_and_its_notes_are_removed(tmp_path, other_sweep):
    process, left = other_sweep
    own = Notes.new(tmp_path)
    clear_up(tmp_path)
    assert not left.must_stop("3-0")
    process.kill()  # nobody has waited for it, so it is a zombie
    wait_for(lambda: clear_up(tmp_path) or not left.folder.exists())
    assert [path.name for path in tmp_path.iterdir()] == [own.folder.name]
    assert left.must_stop("3-0")
    assert not own.must_stop("3-0")
    left.end("3-0", Outcome("completed"))  # as its job does
    assert not left.folder.exists()


@pytest.mark.parametrize(
    "owner", [None, "torn", '{"host": "far", "boot_id": "b", "pid_namespace": "", "pid": 1, "start_time": "1"}']
)
def test_notes_of_somebody_who_cannot_be_seen_stay(tmp_path, owner):
    notes = Notes.new(tmp_path)
    (notes.folder / "owner.json").unlink()
    if owner is not None:
        (notes.folder / "owner.json").write_text(owner)
    clear_up(tmp_path)
    assert notes.folder.exists()


def test_a_job_knows_its_first_start_and_its_answer(tmp_path):
    notes = Notes.new(tmp_path)
    assert (notes.is_unstarted("3-0"), notes.start("3-0"), notes.start("3-0")) == (True, False, True)
    assert notes.outcome("3-0") is None
    notes.end("3-0", Outcome("completed", values=(0.5,)))
    assert notes.outcome("3-0").values == (0.5,)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"status": "zork"}', b"[" * 10**5])
def test_a_damaged_note_counts_as_absent(tmp_path, content, caplog):
    notes = Notes.new(tmp_path)
    (notes.folder / "3-0.ended").write_bytes(content)
    assert notes.outcome("3-0") is None
    assert "3-0.ended is damaged and counts as absent" in caplog.text


def test_a_note_that_the_disk_refuses_ends_neither_job_nor_sweep(tmp_path, caplog):
    with small_disk(tmp_path / "small") as place:
        notes = Notes.new(place)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        notes.end("7-0", Outcome("completed", values=(1.0,)))
        notes.ask_to_stop("8-0")
    assert [record.getMessage().partition(": [Errno 30]")[0] for record in caplog.records] == [
        "the end of job 7-0 was not noted", "job 8-0 was not asked to stop",
    ]  # fmt: skip
