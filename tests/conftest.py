"""What several test folders need."""

import functools
import logging

import pytest
from composed import SHARED_DATA, compose_plain
from hypothesis import HealthCheck, settings
from postgresql_cluster import Cluster, binaries
from warm_program import warm_program as warm_program_of_all

# The same examples in every run, however slow the machine is: a test that fails by chance tells nobody what he broke.
settings.register_profile("winnow", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("winnow")


@pytest.fixture(autouse=True)
def _root_logger_as_it_was():
    """Undo what a test's commands made of the root logger: Hydra's, and winnow's own, would speak in all tests after it."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(handler)


@pytest.fixture
def training_values():
    """Return the ``training`` group as shipped."""
    return compose_plain()["training"]


@pytest.fixture(scope="session")
def shared_data():
    """Return the small real data sets beside the repository; tests that need them are skipped where they are absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return SHARED_DATA


@pytest.fixture(scope="session")
def warm_program():
    """Return ``train.py``, ready to be run many times."""
    return warm_program_of_all()


WHOLE_PROGRAMS = {"dispatch_parts", "processes", "sweep_parts", "test_docs", "tracking_parts", "warm_program"}
"""Modules that start processes."""


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("promise"):
            item.add_marker("slow")
    # The long files first (Makefile: --no-loadscope-reorder): a worker that is done with its own then finds short ones left.
    long = {item.path for item in items if "warm_program" in item.fixturenames}
    long |= {item.path for item in items if WHOLE_PROGRAMS & modules_of_globals(item.module)}
    items.sort(key=lambda item: item.path not in long)


@functools.cache
def modules_of_globals(module):
    """Return the names of the modules that what ``module`` imports by name is from."""
    return {getattr(value, "__module__", None) for value in vars(module).values()}


def pytest_sessionfinish():
    if warm_program_of_all.cache_info().currsize:
        warm_program_of_all().close()


@pytest.fixture(scope="session")
def postgresql():
    if binaries() is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def storage_url(request, tmp_path):
    """Return the URL of a storage that does not exist yet, or of an empty database."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql").new_database()
    return {"journal": str(tmp_path / "study.log"), "sqlite": f"sqlite:///{tmp_path}/study.db"}[request.param]
