"""A SLURM for the tests of this folder; started once, and gone with them."""

import pytest
from slurm_cluster import SlurmCluster, missing


@pytest.fixture(scope="session")
def slurm_cluster():
    if lacking := missing():
        pytest.skip(f"no SLURM here ({', '.join(lacking)}): apt-get install slurm-wlm munge")
    pytest.importorskip("submitit")
    cluster = SlurmCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def slurm(slurm_cluster, monkeypatch):
    """Return the cluster, found by what the test starts; no test leaves a job to the next."""
    for name, value in slurm_cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield slurm_cluster
    slurm_cluster.clear()
