"""Labels of drawn strokes against the curves measured the slow way, and on shapes whose labels are known."""

import numpy as np
import pytest
from drawn_ink import along, centres, distances, key_points, random_strokes, skeleton_of, straight, strokes_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from winnow.families.ink.strokes.curves import CORNER, FREE, Strokes, cut_into_chords
from winnow.families.ink.strokes.render import render

END_POINT, JUNCTION, CORNER_POINT = range(3)
drawings = given(seed=st.integers(0, 10**6), level=st.integers(1, 10), affine=st.sampled_from([0.0, 1.0]))
few = settings(max_examples=12, deadline=None)


def labelled(seed, level, affine, count=4):
    """Return some random drawings: of each its number, the strokes of all and their tiles, the centres (2, m) of its
    skeleton's pixels and where those stand among the labels."""
    strokes = random_strokes(seed, level, affine, count)
    _, tiles = render(strokes)
    for tile in range(count):
        yield tile, strokes, tiles, *centres(tiles, tile)


@drawings
@few
def test_the_offset_leads_to_the_closest_point_of_the_curves_inside_the_pixel(seed, level, affine):
    for tile, strokes, tiles, pixels, rows in labelled(seed, level, affine):
        assert np.abs(tiles.offset[rows]).max(initial=0) <= 0.5
        points, *_ = along(strokes, tile)
        found = np.hypot(*tiles.offset[rows].T)
        closest = distances(pixels, points).min(axis=1)
        assert (found <= closest + 1e-4).all()
        # Samples lie up to 0.12 px from each other.
        assert (distances(pixels + tiles.offset[rows].T, points).min(axis=1) < 0.08).all()


@drawings
@few
def test_tangent_and_width_are_those_of_the_curve_at_its_closest_point(seed, level, affine):
    for tile, strokes, tiles, pixels, rows in labelled(seed, level, affine):
        assert np.allclose(np.hypot(*tiles.tangent[rows].T), 1, atol=1e-5)
        points, direction, width, segment, _ = along(strokes, tile)
        away = distances(pixels + tiles.offset[rows].T, points)
        nearest = away.argmin(axis=1)
        # Where another curve is as near, either may answer.
        is_alone = ~((away < 0.3) & (segment != segment[nearest][:, None])).any(axis=1)
        agreement = tiles.tangent[rows, 0] * np.cos(2 * direction[nearest]) + tiles.tangent[rows, 1] * np.sin(
            2 * direction[nearest]
        )
        assert (agreement[is_alone] > 0.98).all()
        assert np.abs(tiles.width[rows] - width[nearest])[is_alone].max(initial=0) < 0.1


@drawings
@few
def test_the_skeleton_follows_all_of_the_curve_and_nothing_else(seed, level, affine):
    for tile, strokes, _, pixels, _ in labelled(seed, level, affine):
        points, *_ = along(strokes, tile)
        inside = points[:, ((points >= 1) & (points < strokes.size - 1)).all(axis=0)]
        assert distances(inside, pixels).min(axis=1).max(initial=0) < 1.2
        # Farthest where an end lies in a pixel's corner.
        assert distances(pixels, points).min(axis=1).max(initial=0) <= 0.5**0.5 + 0.01


@given(seed=st.integers(0, 10**6))
@few
def test_a_single_stroke_has_a_skeleton_in_one_piece_and_thin(seed):
    for tile, _, tiles, *_ in labelled(seed, level=1, affine=0.0, count=12):
        skeleton = skeleton_of(tiles, tile)
        assert ndimage.label(skeleton, structure=np.ones((3, 3)))[1] == 1
        assert not ndimage.binary_erosion(skeleton, structure=np.ones((2, 2))).any()


def crossings_the_slow_way(strokes, tile):
    """Return (2, k) crossings of all pairs of chords."""
    chords = cut_into_chords(strokes)
    of_tile = np.flatnonzero(strokes.tile[chords.segment] == tile)
    start, end = chords.start[:, of_tile].astype(float), chords.end[:, of_tile].astype(float)
    path, step = strokes.path[chords.segment[of_tile]], end - start
    one, other = np.triu_indices(len(of_tile), k=1)
    apart = (other > one + 1) | (path[one] != path[other])
    one, other = one[apart], other[apart]
    gap = start[:, other] - start[:, one]
    determinant = step[0, one] * step[1, other] - step[1, one] * step[0, other]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (gap[0] * step[1, other] - gap[1] * step[0, other]) / determinant
        u = (gap[0] * step[1, one] - gap[1] * step[0, one]) / determinant
        crossing = (t >= 0) & (t < 1) & (u >= 0) & (u < 1)
    return start[:, one[crossing]] + t[crossing] * step[:, one[crossing]]


def free_ends(strokes, tile):
    """Return (2, k) where its paths begin and end."""
    is_free = (strokes.joins == FREE) & (strokes.tile == tile)
    return np.concatenate((strokes.control[0][:, is_free[0]], strokes.control[3][:, is_free[1]]), axis=1)


@drawings
@few
def test_every_crossing_is_found_and_every_junction_is_one_or_an_end_on_another_stroke(seed, level, affine):
    for tile, strokes, tiles, pixels, rows in labelled(seed, level, affine):
        junctions = pixels[:, tiles.key_points[rows, JUNCTION]]
        crossings = crossings_the_slow_way(strokes, tile)
        inside = ((crossings >= 0) & (crossings < strokes.size)).all(axis=0)
        # Two closer than 1.5 px are marked once, and a mark is on the skeleton, at most a pixel away.
        assert distances(crossings[:, inside], junctions).min(axis=1, initial=np.inf).max(initial=0) < 2.5
        reasons = np.concatenate((crossings, free_ends(strokes, tile)), axis=1)
        assert distances(junctions, reasons).min(axis=1, initial=np.inf).max(initial=0) < 1.6


