"""Which ends of a run take the folder with them that was made for it."""

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from winnow.errors import ConfigError, DataError, RankError
from winnow.run.refused_run import BEGUN, RefusedRun


def ended_by(folder, error, left=None):
    """Return whether the folder is there after a run that left a file and ended so."""
    config = OmegaConf.create({"hydra": {"run": {"dir": str(folder)}}})
    callback = RefusedRun()
    callback.on_run_start(config)
    assert folder.is_dir()
    (folder / "train.log").touch()
    if left is not None:
        (folder / left).touch()
    callback.on_run_end(config, job_return=SimpleNamespace(_return_value=error))
    return folder.is_dir()


@pytest.mark.parametrize("error", [ConfigError("x"), DataError("x")])
def test_what_was_refused_takes_its_folder_with_it(tmp_path, error):
    assert not ended_by(tmp_path / "runs/new", error)
    assert not (tmp_path / "runs").exists()
    assert ended_by(tmp_path, error)  # it was there before


@pytest.mark.parametrize("error", [0.5, None, ZeroDivisionError(), RankError("x"), KeyboardInterrupt(), SystemExit(75)])
def test_results_bugs_and_stops_stay(tmp_path, error):
    assert ended_by(tmp_path / "new", error)


@pytest.mark.parametrize("left", BEGUN)
def test_what_had_begun_stays(tmp_path, left):
    assert ended_by(tmp_path / "new", DataError("the disk with the images is gone"), left)
