"""Trouble while batches are read; the whole program under it is in tests/test_bad_days.py."""

import multiprocessing
import signal
import time

import pytest
from composed import compose_plain

from winnow.errors import DataError, TransientDataError
from winnow.families.detection.data import LoadingSettings, digits_data


@pytest.fixture(autouse=True)
def no_handler_of_torchs():
    """Remove torch's handler: a loader of torch's own, in an earlier test of this process, may have left its handler, which
    raises."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture
def data(tmp_path):
    values = compose_plain("data=digits")["data"] | {"num_train": 24, "num_val": 4, "size": 64, "image_size": 64}
    values |= {"root": str(tmp_path), "wait_for_files_seconds": 7}
    values.pop("_target_")
    loading = {"batch_size": 4, "num_workers": 1, "drop_last": False, "seed": 0}
    loading |= {"subset_size": None, "subset_seed": 42, "overfit": None}
    return digits_data(loading=LoadingSettings(**loading), **values)


def kill_workers():
    # No other child of the test process: those are other tests' programs.
    workers = multiprocessing.active_children()
    assert workers
    for worker in workers:
        worker.kill()
    time.sleep(0.2)


def ids_until_death(batches):
    """Return image ids of the batches that come before the workers, killed after the first, are missed."""
    ids = list(next(batches).image_ids)
    kill_workers()
    rest = (image_id for batch in batches for image_id in batch.image_ids)
    with pytest.raises(TransientDataError, match="a data loading process was killed") as caught:
        ids.extend(rest)
    assert caught.value.is_over()
    return ids


def test_after_the_death_of_its_workers_reading_goes_on_at_the_first_sample_not_seen(data):
    whole = [image_id for batch in data.train_batches(1, 64) for image_id in batch.image_ids]
    seen = ids_until_death(data.train_batches(1, 64))
    rest = [image_id for batch in data.train_batches(1, 64, start_sample=len(seen)) for image_id in batch.image_ids]
    assert seen + rest == whole


def test_a_death_raises_nothing_in_the_middle_of_other_work(data):
    before = signal.getsignal(signal.SIGCHLD)
    next(data.train_batches(1, 64))
    kill_workers()
    assert signal.getsignal(signal.SIGCHLD) == before


@pytest.mark.promise
def test_the_fourth_death_within_a_pass_is_an_error_with_advice(data):
    for _ in range(3):
        ids_until_death(data.train_batches(1, 64))
    batches = data.train_batches(1, 64)
    next(batches)
    kill_workers()
    with pytest.raises(DataError, match="the 4th within one pass over the data; .* lower training.num_workers=1"):
        list(batches)


@pytest.mark.parametrize("is_emptied", [True, False])
def test_a_folder_that_is_gone_or_empty_is_told_from_bad_images(data, is_emptied):
    folder = data.val_records[0].path.parent
    folder.rename(folder.with_name("away"))
    if is_emptied:
        folder.mkdir()
    with pytest.raises(TransientDataError, match="is gone or empty") as caught:
        list(data.val_batches(64))
    assert not caught.value.is_over()
    assert caught.value.patience_seconds == 7
    if is_emptied:
        folder.rmdir()
    folder.with_name("away").rename(folder)
    assert caught.value.is_over()
    assert len(list(data.val_batches(64))) == 1
