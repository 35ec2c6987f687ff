"""What people see of a sweep and a run in a real browser: MLflow as ``winnow ui`` serves it, and optuna-dashboard. Needs Debian's
chromium and the package playwright (pip install -e '.[dev]'); .ci/run installs both."""

import csv
import json
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest
from chromium import needs_browser, running_browser
from tracking_parts import wait_for
from warm_program import warm_program

from winnow.tracking.folder import RunState, TrackingFolder
from winnow.tracking.pages import runs_page
from winnow.tracking.ui import free_port

pytestmark = [
    pytest.mark.promise,
    needs_browser,
]
TINY = [
    "data.num_train=48", "data.num_val=12", "data.size=64", "data.image_size=64", "training.num_workers=0",
    "training.max_epochs=2", "model.channels=[8,8,16,16]", "model.head_channels=32", "tracking.system_metrics_seconds=null",
    "tracking.log_checkpoints=false", "tracking.drain_seconds=120",
]  # fmt: skip
SECONDS = 180.0  # the pages load megabytes of scripts, on a busy machine


@pytest.fixture(scope="module")
def browser():
    with running_browser() as opened:
        yield opened


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1700, "height": 900})  # a browser that has never seen MLflow
    context.set_default_timeout(SECONDS * 1000)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """Return a folder in which a sweep of two trials and a run of their own have ended, with what the two commands printed."""
    folder = tmp_path_factory.mktemp("tracked")
    sweep = ["-m", "+sweep=lr_bs", *TINY, "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1"]
    printed = warm_program().run(folder, *sweep, "hydra.sweeper.in_process=true")
    return folder, printed, warm_program().run(folder, *TINY, "hydra.run.dir=run")


# Tests that run in the background are deaf to Ctrl-C, and so would be what they start.
WINNOW = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from winnow.commands.cli import main; raise SystemExit(main())"
)


@contextmanager
def opened(folder, *arguments):
    """Run ``winnow ui`` inside; return its process and the address that it prints."""
    log = folder / "ui.txt"
    command = [sys.executable, "-c", WINNOW, "ui", "--no-browser"]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *arguments], cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: "Ctrl-C ends it" in log.read_text() or process.poll() is not None, 300)
        assert process.poll() is None, log.read_text()
        yield process, log.read_text().splitlines()[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.fixture(scope="module")
def shown(tracked):
    with opened(tracked[0], "multirun/lr_bs") as (process, address):
        yield process, address


def shows(page, *words):
    """Wait until the page shows all of ``words``."""
    page.wait_for_function("words => words.every(word => document.body.innerText.includes(word))", arg=list(words))


def rows(folder):
    with (folder / "multirun/lr_bs/trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_table_of_a_sweep_shows_its_objective_and_what_was_searched(page, tracked, shown):
    folder, printed, _ = tracked
    _, address = shown
    assert address.partition("/#/")[2] in printed  # the page that the sweep names is the one that opens
    page.goto(address)
    for name in ("best/map", "training.optimizer.lr", "training.batch_size"):
        page.get_by_role("columnheader", name=name).first.wait_for()
    for row in rows(folder):
        link = page.get_by_role("link", name=f"lr_bs {row['trial_id']} · lr ")
        link.wait_for()
        assert f"batch {row['param_training.batch_size']}" in link.inner_text()
    table = page.locator("body").inner_text()
    for row in rows(folder):
        assert f"{float(row['param_training.optimizer.lr']):.10f}"[:8].rstrip("0") in table
    assert f"{len(rows(folder))} matching runs" in " ".join(table.split())


def test_a_run_opens_on_the_table_of_all_runs_by_its_name(page, tracked, shown):
    folder, _, printed = tracked
    state = RunState.read(TrackingFolder.of_run(folder / "run").state)
    server = shown[1].partition("/#/")[0]
    address = runs_page(server, state.experiment_id, state.view)
    assert state.view == "winnow-map"
    assert address.partition("/#/")[2] in printed
    page.goto(address)
    page.get_by_role("link", name=re.compile(r"fcos_tiny · digits · lr \de-\d")).wait_for()
    page.get_by_role("columnheader", name="best/map").first.wait_for()


def test_two_trials_are_compared_side_by_side(page, tracked, shown):
    folder, _, _ = tracked
    runs = [row["mlflow_run_id"] for row in rows(folder)[:2]]
    server = shown[1].partition("/#/")[0]
    page.goto(f"{server}/#/compare-runs?runs={json.dumps(runs)}&experiments={json.dumps(['1'])}")
    shows(page, "Comparing 2 Runs", "training.optimizer.lr", "best/map", "lr_bs 0", "lr_bs 1")


def test_the_page_about_a_run_is_one_of_its_artifacts(page, tracked, shown):
    folder, _, _ = tracked
    run = json.loads((folder / "run/result.json").read_text())["mlflow_run_id"]
    server = shown[1].partition("/#/")[0]
    page.goto(f"{server}/#/experiments/1/runs/{run}/artifacts/report.html")
    shows(page, "report.html", "train.log", "result.json", "metrics.csv")
    page.frame_locator("iframe").locator("h1").first.wait_for()
    assert page.get_by_text("git_diff.patch", exact=True).count() == (folder / "run/git_diff.patch").exists()


def test_optuna_dashboard_shows_the_study_with_the_name_of_its_metric(page, tracked):
    pytest.importorskip("optuna_dashboard", reason="no optuna-dashboard: pip install -e '.[dev]'")
    folder, port = tracked[0], free_port()
    program = "from optuna_dashboard._cli import main; main()"
    journal = str(folder / "multirun/lr_bs/study.journal")
    with (folder / "dashboard.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "--port", str(port), journal], stdout=output, stderr=output
        )
    try:
        wait_for(lambda: b"Listening" in (folder / "dashboard.txt").read_bytes())
        page.goto(f"http://127.0.0.1:{port}/dashboard/studies/0")
        shows(page, "lr_bs", "val/map")
    finally:
        process.terminate()
        process.wait(60)


def test_ctrl_c_ends_the_server_and_all_that_it_has_started(tracked):
    folder, _, _ = tracked
    with opened(folder) as (process, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#/experiments/1/runs\?workflowType=machine_learning", address)
        below = psutil.Process(process.pid).children(recursive=True)
        assert below
        listening = {link.laddr.ip for one in below for link in one.net_connections() if link.status == "LISTEN"}
        assert listening == {"127.0.0.1"}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not [one for one in below if one.is_running()]
    assert "Traceback" not in (folder / "ui.txt").read_text()
