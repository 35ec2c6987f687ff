"""The thread between training and the disk, with a disk that refuses."""

from pathlib import Path

import pytest
from tracking_parts import wait_for

from winnow.tracking.disk_thread import DiskThread


class Disk:
    """Obeys winnow.tracking.disk_thread.Sink; writes nothing while ``is_full``."""

    name = "numbers"
    place = Path("somewhere")

    def __init__(self) -> None:
        self.is_full = False
        self.taken: list[int] = []
        self.written: list[int] = []
        self.is_closed = False

    def open(self) -> None:
        pass

    def take(self, item: int) -> None:
        self.taken.append(item)

    def write(self) -> None:
        if self.is_full and self.taken:
            raise OSError("no space left")
        self.written += self.taken
        self.taken.clear()

    def after_write(self, is_ending: bool) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


def test_all_is_written_in_order_when_the_disk_obeys_again(caplog: pytest.LogCaptureFixture):
    disk = Disk()
    disk.is_full = True
    thread = DiskThread(disk)
    thread.start()
    for number in range(100):
        thread.put(number)
    assert not thread.flush(0.3)
    disk.is_full = False
    assert wait_for(lambda: thread.flush(1))
    thread.stop(5)
    assert disk.written == list(range(100))
    assert disk.is_closed
    assert caplog.text.count("numbers can't write to somewhere (no space left): training goes on") == 1
    assert caplog.text.count("numbers writes to somewhere again") == 1


def test_memory_is_bounded_while_nothing_can_be_written(caplog: pytest.LogCaptureFixture):
    disk = Disk()
    thread = DiskThread(disk, max_waiting=10)  # not started: as slow as can be
    for number in range(100):
        thread.put(number)
    thread.put(100, is_last=True)
    assert caplog.text.count("dropping new ones") == 1
    thread.start()
    assert thread.flush(5)
    assert disk.written == [*range(10), 100]
    thread.stop(5)
    assert "90 events could not be written to somewhere and are lost" in caplog.text


def test_a_stop_gives_up_in_time_and_says_what_is_lost(caplog: pytest.LogCaptureFixture):
    disk = Disk()
    disk.is_full = True
    thread = DiskThread(disk)
    thread.start()
    thread.put(1)
    thread.stop(0.1)
    assert not thread.is_alive()
    assert "numbers: 1 events could not be written to somewhere and are lost" in caplog.text
