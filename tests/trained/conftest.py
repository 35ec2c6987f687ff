"""One run of a detector for all tests of trained models, and where it was made."""

import pytest
from trained_parts import RUN


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="session")
def run(warm_program, workplace):
    """Return the folder of a short run of a detector, with EMA."""
    warm_program.run(workplace, *RUN, "hydra.run.dir=run")
    return workplace / "run"


@pytest.fixture
def here(workplace, monkeypatch):
    """Go to where the run was made: its data lies beside it."""
    monkeypatch.chdir(workplace)
    return workplace


@pytest.fixture(scope="session")
def pictures(workplace, run):
    """Return the run's validation pictures."""
    del run
    return sorted(workplace.glob("data/digits/*/val/*"))
