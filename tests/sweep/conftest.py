"""What the tests of sweeps share: a PostgreSQL server, and a storage of each kind."""

import pytest
from postgresql_cluster import Cluster, binaries
from sweep_parts import end_all_started


@pytest.fixture(autouse=True)
def _nothing_runs_on():
    yield
    end_all_started()


@pytest.fixture(scope="session")
def postgresql():
    if binaries() is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def storage_url(request, tmp_path):
    """The URL of a storage that does not exist yet, or of an empty database."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql").new_database()
    return {"journal": str(tmp_path / "study.log"), "sqlite": f"sqlite:///{tmp_path}/study.db"}[request.param]
