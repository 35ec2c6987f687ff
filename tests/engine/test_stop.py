import os
import signal

import pytest

from winnow.engine.stop import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted_and_the_handler_before_comes_back(number, caplog):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
    assert signal.getsignal(number) == before
    assert f"{number.name}: saving after this step" in caplog.text


def test_a_second_ctrl_c_interrupts_at_once():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stop.requested


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_worker_leaves_ctrl_c_to_its_parent():
    reader, writer = os.pipe()
    with StopRequest() as stop:
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            os.write(writer, b"requested" if stop.requested else b"left alone")
            os._exit(0)
        os.waitpid(child, 0)
    assert os.read(reader, 20) == b"left alone"
    os.close(reader), os.close(writer)
