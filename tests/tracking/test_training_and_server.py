"""A whole training that is tracked on a real server: what the server's bad days cost it, and what is kept when it is killed."""

from __future__ import annotations

import itertools
import json
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_parts import TINY
from tracking_parts import Server, assert_server_equals_outbox, kill_uploaders, mlflow_client, uploaders, wait_for
from warm_program import WarmProgram

from winnow.tracking.folder import RunState, TrackingFolder
from winnow.tracking.sync import sync

pytestmark = pytest.mark.promise

PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def tracked(server: Server, name: str, epochs: int) -> list[str]:
    own = [override for override in TINY if override != "tracking=off"]
    settings = ["tracking.system_metrics_seconds=null", "tracking.log_checkpoints=false", "tracking.drain_seconds=60"]
    return [*own, *settings, f"tracking.uri={server.uri}", f"training.max_epochs={epochs}", f"hydra.run.dir={name}"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for run in tmp_path.glob("*/tracking"):
        kill_uploaders(run.parent)


def step_times(path: Path) -> list[float]:
    """Return seconds from each step's loss to the next one's, evaluations and saves among them."""
    moments = json.loads(path.read_text())
    return [after - before for before, after in itertools.pairwise(moments)]


def test_a_server_paused_killed_and_restarted_costs_the_training_no_step(
    warm_program: WarmProgram, server: Server, folder: Path
):
    for tracking in (["tracking=off"], []):
        name = "off" if tracking else "on"
        arguments = [*tracked(server, name, 500), *tracking]
        if tracking:
            arguments = [argument for argument in arguments if not argument.startswith("tracking.")]
        program = warm_program.start(folder, *arguments, TROUBLE=f"times {folder}/{name}.json", **PATIENT)
        program.wait_for_line("epoch   2/500")
        began = time.monotonic()
        if not tracking:
            wait_for(lambda: RunState.read(TrackingFolder.of_run(folder / "on").state).sequence > 10, 180)
            server.signal(signal.SIGSTOP)
            time.sleep(5)
            server.signal(signal.SIGCONT)
            time.sleep(1)
            server.kill()
            time.sleep(2)
            server.start()
        time.sleep(max(0.0, 6 - (time.monotonic() - began)))
        program.signal(signal.SIGTERM)
        assert program.wait() == 75, program.printed()
    off, on = step_times(folder / "off.json"), step_times(folder / "on.json")
    # A request to the frozen server would last its 2 s, and the server was away for over 8.
    assert max(on) < 1.5, sorted(on)[-5:]
    assert statistics.median(on) < 2 * statistics.median(off), (statistics.median(on), statistics.median(off))
    wait_for(lambda: not uploaders(folder / "on"), 180)
    assert_server_equals_outbox(server.uri, folder / "on")


def test_kill_9_of_training_and_server_and_a_resume_lose_and_double_nothing(
    warm_program: WarmProgram, server: Server, folder: Path
):
    run, arguments = folder / "run", [*tracked(server, "run", 6), "training.resume=auto"]
    for moment in ("kill forward 12", "kill predictions 2", "tear losses 7 500000"):
        assert warm_program.start(folder, *arguments, TROUBLE=moment, **PATIENT).wait() in (-9, -25)
        server.kill()
        time.sleep(1)
        server.start()
    warm_program.run(folder, *arguments, **PATIENT)
    wait_for(lambda: not uploaders(run), 180)
    assert sync(run).unsent == 0
    assert_server_equals_outbox(server.uri, run)
    run_id = RunState.read(TrackingFolder.of_run(run).state).run_id
    client = mlflow_client(server.uri)
    assert [point.step for point in client.get_metric_history(run_id, "val/map")] == [3, 6, 9, 12, 15, 18]
    assert [point.step for point in client.get_metric_history(run_id, "train/loss")] == list(range(1, 19))
    assert client.get_run(run_id).info.status == "FINISHED"
