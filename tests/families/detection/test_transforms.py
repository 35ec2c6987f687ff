import colorsys
import math

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from winnow.families.detection.transforms import Augmentation, AugmentationSettings, change_colours, resize


@pytest.fixture
def image():
    pixels = torch.randint(0, 256, (20, 30, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return (pixels // 2 + 60).permute(2, 0, 1)


def test_neutral_factors_change_nothing(image):
    assert (change_colours(image, 1, 1, 1, 0).int() - image.int()).abs().max() <= 1


@pytest.mark.parametrize(("factors", "reference"), [
    ((1.2, 1, 1, 0), lambda image: F.adjust_brightness(image, 1.2)),
    ((1, 0.8, 1, 0), lambda image: F.adjust_contrast(image, 0.8)),
    ((1, 1, 0.7, 0), lambda image: F.adjust_saturation(image, 0.7)),
    ((1, 1, 0, 0), lambda image: F.rgb_to_grayscale(image, num_output_channels=3)),
])  # fmt: skip
def test_each_factor_does_what_torchvisions_does(image, factors, reference):
    assert (change_colours(image, *factors).int() - reference(image).int()).abs().max() <= 2


def test_a_whole_turn_of_the_hue_is_none_and_grey_has_no_hue(image):
    assert (change_colours(image, 1, 1, 1, 1.0).int() - image.int()).abs().max() <= 1
    grey = torch.full((3, 4, 4), 120, dtype=torch.uint8)
    assert (change_colours(grey, 1, 1, 1, 0.3).int() - 120).abs().max() <= 1


def test_a_third_of_a_turn_changes_the_strongest_channel():
    red = torch.tensor([160, 60, 60], dtype=torch.uint8).reshape(3, 1, 1)
    strongest = [int(change_colours(red, 1, 1, 1, turn).argmax()) for turn in (0, 1 / 3, 2 / 3)]
    assert sorted(strongest) == [0, 1, 2]


@pytest.mark.parametrize(("square", "size"), [(False, (50, 100)), (True, (100, 100))])
def test_resizing_keeps_the_aspect_or_not_and_boxes_follow(square, size):
    image = torch.zeros(3, 200, 400, dtype=torch.uint8)
    resized, boxes = resize(image, torch.tensor([[0.0, 100, 400, 200]]), 100, square)
    assert resized.shape[1:] == size
    torch.testing.assert_close(boxes, torch.tensor([[0.0, size[0] / 2, 100, size[0]]]))


def test_colours_turn_as_in_yiq():
    colours = torch.randint(70, 180, (3, 1, 40), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    for turn in (0.1, 0.25, 0.7):
        cos, sin = math.cos(math.tau * turn), math.sin(math.tau * turn)
        expected = []
        for pixel in colours.reshape(3, -1).T.tolist():
            luma, i, q = colorsys.rgb_to_yiq(*(value / 255 for value in pixel))
            expected.append(colorsys.yiq_to_rgb(luma, cos * i - sin * q, sin * i + cos * q))
        changed = change_colours(colours, 1, 1, 1, turn).reshape(3, -1).T
        # The standard library rounds the luma's weights to two digits.
        assert (changed - 255 * torch.tensor(expected)).abs().max() < 3


def test_a_size_of_nothing_is_one_pixel_and_a_fitting_image_stays_as_it_is():
    image, boxes = torch.zeros(3, 2, 400, dtype=torch.uint8), torch.tensor([[0.0, 0, 400, 2]])
    assert resize(image, boxes, 100, False)[0].shape == (3, 1, 100)
    assert resize(image.mT, boxes, 100, False)[0].shape == (3, 100, 1)
    kept, same = resize(image, boxes, 400, False)
    assert kept is image
    assert same is boxes


def test_a_smaller_image_is_averaged_not_picked_from():
    noise = torch.randint(0, 256, (3, 256, 256), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    smaller, _ = resize(noise, torch.zeros(0, 4), 64, False)
    assert smaller.float().std() < 25  # 74 before; 37 where four pixels of sixteen are looked at


NOTHING = {
    "horizontal_flip": 0.0,
    "photometric": 0.0,
    "crop": 0.0,
    "crop_scale": (0.5, 1.0),
    "resize_scale": (1.0, 1.0),
}
HEIGHT, WIDTH, BOX = 80, 120, (30, 20, 70, 50)


def augmented(seed=0, size=WIDTH, square=False, boxes=(BOX,), **settings):
    """Return a black image with a white first box after augmentation, its boxes and labels 5, 6 …"""
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    left, top, right, bottom = boxes[0]
    image[:, int(top) : int(bottom), int(left) : int(right)] = 255
    torch.manual_seed(seed)
    augment = Augmentation(AugmentationSettings(**NOTHING | settings))
    return augment(image, torch.tensor(boxes).float(), torch.arange(len(boxes)) + 5, size, square)


def white_box(image):
    """Return the smallest box around what is white."""
    rows, columns = (image[0] > 127).nonzero(as_tuple=True)
    return [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]


def test_an_augmentation_that_is_off_changes_nothing():
    image, boxes, labels = augmented()
    assert (image.shape, white_box(image)) == ((3, HEIGHT, WIDTH), list(BOX))
    assert (boxes.tolist(), labels.tolist()) == ([list(BOX)], [5])


def test_image_and_boxes_are_flipped_together_as_often_as_asked():
    flipped = [WIDTH - 70, 20, WIDTH - 30, 50]
    image, boxes, _ = augmented(horizontal_flip=1.0)
    assert white_box(image) == boxes[0].tolist() == flipped
    assert type(boxes) is torch.Tensor
    ended = [augmented(seed, horizontal_flip=0.3)[1][0].tolist() for seed in range(200)]
    assert 0.2 < ended.count(flipped) / 200 < 0.4
    assert ended.count(flipped) + ended.count(list(BOX)) == 200


@pytest.mark.parametrize("square", [False, True])
def test_a_box_stays_around_what_it_surrounds_whatever_is_done(square):
    seen, lost = set(), 0
    for seed in range(100):
        image, boxes, labels = augmented(
            seed,
            96,
            square,
            ((10, 8, 40, 30),),
            horizontal_flip=0.5,
            crop=0.7,
            crop_scale=(0.2, 0.9),
            resize_scale=(0.5, 1.0),
        )
        assert len(boxes) == len(labels) <= 1
        assert max(image.shape) <= 96
        assert not square or image.shape == (3, 96, 96)
        seen.add(tuple(image.shape))
        lost += not len(boxes)
        if len(boxes):
            torch.testing.assert_close(boxes[0], torch.tensor(white_box(image)).float(), atol=1.6, rtol=0)
        else:
            assert (image > 127).float().mean() < 0.01
    assert 0 < lost < 40
    assert square or len(seen) > 50


def test_a_crop_has_the_size_that_was_asked_for_and_lies_anywhere():
    images = [augmented(seed, 300, crop=1.0, crop_scale=(0.5, 0.75))[0] for seed in range(300)]
    # The longer side becomes 300 px, so the crop's sides show as their ratio.
    ratios = [image.shape[2] / image.shape[1] for image in images]
    assert 0.95 < min(ratios) < 1.15 and 2.0 < max(ratios) < 2.3  # noqa: PT018 - one range
    corners = set()
    for seed in range(60):
        image, _, _ = augmented(seed, WIDTH // 2, crop=1.0, crop_scale=(0.5, 0.5), boxes=((0, 0, WIDTH, 1),))
        assert image.shape == (3, HEIGHT // 2, WIDTH // 2)
        corners.add(bool((image[:, 0] > 127).all()))
    assert corners == {False, True}
    for seed in range(60):
        image, boxes, _ = augmented(seed, crop=1.0, boxes=((0, 0, WIDTH, HEIGHT),))
        assert image.min() == 255, "a crop lies inside the image"
        assert boxes[0].tolist() == pytest.approx([0, 0, image.shape[2], image.shape[1]])
    whole, boxes, _ = augmented(crop=1.0, crop_scale=(1.0, 1.0))
    assert white_box(whole) == boxes[0].tolist() == list(BOX)


def test_a_smaller_size_is_drawn_from_its_range():
    widths = [augmented(seed, 100, resize_scale=(0.6, 0.8))[0].shape[2] for seed in range(200)]
    assert (min(widths), max(widths)) == (60, 80)
    assert augmented(size=100, resize_scale=(0.5, 0.5))[0].shape == (3, 33, 50)
    assert augmented(size=100, square=True, resize_scale=(0.5, 0.5))[0].shape == (3, 100, 100)


def test_boxes_below_a_pixel_are_left_out_with_their_labels():
    small = [(30, 20, 70, 50), (5, 5, 7, 40), (5, 5, 40, 6.9), (5, 5, 6.9, 40), (8, 8, 10, 10)]
    _, boxes, labels = augmented(size=WIDTH // 2, boxes=small)
    assert labels.tolist() == [5, 6, 9]
    assert boxes.tolist() == [[15, 10, 35, 25], [2.5, 2.5, 3.5, 20], [4, 4, 5, 5]]


def test_colours_change_as_often_as_asked_and_boxes_do_not():
    grey = [augmented(seed, photometric=0.5)[0][:, 30, 40] for seed in range(100)]
    changed = [pixel for pixel in grey if pixel.tolist() != [255, 255, 255]]
    assert 15 < len(changed) < 60  # half of them grow brighter than white
    assert augmented(3, photometric=1.0)[1].tolist() == [list(BOX)]


def test_colours_change_by_as_much_as_is_said():
    image = torch.tensor([140, 100, 60], dtype=torch.uint8).reshape(3, 1, 1).expand(3, 8, 8).contiguous()
    augment = Augmentation(AugmentationSettings(**NOTHING | {"photometric": 1.0}))
    changes = []
    for seed in range(300):
        torch.manual_seed(seed)
        changed = augment(image, torch.zeros(0, 4), torch.zeros(0), 8, False)[0][:, 0, 0]
        (luma, *chroma), (new_luma, *new_chroma) = (
            colorsys.rgb_to_yiq(*(int(value) / 255 for value in pixel)) for pixel in (image[:, 0, 0], changed)
        )
        turn = math.atan2(*reversed(new_chroma)) - math.atan2(*reversed(chroma))
        brightness = new_luma / luma
        changes.append((brightness, math.hypot(*new_chroma) / math.hypot(*chroma) / brightness, turn / math.tau))
    brightness, chroma, turn = zip(*changes, strict=True)
    assert (min(brightness), max(brightness)) == (pytest.approx(0.75, abs=0.02), pytest.approx(1.25, abs=0.02))
    # Of an image of one colour, contrast (0.75 to 1.25) and saturation (0.7 to 1.3) both stretch the chroma alone.
    assert 0.5 < min(chroma) < 0.62 < 1.45 < max(chroma) < 1.66
    assert (min(turn), max(turn)) == (pytest.approx(-0.03, abs=0.004), pytest.approx(0.03, abs=0.004))


@pytest.mark.parametrize("key", ["crop_scale", "resize_scale"])
@pytest.mark.parametrize(("span", "is_fine"), [
    ((0.5, 0.5), True), ((0.001, 1.0), True), ((0.0, 1.0), False), ((0.6, 0.5), False), ((0.5, 1.01), False), ((-1, 1), False),
])  # fmt: skip
def test_a_span_lies_between_nothing_and_the_whole(key, span, is_fine):
    if is_fine:
        assert getattr(AugmentationSettings(**NOTHING | {key: span}), key) == span
    else:
        with pytest.raises(ValueError, match="low ≤ high ≤ 1"):
            AugmentationSettings(**NOTHING | {key: span})
