"""The study that a plan asks for: opened, described, with its sampler and its listed trials."""

from __future__ import annotations

import contextlib
import logging
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import hydra.utils
import optuna
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial

from hydra_plugins.winnow_sweeper._default_trial import DEFAULT
from hydra_plugins.winnow_sweeper._definition import Definition, accepted_changes
from hydra_plugins.winnow_sweeper._plan import Plan
from hydra_plugins.winnow_sweeper._points import Points
from hydra_plugins.winnow_sweeper._secrets import shown_storage
from hydra_plugins.winnow_sweeper._trials_file import ExplicitTrial
from hydra_plugins.winnow_sweeper._unvisited import UnvisitedSampler
from winnow.config.from_file import search_path_override, trust_overrides
from winnow.config.moved import require_todays_choices
from winnow.config.plain import command_overrides, group_choices
from winnow.errors import ConfigError
from winnow.masking import masked_override
from winnow.reading import naming, read_yaml
from winnow.run_folder import MadeFolders, write_whole
from winnow.sweep.listed import content_of, enqueue_listed, listed_content, num_beyond, was_withdrawn
from winnow.sweep.objectives import numbered
from winnow.sweep.patient import PatientStorage
from winnow.sweep.place import trouble_at
from winnow.sweep.storage import create_study_once
from winnow.sweep.stored_study import DESCRIPTION

logger = logging.getLogger(__name__)

DEFINITION = "winnow:definition"
CHANGES = "winnow:changes"
PARENTS = "winnow:parents"
_SHUFFLED = 1_000_000
"""The points of a larger grid are not put in an order beforehand, which would take the memory: each is drawn from those left."""


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
    with _lock(plan):
        if (plan.folder / DESCRIPTION).exists():
            made.keep()
        require_own_folder(plan)
        study = create_study_once(storage, plan.name, plan.settings.direction)
        plan = with_stored_choices(plan, study)
        describe_study(plan, study)
        name_objectives(plan, study)
        enqueue(plan, study)
    return study, plan


def turn_of(plan: Plan) -> AbstractContextManager[object]:
    """Return what a process holds while it takes a point of the study: nothing where no two could take the same."""
    return contextlib.nullcontext() if plan.points is None else _lock(plan)


def _lock(plan: Plan) -> FileLock:
    return FileLock(plan.folder / ".sweep.lock")


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
        "metric": objective_names(plan)[0],
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


def name_objectives(plan: Plan, study: optuna.Study) -> None:
    """Give the objectives the names that plots and dashboards show."""
    names = list(objective_names(plan))
    if study.metric_names != names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(names)


def objective_names(plan: Plan) -> tuple[str, ...]:
    """Return what is maximised or minimised, one name per direction."""
    settings = plan.settings
    if settings.metrics is not None:
        return tuple(settings.metrics)
    if len(settings.direction) > 1:
        return numbered(len(settings.direction))
    return (str(plan.base["objective"]["metric"]) if plan.is_winnow_run else "value",)


