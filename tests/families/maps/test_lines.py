"""Polylines: rings by geometry, equal steps, and the orders that mean the same line."""

import numpy as np
import pytest
from map_parts import lines

from winnow.families.maps.lines import MapLines, equivalent_orders, is_closed, resample

RING = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 3.0], [0.0, 3.0], [0.0, 0.0]])


@pytest.mark.parametrize(("name", "points", "expected"), [
    ("ped_crossing", RING, True), ("ped_crossing", RING[:4], False), ("boundary", RING, True), ("divider", RING[:2], False),
    ("divider", RING[[0, 1, 0]], False),  # there and back is no ring
])  # fmt: skip
def test_a_ring_is_closed_by_its_geometry_and_not_by_its_class(name, points, expected):
    assert lines((name, points)).closed.tolist() == [expected]


def test_points_lie_at_equal_steps_along_the_line_and_end_where_it_does():
    points = resample(np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 0.0], [3.0, 7.0]]), 11)
    assert points[[0, 3, -1]] == pytest.approx(np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 7.0]]))
    assert np.abs(np.diff(points, axis=0)).sum(axis=1) == pytest.approx(np.ones(10))
    assert resample(np.zeros((2, 2)), 5) == pytest.approx(np.zeros((5, 2)))


def test_an_open_line_may_be_reversed_and_nothing_else():
    orders = equivalent_orders(20, closed=False)
    assert orders.tolist() == [list(range(20)), list(range(19, -1, -1))]


def test_a_ring_rolls_and_reverses_and_closes_again_after_rolling():
    points = resample(RING, 20)
    orders = equivalent_orders(20, closed=True)
    assert orders.shape == (38, 20)
    assert orders[0].tolist() == [*range(19), 0]
    assert len({tuple(order) for order in orders.tolist()}) == 38
    for order in orders:
        other = points[order]
        assert is_closed(other)
        steps = np.linalg.norm(np.diff(other, axis=0), axis=1)
        assert sorted(steps) == pytest.approx(sorted(np.linalg.norm(np.diff(points, axis=0), axis=1)))
        assert set(map(tuple, other.tolist())) == set(map(tuple, points[:-1].tolist()))


def test_lines_of_different_lengths_lie_in_flat_arrays():
    made = MapLines.of([RING, RING[:2]], [1, 0])
    assert [len(line) for line in made] == [5, 2]
    assert made.counts() == [1, 1, 0]
    assert np.array_equal(made.of_class(0)[0], RING[:2])
    empty = MapLines.of([], [])
    assert (len(empty), empty.counts(), empty.resampled(20).shape, empty.closed.shape) == (
        0,
        [0, 0, 0],
        (0, 20, 2),
        (0,),
    )
