"""The plan of a sweep, checked whole before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from optuna.pruners import BasePruner

from hydra_plugins.winnow_sweeper._default_trial import default_params
from hydra_plugins.winnow_sweeper._definition import Definition
from hydra_plugins.winnow_sweeper._points import Points
from hydra_plugins.winnow_sweeper._pruner_building import build_pruner
from hydra_plugins.winnow_sweeper._repeats import with_repeats
from hydra_plugins.winnow_sweeper._secrets import hide_secrets, require_secrets
from hydra_plugins.winnow_sweeper._settings import SweeperSettings
from hydra_plugins.winnow_sweeper._space import SearchSpace
from hydra_plugins.winnow_sweeper._trials_file import ExplicitTrial, read_trials, without_repeats
from winnow.config.plain import command_overrides, group_choices, naming_stage, plain_config, stage_beside, with_stage
from winnow.config.schema import RunSettings
from winnow.config.values import override_text
from winnow.errors import ConfigError
from winnow.settings import build_settings
from winnow.sweep.stored_study import journal_address


@dataclass(frozen=True)
class ComposedRun:
    """One run: its plain ``config``, a pipeline's with the epochs of all its stages, and the config and the choices of each of
    the ``parts`` that it trains, its stages or itself; none of another program's run."""

    config: dict[str, Any]
    parts: tuple[tuple[dict[str, Any], dict[str, str]], ...] = ()


@dataclass(frozen=True)
class Plan:
    """``config`` is the composed one of the whole sweep, with the study's folder in ``hydra.sweep.dir``; ``base`` what every
    run has in common, as plain values."""

    settings: SweeperSettings
    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig
    name: str
    folder: Path
    space: SearchSpace
    base: dict[str, Any]
    explicit: Sequence[ExplicitTrial]
    default: Mapping[str, Any] | None
    pruner: BasePruner

    @property
    def definition(self) -> Definition:
        settings = self.settings
        return Definition.of(
            self.space, self.base, settings.direction, settings.pruner, settings.seeds, settings.custom_search_space,
            settings.repeat_over,
        )  # fmt: skip

    @property
    def points(self) -> Points | None:
        """Return the points of the space, None where they have no end or can't be known beforehand."""
        if self.settings.custom_search_space is not None:
            return None
        return Points.of(self.space.distributions, is_listed=self.settings.trials_file is not None)

    @property
    def storage(self) -> str:
        return self.settings.storage or journal_address(self.folder)

    @property
    def is_winnow_run(self) -> bool:
        """Return whether the runs are winnow's own; any other Hydra program that returns a number may be swept as well."""
        return is_winnow_run(self.base)

    @property
    def planned_epochs(self) -> int | None:
        epochs = self.base.get("training", {}).get("max_epochs") if self.is_winnow_run else None
        return epochs if isinstance(epochs, int) else None

    def compose(self, overrides: Sequence[str]) -> ComposedRun:
        """Return ``composed_run`` of ``overrides``."""
        return composed_run(self.hydra_context, self.config, overrides)


def is_winnow_run(config: Mapping[str, Any] | DictConfig) -> bool:
    """Tell whether a composed config has all that a run of winnow's has."""
    return set(RunSettings.model_fields) <= {str(key) for key in config}


def make_plan(
    raw: Mapping[str, Any], hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig,
    arguments: list[str],
) -> Plan:  # fmt: skip
    """Read and check the settings, the search space, the list of trials and the pruner. Raises ConfigError."""
    settings = build_settings(SweeperSettings, {key: _plain(value) for key, value in raw.items()}, "hydra.sweeper")
    arguments = hide_secrets(config, arguments)
    name, folder = study_place(settings, config)
    if str(folder) != str(config.hydra.sweep.dir):
        # Each job's config is composed anew from the command line's words, so it has to be one of them.
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.sweep.dir = str(folder)
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={override_text(str(folder))}")
    space = SearchSpace.parse(settings.params, arguments)
    composed = composed_run(hydra_context, config, space.fixed_overrides)
    base = composed.config
    require_secrets(base)
    settings = with_repeats(settings, base, space)
    trusted = base.get("trusted_targets") or ()
    epochs = base.get("training", {}).get("max_epochs") if isinstance(base.get("training"), dict) else None
    pruner = build_pruner(settings.pruner, epochs, len(settings.direction), trusted)
    explicit: Sequence[ExplicitTrial] = ()
    if settings.trials_file is not None:
        path = Path(settings.trials_file)
        explicit = read_trials(path, space, lambda overrides: compose(hydra_context, config, overrides))
        if settings.custom_search_space is None:
            explicit = without_repeats(path, explicit, space)
    if len(explicit) > settings.n_trials:
        raise ConfigError(
            f"hydra.sweeper.trials_file={settings.trials_file!r} lists {len(explicit)} trials, more than "
            f"hydra.sweeper.n_trials={settings.n_trials}, which is the total"
        )
    default = None
    if settings.enqueue_default and settings.trials_file is None and settings.custom_search_space is None:
        default = default_params(space, base, composed.parts[0][1] if composed.parts else {})
    plan = Plan(settings, hydra_context, task_function, config, name, folder, space, base, explicit, default, pruner)
    _require_one_direction(plan)
    _require_variation(plan)
    return plan


