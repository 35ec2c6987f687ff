"""Kills parents, workers and the storage of one study N times at random: python benchmarks/sweep_fuzz.py N.

The study is a search over real, tiny trainings on digits (random sampler, two slots per parent). Each kill is a SIGKILL at a
random instant: of a parent alone, of a parent with all its workers, of one worker, of the process that holds the lock of the
journal or of the SQLite file just then, or of the whole PostgreSQL server, which is started again some seconds later. A dead
parent is started again by the same command. After the last kill the study is left to end; where it ends before, ``n_trials`` is
raised.

Then each trial's configuration is trained once more, uninterrupted, and compared: the values reported per epoch, the table's row,
and the last checkpoint bit for bit (weights, optimizer, EMA, random numbers, metrics). Prints how many trials were lost (not
completed), doubled (one configuration twice, epochs reported twice, or more than ``n_trials``) and wrong (another result),
and the processes left over; ends with exit code 1 unless all are 0. Needs Linux, and Debian's PostgreSQL for its kind of storage.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
from resume_fuzz import digest

from winnow.sweep.storage import open_storage

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "tests"))
from postgresql_cluster import Cluster, binaries  # noqa: E402

RUN = [
    "data.num_train=22", "data.num_val=6", "data.size=64", "data.image_size=64", "training.num_workers=0", "training.seed=5",
    "training.max_epochs=6", "training.save_every_steps=2", "training.ema.decay=0.9", "training.scheduler.warmup_steps=3",
    "training.keep_last_n=1", "model.channels=[8,8,16,16]", "model.head_channels=32", "tracking=off", "hydra/sweeper=winnow",
    "hydra.sweeper.direction=maximize", "hydra.sweeper.study_name=fuzz", "hydra.sweeper.plots=false",
    "hydra.sweeper.n_jobs=2", "hydra.sweeper.max_retries=1000",
]  # fmt: skip
SPACE = [
    "hydra/sweeper/sampler=random",
    "training.optimizer.lr=tag(log,interval(1e-4,1e-2))",
    "training.batch_size=choice(4,8)",
]
STUDY = Path("multirun/fuzz")
COMPARED = (
    "epoch", "step", "model_state_dict", "training_state_dict", "optimizer_state_dict", "ema_state_dict", "rng", "metrics",
    "best",
)  # fmt: skip
COLUMNS = (
    "status",
    "final_map",
    "final_loss",
    "epochs",
    "cost",
    "param_training.optimizer.lr",
    "param_training.batch_size",
)
MORE_TRIALS = 4
MARK = "WINNOW_FUZZ"


@dataclass
class Fuzz:
    """One study, whoever of its parents lives."""

    folder: Path
    storage: str | None
    cluster: Cluster | None
    rng: random.Random
    num_parents: int
    n_trials: int
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    parents: list[subprocess.Popen[bytes]] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    num_gave_up: int = 0

    def start(self, arguments: list[str], log: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", MARK: self.mark}
        command = [sys.executable, str(REPOSITORY / "train.py"), "-m", *RUN, *arguments]
        with (self.folder / log).open("ab") as output:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def keep_parents(self) -> None:
        """Start those that are dead again; a study that has ended gets more trials."""
        for parent in [parent for parent in self.parents if parent.poll() is not None]:
            self.parents.remove(parent)
            if parent.returncode == 0 and not self.parents:
                self.n_trials += MORE_TRIALS
            elif parent.returncode > 0:
                self.num_gave_up += 1
                print(f"  a parent ended with exit code {parent.returncode}: see {self.folder}/sweep.log", flush=True)
        while len(self.parents) < self.num_parents:
            where = [f"hydra.sweeper.storage={self.storage}"] if self.storage else []
            self.parents.append(self.start([*SPACE, *where, f"hydra.sweeper.n_trials={self.n_trials}"], "sweep.log"))

    def kill_one(self) -> str:
        """Kill somebody; who it was."""
        parent = self.rng.choice(self.parents)
        kind = self.rng.choice(["parent", "parent and workers", "worker", "storage", "storage"])
        workers = children_of(parent.pid)
        if kind == "worker" and workers:
            kill(self.rng.choice(workers))
            return kind
        if kind == "storage":
            return self.kill_storage()
        kill(psutil.Process(parent.pid))
        for worker in workers if kind != "parent" else []:
            kill(worker)
        parent.wait()
        return kind if kind != "worker" else "parent"

    def kill_storage(self) -> str:
        if self.cluster is not None:
            self.cluster.kill()
            time.sleep(self.rng.uniform(0, 4))
            self.cluster.start()
            return "server"
        journal = self.folder / STUDY / "study.journal"
        holder = self.next_holder(journal) if self.storage is None else self.holder(self.folder / STUDY / "study.db")
        if holder is None:
            return "nobody: no lock was taken"
        kill(holder)
        return "lock holder"

    def next_holder(self, journal: Path) -> psutil.Process | None:
        """Hold the journal's lock until somebody waits for it, then let him have it for a moment."""
        if not journal.exists():
            return None
        with journal.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            waiting = self.holder(journal)
            fcntl.flock(file, fcntl.LOCK_UN)
        time.sleep(self.rng.uniform(0, 0.004))
        return waiting

    def holder(self, path: Path) -> psutil.Process | None:
        """Return the first process of ours seen to have, or to wait for, a lock on ``path``."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for process in lock_holders(path):
                if marked(process, self.mark):
                    return process
        return None

    def run(self, num_kills: int) -> None:
        done = 0
        while done < num_kills:
            self.keep_parents()
            time.sleep(self.rng.uniform(0.2, 25))
            if all(parent.poll() is not None for parent in self.parents):
                continue
            self.parents = [parent for parent in self.parents if parent.poll() is None]
            kind = self.kill_one()
            done += not kind.startswith("nobody")
            self.kills[kind] += 1
            print(f"kill {done:3d}  {kind:18s} {self.progress()}", flush=True)
        while True:
            for parent in self.parents:
                parent.wait()
            if self.parents and all(parent.returncode == 0 for parent in self.parents):
                return
            self.keep_parents()

    def progress(self) -> str:
        path = self.folder / STUDY / "trials.csv"
        ended = len(path.read_text().splitlines()) - 1 if path.exists() else 0
        return f"{ended}/{self.n_trials} trials ended"

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        storage = open_storage(self.storage or str(self.folder / STUDY / "study.journal"))
        return optuna.load_study(study_name="fuzz", storage=storage).get_trials(deepcopy=False)


def children_of(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(pid).children()
    return []


def kill(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.kill()


def marked(process: psutil.Process, mark: str) -> bool:
    with suppress(psutil.Error, FileNotFoundError):
        return process.environ().get(MARK) == mark
    return False


def lock_holders(path: Path) -> Iterator[psutil.Process]:
    """Return the processes that the kernel's own list names, at this instant."""
    inode = path.stat().st_ino if path.exists() else None
    for line in Path("/proc/locks").read_text().splitlines():
        fields = [text for text in line.split() if text != "->"]
        if int(fields[5].rpartition(":")[2]) == inode and int(fields[4]) > 0:
            with suppress(psutil.Error):
                yield psutil.Process(int(fields[4]))


