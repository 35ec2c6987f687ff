"""The next batch travels ahead. A CPU has streams by name only, so what is tested here is which batch is moved when, and that
nothing else changes; tests/test_on_gpu.py has the rest."""

import itertools

import pytest
import torch
from detection_parts import batch, target
from engine_parts import VectorData, Vectors
from ink_parts import tiles
from test_loop import assert_same, lasting, run_fit, stop_after, weights

from winnow.checkpoints.file import read_checkpoint
from winnow.engine.evaluate import evaluate
from winnow.engine.loop import restore
from winnow.engine.precision import Precision
from winnow.engine.transfer import Transfer, tensors_in, with_next
from winnow.errors import DataError

CPU = Precision(torch.device("cpu"), None)


class Told(Vectors):
    """Says when it is moved, to somewhere else as on a GPU."""

    moved = []  # noqa: RUF012

    def to(self, device, memory_format=torch.preserve_format):
        self.moved.append(self.image_ids)
        return super().to(device)


@pytest.fixture
def moved(monkeypatch):
    monkeypatch.setattr(Told, "moved", [])
    return Told.moved


def told(*image_ids):
    return Told(torch.randn(len(image_ids), 5), torch.randn(len(image_ids)), list(image_ids), 8)


def test_what_was_begun_is_what_is_given_and_is_moved_once(moved):
    transfer = Transfer(CPU, is_ahead=True)
    first, second, third = told(1), told(2), told(3)
    transfer.start(first)
    assert moved == [[1]]
    assert transfer(first).inputs.equal(first.inputs)
    transfer.start(second)
    assert transfer(third).image_ids == [3], "another one than was begun"
    assert transfer(second).image_ids == [2]
    assert moved == [[1], [2], [3], [2]]
    transfer.start(told())
    transfer.start(None)
    assert len(moved) == 4, "a rank's empty share, and the end"


def test_on_a_cpu_nothing_is_begun(moved):
    transfer = Transfer(CPU)
    transfer.start(told(1))
    assert (transfer.is_ahead, moved) == (False, [])


@pytest.mark.parametrize("is_ahead", [True, False])
def test_each_item_comes_with_the_next_where_that_is_wanted(is_ahead):
    read = []
    items = with_next((read.append(number) or number for number in range(3)), is_ahead)
    assert next(items) == (0, 1 if is_ahead else None)
    assert read == ([0, 1] if is_ahead else [0])
    assert list(items) == ([(1, 2), (2, None)] if is_ahead else [(1, None), (2, None)])
    assert list(with_next([], is_ahead)) == []


def test_what_goes_wrong_in_reading_ahead_is_raised_in_its_turn():
    def broken():
        yield 1
        raise DataError("gone")

    items = with_next(broken(), is_ahead=True)
    assert next(items) == (1, None)
    with pytest.raises(DataError, match="gone"):
        next(items)


def test_every_tensor_of_a_batch_is_found():
    detection = batch(target([[1, 2, 30, 40]], [0]), target([], []))
    pairs = [detection.images, detection.pixel_mask, *(getattr(t, name) for t in detection.targets for name in (
        "boxes", "labels", "original_boxes", "original_labels", "original_areas", "original_crowd"
    ))]  # fmt: skip
    assert set(map(id, tensors_in(detection))) == set(map(id, pairs))
    ink = tiles(((4, 0, 9), 3.0))
    assert set(map(id, tensors_in(ink))) == set(map(id, [ink.images, *vars(ink.target).values()]))

    class Own:
        def __init__(self):
            self.parts = {"a": [torch.ones(1)], "self": self}

    assert [tensor.item() for tensor in tensors_in(Own())] == [1.0]


def reading_ahead(run):
    run.step.transfer = Transfer(CPU, is_ahead=True)
    return run


class ToldData(VectorData):
    batch_class = Told


@pytest.mark.parametrize("accumulate", [1, 4])
def test_reading_ahead_changes_nothing_of_a_run_that_is_stopped_and_resumed(make_fit, moved, accumulate):
    settings = {"accumulate": accumulate, "max_epochs": 6}
    whole = make_fit("whole", data=ToldData(), **settings)
    run_fit(whole)
    in_order = list(moved)
    moved.clear()
    part = reading_ahead(make_fit("part", data=ToldData(), **settings))
    stop_after(part, 3)
    assert run_fit(part) == "interrupted"
    ahead = 1 if accumulate == 1 else 0  # with accumulation the epoch ended there
    moved[len(moved) - ahead :] = []
    resumed = reading_ahead(make_fit("part", data=ToldData(), **settings))
    restore(resumed, read_checkpoint(part.checkpoints.last), part.checkpoints.last)
    assert resumed.state.sample == part.state.sample
    run_fit(resumed)
    assert_same(weights(whole), weights(resumed))
    assert lasting(whole.tracker.metrics) == lasting(part.tracker.metrics) + lasting(resumed.tracker.metrics)
    assert moved == in_order, "each batch is moved once, in the order of the epoch"


def test_the_step_before_data_that_goes_wrong_is_taken_and_saved(make_fit):
    class Breaking(VectorData):
        def train_batches(self, epoch, image_size, start_sample=0):
            yield from itertools.islice(super().train_batches(epoch, image_size, start_sample), 2)
            raise DataError("gone")

    positions = []
    for wrap in (reading_ahead, lambda run: run):
        run = wrap(make_fit(f"run{len(positions)}", data=Breaking()))
        with pytest.raises(DataError, match="gone"):
            run_fit(run)
        positions.append(read_checkpoint(run.checkpoints.last)["progress"]["sample"])
    assert positions == [8, 8]


def test_an_evaluation_that_reads_ahead_gives_the_same_numbers_and_moves_each_batch_once(make_fit, moved, monkeypatch):
    class Three(ToldData):
        def num_val_batches(self):
            return 3

        def val_batches(self, image_size):
            return (self._batch(range(start, start + 4), 0, image_size) for start in (1000, 1004, 1008))

    run = make_fit(data=Three())
    parts = (run.task, run.data, 8, CPU, run.progress)
    expected = evaluate(*parts)
    in_order = list(moved)
    moved.clear()
    monkeypatch.setattr("winnow.engine.evaluate.Transfer", lambda precision: Transfer(precision, is_ahead=True))
    assert evaluate(*parts) == expected
    assert moved == in_order
    assert len(in_order) == 3
