"""Run plans: what one run is to do, final and checked, needing no override any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from winnow.config.flat import flat
from winnow.config.lookups import recorded_config
from winnow.config.plain import Config
from winnow.config.schema import RunSettings
from winnow.engine.seeding import choose_seed
from winnow.masking import remember, remember_looked_up
from winnow.settings import build_settings


@dataclass(frozen=True)
class RunPlan:
    """One run, a stage or a single one.

    ``config`` holds plain values and ``settings`` the same, typed; the seed is drawn, where it was to be. Both hold secrets: what
    is written down is ``recorded``. ``looked_up`` is what the environment gave of ``tracking``. ``checkpoint`` is the
    file that the run goes on from, None where it begins. ``choices`` maps config group → choice. ``parent_folder`` is that of
    the tracked run that this one belongs to. It holds no tensors: ranks get it as it is.
    """

    name: str
    settings: RunSettings = field(repr=False)
    config: Config = field(repr=False)
    folder: Path
    choices: dict[str, str]
    checkpoint: Path | None
    parent_folder: Path | None
    looked_up: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        config: Config,
        folder: Path,
        choices: dict[str, str],
        checkpoint: Path | None,
        parent_folder: Path | None,
        looked_up: Mapping[str, Any] | None = None,
    ) -> RunPlan:
        """Return the plan of a complete ``config``. Raises ConfigError for a wrong value in it."""
        seed = choose_seed(build_settings(RunSettings, config, "").training.seed)
        config = {**config, "training": {**config["training"], "seed": seed, "resume": None}}
        settings = build_settings(RunSettings, config, "")
        remember(*map(str, flat(config).values()))
        remember_looked_up(looked_up or {})
        return cls(settings.stage.name, settings, config, folder, choices, checkpoint, parent_folder, looked_up or {})

    @property
    def recorded(self) -> Config:
        """Return the config as files and servers get it: each secret is ``***``."""
        return recorded_config(self.config, self.looked_up)

    @property
    def seed(self) -> int:
        """Return the seed, which every plan has."""
        assert self.settings.training.seed is not None
        return self.settings.training.seed

    def with_absolute_paths(self) -> RunPlan:
        """Return the plan as another process needs it, wherever that stands."""
        checkpoint = self.checkpoint.absolute() if self.checkpoint is not None else None
        return replace(self, folder=self.folder.absolute(), checkpoint=checkpoint)

    def with_values(self, node: str, **values: object) -> RunPlan:
        """Return the plan with other values of the config's ``node``, as ``training``."""
        config = {**self.config, node: {**self.config[node], **values}}
        return replace(self, config=config, settings=build_settings(RunSettings, config, ""))
