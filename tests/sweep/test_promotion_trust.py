"""What ``winnow promote`` takes from ``sweep.yaml``, and what only its own command may say."""

import optuna
import pytest
from composed import REPOSITORY

from winnow.errors import ConfigError
from winnow.sweep.promotion import PromotionError, promote
from winnow.sweep.promotion_command import kept_overrides, require_same_code
from winnow.sweep.stored_study import StoredStudy


@pytest.fixture
def study(tmp_path):
    return study_in(tmp_path)


def study_in(folder, **said):
    description = {
        "study_name": "search", "storage": None, "metric": "val/map", "overrides": [], "hydra_overrides": [],
        "search_path": [], "definition": {"base": {}, "search_space": {}, "directions": ["maximize"]}, **said,
    }  # fmt: skip
    return StoredStudy(folder, description, optuna.create_study())


@pytest.mark.parametrize("override", [
    "hydra.launcher.setup=[ls]", "hydra.launcher.srun_args=[ls]", "hydra.launcher.python=/tmp/x",
    "+hydra.callbacks.x._target_=os.system",
    "hydra.launcher._target_=os.system", "hydra.launcher={_target_:os.system}",
    "hydra.launcher.additional_parameters={wrap:ls}",
    "hydra.sweeper.warm_up=[antigravity]", "hydra.sweeper={warm_up:[x]}",
    "hydra.job.env_set.LD_PRELOAD=x", "hydra/job_logging=x", "hydra.job_logging.x=1", "+hydra/callbacks=x",
    "--experimental-rerun=x",
    "hydra.launcher.comment='a\nls'", "hydra.launcher.partition={_target_:x}", "hydra.runtime.cwd=/",
])  # fmt: skip
def test_what_could_run_something_must_be_said_again(tmp_path, override):
    study = study_in(tmp_path, hydra_overrides=["hydra/launcher=submitit_slurm", override])
    with pytest.raises(ConfigError, match="sweep.yaml holds .*give it again"):
        kept_overrides(study, [])
    key = override.lstrip("+").partition("=")[0]
    assert kept_overrides(study, [f"{key}=null"]) == ["hydra/launcher=submitit_slurm"]


def test_slots_and_what_a_cluster_gives_are_kept_and_what_was_the_searchs_is_not(tmp_path):
    kept = [
        "hydra/launcher=submitit_slurm", "hydra/sweeper=winnow", "hydra.sweeper.n_jobs=2", "hydra.sweeper.devices=[0,1]",
        "hydra.sweeper.max_retries=1", "hydra.launcher.gpus_per_node=1", "hydra.launcher.timeout_min=600", "hydra.verbose=true",
    ]  # fmt: skip
    dropped = [
        "hydra.sweep.dir=x",
        "hydra.sweeper.storage=x",
        "hydra.sweeper.n_trials=9",
        "hydra.sweeper.custom_search_space=os.x",
    ]
    assert kept_overrides(study_in(tmp_path, hydra_overrides=[*kept, *dropped]), []) == kept


def test_config_groups_are_looked_for_where_this_command_says(tmp_path):
    study = study_in(tmp_path, search_path=["file:///elsewhere"])
    with pytest.raises(
        ConfigError, match=r"groups lie in file:///elsewhere too.*add 'hydra.searchpath=\[file:///elsewhere\]'"
    ):
        require_same_code(study, [], REPOSITORY / "train.py")
    require_same_code(study, ["hydra.searchpath=['file:///elsewhere']"], REPOSITORY / "train.py")


def test_a_promoted_run_trusts_what_this_command_trusts(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    study = study_in(tmp_path, overrides=["trusted_targets=[tests,mine]"])
    with pytest.raises(ConfigError, match=r"sweep.yaml trusts 'tests', .*add trusted_targets=\[mine,tests\]"):
        require_same_code(study, ["trusted_targets=[mine]"], REPOSITORY / "train.py")


@pytest.mark.parametrize("override", ["hydra.searchpath=[pkg://x]", "--experimental-rerun=x", "experiment@hydra=x"])
def test_a_studys_overrides_of_runs_are_only_that(tmp_path, override):
    with pytest.raises(ConfigError, match="a file may set values of a run"):
        promote(study_in(tmp_path, overrides=[override]), 1, [])


@pytest.mark.parametrize(("began", "left"), [(False, ["search"]), (True, ["search", "search-promoted"])])
def test_a_promotion_that_is_refused_leaves_no_folder(tmp_path, began, left):
    (tmp_path / "search/0").mkdir(parents=True)
    study = study_in(tmp_path / "search")
    study.study.add_trial(optuna.trial.create_trial(value=0.5, params={}, distributions={}))
    program = tmp_path / "train.py"
    program.write_text(f"import os, sys\nif {began}: os.mkdir({str(tmp_path / 'search-promoted/0')!r})\nsys.exit(1)")
    with pytest.raises(PromotionError, match="full training ended with exit code 1"):
        promote(study, 1, [], program)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == left
