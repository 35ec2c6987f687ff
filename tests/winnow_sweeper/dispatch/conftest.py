"""Slots that are closed whatever a test does."""

import contextlib
import itertools

import pytest
from dispatch_parts import compose_work, job
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton

from hydra_plugins.winnow_sweeper._pool import PoolSlots

NUMBERS = itertools.count(100)


@contextlib.contextmanager
def hydra_restored():
    state = dict(Singleton._instances)
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        Singleton._instances = state


@pytest.fixture
def hydra_as_before():
    with hydra_restored():
        yield


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return a pool that many tests use: whatever they do to it, it is a pool afterwards. With the folder of its app."""
    folder = tmp_path_factory.mktemp("shared")
    with hydra_restored():
        slots = PoolSlots(compose_work(folder), 2)
        yield slots, folder
        slots.close(at_once=True)


@pytest.fixture
def new_jobs(shared):
    """Return jobs with numbers that no other test has."""
    slots, _ = shared
    assert not slots.wait(0.0)
    assert slots.num_free() == 2

    def make(*overrides, **fields):
        return job(next(NUMBERS), *overrides, **fields)

    return make


@pytest.fixture
def open_pool(tmp_path, hydra_as_before):
    opened = []

    def open_it(size=1, overrides=(), task=None, **settings):
        opened.append(PoolSlots(compose_work(tmp_path, *overrides, task=task), size, **settings))
        return opened[-1]

    yield open_it
    for slots in opened:
        slots.close(at_once=True)
