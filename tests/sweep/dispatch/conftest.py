"""Slots that are closed whatever a test does."""

import pytest
from dispatch_parts import compose_work
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton

from hydra_plugins.winnow_sweeper._pool import PoolSlots


@pytest.fixture
def hydra_as_before():
    state = dict(Singleton._instances)
    yield
    GlobalHydra.instance().clear()
    Singleton._instances = state


@pytest.fixture
def open_pool(tmp_path, hydra_as_before):
    opened = []

    def open_it(size=1, overrides=(), task=None, **settings):
        opened.append(PoolSlots(compose_work(tmp_path, *overrides, task=task), size, **settings))
        return opened[-1]

    yield open_it
    for slots in opened:
        slots.close(at_once=True)
