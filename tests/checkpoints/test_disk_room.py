import shutil

import pytest

from winnow.checkpoints.disk_room import disk_room, in_units
from winnow.checkpoints.folder import CheckpointFolder
from winnow.checkpoints.host_copy import state_bytes
from winnow.engine.loop import fit
from winnow.engine.stop import StopRequest


def test_the_room_asked_for_is_what_a_run_takes(make_fit):
    run = make_fit(max_epochs=6, keep_last_n=2, ema={"decay": 0.9})
    fit(run, StopRequest())
    room = disk_room(state_bytes(run.snapshot.take(run.state)), run.checkpoints, 6)
    files = {path.stat().st_ino for path in run.checkpoints.folder.glob("*.pth")}
    assert room.num_files >= len(files) + 1  # the one that is being written
    assert room.held_bytes == sum(path.stat().st_size for path in run.checkpoints.folder.glob("checkpoint_*.pth")) + (
        0 if run.checkpoints.best.samefile(run.checkpoints.last) else run.checkpoints.best.stat().st_size
    )


@pytest.mark.parametrize(("save_interval", "keep_last_n", "epochs", "files"), [
    (5, 3, 100, 5), (5, 3, 12, 4), (5, 0, 100, 2), (1, 3, 2, 2), (1, 10, 1, 1),
])  # fmt: skip
def test_best_last_and_the_numbered_ones_are_kept(tmp_path, save_interval, keep_last_n, epochs, files):
    assert CheckpointFolder(tmp_path, save_interval, keep_last_n).most_files(epochs) == files


def test_the_disk_of_a_folder_that_is_not_there_yet_is_asked(tmp_path):
    room = disk_room(10**6, CheckpointFolder(tmp_path / "outputs/run/checkpoints", 1, 1), 10)
    assert (room.folder, room.needed_bytes, room.held_bytes) == (tmp_path, 4 * 10**6, 0)
    assert room.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_too_small_a_disk_is_said_at_the_start_of_a_training_and_does_not_end_it(make_fit, caplog):
    stop = StopRequest()
    stop.requested = True
    run = make_fit(max_epochs=10**12, save_interval=1, keep_last_n=10**12)
    assert fit(run, stop) == "interrupted"
    assert "NOT ENOUGH DISK for this run's checkpoints: 1000000000001 checkpoints of" in caplog.text


def test_what_is_never_reached_is_not_asked_for(make_fit, caplog):
    run = make_fit(max_epochs=10**12, max_iter=12, save_interval=1, keep_last_n=10**12)
    assert fit(run, StopRequest()) == "completed"
    assert "NOT ENOUGH DISK" not in caplog.text


@pytest.mark.parametrize(("size", "words"), [(999, "999 B"), (1_234_567, "1.2 MB"), (5e9, "5.0 GB"), (5e13, "50.0 TB")])
def test_sizes_are_told_in_units(size, words):
    assert in_units(size) == words
