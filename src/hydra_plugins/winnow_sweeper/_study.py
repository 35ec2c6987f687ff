"""The study that a plan asks for: opened, described, with its sampler and its listed trials."""

from __future__ import annotations

import functools
import logging
import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hydra.utils
import optuna
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import json_to_distribution

from hydra_plugins.winnow_sweeper._definition import Definition, accepted_changes
from hydra_plugins.winnow_sweeper._plan import Plan
from hydra_plugins.winnow_sweeper._secrets import shown_storage
from winnow.config.from_file import search_path_override, trust_overrides
from winnow.config.moved import require_todays_choices
from winnow.config.plain import command_overrides, group_choices
from winnow.errors import ConfigError
from winnow.masking import masked_override
from winnow.reading import naming, read_yaml
from winnow.run_folder import MadeFolders, write_whole
from winnow.sweep.listed import enqueue_listed, unlisted_in
from winnow.sweep.patient import PatientStorage
from winnow.sweep.place import trouble_at
from winnow.sweep.storage import create_study_once
from winnow.sweep.stored_study import DESCRIPTION

logger = logging.getLogger(__name__)

DEFINITION = "winnow:definition"
CHANGES = "winnow:changes"
PARENTS = "winnow:parents"


def make_study_folder(plan: Plan, made: MadeFolders) -> None:
    """Make the study's folder. Raises ConfigError where it can't be made or written, or holds another study."""
    require_own_folder(plan)
    try:
        made.make()
    except OSError as error:
        raise ConfigError(f"hydra.sweep.dir={plan.folder} can't be made: {error}; choose another") from error
    if (trouble := trouble_at(plan.folder)) is not None:
        raise ConfigError(
            f"hydra.sweep.dir={plan.folder} can't be written: {trouble}; make room there, or choose another"
        )


def open_study(plan: Plan, storage: PatientStorage, made: MadeFolders) -> tuple[optuna.Study, Plan]:
    """Open the study, made if it is not there yet, and return ``plan`` in its words with it. Raises ConfigError if it
    searches something else. The folder, just ``made``, is kept where another process was faster to describe a study there.
    """
    # One process at a time opens and describes the study: those that come second find it whole.
    with FileLock(plan.folder / ".sweep.lock"):
        if (plan.folder / DESCRIPTION).exists():
            made.keep()
        require_own_folder(plan)
        study = create_study_once(storage, plan.name, plan.settings.direction)
        plan = with_stored_choices(plan, study)
        describe_study(plan, study)
        enqueue(plan, study)
    return study, plan


def require_own_folder(plan: Plan) -> None:
    """Raise ConfigError where the folder holds another study than this one, whose runs would be written over."""
    path = plan.folder / DESCRIPTION
    if not path.is_file():
        return
    there = read_yaml(path, "a study's description", ConfigError)
    name = there.get("study_name") if isinstance(there, dict) else None
    if name is not None and name != plan.name:
        raise ConfigError(
            f"{plan.folder} holds the study {name!r}, and this one is {plan.name!r}; choose another hydra.sweep.dir, or "
            f"hydra.sweeper.study_name={name} to go on with it"
        )


def with_stored_choices(plan: Plan, study: optuna.Study) -> Plan:
    """Return ``plan`` with its choices written as the study has them: other quotes in the YAML make no other parameter."""
    stored = study.user_attrs.get(DEFINITION)
    if stored is None:
        return plan
    with naming(f"study {plan.name!r}"):
        definition = Definition.from_json(stored)
    known = {name: json_to_distribution(text) for name, text in definition.search_space.items()}
    return replace(plan, space=plan.space.matching(known))


def describe_study(plan: Plan, study: optuna.Study) -> None:
    """Write down what the study searches and give it its sampler. Raises ConfigError if an earlier start searched
    something else, unless changes are accepted.
    """
    stored = study.user_attrs.get(DEFINITION)
    if stored is None and plan.is_winnow_run:
        require_todays_choices(command_overrides(plan.config.hydra.overrides.task), group_choices(plan.config))
    if stored is not None:
        with naming(f"study {plan.name!r}"):
            changes = accepted_changes(Definition.from_json(stored), plan.definition, plan.settings.accept_changes)
        if changes:
            logger.warning("the study goes on although its definition has changed:\n  %s", "\n  ".join(changes))
            before = study.user_attrs.get(CHANGES)
            study.set_user_attr(CHANGES, [*(before if isinstance(before, list) else []), changes])
    study.set_user_attr(DEFINITION, plan.definition.to_json())
    known = study.user_attrs.get(PARENTS)
    parents = known if type(known) is int else 0
    study.set_user_attr(PARENTS, parents + 1)
    study.sampler = build_sampler(plan, parents, len(study.get_trials(deepcopy=False)))
    describe(plan)