def study_place(settings: SweeperSettings, config: DictConfig) -> tuple[str, Path]:
    """Return the study's name and folder, both fixed, so that the same command again goes on with the same study: a
    folder named by the clock counts only if the command line asks for it.
    """
    name = settings.study_name or config.hydra.runtime.choices.get("sweep") or "study"
    folder = Path(str(config.hydra.sweep.dir))
    written = str(OmegaConf.to_container(config.hydra.sweep, resolve=False)["dir"])  # type: ignore[index, call-overload]
    chosen = any(text.startswith("hydra.sweep.dir=") for text in command_overrides(config.hydra.overrides.hydra))
    if ("${now:" in written and not chosen) or ("study_name}" in written and settings.study_name is None):
        folder = Path("multirun") / name
    if not settings.fresh or not folder.exists():
        return name, folder
    number = 2
    while folder.with_name(f"{folder.name}-{number}").exists():
        number += 1
    return f"{name}-{number}", folder.with_name(f"{folder.name}-{number}")


def compose(hydra_context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    return hydra_context.config_loader.load_sweep_config(config, list(overrides))


def composed_run(hydra_context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> ComposedRun:
    """Return one run, and each stage of a pipeline, as composed. Raises Hydra's errors if it doesn't know an override,
    ConfigError if a stage's epochs are not to be known.
    """
    composed = compose(hydra_context, config, overrides)
    run, choices = without_hydra(composed), group_choices(composed)
    names = stages_in(run)
    if not names:
        return ComposedRun(run, ((run, choices),) if is_winnow_run(run) else ())
    epochs, parts = 0, []
    for name in names:
        stage = compose(hydra_context, config, with_stage(overrides, stage_beside(choices["stage"], name)))
        part = without_hydra(stage)
        with naming_stage(name):
            epochs += build_settings(RunSettings, part, "").training.max_epochs
        parts.append((part, group_choices(stage)))
    training = {**run["training"], "max_epochs": epochs}
    return ComposedRun({**run, "training": training}, tuple(parts))


def stages_in(run: Mapping[str, Any]) -> Sequence[str]:
    """Return the stages of a pipeline; none for any other run, or another program's."""
    stage = run.get("stage")
    return (stage.get("stages") or ()) if isinstance(stage, Mapping) and "training" in run else ()


def without_hydra(config: DictConfig) -> dict[str, Any]:
    copy = config.copy()
    with open_dict(copy):
        del copy["hydra"]
    return plain_config(copy)


def _require_one_direction(plan: Plan) -> None:
    if not plan.is_winnow_run:
        return
    if len(plan.settings.direction) > 1:
        if plan.settings.metrics is None:
            raise ConfigError(
                f"hydra.sweeper.direction={plan.settings.direction}: a run of winnow's returns one number, its objective; name "
                "as many as there are directions, as hydra.sweeper.metrics=[val/map,cost/images_640]"
            )
        return
    mode = plan.base["objective"]["mode"]
    wanted = {"max": "maximize", "min": "minimize"}[mode]
    if plan.settings.direction != [wanted]:
        raise ConfigError(
            f"hydra.sweeper.direction={plan.settings.direction[0]} contradicts objective.mode={mode} of "
            f"{plan.base['objective']['metric']}: set it to {wanted}"
        )


def _require_variation(plan: Plan) -> None:
    points, seeds = plan.points, plan.settings.seeds or ()
    if points is None or points.num > 1 or plan.explicit or len(seeds) > 1:
        return
    searched = plan.space.words()
    raise ConfigError(
        f"the sweep varies nothing: {f'all that is searched is {searched}' if searched else 'no key is searched'}; "
        "search a key, as training.optimizer.lr=choice(0.001,0.01) or in hydra.sweeper.params, list trials in "
        "hydra.sweeper.trials_file, or repeat the run by hydra.sweeper.seeds=[0,1,2]"
    )


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value
