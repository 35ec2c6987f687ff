"""A trial's task as a Hydra launcher gets it: it travels to wherever the job runs, and listens there for a request to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from hydra_plugins.winnow_sweeper._interrupts import Interrupts
from hydra_plugins.winnow_sweeper._notes import Notes
from hydra_plugins.winnow_sweeper._output import output_to
from hydra_plugins.winnow_sweeper._single_run import TrialTask, interrupted
from winnow.checkpoints.seal import has_whole_checkpoint
from winnow.sweep.outcome import Outcome

_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class ClusterTask:
    """``task`` for the job ``name``, with ``environment`` set first, before anything looks for a GPU.

    A cluster may start a job again, after a preemption or the loss of a node: it goes on from its own checkpoint, unless it had
    answered already.
    """

    task: TrialTask
    notes: Notes
    name: str
    environment: dict[str, str]
    sweep_pid: int
    allows_in_process: bool

    def __call__(self, config: DictConfig) -> Outcome:
        if os.getpid() == self.sweep_pid and not self.allows_in_process:
            launcher = HydraConfig.get().launcher["_target_"]
            raise RuntimeError(
                f"{launcher} runs jobs inside the sweep's own process, several at once would mix: n_jobs=1"
            )
        os.environ.update(self.environment)
        if (outcome := self.notes.outcome(self.name)) is not None:
            return outcome
        if self.notes.must_stop(self.name):
            return interrupted("asked to stop before the run began")
        if os.getpid() == self.sweep_pid:
            return self.task(config)
        folder = Path(HydraConfig.get().runtime.output_dir)
        with output_to(folder / "output.log"), self._listening():
            if self.notes.start(self.name):
                _go_on(config, folder)
            outcome = self.task(config)
        self.notes.end(self.name, outcome)
        return outcome

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Obey the stop note; only where this is a main thread, since no other can be interrupted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        is_over = threading.Event()
        interrupts = Interrupts(also=_preemption_signals())
        with interrupts.during(self.name):
            threading.Thread(target=self._look, args=(interrupts, is_over), daemon=True).start()
            try:
                yield
            finally:
                is_over.set()

    def _look(self, interrupts: Interrupts, is_over: threading.Event) -> None:
        while not is_over.wait(_LOOK_SECONDS):
            if self.notes.must_stop(self.name):
                interrupts.request(self.name)
                return


def _preemption_signals() -> tuple[signal.Signals, ...]:
    """Return what submitit has SLURM send before a job's time is over. Its own handler would end the run where it stands."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return ()
    return (signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"],)


def _go_on(config: DictConfig, folder: Path) -> None:
    """Let a winnow run that was started before resume. One that began from another run's checkpoint does so again until it has
    its own."""
    if "resume" not in (OmegaConf.select(config, "training") or {}):
        return
    if config.training.resume is None or has_whole_checkpoint(folder):
        with open_dict(config):
            config.training.resume = "auto"
