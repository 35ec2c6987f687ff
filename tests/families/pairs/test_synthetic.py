import itertools

import numpy as np
import pytest

from winnow.families.pairs.synthetic.ceiling import ceiling
from winnow.families.pairs.synthetic.drawing import HEIGHT, WIDTH, draw_pair


@pytest.fixture(scope="module")
def pairs():
    return [draw_pair(0, 1, index) for index in range(100)]


def test_a_pair_is_a_function_of_seed_split_and_index(pairs):
    again = draw_pair(0, 1, 7)
    assert np.array_equal(again.visible, pairs[7].visible)
    assert np.array_equal(again.infrared, pairs[7].infrared)
    assert [figure.box for figure in again.figures] == [figure.box for figure in pairs[7].figures]
    for other in (draw_pair(1, 1, 7), draw_pair(0, 0, 7), draw_pair(0, 1, 8)):
        assert not np.array_equal(other.visible, again.visible)


def test_sizes_and_counts_are_as_documented(pairs):
    assert {pair.visible.shape for pair in pairs} == {(HEIGHT, WIDTH, 3)} == {(128, 160, 3)}
    assert {pair.infrared.shape for pair in pairs} == {(128, 160)}
    figures = [figure for pair in pairs for figure in pair.figures]
    counts = {
        kind: [sum(f.kind == kind for f in pair.figures) for pair in pairs] for kind in ("person", "warm", "mannequin")
    }
    assert (min(counts["person"]), max(counts["person"])) == (1, 5)
    assert {max(counts["warm"]), max(counts["mannequin"])} == {2}
    heights = {figure.box[3] - figure.box[1] for figure in figures}
    assert (min(heights), max(heights)) == (26, 48)
    assert all(figure.box[2] - figure.box[0] == round((figure.box[3] - figure.box[1]) / 2) for figure in figures)


def test_a_box_is_exactly_the_mask_and_no_two_overlap(pairs):
    for pair in pairs:
        for figure in pair.figures:
            left, top, right, bottom = figure.box
            assert 0 <= left < right <= WIDTH
            assert 0 <= top < bottom <= HEIGHT
            assert figure.mask.shape == (bottom - top, right - left)
            assert all(figure.mask[side].any() for side in (0, -1))
            assert all(figure.mask[:, side].any() for side in (0, -1))
        for one, other in itertools.combinations([figure.box for figure in pair.figures], 2):
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_seven_of_ten_persons_are_seen_in_both_images():
    seen = [person.seen_in for index in range(200) for person in draw_pair(3, 0, index).persons]
    both, visible, infrared = (seen.count(which) / len(seen) for which in ((True, True), (True, False), (False, True)))
    assert (both, visible, infrared) == pytest.approx((0.70, 0.15, 0.15), abs=0.05)


def test_who_is_not_seen_leaves_no_trace_and_who_is_does(pairs):
    """A figure's pixels against those of its box outside of the mask: stripes in the visible image, warmth in infrared."""
    contrasts = {}
    for pair, figure in ((drawn, figure) for drawn in pairs for figure in drawn.figures):
        inside, outside = figure.mask, ~figure.mask
        warmth = pair.infrared[figure.area][inside].mean() - pair.infrared[figure.area][outside].mean()
        grey = pair.visible[figure.area].mean(axis=2)
        stripes = np.corrcoef(grey[inside], figure.pattern[inside])[0, 1]
        contrasts.setdefault((figure.kind, *figure.seen_in), []).append((warmth / 255, stripes))
    warmth, stripes = ({key: np.mean(values, axis=0)[i] for key, values in contrasts.items()} for i in (0, 1))
    for key in (("person", True, True), ("person", False, True), ("warm", True, True)):
        assert warmth[key] == pytest.approx(0.26, abs=0.03)
    assert warmth["person", True, False] == pytest.approx(0, abs=0.02)
    assert warmth["mannequin", True, True] < -0.1
    for key in (("person", True, True), ("person", True, False), ("mannequin", True, True)):
        assert stripes[key] > 0.8
    for key in (("person", False, True), ("warm", True, True)):
        assert abs(stripes[key]) < 0.1


def test_a_single_modality_has_a_ceiling_and_both_together_have_none(pairs):
    visible, infrared = ceiling(pairs, 0), ceiling(pairs, 1)
    assert 0.55 < visible < 0.66
    assert 0.55 < infrared < 0.66
    for pair in pairs:
        looks = {figure.kind: tuple(figure.looks_like_a_person_in(m) for m in (0, 1)) for figure in pair.figures}
        assert looks.get("warm", (False, True)) == (False, True)
        assert looks.get("mannequin", (True, False)) == (True, False)