def build_sampler(plan: Plan, parents: int, num_trials: int) -> optuna.samplers.BaseSampler:
    """Build the sampler of the config; over a finite space it proposes no point twice.

    A seeded one would propose its first points again at each start, and the same as every other process: all but the very
    first start mix what is there already into the seed. A grid's order stays.
    """
    if not plan.space.distributions and plan.settings.custom_search_space is None:
        return optuna.samplers.RandomSampler()  # nothing to draw
    node = OmegaConf.to_container(OmegaConf.create(plan.settings.sampler), resolve=True)
    assert isinstance(node, dict)
    if node.get("seed") is not None and parents > 0 and not is_grid(plan):
        node["seed"] = zlib.crc32(f"{node['seed']} {parents} {num_trials}".encode())
    sampler = hydra.utils.instantiate(
        node, _execution_whitelist_=("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
    )
    points, seed = plan.points, node.get("seed")
    if is_grid(plan):
        plan.space.require_grid()
        if points is None:
            raise ConfigError(
                f"hydra.sweeper.custom_search_space={plan.settings.custom_search_space} suggests values that no grid has; "
                "choose another hydra/sweeper/sampler, as tpe or random"
            )
        order = points.shuffled(seed) if points.num <= _SHUFFLED else ()
        return UnvisitedSampler(points, optuna.samplers.RandomSampler(seed), order, seed)
    return sampler if points is None else UnvisitedSampler(points, sampler, seed=seed)


def is_grid(plan: Plan) -> bool:
    return str(plan.settings.sampler.get("_target_", "")).endswith(".GridSampler")


def most_trials(plan: Plan, study: optuna.Study) -> int:
    """Return ``n_trials``, and on top those of ``study`` that no longer stand in its list or were ended before they began."""
    return plan.settings.n_trials + num_beyond(study)


def num_trials(plan: Plan, study: optuna.Study | None = None) -> int:
    """Return how many trials the study comes to, or a new one would: ``n_trials``, or fewer where its points have an end."""
    points = plan.points
    if study is None:
        apart = sum(bool(explicit.overrides) for explicit in plan.explicit)
        return plan.settings.n_trials if points is None else min(plan.settings.n_trials, points.num + apart)
    if points is None:
        return most_trials(plan, study)
    trials = study.get_trials(deepcopy=False)
    return min(most_trials(plan, study), len(trials) + points.num_left(trials))


def tell_points(plan: Plan, study: optuna.Study | None = None) -> None:
    """Log how many points the space has, if they have an end; those done are of ``study``, None for a new one."""
    points, trials = plan.points, [] if study is None else study.get_trials(deepcopy=False)
    if points is None or points.num == 0:
        return
    logger.info(
        "points of the space: %d, done: %d; trials in all: %d (hydra.sweeper.n_trials=%d)",
        points.num, points.num_done(trials), num_trials(plan, study), plan.settings.n_trials,
    )  # fmt: skip


def why_all_done(plan: Plan, study: optuna.Study) -> str:
    """Return the words for the end of a study in which nothing is left to run."""
    points, trials = plan.points, study.get_trials(deepcopy=False)
    if points is None or points.num == 0 or points.num_done(trials) < points.num:
        return "all trials are done"
    below = f", below n_trials={plan.settings.n_trials}" if len(trials) < plan.settings.n_trials else ""
    return f"all {points.num} points of the space are done{below}"


def enqueue(plan: Plan, study: optuna.Study) -> None:
    """Put the default configuration, of a new study, or the listed trials before all others, each once over all starts. Without a
    list those of earlier starts stay. One whose point the sampler took before it was listed is not run again."""
    if plan.default is not None and not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(plan.default), user_attrs={DEFAULT: True})
    if plan.settings.trials_file is None:
        return
    fresh = plan.explicit
    if plan.points is not None and plan.points.distributions:
        fresh = _without_taken(plan, plan.points, study.get_trials(deepcopy=False))
    enqueue_listed(study, [(explicit.params, explicit.overrides) for explicit in fresh])


def _without_taken(plan: Plan, points: Points, trials: Sequence[FrozenTrial]) -> list[ExplicitTrial]:
    known = {listed_content(trial) for trial in trials if not was_withdrawn(trial)}
    taken = {own: points.taken(trials, own) for own in {explicit.overrides for explicit in plan.explicit}}
    fresh = []
    for explicit in plan.explicit:
        is_known = content_of(explicit.params, explicit.overrides) in known
        if is_known or points.num_free(taken[explicit.overrides], explicit.params) > 0:
            fresh.append(explicit)
        else:
            where = f"{plan.settings.trials_file}, line {explicit.line}"
            logger.info("%s: not run again, its point of the space has been taken", where)
    return fresh


def extender(plan: Plan) -> Callable[[optuna.Trial], None] | None:
    """Return upstream's ``custom_search_space``, a function of the user's that suggests further parameters; None if
    there is none.
    """
    name = plan.settings.custom_search_space
    if name is None:
        return None
    function = hydra.utils.get_object(name)
    return lambda trial: function(plan.config, trial)
