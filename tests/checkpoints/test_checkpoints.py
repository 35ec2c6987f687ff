"""The checkpoints folder with its background writer, on good days and bad ones."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import OrderedDict

import pytest
import torch

from winnow.checkpoints.file import KEYS, VERSION, link_or_copy, read_checkpoint, write_checkpoint
from winnow.checkpoints.folder import CheckpointFolder


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints", save_interval=1, keep_last_n=2)


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a filesystem of 1 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("not allowed to mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def content(epoch, size=50_000, **more):
    weights = {"weight": torch.full((size,), float(epoch))}
    return {**dict.fromkeys(KEYS), "version": VERSION, "epoch": epoch, "model_state_dict": weights, **more}


def always():
    return True


def epoch_in(path):
    checkpoint = read_checkpoint(path)
    assert (checkpoint["model_state_dict"]["weight"] == checkpoint["epoch"]).all()
    return checkpoint["epoch"]


def names(folder):
    return sorted(path.name for path in folder.folder.iterdir())


class Held:
    """A value that takes until ``released`` to be written."""

    def __init__(self):
        self.reached, self.released = threading.Event(), threading.Event()

    def __reduce__(self):
        self.reached.set()
        assert self.released.wait(120)
        return OrderedDict, ()  # one of the few things that loading allows


def test_training_may_change_the_weights_as_soon_as_save_returns(folder):
    held, checkpoint = Held(), content(1)
    with folder:
        checkpoint["metadata"] = held
        folder.save_last(checkpoint, recorded=always)
        assert held.reached.wait(120)
        checkpoint["model_state_dict"]["weight"].fill_(-1)
        checkpoint["epoch"] = -1
        held.released.set()
    assert epoch_in(folder.last) == 1


def test_leaving_the_folder_waits_for_the_write(folder):
    held = Held()
    with folder:
        folder.save_last(content(1, metadata=held), recorded=always)
        assert not folder.last.exists()
        threading.Timer(0.3, held.released.set).start()
    assert epoch_in(folder.last) == 1


def test_a_save_waits_for_the_one_before_and_says_so_when_it_takes_long(folder, caplog):
    held = Held()
    with folder:
        folder.save_last(content(1, metadata=held), recorded=always)
        threading.Timer(2.0, held.released.set).start()
        folder.save_last(content(2), recorded=always)
        assert epoch_in(folder.last) >= 1
    assert epoch_in(folder.last) == 2
    assert re.search(r"training waited [1-9]", caplog.text)


def test_a_checkpoint_appears_only_when_the_record_of_its_numbers_is_on_disk(folder):
    asked, answers = threading.Event(), iter([False, False, True])

    def recorded():
        asked.set()
        assert not folder.last.exists()
        return next(answers)

    with folder:
        folder.save_last(content(1), recorded)
        assert asked.wait(120)
    assert (next(answers, None), epoch_in(folder.last)) == (None, 1)


def test_tensors_that_share_a_storage_are_written_once(folder):
    checkpoint = content(1, size=500_000)
    weights = checkpoint["model_state_dict"]
    with folder:
        folder.save_last(
            {**checkpoint, "ema_state_dict": {"weights": weights}, "training_state_dict": dict(weights)},
            recorded=always,
        )
    assert folder.last.stat().st_size < 1.1 * weights["weight"].nbytes


def test_last_best_and_epoch_are_one_file(folder):
    with folder:
        folder.save_epoch(content(1), is_best=True, recorded=always)
    assert names(folder) == ["best.pth", "checkpoint_epoch_1.pth", "last.pth"]
    assert folder.last.stat().st_nlink == 3
    with folder:
        folder.save_epoch(content(2), is_best=False, recorded=always)
    assert [epoch_in(path) for path in (folder.best, folder.last)] == [1, 2]


def test_last_appears_only_after_the_names_that_it_would_never_make_up_for(folder):
    (folder.folder / "checkpoint_epoch_1.pth").mkdir(parents=True)
    with folder:
        folder.save_epoch(content(1), is_best=True, recorded=always)
        folder.wait()
        assert names(folder) == ["best.pth", "checkpoint_epoch_1.pth"]


def test_where_there_are_no_hard_links_each_name_gets_its_copy(tmp_path, small_disk):
    write_checkpoint(tmp_path / "last.pth", content(1))
    link_or_copy(tmp_path / "last.pth", small_disk / "best.pth")  # no link leads to another disk
    assert epoch_in(small_disk / "best.pth") == 1


def test_a_full_disk_costs_only_the_save_that_did_not_fit(small_disk, caplog):
    folder = CheckpointFolder(small_disk, save_interval=1, keep_last_n=1)
    with folder:
        folder.save_epoch(content(1), is_best=False, recorded=always)
        folder.save_epoch(content(2, size=500_000), is_best=False, recorded=always)
        folder.wait()
        assert "checkpoint_epoch_2.pth, last.pth" in caplog.text
        assert "NOT saved, training goes on and tries again at the next save: [Errno 28] No space left" in caplog.text
        assert names(folder) == ["checkpoint_epoch_1.pth", "last.pth"]
        assert epoch_in(folder.last) == 1
        folder.save_epoch(content(3), is_best=False, recorded=always)
    assert (names(folder), epoch_in(folder.last)) == (["checkpoint_epoch_3.pth", "last.pth"], 3)


@pytest.mark.parametrize("saves_after", [0, 1])
def test_a_best_that_did_not_fit_is_written_when_there_is_room_again(small_disk, saves_after):
    folder = CheckpointFolder(small_disk, save_interval=1, keep_last_n=1)
    hog = small_disk / "hog"
    with folder:
        hog.write_bytes(bytes(900_000))
        folder.save_epoch(content(1), is_best=True, recorded=always)
        folder.wait()
        assert names(folder) == ["hog"]
        hog.unlink()
        for epoch in range(2, 2 + saves_after):
            folder.save_epoch(content(epoch), is_best=False, recorded=always)
    assert epoch_in(folder.best) == 1
    assert folder.last.exists() == bool(saves_after)


def test_a_best_that_never_fits_is_named_at_the_end(small_disk, caplog):
    folder = CheckpointFolder(small_disk, save_interval=1, keep_last_n=1)
    with folder:
        folder.save_epoch(content(1, size=500_000), is_best=True, recorded=always)
        folder.save_epoch(content(2), is_best=False, recorded=always)
    assert epoch_in(folder.last) == 2
    assert "best.pth is not what the run's best was" in caplog.text


def test_keeping_no_epochs_deletes_none_of_earlier(folder):
    with folder:
        folder.save_epoch(content(1), is_best=False, recorded=always)
    with CheckpointFolder(folder.folder, save_interval=1, keep_last_n=0) as keeping_none:
        keeping_none.save_epoch(content(2), is_best=False, recorded=always)
    assert names(folder) == ["checkpoint_epoch_1.pth", "last.pth"]


def test_a_newer_best_replaces_the_one_that_did_not_fit(small_disk):
    folder = CheckpointFolder(small_disk, save_interval=1, keep_last_n=1)
    with folder:
        folder.save_epoch(content(1, size=500_000), is_best=True, recorded=always)
        folder.save_epoch(content(2), is_best=True, recorded=always)
    assert epoch_in(folder.best) == epoch_in(folder.last) == 2


def test_a_disk_that_turns_read_only_is_an_error_in_the_log(small_disk, caplog):
    folder = CheckpointFolder(small_disk, save_interval=1, keep_last_n=1)
    with folder:
        folder.save_last(content(1), recorded=always)
        folder.wait()
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        folder.save_last(content(2), recorded=always)
        folder.wait()
        assert "Read-only file system" in caplog.text
        assert epoch_in(folder.last) == 1
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        folder.save_last(content(3), recorded=always)
    assert epoch_in(folder.last) == 3


def test_a_folder_that_vanishes_during_a_write_is_made_again_by_the_next(folder, caplog):
    held = Held()
    with folder:
        folder.save_last(content(1, metadata=held), recorded=always)
        assert held.reached.wait(120)
        shutil.rmtree(folder.folder)
        held.released.set()
        folder.save_last(content(2), recorded=always)
        assert "last.pth in" in caplog.text
        assert "NOT saved" in caplog.text
    assert (names(folder), epoch_in(folder.last)) == (["last.pth"], 2)


def test_what_the_writer_died_of_is_raised_in_training_at_the_next_save(folder, caplog):
    folder.save_last(content(1, metadata=(number for number in range(3))), recorded=always)
    with pytest.raises(TypeError, match="generator"):
        folder.save_last(content(2), recorded=always)
    assert "the checkpoint writer died" in caplog.text


def test_what_the_writer_died_of_is_raised_at_the_end(folder):
    with pytest.raises(TypeError, match="generator"), folder:
        folder.save_last(content(1, metadata=(number for number in range(3))), recorded=always)


def test_a_loader_may_start_workers_while_a_checkpoint_is_written(folder):
    held = Held()
    with folder:
        folder.save_last(content(1, metadata=held), recorded=always)
        assert held.reached.wait(120)
        loader = torch.utils.data.DataLoader(torch.arange(4), num_workers=1, timeout=120)
        assert [int(batch) for batch in loader] == [0, 1, 2, 3]
        held.released.set()
    assert epoch_in(folder.last) == 1


def test_a_leftover_that_is_another_name_of_best_is_removed_not_written_over(folder):
    with folder:
        folder.save_epoch(content(1), is_best=True, recorded=always)
    (folder.folder / f".last.pth.{os.getpid()}.tmp").hardlink_to(folder.best)
    folder.save_last(content(2), recorded=always)  # not entered: the leftover is still there
    folder.wait()
    assert [epoch_in(path) for path in (folder.best, folder.last)] == [1, 2]


SAVES_FOR_EVER = """
import sys, torch
from pathlib import Path
from winnow.checkpoints.file import KEYS, VERSION
from winnow.checkpoints.folder import CheckpointFolder
folder = CheckpointFolder(Path(sys.argv[1]), save_interval=1, keep_last_n=2)
for epoch in range(1, int(sys.argv[2]) + 1):
    weights = {"weight": torch.full((int(sys.argv[3]),), float(epoch))}
    folder.save_last({**dict.fromkeys(KEYS), "version": VERSION, "epoch": epoch, "model_state_dict": weights}, lambda: True)
"""


def saving(folder, num_saves, size, before=""):
    arguments = [str(folder.folder), str(num_saves), str(size)]
    return subprocess.Popen(
        [sys.executable, "-c", before + SAVES_FOR_EVER, *arguments], stderr=subprocess.PIPE, text=True
    )


def test_a_kill_during_a_write_leaves_the_old_file_and_the_next_start_cleans_up(folder):
    process = saving(folder, 10_000, size=4_000_000)
    while not (folder.last.exists() and list(folder.folder.glob(".last.pth.*.tmp"))):
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert len(names(folder)) == 2
    assert epoch_in(folder.last) >= 1
    with folder:
        assert names(folder) == ["last.pth"]


def test_a_process_that_ends_at_once_still_finishes_its_write(folder):
    process = saving(folder, 1, size=2_000_000)
    assert process.communicate()[1] == ""
    assert epoch_in(folder.last) == 1


def test_without_memory_for_a_copy_the_state_is_written_while_training_waits(folder):
    limit = (
        "import resource, winnow.checkpoints.folder\nused = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
    )
    limit += "resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)\n"
    process = saving(folder, 1, size=36_000_000, before=limit)
    assert "no memory to copy the state to" in process.communicate()[1]
    assert epoch_in(folder.last) == 1
