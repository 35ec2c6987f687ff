"""No process that a test of sweeps starts outlives it."""

import pytest
from sweep_parts import end_all_started


@pytest.fixture(autouse=True)
def _nothing_runs_on():
    yield
    end_all_started()
