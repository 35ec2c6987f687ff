import numpy as np
import pytest
from detection_parts import nothing_found, target, truth_as_detections
from PIL import Image

from winnow.report.detections import FOUND_COLOUR, TRUE_COLOUR, draw_grid


def picture(tmp_path, *sizes, found=truth_as_detections):
    targets = [target([[10, 10, 50, 50]], [0], size) for size in sizes]
    images = [np.full((*size, 3), 128, np.uint8) for size in sizes]
    draw_grid(images, [found(t) for t in targets], targets, ["car"], tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        return np.asarray(image).copy()


def count(pixels, colour):
    return int((pixels[50:] == colour).all(axis=2).sum())


def test_true_and_found_boxes_are_drawn_in_their_colours(tmp_path):
    pixels = picture(tmp_path, (64, 64))
    assert count(pixels, TRUE_COLOUR) > 500
    assert count(pixels, FOUND_COLOUR) > 500


def test_where_nothing_is_found_only_the_truth_is_drawn(tmp_path):
    pixels = picture(tmp_path, (64, 64), found=lambda t: nothing_found())
    assert count(pixels, TRUE_COLOUR) > 500
    assert count(pixels, FOUND_COLOUR) == 0


def test_a_weak_detection_is_left_out(tmp_path):
    assert count(picture(tmp_path, (64, 64), found=lambda t: truth_as_detections(t, 0.1)), FOUND_COLOUR) == 0


def test_images_of_any_size_stand_in_rows_of_four(tmp_path):
    pixels = picture(tmp_path, (64, 64), (720, 1280), (100, 60), (64, 64), (64, 128))
    assert pixels.shape[1] == 4 * 368 + 8
    assert pixels.shape[0] > 2 * 180


def test_sequences_of_unlike_length_are_refused(tmp_path):
    with pytest.raises(ValueError, match="as many images as detections"):
        draw_grid([], [], [], ["car"], tmp_path / "grid.png")
