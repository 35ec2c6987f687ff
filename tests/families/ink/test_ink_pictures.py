import numpy as np
import pytest
from ink_parts import tiles, truth
from PIL import Image

from winnow.families.ink.batch import KEY_POINT_KINDS
from winnow.families.ink.pictures import draw_ink

MISSED_GREEN, INVENTED_ORANGE = (74, 222, 128), (250, 145, 61)


def drawn(tmp_path, batch, predictions):
    draw_ink([(batch, predictions)], KEY_POINT_KINDS, tmp_path / "ink.png", 0.5, 0.3)
    return np.asarray(Image.open(tmp_path / "ink.png"))


def count(picture, colour):
    """Return pixels of a colour under the legend's line."""
    return int((picture[26:] == colour).all(axis=2).sum())


def test_what_is_missed_and_what_is_invented_have_colours_of_their_own(tmp_path):
    batch = tiles(((8, 2, 13), 3.0))
    batch.target.key_points.zero_()
    whole = truth(batch)
    assert count(drawn(tmp_path, batch, whole), MISSED_GREEN) == 0
    half = truth(batch)
    half.skeleton[..., 8:] = 0
    half.skeleton[..., 2, :4] = 1
    picture = drawn(tmp_path, batch, half)
    scale = 240 // 16
    assert count(picture, MISSED_GREEN) == 6 * scale**2
    assert count(picture, INVENTED_ORANGE) >= 4 * scale**2


def test_training_tiles_are_drawn_with_what_is_true_and_no_more_than_wanted(tmp_path):
    batch = tiles(((8, 2, 13), 3.0), None, ((4, 1, 9), 2.0))
    draw_ink([(batch, None)], KEY_POINT_KINDS, tmp_path / "few.png", 0.5, 0.3, most=2)
    draw_ink([(batch, None)], KEY_POINT_KINDS, tmp_path / "all.png", 0.5, 0.3)
    few, whole = (np.asarray(Image.open(tmp_path / name)) for name in ("few.png", "all.png"))
    assert few.shape[0] < whole.shape[0]
    assert count(whole, MISSED_GREEN) > count(few, MISSED_GREEN) > 0  # rings of end points


def test_without_full_heads_there_are_four_cells_instead_of_five(tmp_path):
    batch = tiles(((8, 2, 13), 3.0))
    full = truth(batch)
    few = type(full)(full.skeleton, full.tangent)
    assert drawn(tmp_path, batch, few).shape[1] < drawn(tmp_path, batch, full).shape[1]


@pytest.mark.parametrize("count_of_tiles", [1, 2, 5])
def test_any_number_of_tiles_with_and_without_ink_is_drawn(tmp_path, count_of_tiles):
    batch = tiles(*[((4, 2, 12), 3.0), None, ((9, 0, 0), 2.0), None, ((15, 0, 15), 20.0)][:count_of_tiles], size=16)
    assert drawn(tmp_path, batch, truth(batch)).max() == 255
