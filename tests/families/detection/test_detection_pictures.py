import numpy as np
import pytest
import torch
from detection_parts import batch, nothing_found, target, truth_as_detections
from PIL import Image

from winnow.families.detection import pictures
from winnow.families.detection.batch import Detections
from winnow.families.detection.pictures import (
    CELL,
    FOUND_COLOUR,
    GAP,
    LINE_HEIGHT,
    TRUE_COLOUR,
    draw_grid,
    draw_training_batches,
)


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


def test_images_of_any_size_stand_in_rows_of_four_by_their_longer_side(tmp_path):
    pixels = picture(tmp_path, (64, 64), (720, 1280), (2000, 60), (64, 64), (64, 128))
    assert pixels.shape[1] == 4 * (CELL + GAP) + GAP
    assert CELL + CELL // 2 < pixels.shape[0] < 2 * CELL


@pytest.mark.parametrize("size", [(32, 32), (128, 128)])
def test_boxes_in_original_pixels_are_scaled_to_the_resolution_of_the_image(tmp_path, size):
    truth = target([[0, 0, 64, 64]], [0], (64, 64))
    draw_grid([np.zeros((*size, 3), np.uint8)], [nothing_found()], [truth], ["car"], tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        columns = np.nonzero((np.asarray(image)[50:] == TRUE_COLOUR).all(axis=2))[1]
    assert columns.max() - columns.min() > CELL - 5


def test_a_box_of_nan_is_left_out(tmp_path):
    def broken(t):
        found = truth_as_detections(t)
        return Detections(found.boxes * torch.nan, found.scores, found.labels)

    assert count(picture(tmp_path, (64, 64), found=broken), FOUND_COLOUR) == 0


def test_names_of_boxes_at_one_place_do_not_hide_each_other(tmp_path):
    truth = target([[20, 20, 60, 60]] * 2, [0, 0], (96, 96))
    one = target([[20, 20, 60, 60]], [0], (96, 96))
    papers = []
    for t in (one, truth):
        draw_grid([np.zeros((96, 96, 3), np.uint8)], [nothing_found()], [t], ["car"], tmp_path / "grid.png")
        with Image.open(tmp_path / "grid.png") as image:
            papers.append(count(np.asarray(image), TRUE_COLOUR))
    assert papers[1] - papers[0] > 300  # a second label's paper, beside the first one's


def test_a_name_wider_than_the_picture_is_cut(tmp_path):
    truth = target([[0, 0, 9, 9]], [0], (64, 16))
    draw_grid([np.zeros((64, 16, 3), np.uint8)], [nothing_found()], [truth], ["long " * 40], tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        assert image.width == CELL + 2 * GAP


def test_sequences_of_unlike_length_are_refused(tmp_path):
    with pytest.raises(ValueError, match="as many images as detections"):
        draw_grid([], [], [], ["car"], tmp_path / "grid.png")


def test_a_training_batch_is_drawn_as_the_model_sees_it_without_its_padding(tmp_path):
    small = target([[4, 4, 20, 20]], [0], size=(32, 64), original_size=(999, 999))
    draw_training_batches([batch(small, target([], [], size=(64, 64)))], ["car"], tmp_path / "grid.png", most=1)
    with Image.open(tmp_path / "grid.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape[0] == LINE_HEIGHT + GAP + (CELL // 2 + LINE_HEIGHT) + GAP
    assert (pixels == FOUND_COLOUR).all(axis=2).sum() == 0
    _, columns = np.nonzero((pixels[50:] == TRUE_COLOUR).all(axis=2))
    side = CELL / 64
    assert columns.min() == pytest.approx(GAP + 4 * side, abs=2)
    assert columns.max() == pytest.approx(GAP + 20 * side, abs=2)


def grid_of(count):
    """Return ``count`` boxes of 4 px that touch none of the others, in an image of 64 px."""
    return [
        [8 * (index % 8) + 2, 8 * (index // 8) + 2, 8 * (index % 8) + 6, 8 * (index // 8) + 6] for index in range(count)
    ]


def drawn(tmp_path, num_true, num_found):
    truth = target(grid_of(num_true), [0] * num_true, (64, 64))
    boxes = torch.tensor(grid_of(num_found), dtype=torch.float32)
    scores = torch.linspace(0.4, 0.9, num_found)  # the surest last: the order must not count
    found = Detections(boxes, scores, torch.zeros(num_found, dtype=torch.int64))
    draw_grid([np.zeros((64, 64, 3), np.uint8)], [found], [truth], ["car"], tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        pixels = np.asarray(image)[LINE_HEIGHT + GAP :, GAP:]
    seen = []
    for box in grid_of(num_found):
        left, top, right, bottom = (round(CELL / 64 * value) for value in box)
        seen.append(bool((pixels[top : bottom + 1, left : right + 1] == FOUND_COLOUR).all(axis=2).any()))
    return seen, pixels


@pytest.mark.parametrize(("num_true", "num_found", "expected"), [(1, 40, 10), (20, 60, 40), (20, 30, 30)])
def test_the_surest_are_drawn_ten_or_twice_as_many_as_are_true(tmp_path, monkeypatch, num_true, num_found, expected):
    monkeypatch.setattr(pictures, "MOST_LABELLED", 0)  # labels would lie on other boxes
    seen, _ = drawn(tmp_path, num_true, num_found)
    assert seen == [index >= num_found - expected for index in range(num_found)]


def test_dense_images_have_no_labels(tmp_path):
    def filled(num):
        _, pixels = drawn(tmp_path, num, num)
        return (pixels == TRUE_COLOUR).all(axis=2).sum() / num

    assert filled(15) > 2 * filled(16)
