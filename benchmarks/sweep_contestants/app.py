"""The program that every Hydra contestant sweeps over: it takes a number, sleeps as long as that says, and returns a value."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig
from sweep_contestants_work import work


@hydra.main(config_path=".", config_name="app")
def main(cfg: DictConfig) -> float:
    return work(cfg.x, list(cfg.seconds), cfg.tickets)


if __name__ == "__main__":
    main()
