"""Pictures of maps: a row per sample, true beside found, from above and in the front camera."""

import numpy as np
import torch
from map_parts import batch, found, lines
from PIL import Image

from winnow.families.maps.frame import CAMERAS
from winnow.families.maps.lines import CLASSES
from winnow.families.maps.pictures import COLOURS, HEIGHT, draw_maps
from winnow.families.maps.predictions import MapPredictions
from winnow.families.maps.rendering.views import LIDAR_TO_EGO, nominal_cameras

TRUE = lines(("divider", [[2, 5], [2, 25]]), ("ped_crossing", [[-4, 9], [4, 9], [4, 12], [-4, 12], [-4, 9]]),
             ("boundary", [[-6, -20], [-6, 25]]))  # fmt: skip


def seen(*truths):
    """Return a batch whose cameras are the nominal ones, 160 px wide."""
    made = batch(*truths)
    count = len(truths)
    scale = np.diag([0.1, 0.1, 1.0])
    cameras = [camera.ego_to_camera @ LIDAR_TO_EGO for camera in nominal_cameras()]
    intrinsics = [scale @ camera.intrinsics for camera in nominal_cameras()]
    return type(made)(
        torch.zeros(6 * count, 3, 90, 160, dtype=torch.uint8), torch.from_numpy(np.stack(cameras)).expand(count, 6, 4, 4),
        torch.from_numpy(np.stack(intrinsics)).expand(count, 6, 3, 3), torch.tensor([[0.0, 0.0, -1.84]]).expand(count, 3),
        made.targets,
    )  # fmt: skip


def count_pixels(picture, colour):
    return int((np.asarray(picture) == colour).all(axis=2).sum())


def drawn(path, made, predictions=None, **options):
    draw_maps([(made, predictions)], CLASSES, path, **options)
    with Image.open(path) as picture:
        return picture.copy()


def test_each_class_has_its_colour_from_above_and_in_the_camera(tmp_path):
    picture = drawn(tmp_path / "a.png", seen(TRUE))
    above, camera = picture.crop((0, 27, 192, 27 + HEIGHT)), picture.crop((200, 27, picture.width, 27 + HEIGHT))
    for colour in COLOURS:
        assert count_pixels(above, colour) > 100
        assert count_pixels(camera, colour) > 100


def test_what_lies_to_the_right_is_drawn_to_the_right_in_both(tmp_path):
    picture = drawn(tmp_path / "a.png", seen(lines(("divider", [[4, 6], [4, 25]]))))
    pixels = (np.asarray(picture)[27:] == COLOURS[0]).all(axis=2)
    columns = np.flatnonzero(pixels.any(axis=0))
    assert columns[columns < 192].min() > 6 + 192 / 2 - 6
    assert columns[columns > 200].min() > 200 + 640 / 2


def test_predictions_stand_beside_the_truth_and_low_ones_are_left_out(tmp_path):
    made = seen(TRUE)
    alone = drawn(tmp_path / "a.png", made)
    both = drawn(tmp_path / "b.png", made, [found(TRUE, score=0.9)], threshold=0.3)
    assert both.width > 1.9 * alone.width
    none = drawn(tmp_path / "c.png", made, [found(TRUE, score=0.1)], threshold=0.3)
    assert count_pixels(none.crop((0, 27, *none.size)), COLOURS[0]) == count_pixels(
        alone.crop((0, 27, *alone.size)), COLOURS[0]
    )
    assert count_pixels(both, COLOURS[0]) > 1.5 * count_pixels(none, COLOURS[0])


def test_so_many_samples_are_drawn_as_asked_for_and_odd_points_do_no_harm(tmp_path):
    made = seen(TRUE, TRUE, lines())
    assert drawn(tmp_path / "a.png", made, most=1).height < drawn(tmp_path / "b.png", made).height / 2
    odd = MapPredictions(
        torch.tensor([[[torch.nan, 0.0], [1e9, -1e9]], [[0.0, -5.0], [0.0, -9.0]]]), torch.ones(2), torch.tensor([0, 7])
    )
    drawn(tmp_path / "c.png", made, [odd, odd, odd])
    assert CAMERAS[0] == "CAM_FRONT"
