"""Train one run as composed from conf/: ``python train.py --help``."""

import sys

import hydra
from omegaconf import DictConfig

from winnow.config.resolvers import register_resolvers
from winnow.errors import show_errors_as_messages
from winnow.run.program import run_program
from winnow.run.torchrun import is_follower, refuse_sweep

register_resolvers()
show_errors_as_messages()


@hydra.main(
    config_path="conf",
    config_name="config",
    execution_whitelist=["winnow.console.*", "winnow.run.refused_run.*", "logging.*"],
)
def main(cfg: DictConfig) -> float | None:
    from winnow.run.pipeline import run  # torch and its friends: not before the config is composed

    return run(cfg)


if __name__ == "__main__":
    refuse_sweep(sys.argv)
    if is_follower():
        from winnow.run.follower import follow

        follow()
    else:
        run_program(main)