def reference(fuzz: Fuzz, trials: list[optuna.trial.FrozenTrial]) -> Path:
    """Run the same configurations once more, in a study that nobody disturbs."""
    (fuzz.folder / "reference").mkdir()
    (fuzz.folder / "reference" / "trials.json").write_text(json.dumps([trial.params for trial in trials]))
    arguments = ["hydra.sweeper.trials_file=reference/trials.json", f"hydra.sweeper.n_trials={len(trials)}"]
    folder = fuzz.folder / "reference" / "study"
    ended = fuzz.start([*arguments, f"hydra.sweep.dir={folder}"], "reference.log").wait()
    if ended != 0:
        raise RuntimeError(f"the reference ended with {ended}:\n{(fuzz.folder / 'reference.log').read_text()[-3000:]}")
    return folder


def rows(study: Path) -> list[dict[str, str]]:
    with (study / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def fingerprint(run: Path) -> dict[str, str]:
    import torch

    checkpoint = torch.load(run / "checkpoints" / "last.pth", weights_only=True)
    return {key: digest(checkpoint[key]) for key in COMPARED}


def differences(fuzz: Fuzz, trials: list[optuna.trial.FrozenTrial]) -> list[str]:
    """Return what each trial that went another way than its undisturbed twin differs in."""
    twins = reference(fuzz, trials)
    their_values = optuna.load_study(study_name="fuzz", storage=open_storage(str(twins / "study.journal"))).trials
    found, expected = rows(fuzz.folder / STUDY), rows(twins)
    different = []
    for number, trial in enumerate(trials):
        names = [name for name in COLUMNS if found[number][name] != expected[number][name]]
        if (
            trial.intermediate_values != their_values[number].intermediate_values
            or trial.values != their_values[number].values
        ):
            names.append("reported values")
        ours, theirs = fingerprint(fuzz.folder / STUDY / str(number)), fingerprint(twins / str(number))
        names += [key for key in COMPARED if ours[key] != theirs[key]]
        if names:
            different.append(f"trial {number}: {', '.join(names)}")
    return different


def num_runs(fuzz: Fuzz) -> int:
    """Return each trial's own, and one for each time that it was resumed."""
    logs = (fuzz.folder / STUDY).glob("*/train.log")
    return sum(1 + log.read_text().count("resumed from") for log in logs)


def verdict(fuzz: Fuzz) -> int:
    """Print what came out; the number of things that are not as they should be."""
    deadline = time.monotonic() + 40  # an orphaned worker is given 30 s to save
    while (
        left := [process for process in psutil.process_iter() if marked(process, fuzz.mark)]
    ) and time.monotonic() < deadline:
        time.sleep(0.5)
    trials = fuzz.trials()
    table = rows(fuzz.folder / STUDY)
    lost = [trial.number for trial in trials[: fuzz.n_trials] if trial.state != optuna.trial.TrialState.COMPLETE]
    lost += range(len(trials), fuzz.n_trials)
    lost += [int(row["trial_id"]) for row in table if row["status"] != "completed"]
    seen = Counter(json.dumps(trial.params, sort_keys=True) for trial in trials)
    extra = [trial.number for trial in trials[fuzz.n_trials :] if trial.state != optuna.trial.TrialState.WAITING]
    doubled = [params for params, count in seen.items() if count > 1 and params != "{}"] + extra
    ids = [row["trial_id"] for row in table]
    doubled += [name for name, count in Counter(ids).items() if count > 1]
    wrong = differences(fuzz, trials[: fuzz.n_trials]) if not lost else ["not compared"]
    print(f"{sum(fuzz.kills.values())} kills ({', '.join(f'{count} {kind}' for kind, count in sorted(fuzz.kills.items()))}), "
          f"{fuzz.n_trials} trials in {num_runs(fuzz)} runs: {len(lost)} lost, {len(doubled)} doubled, {len(wrong)} wrong, "
          f"{len(left)} processes left, {fuzz.num_gave_up} sweeps gave up")  # fmt: skip
    for what in (lost, doubled, wrong, [" ".join(process.cmdline()[:4]) for process in left]):
        for item in what:
            print(f"  {item}")
    return len(lost) + len(doubled) + len(wrong) + len(left) + fuzz.num_gave_up


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=20)
    parser.add_argument("--storage", choices=["journal", "sqlite", "postgresql"], default="journal")
    parser.add_argument("--parents", type=int, default=1, help="sweeps on the one study at once")
    parser.add_argument("--trials", type=int, default=8, help="n_trials to begin with")
    parser.add_argument("--seed", type=int, default=0, help="of instants and victims")
    parser.add_argument("--smoke", action="store_true", help="1 kill, 2 trials")
    options: Any = parser.parse_args()
    if options.smoke:
        options.kills, options.trials = 1, 2
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.storage == "postgresql" and binaries() is None:
        parser.error("no PostgreSQL here: apt-get install postgresql")
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="winnow-fuzz-"))
        cluster, storage = None, None
        if options.storage == "postgresql":
            cluster = Cluster()
            stack.callback(cluster.close)
            storage = cluster.new_database()
        elif options.storage == "sqlite":
            (folder / STUDY).mkdir(parents=True)
            storage = f"sqlite:///{folder / STUDY}/study.db"
        fuzz = Fuzz(folder, storage, cluster, random.Random(options.seed), options.parents, options.trials)
        print(f"{options.storage}, {options.parents} at once, seed {options.seed}", flush=True)
        fuzz.run(options.kills)
        if verdict(fuzz):
            print(f"everything is in {folder}")
            return 1
        shutil.rmtree(folder)
        return 0


if __name__ == "__main__":
    sys.exit(main())
