import pytest
import torch
from torchvision.transforms.v2 import functional as F

from winnow.families.detection.transforms import change_colours, resize


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
