import csv

import pytest

from winnow.tracking.epoch_table import EpochTable, read_epochs
from winnow.tracking.null_tracker import NullTracker


class Listening(NullTracker):
    def __init__(self, folder):
        super().__init__(folder)
        self.artifacts = []

    def log_artifact(self, path, folder=""):
        self.artifacts.append(path.name)


@pytest.fixture
def log(tmp_path):
    """Return a function that logs epochs as training does, by a tracker of its own, as a resumed run has."""

    def log(*epochs, **more):
        with EpochTable(NullTracker(tmp_path), tmp_path) as tracker:
            for epoch in epochs:
                tracker.log_metrics({"train/loss": 9.0, "lr/default": 0.1 * epoch}, 10 * epoch - 5)
                tracker.log_metrics({"epoch": float(epoch), "train/loss": 1 / epoch, **more}, 10 * epoch)
                tracker.log_metrics({"best/map": 0.5}, 10 * epoch)

    return log


def test_each_epoch_is_a_row_with_its_own_numbers_first(tmp_path, log):
    log(1, 2, **{"val/map": 0.25})
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "step", "train/loss", "val/map", "lr/default"]
    assert rows == [
        {"epoch": "1", "step": "10", "train/loss": "1.0", "val/map": "0.25", "lr/default": "0.1"},
        {"epoch": "2", "step": "20", "train/loss": "0.5", "val/map": "0.25", "lr/default": "0.2"},
    ]


def test_a_run_that_goes_on_replaces_what_it_lives_through_again(tmp_path, log):
    log(1, 2, 3, **{"val/map": 0.25})
    log(2)
    rows = read_epochs(tmp_path / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert "val/map" in rows[0]
    assert "val/map" not in rows[1]


def test_no_number_is_lost(tmp_path, log):
    log(1, **{"val/map": 0.1 + 0.2, "val/loss": float("nan"), "val/odd": float("-inf")})
    (row,) = read_epochs(tmp_path / "metrics.csv")
    assert row["val/map"] == 0.1 + 0.2
    assert row["val/loss"] != row["val/loss"]
    assert row["val/odd"] == float("-inf")


def test_a_torn_table_does_not_end_the_run(tmp_path, log):
    log(1, 2)
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-9] + b"\xff\x00,")
    log(3)
    assert [row["epoch"] for row in read_epochs(path)][-1] == 3


def test_the_table_is_an_artifact_of_the_run(tmp_path):
    inner = Listening(tmp_path)
    with EpochTable(inner, tmp_path) as tracker:
        tracker.log_metrics({"epoch": 1.0}, 10)
        tracker.finish("completed")
    assert inner.artifacts == ["metrics.csv"]
