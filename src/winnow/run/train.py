"""The program that trains, as train.py or ``winnow train``. Imports nothing heavy before the config is composed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from winnow.config.project import project_conf
from winnow.config.quoting import with_home
from winnow.config.resolvers import register_resolvers
from winnow.errors import show_errors_as_messages
from winnow.run.program import run_program
from winnow.run.torchrun import is_follower, refuse_sweep

register_resolvers()  # also where a sweep's worker imports this module


def train(conf: Path | None = None) -> None:
    """Train what the command line composes from ``conf``, a project's folder of configs; without one from conf/ of the working
    folder, or from what winnow brings along. Ends the process as docs/README.md lists."""
    show_errors_as_messages()
    sys.argv[1:] = with_home(sys.argv[1:])
    refuse_sweep(sys.argv)
    if is_follower():
        # Where rank 0 ends first, torch would show a lost connection with a page of frames; what happened is said in a line.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        from winnow.run.follower import follow

        follow()
        return
    decorated = hydra.main(
        config_path=project_conf(conf),
        config_name="config",
        execution_whitelist=["winnow.console.*", "winnow.run.refused_run.*", "logging.*"],
    )
    run_program(decorated(run_composed))


def run_composed(cfg: DictConfig) -> float | None:
    """Run what Hydra composed, a sweep's jobs included; return the objective."""
    from winnow.run.pipeline import run  # torch and its friends: not before the config is composed

    return run(cfg)