def describe(plan: Plan) -> None:
    """Write ``sweep.yaml``: what the study is, for people, ``winnow study`` and ``winnow promote``."""
    description = OmegaConf.create({
        "study_name": plan.name,
        "storage": shown_storage(plan.config, plan.settings.storage),
        "metric": metric_of(plan),
        "overrides": [masked_override(text) for text in command_overrides(plan.config.hydra.overrides.task)],
        "hydra_overrides": [masked_override(text) for text in command_overrides(plan.config.hydra.overrides.hydra)],
        "search_path": added_sources(plan.config),
        "definition": plan.definition.plain(),
    })  # fmt: skip
    write_whole(plan.folder / DESCRIPTION, OmegaConf.to_yaml(description))


def added_sources(config: DictConfig) -> list[str]:
    """Return where the command had config groups found (--config-dir, hydra.searchpath) besides conf/ and what that names, as
    Hydra writes such places."""
    of_the_project = ("hydra", "main", "schema", "hydra.searchpath in main")
    own = [source for source in config.hydra.runtime.config_sources if source.provider not in of_the_project]
    return [
        f"file://{Path(source.path).absolute()}" if source.schema == "file" else f"{source.schema}://{source.path}"
        for source in own
    ]


def code_overrides(config: DictConfig) -> list[str]:
    """Return what a command line says of the code that may run and of where config groups lie: what ``winnow promote`` does
    not take from ``sweep.yaml``."""
    own = command_overrides(config.hydra.overrides.task)
    return [*trust_overrides(own), *search_path_override(added_sources(config))]


def metric_of(plan: Plan) -> str:
    return str(plan.base["objective"]["metric"]) if plan.is_winnow_run else "value"


def build_sampler(plan: Plan, parents: int, num_trials: int) -> optuna.samplers.BaseSampler:
    """Build the sampler of the config. A seeded one would propose its first points again at each start, and the same as
    every other process: all but the very first start mix what is there already into the seed.
    """
    if not plan.space.distributions and plan.settings.custom_search_space is None:
        return optuna.samplers.RandomSampler()  # nothing to draw: GridSampler fails on no grid
    node = OmegaConf.to_container(OmegaConf.create(plan.settings.sampler), resolve=True)
    assert isinstance(node, dict)
    if node.get("seed") is not None and parents > 0:
        node["seed"] = zlib.crc32(f"{node['seed']} {parents} {num_trials}".encode())
    sampler = hydra.utils.instantiate(
        node, _execution_whitelist_=("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
    )
    if isinstance(sampler, functools.partial) and sampler.func is optuna.samplers.GridSampler:
        return sampler(plan.space.grid())
    return sampler


def num_trials(plan: Plan, study: optuna.Study | None = None) -> int:
    """Return ``n_trials``, or as many as a grid has points; those of ``study`` that no longer stand in its list come on top."""
    return _wanted_trials(plan) + (0 if study is None else len(unlisted_in(study)))


def _wanted_trials(plan: Plan) -> int:
    if plan.settings.sampler.get("_target_", "").endswith("GridSampler") and plan.space.distributions:
        points = math.prod(len(values) for values in plan.space.grid().values())
        if points < plan.settings.n_trials:
            logger.info("the grid has %d points: that many trials", points)
        return min(points, plan.settings.n_trials)
    return plan.settings.n_trials


def enqueue(plan: Plan, study: optuna.Study) -> None:
    """Put the listed trials before all others, each once over all starts. Without a list those of earlier starts stay."""
    if plan.settings.trials_file is not None:
        enqueue_listed(study, [(explicit.params, explicit.overrides) for explicit in plan.explicit])


def extender(plan: Plan) -> Callable[[optuna.Trial], None] | None:
    """Return upstream's ``custom_search_space``, a function of the user's that suggests further parameters; None if
    there is none.
    """
    name = plan.settings.custom_search_space
    if name is None:
        return None
    function = hydra.utils.get_object(name)
    return lambda trial: function(plan.config, trial)
