"""What goes wrong around a training, done for real: memory, workers, folders, clocks."""

import json
import re
import signal

import pytest
import yaml
from killed_parts import RECORDED, TINY, assert_same_end, record

from winnow.checkpoints.file import read_checkpoint

LENGTH = "training.max_epochs=3"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("bad_days")


@pytest.fixture(scope="module")
def whole(warm_program, workplace):
    """Return a run on a day when nothing happens."""
    warm_program.run(workplace, *TINY, LENGTH, RECORDED, "hydra.run.dir=whole")
    return workplace / "whole"


def result(run):
    return json.loads((run / "result.json").read_text())


def test_out_of_memory_names_the_batch_and_the_run_goes_on_with_a_smaller_one(warm_program, workplace):
    arguments = [*TINY, LENGTH, "hydra.run.dir=memory", "training.resume=auto", "training.amp=off"]
    warm_program.run(workplace, *arguments, "training.max_epochs=1")
    error = warm_program.run(workplace, *arguments, code=1, TROUBLE="memory 2")
    shapes = "4 images of 64×64 pixels; 4 images of 64×64 pixels in float32"
    assert f"MemoryExhaustedError: out of memory on cpu in training step 4, with {shapes}" in error
    assert "halve training.batch_size and double training.accumulate" in error
    assert f"go on with: training.resume={workplace}/memory/checkpoints/last.pth" in error
    assert result(workplace / "memory")["status"] == "out_of_memory"
    assert "with 4 images of 64×64" in result(workplace / "memory")["reason"]
    assert read_checkpoint(workplace / "memory/checkpoints/last.pth")["step"] == 3
    smaller = ["training.batch_size=2", "training.accumulate=4"]
    warm_program.run(workplace, *arguments, *smaller, TROUBLE="memory 2")
    assert (result(workplace / "memory")["status"], result(workplace / "memory")["steps"]) == ("completed", 9)


def test_out_of_memory_is_tried_once_more_with_half_the_batch_where_that_is_wanted(warm_program, workplace):
    arguments = [*TINY, LENGTH, "hydra.run.dir=halved", "training.oom_retry=true"]
    printed = warm_program.run(workplace, *arguments, TROUBLE="memory 2")
    assert "trying once more with half the batch" in printed
    assert (result(workplace / "halved")["status"], result(workplace / "halved")["steps"]) == ("completed", 9)
    training = yaml.safe_load((workplace / "halved/config.yaml").read_text())["training"]
    assert (training["batch_size"], training["accumulate"]) == (2, 4)


def test_a_killed_worker_is_replaced_and_changes_nothing(warm_program, workplace, whole):
    arguments = [*TINY, LENGTH, RECORDED, "training.num_workers=2", "hydra.run.dir=worker"]
    printed = warm_program.run(workplace, *arguments, TROUBLE="worker losses 9")
    assert "a data loading process was killed" in printed
    assert "no. 1 of 3: saving, then going on" in printed
    assert_same_end(whole, workplace / "worker")
    assert record(whole / "outbox.jsonl") == record(workplace / "worker/outbox.jsonl")


@pytest.fixture(scope="module")
def movable(warm_program, workplace):
    """Return the folder of the training images of a data set of its own, and the overrides that choose it."""
    data = ["data.root=moving", "data.max_bad_images=0"]
    warm_program.run(workplace, *TINY, *data, "training.max_epochs=1", "hydra.run.dir=makes_the_data")
    return next(workplace.glob("moving/*/train")), data


@pytest.mark.parametrize("workers", [0, 1])
def test_the_images_folder_gone_for_a_moment_is_waited_for_and_changes_nothing(
    warm_program, workplace, whole, movable, workers
):
    images, data = movable
    name = f"moved_{workers}"
    arguments = [*TINY, *data, LENGTH, RECORDED, f"training.num_workers={workers}", f"hydra.run.dir={name}"]
    program = warm_program.start(workplace, *arguments, TROUBLE=f"away losses 10 {images}")
    program.wait_for_line("is gone or empty")
    images.with_name("train.away").rename(images)
    assert program.wait() == 0
    assert re.search(r"going on after \d+\.\d s", program.printed())
    assert_same_end(whole, workplace / name)
    assert record(whole / "outbox.jsonl") == record(workplace / name / "outbox.jsonl")


def test_the_validation_folder_gone_for_good_ends_the_run_which_then_goes_on_exactly(
    warm_program, workplace, whole, movable
):
    images, data = movable
    images = images.with_name("val")
    arguments = [*TINY, *data, LENGTH, RECORDED, "hydra.run.dir=gone", "training.resume=auto"]
    impatient = "data.wait_for_files_seconds=0.3"
    printed = warm_program.run(workplace, *arguments, impatient, code=1, TROUBLE=f"away losses 10 {images}")
    assert re.search(r"DataError: the image folder .*/val is gone or empty .*, and did not come back in \d+ s", printed)
    assert f"go on with: training.resume={workplace}/gone/checkpoints/last.pth" in printed
    assert result(workplace / "gone")["status"] == "failed"
    assert (result(workplace / "gone")["epochs"], result(workplace / "gone")["steps"]) == (1, 6)
    images.with_name("val.away").rename(images)
    warm_program.run(workplace, *arguments)
    assert_same_end(whole, workplace / "gone")
    assert record(whole / "outbox.jsonl") == record(workplace / "gone/outbox.jsonl")


def test_a_stop_is_obeyed_while_waiting_for_a_folder(warm_program, workplace, movable):
    images, data = movable
    program = warm_program.start(
        workplace, *TINY, *data, LENGTH, "hydra.run.dir=stopped", TROUBLE=f"away losses 10 {images}"
    )
    program.wait_for_line("is gone or empty")
    program.signal(signal.SIGTERM)
    assert program.wait() == 75
    images.with_name("train.away").rename(images)
    assert result(workplace / "stopped")["status"] == "interrupted"
