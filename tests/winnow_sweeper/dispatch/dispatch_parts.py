"""A tiny Hydra app whose trial does what its config says, and slots to run it in."""

import json
import logging
import os
import random
import signal
import sys
import time
from pathlib import Path

import psutil
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, RunMode

from hydra_plugins.winnow_sweeper._job import Job
from hydra_plugins.winnow_sweeper._single_run import Work
from winnow.engine.stop import StopRequest
from winnow.sweep.outcome import Outcome

CONFIG = """
act: report
seconds: 0.0
x: 0
"""


def compose_work(folder, *overrides, task=None):
    """Return what Hydra would hand to a sweeper for ``python app.py -m ...`` in ``folder``."""
    (folder / "conf").mkdir(exist_ok=True)
    (folder / "conf" / "config.yaml").write_text(CONFIG)
    GlobalHydra.instance().clear()
    hydra = Hydra.create_main_hydra2("app", create_config_search_path(str(folder / "conf")))
    config = hydra.compose_config(
        "config",
        [f"hydra.sweep.dir={folder}/multirun/study", *overrides],
        run_mode=RunMode.MULTIRUN,
        with_log_configuration=False,
    )
    HydraConfig.instance().set_config(config)
    return Work(HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks()), task or act, config)


def act(config):
    """Return the task: never raises unless told to."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    facts = {
        "job": HydraConfig.get().job.num, "x": config.x, "pid": os.getpid(), "cwd": os.getcwd(), "random": random.random(),
        "leaked": os.environ.get("LEAKED"), "cuda": os.environ.get("CUDA_VISIBLE_DEVICES"), "level": logging.root.level,
        "begun": time.time(),
    }  # fmt: skip
    (folder / "begun").touch()
    time.sleep(config.seconds)
    outcome = ACTS[config.act](config)
    (folder / "facts.json").write_text(json.dumps({**facts, "ended": time.time()}))
    return outcome or Outcome("completed", values=(float(config.x),), run_folder=str(folder))


def _speak(config):
    sys.stdout.write("spoken by Python\n")
    os.system("echo spoken by a child")
    os.write(2, b"spoken at the descriptor\n")
    logging.getLogger("app").info("logged")


def _listen(config):
    """Do as winnow's runs: save and end when asked."""
    with StopRequest() as stop:
        for _ in range(12_000):
            if stop.requested:
                return Outcome("interrupted", reason="saved")
            time.sleep(0.01)
    return None


def _listen_late(config):
    time.sleep(0.3)  # imports, data: nobody has taken the signals yet
    return _listen(config)


def _leak(config):
    os.environ["LEAKED"] = "yes"
    os.chdir("/")
    random.seed(7)
    logging.root.setLevel(logging.CRITICAL)
    logging.root.addHandler(logging.StreamHandler(sys.stdout))


def _have_child(config):
    """Return a child as a data loader's, that would outlive us, and one in a session of its own, that must."""
    import subprocess

    folder = Path(HydraConfig.get().runtime.output_dir)
    child = subprocess.Popen(["sleep", "300"])
    detached = subprocess.Popen(["sleep", "120"], start_new_session=True)
    (folder / "children.json").write_text(json.dumps([child.pid, detached.pid]))
    time.sleep(300)


def _fork_and_die(config):
    """Return the child keeps our pipes open, as a forked data loader does."""
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


ACTS = {
    "report": lambda config: None,
    "speak": _speak,
    "listen": _listen,
    "listen_late": _listen_late,
    "leak": _leak,
    "have_child": _have_child,
    "fork_and_die": _fork_and_die,
    "stubborn": lambda config: time.sleep(300),
    "exit": lambda config: sys.exit(3),
    "os_exit": lambda config: os._exit(4),
    "kill": lambda config: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda config: os.kill(os.getpid(), signal.SIGSEGV),
    "raise": lambda config: 1 / 0,
    "return_none": lambda config: 7,
}


def job(number, *overrides, **fields):
    return Job(number, (f"x={number}", *overrides), fields.pop("subdir", str(number)), **fields)


def collect(slots, count, seconds=120.0):
    """Return the next ``count`` jobs to end, by number."""
    ended = {}
    deadline = time.monotonic() + seconds
    while len(ended) < count:
        assert time.monotonic() < deadline, f"only {ended} ended"
        ended.update({finish.job.number: finish for finish in slots.wait(1.0)})
    return ended


def run_all(slots, jobs):
    """Return all of them, a freed slot taking the next at once; in the order of their ends."""
    waiting, ended = list(jobs), []
    while len(ended) < len(jobs):
        while waiting and slots.num_free():
            slots.submit(waiting.pop(0))
        ended += slots.wait(10.0)
    return ended


def wait_for(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def wait_until(slots, condition, seconds=120.0):
    """Wait while nothing ends."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert not slots.wait(0.02)
        assert time.monotonic() < deadline, "waited in vain"


def facts(folder, number):
    return json.loads((folder / "multirun" / "study" / str(number) / "facts.json").read_text())


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
