"""A clock that is set back: nothing of a run is ordered or measured by the time of day."""

import json
import os
import re
from pathlib import Path

import pytest
from composed import REPOSITORY
from killed_parts import RECORDED, TINY, assert_same_end, record

from winnow.checkpoints.file import KEYS, VERSION, write_checkpoint
from winnow.checkpoints.folder import CheckpointFolder
from winnow.process import ProcessStamp
from winnow.tracking.outbox import read_events

FAKETIME = next(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"), None)
# Each place that may ask for the time of day or a file's age, and why that does no harm.
ASKED = {
    ("src/winnow/engine/snapshot.py", "datetime.now"): "timestamp, for people to read",
    (
        "src/winnow/checkpoints/references.py",
        "st_mtime",
    ): "whether a file is hashed again; only that it differs is asked",
    ("src/winnow/families/detection/formats/bdd100k.py", "st_mtime"): "part of a fingerprint, compared for equality",
    ("src/winnow/families/detection/formats/conversion.py", "st_mtime"): "the same",
    ("src/winnow/data/split_by_hash.py", "st_mtime"): "whether a picture is read again; only that it differs is asked",
    ("src/winnow/tracking/sync.py", "time.time("): "age of an outbox of another host, either way",
    ("src/winnow/tracking/sync.py", "st_mtime"): "the same",
    ("src/winnow/tracking/uploader.py", "time.time_ns"): "when a sample of the machine was taken",
    ("src/winnow/tracking/writer.py", "time.time_ns"): "when an event happened; History lets it only rise",
    ("src/winnow/tracking/mlflow_tracker.py", "time.time_ns"): "when the run was first started",
    (
        "src/winnow/tracking/tensorboard.py",
        "time.time(",
    ): "what TensorBoard shows as wall time; steps say what is a replay",
    ("src/winnow/tracking/event_files.py", "time.time("): "the same",
    ("src/winnow/tracking/event_files.py", "time.time_ns"): "a name for a new file",
    (
        "src/winnow/families/ink/lines/data.py",
        "st_mtime",
    ): "a page that was changed is cut anew; only that it differs is asked",
}


def test_nothing_else_in_training_asks_for_the_time_of_day():
    found = {
        (str(path.relative_to(REPOSITORY)), words)
        for path in (REPOSITORY / "src").rglob("*.py")
        for words in re.findall(
            r"time\.time\(|time\.time_ns|datetime\.now|utcnow|st_[mca]time|getmtime", path.read_text()
        )
    }
    parts = (
        "src/winnow/engine",
        "src/winnow/tracking",
        "src/winnow/data",
        "src/winnow/families",
        "src/winnow/checkpoints",
        "src/winnow/run/",
    )
    assert {entry for entry in found if entry[0].startswith(parts)} == set(ASKED)


def test_the_newest_checkpoint_is_the_furthest_whatever_its_date(tmp_path):
    folder = CheckpointFolder(tmp_path, save_interval=1, keep_last_n=3)
    for number, date in ((2, 9e8), (10, 1e8)):
        path = tmp_path / f"checkpoint_epoch_{number}.pth"
        write_checkpoint(path, {**dict.fromkeys(KEYS), "version": VERSION, "epoch": number})
        os.utime(path, (date, date))
    assert folder.newest()[0].name == "checkpoint_epoch_10.pth"


def test_a_process_is_known_by_a_start_that_no_clock_moves():
    owner = ProcessStamp.this_process()
    assert owner.is_alive()
    assert 0 < int(owner.start_time) / os.sysconf("SC_CLK_TCK") < float(Path("/proc/uptime").read_text().split()[0])


@pytest.mark.slow
@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (apt-get install faketime)")
def test_a_run_whose_clock_goes_back_three_hours_ends_as_any_other(warm_program, tmp_path):
    arguments = [*TINY, "training.max_epochs=2", RECORDED]
    warm_program.run(tmp_path, *arguments, "hydra.run.dir=whole")
    (tmp_path / "clock").write_text("+0")
    # A process of its own, for the library must be there from the start.
    fake = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"),
        "FAKETIME_CACHE_DURATION": "1",
    }
    fake["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
    program = warm_program.start_cold(
        tmp_path, *arguments, "hydra.run.dir=back", TROUBLE="clock losses 9 clock -3h", **fake
    )
    assert program.wait(timeout=120) == 0
    run = tmp_path / "back"
    assert_same_end(tmp_path / "whole", run)
    assert record(tmp_path / "whole/outbox.jsonl") == record(run / "outbox.jsonl")
    times = [event.time_ms for event, _ in read_events(run / "outbox.jsonl")]
    assert times == sorted(times)
    assert 0 < json.loads((run / "result.json").read_text())["seconds"] < 60
    dates = re.findall(r"^\[(\d{4}-\d\d-\d\d \d\d:\d\d)", (run / "train.log").read_text(), flags=re.MULTILINE)
    assert dates != sorted(dates), "the clock did not go back"
