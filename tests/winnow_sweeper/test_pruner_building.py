"""The group `hydra/sweeper/pruner`: each choice builds a pruner that prunes, and a wrong one is refused with its key."""

import subprocess
import sys

import numpy as np
import optuna
import pytest
from hydra import compose, initialize
from omegaconf import OmegaConf
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import TrialState

from hydra_plugins.winnow_sweeper._pruner_building import build_pruner, pruner_node
from hydra_plugins.winnow_sweeper.pruner_configs import PRUNERS
from winnow.errors import ConfigError

EPOCHS = 20
MEDIAN = "optuna.pruners.MedianPruner"
CHOICES = [
    "median",
    "median_threshold",
    "forecast",
    "hyperband",
    "successive_halving",
    "patient",
    "threshold",
    "wilcoxon",
    "none",
]


class MyPruner(BasePruner):
    """A pruner of the user's own."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.weights = weights

    def prune(self, study, trial):
        return True


def node(choice, *overrides, **changes):
    """Return the node as Hydra composes it."""
    with initialize(config_path=None):
        config = compose(overrides=[f"+hydra/sweeper/pruner@pruner={choice}", *overrides])
    plain = OmegaConf.to_container(config.pruner)
    return OmegaConf.merge(plain, changes)


def spent(pruner):
    """Return epochs of 12 rising trials, and of 12 that fall and follow them."""
    study = optuna.create_study(study_name="spent", direction="maximize", pruner=pruner)
    noise = 0.001 * np.random.default_rng(0).standard_normal((24, EPOCHS))
    epochs = []
    for number in range(24):
        trial, level, gain = study.ask(), *((0.8, 0.005) if number < 12 else (0.2, -0.005))
        for epoch in range(1, EPOCHS + 1):
            trial.report(level + gain * epoch + noise[number, epoch - 1], epoch)
            if epoch < EPOCHS and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, level)
        epochs.append(epoch)
    return sum(epochs[:12]), sum(epochs[12:])


def test_the_group_holds_what_is_promised():
    assert sorted(PRUNERS) == sorted(CHOICES)


@pytest.mark.parametrize("choice", CHOICES)
def test_each_choice_prunes_the_bad_ones_and_keeps_the_good(choice):
    changes = {"threshold": {"lower": 0.5}, "hyperband": {"min_resource": 2}}.get(choice, {})
    good, bad = spent(build_pruner(node(choice, **changes), EPOCHS))
    if choice == "none":
        assert (good, bad) == (12 * EPOCHS, 12 * EPOCHS)
    else:
        assert bad < 0.75 * 12 * EPOCHS
        assert good > bad


def test_a_sweep_without_pruner_prunes_nothing():
    assert isinstance(build_pruner(None, None), NopPruner)


@pytest.mark.parametrize(
    ("choice", "key"), [("forecast", "max_epochs"), ("median_threshold", "max_epochs"), ("hyperband", "max_resource")]
)
def test_the_epochs_of_a_run_are_filled_in(choice, key):
    assert pruner_node(node(choice), 50)[key] == 50
    assert pruner_node(node(choice, **{key: 30}), 50)[key] == 30
    with pytest.raises(ConfigError, match=rf"hydra\.sweeper\.pruner\.{key} is missing"):
        build_pruner(node(choice), None)


def test_a_patient_pruner_wraps_another_by_one_override():
    inner = node("patient", "hydra/sweeper/pruner@pruner.wrapped_pruner=forecast")
    assert isinstance(build_pruner(node("patient"), 50)._wrapped_pruner, optuna.pruners.MedianPruner)
    assert build_pruner(inner, 50)._wrapped_pruner.n_warmup_steps == 10


def test_interpolations_are_resolved():
    config = OmegaConf.create({"epochs": 40, "pruner": node("forecast")})
    config.pruner.max_epochs = "${epochs}"
    assert build_pruner(config.pruner, None).max_epochs == 40


@pytest.mark.parametrize(("choice", "changes", "message"), [
    ("median", {"n_startup_trials": -1}, r"hydra.sweeper.pruner.n_startup_trials=-1: "),
    ("median", {"interval_steps": 0}, r"hydra.sweeper.pruner.interval_steps=0: "),
    ("median_threshold", {"n_min_trials": 0}, r"hydra.sweeper.pruner.n_min_trials=0 must be at least 1"),
    ("median_threshold", {"floor": 0.1}, r"hydra.sweeper.pruner.floor_from_epoch=None goes with floor=None only"),
    ("forecast", {"z": -0.5}, r"hydra.sweeper.pruner.z=-0.5 must be at least 0"),
    ("hyperband", {"min_resource": 21}, r"hydra.sweeper.pruner.min_resource=21 must be at most max_resource=20"),
    ("hyperband", {"reduction_factor": 1}, r"hydra.sweeper.pruner.reduction_factor=1: "),
    ("hyperband", {"bootstrap_count": -1}, r"hydra.sweeper.pruner.bootstrap_count=-1: "),
    ("successive_halving", {"min_resource": 0}, r"hydra.sweeper.pruner.min_resource=0: "),
    ("patient", {"patience": -1}, r"hydra.sweeper.pruner.patience=-1: "),
    ("patient", {"wrapped_pruner": {"n_min_trials": 0}}, r"hydra.sweeper.pruner.wrapped_pruner.n_min_trials=0: "),
    ("threshold", {}, r"hydra.sweeper.pruner.lower=None: Either lower or upper must be specified"),
    ("wilcoxon", {"p_threshold": 2.0}, r"hydra.sweeper.pruner.p_threshold=2.0: "),
])  # fmt: skip
def test_a_bad_argument_is_refused_with_its_key(choice, changes, message):
    with pytest.raises(ConfigError, match=message):
        build_pruner(node(choice, **changes), EPOCHS)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"_target_": "os.system", "command": "false"}, r"pruner._target_='os.system' is not trusted; .*\[os\]"),
    ({"_target_": MEDIAN, "x": {"_target_": "os.getcwd"}}, r"pruner.x._target_='os.getcwd' is not trusted"),
    ({"_target_": MEDIAN, "startup": 1}, r"pruner.startup=1 is not a known key; allowed here: .*n_startup_trials"),
    ({"_target_": MEDIAN, "n_startup_trials": "8"}, r"pruner.n_startup_trials='8': input should be a valid integer"),
    ({"_target_": "optuna.pruners.HyperbandPruner"}, r"pruner: max_resource='auto' must be a number of epochs"),
    ({"_target_": "optuna.pruners.Percentile"}, r"pruner._target_='optuna.pruners.Percentile' can't be imported"),
    ({"_target_": "json.dumps", "obj": 1}, r"pruner._target_='json.dumps' builds no Optuna pruner, but str"),
    ({"n_startup_trials": 8}, r"pruner._target_ must name the class or function to build, got None"),
    ("median", r"hydra.sweeper.pruner='median' must be a node"),
])  # fmt: skip
def test_a_wrong_node_is_refused_before_anything_is_built(wrong, message):
    with pytest.raises(ConfigError, match=message):
        build_pruner(wrong, EPOCHS, trusted_targets=["json"])


def test_a_pruner_of_the_user_s_own_is_built_when_trusted():
    own = {"_target_": f"{__name__}.MyPruner", "weights": {"a": 1.0}}
    assert build_pruner(own, EPOCHS, trusted_targets=[__name__]).weights == {"a": 1.0}
    with pytest.raises(ConfigError, match="is not trusted"):
        build_pruner(own, EPOCHS)


@pytest.mark.parametrize("choice", CHOICES)
def test_several_objectives_go_with_no_pruner_only(choice):
    if choice == "none":
        assert isinstance(build_pruner(node(choice), EPOCHS, num_objectives=2), NopPruner)
        return
    changes = {"lower": 0.1} if choice == "threshold" else {}
    with pytest.raises(ConfigError, match=r"can't judge 2 objectives.*hydra/sweeper/pruner=none"):
        build_pruner(node(choice, **changes), EPOCHS, num_objectives=2)


def test_the_configs_import_neither_optuna_nor_winnow():
    heavy = "('optuna', 'winnow', 'torch', 'numpy')"
    code = f"import sys, hydra_plugins.winnow_sweeper.pruner_configs; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
