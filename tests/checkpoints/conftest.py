"""Runs of tiny parts."""

from engine_parts import make_fit  # noqa: F401 - a fixture
