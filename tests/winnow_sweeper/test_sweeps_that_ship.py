"""The files of sweeps/: each composes, and nothing that it may choose is refused later."""

import pytest
from composed import REPOSITORY
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution

from hydra_plugins.winnow_sweeper._pruner_building import build_pruner
from hydra_plugins.winnow_sweeper._space import SearchSpace
from hydra_plugins.winnow_sweeper._trials_file import read_trials
from winnow.config.schema import RunSettings
from winnow.settings import build_settings

NAMES = sorted(path.stem for path in (REPOSITORY / "sweeps").glob("*.yaml"))


@pytest.fixture(scope="module")
def conf():
    with initialize_config_dir(str(REPOSITORY / "conf")):
        yield


def composed(name, *overrides):
    return compose("config", overrides=[f"+sweep={name}", *overrides], return_hydra_config=True)


def validate(config):
    plain = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]), resolve=True
    )
    build_settings(RunSettings, plain, "")


def test_they_are_all_there():
    assert NAMES == ["architecture", "augmentation", "lr_bs", "lr_schedule", "resize", "seeds", "start"]


@pytest.mark.parametrize("name", NAMES)
def test_each_choice_of_a_sweep_makes_a_valid_run(conf, name):
    config = composed(name)
    sweeper = config.hydra.sweeper
    assert sweeper._target_.endswith("WinnowSweeper")
    assert config.budget.name == "search"
    assert sweeper.study_name == name
    assert sweeper.direction == "maximize"
    build_pruner(sweeper.pruner, config.training.max_epochs)
    space = SearchSpace.parse(sweeper.params, [])
    assert space.distributions
    choices = {
        key: distribution.choices
        if isinstance(distribution, CategoricalDistribution)
        else [distribution.low, distribution.high]
        for key, distribution in space.distributions.items()
    }
    for number in range(
        max(map(len, choices.values()))
    ):  # each choice once at least, with others of the other parameters
        validate(composed(name, *space.overrides({key: own[number % len(own)] for key, own in choices.items()})))


@pytest.mark.parametrize("name", NAMES)
def test_each_sweep_says_its_command_and_its_cost_first(name):
    lines = (REPOSITORY / "sweeps" / f"{name}.yaml").read_text().splitlines()
    assert lines[1].startswith(f"# python train.py -m +sweep={name}")
    assert "Cost:" in "\n".join(lines[:7])


def test_the_hand_picked_trials_belong_to_their_sweep(conf):
    space = SearchSpace.parse(composed("lr_bs").hydra.sweeper.params, [])
    trials = read_trials(REPOSITORY / "sweeps" / "lr_bs_trials.json", space, lambda overrides: None)
    assert len(trials) == 4
    assert all(set(trial.params) == set(space.distributions) for trial in trials)


def test_a_sweep_composes_with_another_model_and_data(conf):
    config = composed("lr_bs", "model=deformable_detr", "data=bdd100k", "data.root=x")
    assert config.model._target_.endswith("deformable_detr")
