"""Promoted trials whose training was cut short, and what the same command makes of it."""

import shutil

import pytest
from composed import REPOSITORY
from killed_parts import TINY, TRUST, assert_same_end
from sweep_parts import finished, kill_with_children, start_program, start_python, table, wait_until

from winnow.sweep.stored_study import StoredStudy

pytestmark = pytest.mark.promise

SEARCH = [
    "hydra/sweeper=winnow", *TINY, "hydra.sweeper.direction=maximize", "hydra.sweeper.plots=false", "training.max_epochs=2",
    "hydra.sweeper.study_name=search", "hydra.sweeper.n_trials=1", "training.optimizer.lr=choice(0.001,0.002)",
]  # fmt: skip
PROMOTE = "from winnow.commands.cli import main; raise SystemExit(main())"
TORN_BYTES = 500_000


def promote(folder, **environment):
    return start_python(
        folder, "-c", PROMOTE, "promote", "multirun/search", "--top", "1", TRUST, "training.max_epochs=4", **environment
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Return a folder in which a search of one trial has ended."""
    folder = tmp_path_factory.mktemp("searched")
    for name in ("train.py", "conf"):
        (folder / name).symlink_to(REPOSITORY / name)
    finished(start_program("train.py", folder, *SEARCH))
    return folder


@pytest.fixture(scope="module")
def undisturbed(searched):
    """Return the run folder of a promotion that nobody killed."""
    return promoted_in(searched, "undisturbed")


def promoted_in(searched, name):
    folder = copy_of(searched, name)
    finished(promote(folder))
    return folder / "multirun/search-promoted/0"


def copy_of(searched, name):
    return shutil.copytree(searched, searched.with_name(f"{searched.name}-{name}"), symlinks=True)


@pytest.mark.parametrize("is_renamed", [False, True], ids=["never renamed", "renamed without its end"])
def test_a_promoted_trial_whose_first_save_was_torn_begins_at_its_search_again(searched, undisturbed, is_renamed):
    folder = copy_of(searched, f"torn-{is_renamed}")
    run = folder / "multirun/search-promoted/0"
    killed = promote(folder, TROUBLE=f"tear losses 3 {TORN_BYTES}")
    wait_until(lambda: any(file.stat().st_size == TORN_BYTES for file in (run / "checkpoints").glob(".*.tmp")))
    kill_with_children(killed)
    assert not list((run / "checkpoints").glob("*.pth"))
    if is_renamed:  # as a file system may leave it whose disk lost its power
        whole = (searched / "multirun/search/0/checkpoints/last.pth").read_bytes()
        (run / "checkpoints/last.pth").write_bytes(whole[:TORN_BYTES])
    assert "training.resume=" in finished(promote(folder))
    assert [(row["status"], row["epochs"]) for row in table(folder / "multirun", "search-promoted")] == [
        ("completed", "4")
    ]
    (trial,) = StoredStudy.open(run.parent).study.trials
    assert list(trial.intermediate_values) == [2, 3, 4]  # 2: as the search left it
    assert_same_end(undisturbed, run)
    assert not list((run / "checkpoints").glob(".*.tmp"))
