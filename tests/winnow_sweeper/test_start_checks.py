"""What a sweep asks of its runs before any starts: by a process of its own that has torch, and against what it asks for."""

import inspect
import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from composed import compose_plain
from omegaconf import OmegaConf
from optuna._imports import _LazyImport

from hydra_plugins.winnow_sweeper._plan import ComposedRun
from hydra_plugins.winnow_sweeper._requirements import (
    PACKAGES,
    require_one_objective,
    require_own_folders,
    require_packages,
)
from hydra_plugins.winnow_sweeper._start_checks import StartChecks
from winnow.errors import ConfigError, WinnowError
from winnow.run.refusals import refusals

INK = ("model=inktrace", "data=ink_strokes")


def run_of(*overrides, choices=None):
    config = compose_plain(*overrides)
    return ComposedRun(config, ((config, choices or {}),))


def plan_in(folder, metrics=None, direction=("maximize",), is_forced=False):
    return SimpleNamespace(
        folder=folder, settings=SimpleNamespace(metrics=metrics, direction=direction, force_direction=is_forced)
    )


@pytest.mark.slow
def test_a_process_of_its_own_answers(tmp_path):
    with StartChecks(True, in_child=True) as checks:
        found = checks.refusals(plan_in(tmp_path), [run_of(), run_of("model.head_convs=abc")])
    assert found == [None, "model.head_convs='abc': input should be a valid integer"]


def test_a_process_that_does_not_answer_has_its_last_words_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("hydra_plugins.winnow_sweeper._start_checks.MODULE", "no_such_module")
    words = r"ended with exit code 1: ModuleNotFoundError: No module named 'no_such_module'$"
    with StartChecks(True, in_child=True) as checks, pytest.raises(WinnowError, match=words):
        checks.refusals(plan_in(tmp_path), [run_of()])


def why(overrides, metrics, directions, is_forced=False):
    run = run_of(*overrides)
    (found,) = refusals([(run.config, run.parts)], Path("nowhere"), metrics, directions, is_forced)
    return found or ""


@pytest.mark.parametrize(("overrides", "metrics", "directions", "message"), [
    ((), ["val/map", "cost/images_640"], ["maximize", "minimize"], ""),
    ((), ["val/map_class/7", "val/loss"], ["maximize", "minimize"], ""),
    ((), ["train/loss"], ["minimize"], ""),
    ((), ["val/mapp"], ["maximize"], "hydra.sweeper.metrics: 'val/mapp' is not a metric of this run; allowed: val/loss, val/map"),
    ((), ["cost/imagse"], ["minimize"], "'cost/imagse' is not a metric"),
    ((), ["val_raw/map"], ["maximize"], "'val_raw/map' is not a metric"),
    (["training.ema.decay=0.9", "training.ema.also_raw=true"], ["val_raw/map"], ["maximize"], ""),
    ((), ["val/loss"], ["maximize"], "direction=maximize of val/loss would search for the worst: set minimize, or"),
    ((), ["cost/seconds"], ["maximize"], "direction=maximize of cost/seconds would"),
    ((), ["val/map_50"], ["minimize"], "direction=minimize of val/map_50 would search for the worst: set maximize"),
    (["objective.metric=val/loss"], None, ["maximize"], "direction=maximize of val/loss would"),
    (INK, ["val/tangent_error_deg", "val/f1_1px"], ["minimize", "maximize"], ""),
    (INK, ["val/tangent_error_deg"], ["maximize"], "direction=maximize of val/tangent_error_deg would"),
    (INK, ["val/map"], ["maximize"], "'val/map' is not a metric of this run; allowed: val/loss, val/iou"),
])  # fmt: skip
def test_metrics_must_be_known_and_each_wanted_better(overrides, metrics, directions, message):
    found = why(overrides, metrics, directions)
    assert message in found
    assert bool(message) == bool(found)


def test_the_worse_direction_can_be_forced():
    assert why((), ["val/loss"], ["maximize"], is_forced=True) == ""


def test_a_stage_of_another_family_and_weights_that_are_not_there_are_refused():
    run = run_of(choices={"stage": "ink/dense", "model": "fcos_tiny"})
    (found,) = refusals([(run.config, run.parts)], Path("nowhere"), None, ["maximize"], False)
    assert "stage=ink/dense is for models of the family ink, but model=fcos_tiny is of detection" in found
    assert "none.pth" in why(["training.init_from=none.pth"], None, ["maximize"])


def test_the_packages_of_all_of_optunas_samplers_and_pruners_are_known():
    kinds = [
        kind for module in (optuna.samplers, optuna.pruners) for kind in vars(module).values() if inspect.isclass(kind)
    ]
    lazy = {
        (kind.__name__, value._name.partition(".")[0])
        for kind in kinds
        for value in vars(sys.modules[kind.__module__]).values()
        if isinstance(value, _LazyImport) and not value._name.startswith("optuna")
    }
    assert {(name, package) for name, packages in PACKAGES.items() for package in packages} >= lazy
    assert ("CmaEsSampler", "cmaes") in lazy


def test_packages_that_are_not_there_are_named_before_they_are_used(monkeypatch):
    monkeypatch.setitem(PACKAGES, "WilcoxonPruner", ("scipy", "no_such_package"))
    inner = {"_target_": "optuna.pruners.WilcoxonPruner", "p_threshold": 0.1}
    with pytest.raises(
        ConfigError, match=r"^key.wrapped_pruner: WilcoxonPruner needs .*: pip install no_such_package$"
    ):
        require_packages({"_target_": "optuna.pruners.PatientPruner", "wrapped_pruner": inner}, "key")
    require_packages({"_target_": "optuna.samplers.QMCSampler"}, "key")


def test_cmaes_with_two_objectives_is_refused():
    node = {"_target_": "optuna.samplers.CmaEsSampler"}
    require_one_objective(node, ["minimize"])
    with pytest.raises(ConfigError, match="CmaEsSampler knows one objective, not 2"):
        require_one_objective(node, ["minimize", "maximize"])


@pytest.mark.parametrize(("subdir", "is_refused"), [
    ("${hydra.job.num}", False), ("trial_${hydra:job.num}", False), ("${hydra.job.override_dirname}", False),
    ("lr_${training.optimizer.lr}", False), ("same", True), ("${model.name}", True), ("", True),
])  # fmt: skip
def test_each_trial_has_a_folder_of_its_own(subdir, is_refused, caplog):
    config = OmegaConf.create({"hydra": {"sweep": {"subdir": subdir}}})
    if is_refused:
        with pytest.raises(ConfigError, match="is one folder for all trials; leave it out"):
            require_own_folders(config, ["training.optimizer.lr"])
        return
    require_own_folders(config, ["training.optimizer.lr"])
    assert ("is not followed" in caplog.text) == (subdir != "${hydra.job.num}")
