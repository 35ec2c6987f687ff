"""A small Hydra program to be swept, and what its sweeps leave behind."""

import contextlib
import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from warm_program import MARK, warm_program

APP = """
import os, pathlib, signal, sys, time
import hydra
from winnow.sweep.current import current_trial


@hydra.main(config_path="conf", config_name="config")
def main(cfg):
    folder = pathlib.Path(hydra.core.hydra_config.HydraConfig.get().runtime.output_dir)
    starts = folder / "starts"
    starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
    first_start = len(starts.read_text()) == 1
    match cfg.mode:
        case "raise":
            raise RuntimeError("a bug of the user's")
        case "raise_once" if first_start:
            raise RuntimeError("a passing trouble")
        case "full_once" if first_start:
            raise RuntimeError("nothing was saved") from OSError(28, "No space left on device", "best.pth")
        case "exit":
            sys.exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "wait":
            while not pathlib.Path("go").exists():
                time.sleep(0.02)
        case "kill_once" if first_start:
            os.kill(os.getpid(), signal.SIGKILL)
        case "nan":
            return float("nan")
        case "text":
            return "no number"
        case "one_seed_fails":
            time.sleep({4: 0.5, 5: 2.0}.get(cfg.training.seed, 0))
            if cfg.training.seed == 4:
                raise RuntimeError("only with this seed")
        case "folds":
            return cfg.x + cfg.data.fold
        case "seeded":
            return cfg.x + cfg.training.seed
        case "two":
            return cfg.x, -cfg.x
        case "debug":
            breakpoint()
        case "deaf":
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        case "costly":
            (folder / "result.json").write_text('{"cost": {"images": 100.0}, "epochs": 3, "seconds": 0.5}')
    current = current_trial()
    for epoch in range(1, cfg.epochs + 1):
        time.sleep(cfg.sleep)
        with (folder / "beats").open("a") as file:
            print(os.getpid(), file=file)
        value = cfg.x * epoch
        if current is not None:
            current.trial.report(value, epoch)
            if current.trial.should_prune():
                (folder / "pruned").write_text(str(epoch))
                import optuna
                raise optuna.TrialPruned(f"at epoch {epoch}")
    return value


if __name__ == "__main__":
    main()
"""

CONFIG = """
defaults:
  - _self_
  - override hydra/sweeper: winnow
x: 1.0
mode: ok
epochs: 3
sleep: 0.0
choice: null
group: {a: 1}
training: {seed: 0}
hydra:
  sweep: {dir: study}
  sweeper:
    study_name: study
    direction: maximize
    n_jobs: 2
    n_trials: 4
    max_retries: 0
    devices: null
    plots: false
    sampler: {seed: 0}
    params:
      x: interval(0.0, 1.0)
"""


SPACES = """
def conditional(cfg, trial):
    if trial.suggest_categorical("choice", ["plain", "grouped"]) == "grouped":
        trial.suggest_float("group.a", 2.0, 3.0)
"""


def write_app(folder):
    (folder / "conf").mkdir(parents=True)
    (folder / "app.py").write_text(APP)
    (folder / "spaces.py").write_text(SPACES)
    (folder / "conf" / "config.yaml").write_text(CONFIG)
    return folder


STARTED = []
"""Processes that no test leaves to the next."""
OWN = {"HYDRA_FULL_ERROR": "1", "COLUMNS": "200"}


def start(folder, *overrides):
    return start_program("app.py", folder, *overrides)


def start_program(program, folder, *overrides):
    """Start it in a session of its own, from the warm process: without the imports."""
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    STARTED.append(warm_program().start_in_session(str(program), folder, "-m", *overrides, **OWN, **paths))
    return STARTED[-1]


def start_python(folder, *arguments, **environment):
    """Start it in a session of its own; it and all it starts finds the modules of the tests."""
    own = OWN | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), MARK: str(os.getpid())}
    STARTED.append(
        subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=os.environ | own | environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )
    )  # fmt: skip
    return STARTED[-1]


def end_all_started():
    while STARTED:
        process = STARTED.pop()
        for one in session_of(process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.stdout.close()
        process.wait()


def sweep(folder, *overrides, code=0):
    """Return the console's text of a whole sweep, whose trials run in its own process: a worker costs a second to start."""
    return finished(start(folder, "hydra.sweeper.n_jobs=1", "hydra.sweeper.in_process=true", *overrides), code)


def sweep_by_worker(folder, *overrides, code=0):
    """Return the same of one with a worker process, or as many as ``overrides`` say: for trials that die, and for launchers."""
    return finished(start(folder, "hydra.sweeper.n_jobs=1", *overrides), code)


def finished(process, code=0, seconds=300):
    """Return what it printed, when it has ended with ``code``."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == code, output
    return output


def kill_with_children(process):
    """Send SIGKILL to a process that was started here and all that it has started."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()


def alive_after(seconds, processes):
    """Return those of ``processes`` that have not ended by then; zombies have, whoever is to bury them."""
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def is_alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def session_of(process):
    """Return all processes of the session that ``process`` led: by its number and our mark, for numbers come again."""
    return [one for one in psutil.process_iter() if _session(one) == process.pid and _is_marked(one)]


def _session(process):
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(process.pid)


def _is_marked(process):
    with contextlib.suppress(psutil.Error):
        return process.environ().get(MARK) == str(os.getpid())
    return False


def read_until(process, words):
    """Return what ``process`` prints, up to the line that holds ``words``."""
    printed = ""
    for line in process.stdout:
        printed += line
        if words in line:
            return printed
    raise AssertionError(f"{words!r} was not printed:\n{printed}")


def wait_until(condition, seconds=120, what="it"):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)


def table(folder, study="study"):
    """Return trials.csv as one dict per row."""
    with (Path(folder) / study / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def statuses(folder, study="study"):
    return [row["status"] for row in table(folder, study)]