@drawings
@few
def test_every_end_and_corner_in_the_tile_is_marked_on_the_skeleton_within_a_pixel(seed, level, affine):
    for tile, strokes, tiles, pixels, rows in labelled(seed, level, affine):
        corners = strokes.control[0][:, (strokes.tile == tile) & (strokes.joins[0] == CORNER)]
        for point, kinds in [
            *((end, (END_POINT, JUNCTION)) for end in free_ends(strokes, tile).T),
            *((corner, (CORNER_POINT,)) for corner in corners.T),
        ]:
            if (point >= 1).all() and (point < strokes.size - 1).all():
                marked = pixels[:, tiles.key_points[rows][:, list(kinds)].any(axis=1)]
                assert distances(point[:, None], marked).min(initial=np.inf) < 2.5


# Crosses itself at (30.5, 24.1).
LOOP = [[(10.5, 40.5), (60.5, 10.5), (0.5, 10.5), (50.5, 40.5)]]
SHAPES = {
    "a stroke": ([[straight((10.5, 10.5), (40.5, 10.5))]], [(10, 10), (40, 10)], [], []),
    "a crossing": ([[straight((10.5, 30.5), (50.5, 30.5))], [straight((30.5, 10.5), (30.5, 50.5))]],
                   [(10, 30), (30, 10), (30, 50), (50, 30)], [(30, 30)], []),
    "a T": ([[straight((10.5, 30.5), (50.5, 30.5))], [straight((30.5, 30.5), (30.5, 50.5))]],
            [(10, 30), (30, 50), (50, 30)], [(30, 30)], []),
    "an end hidden in another's ink": ([[straight((10.5, 30.5), (50.5, 30.5))], [straight((30.5, 31.4), (30.5, 50.5))]],
                                       [(10, 30), (30, 50), (50, 30)], [(30, 31)], []),
    "an end beside another stroke": ([[straight((10.5, 30.5), (50.5, 30.5))], [straight((30.5, 34.5), (30.5, 50.5))]],
                                     [(10, 30), (30, 34), (30, 50), (50, 30)], [], []),
    "a corner": ([[straight((10.5, 10.5), (30.5, 10.5)), straight((30.5, 10.5), (30.5, 40.5))]],
                 [(10, 10), (30, 40)], [], [(30, 10)]),
    "a smooth join": ([[straight((10.5, 10.5), (30.5, 10.5)), straight((30.5, 10.5), (50.5, 10.5))]],
                      [(10, 10), (50, 10)], [], []),
    "a loop": ([LOOP], [(10, 40), (50, 40)], [(30, 24)], []),
    "a path that ends on itself": ([[straight((10.5, 30.5), (50.5, 30.5)), straight((50.5, 30.5), (50.5, 10.5)),
                                     straight((50.5, 10.5), (20.5, 10.5)), straight((20.5, 10.5), (20.5, 30.5))]],
                                   [(10, 30)], [(20, 30)], [(20, 10), (50, 10), (50, 30)]),
    "strokes that leave the tile": ([[straight((-5.5, 30.5), (70.5, 30.5))], [straight((30.5, -9.5), (30.5, 80.5))]],
                                    [], [(30, 30)], []),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_ends_junctions_and_corners_of(name):
    paths, *expected = SHAPES[name]
    _, tiles = render(strokes_by_hand(*paths))
    found = [key_points(tiles, kind) for kind in range(3)]
    assert found == [sorted(points) for points in expected]


def test_pixel_i_j_has_its_centre_at_x_j_and_a_half_y_i_and_a_half():
    ink, tiles = render(strokes_by_hand([straight((5.5, 10.75), (20.5, 10.75))], width=3.0))
    assert sorted(divmod(pixel, 64) for pixel in tiles.pixel.tolist()) == [(10, column) for column in range(5, 21)]
    assert np.allclose(tiles.offset, [0, 0.25], atol=1e-5)
    assert np.allclose(tiles.tangent, [1, 0], atol=1e-5)
    assert np.allclose(tiles.width, 3)
    assert np.allclose(ink[0, 8:14, 12], [0, 0.75, 1, 1, 0.25, 0], atol=1e-5)


def test_where_curves_cross_the_label_is_that_of_the_nearer_one():
    level, steep = straight((10.5, 30.6), (50.5, 30.6)), straight((30.9, 10.5), (30.9, 50.5))
    _, tiles = render(strokes_by_hand([level], [steep]))
    at = tiles.pixel.tolist().index(30 * 64 + 30)
    assert np.allclose(tiles.offset[at], [0, 0.1], atol=1e-5)
    assert np.allclose(tiles.tangent[at], [1, 0], atol=1e-5)


def test_ink_covers_what_lies_within_half_the_width_of_the_curve():
    strokes = random_strokes(seed=3, level=6, count=3)
    ink, _ = render(strokes)
    y, x = np.mgrid[:64, :64] + 0.5
    for tile in range(3):
        points, _, width, *_ = along(strokes, tile, samples=200)
        beyond = (distances(np.stack((x.ravel(), y.ravel())), points) - width / 2).min(axis=1).reshape(64, 64)
        assert np.abs(ink[tile] - np.clip(0.5 - beyond, 0, 1)).max() < 0.1


def test_a_tile_is_a_window_on_the_strokes_whatever_leaves_it():
    whole = random_strokes(seed=5, level=9, count=6, size=128)
    part = Strokes(whole.control - np.float32(32), whole.width, whole.tile, whole.path, whole.joins, 6, 64)
    (large, _), (small, tiles) = render(whole), render(part)
    assert np.allclose(small, large[:, 32:96, 32:96], atol=1e-3)
    assert len(tiles) == 6
