"""Transforms of a decoded image and its record to a training or evaluation sample: augment, resize, clip."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from winnow.settings import Settings

Probability = Annotated[float, Field(ge=0, le=1)]
Span = Annotated[tuple[float, float], Field(strict=False)]

# ITU-R BT.601, as in JPEG.
_LUMA = (0.299, 0.587, 0.114)
_RGB_TO_YIQ = (_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))

# Below this side in px after cropping and resizing, a box is no longer something to learn from.
MIN_SIDE = 1.0


class AugmentationSettings(Settings):
    """The ``data.augmentation`` node; ``conf/data/detection.yaml`` says what each key does."""

    horizontal_flip: Probability
    photometric: Probability
    crop: Probability
    crop_scale: Span
    resize_scale: Span

    @field_validator("crop_scale", "resize_scale")
    @classmethod
    def _is_part(cls, span: tuple[float, float]) -> tuple[float, float]:
        if not 0 < span[0] <= span[1] <= 1:
            raise ValueError(f"must be [low, high] with 0 < low ≤ high ≤ 1, got {list(span)}")
        return span


class Augmentation:
    """Random crop, resize, flip and photometric change, the geometry with torchvision's transforms v2.

    Draws from torch's global generator alone, which the caller seeds per sample. What can wait comes after resizing,
    where there are fewer pixels to change.
    """

    def __init__(self, settings: AugmentationSettings) -> None:
        self._settings = settings

    def __call__(
        self, image: Tensor, boxes: Tensor, labels: Tensor, size: int, square: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Augment ``image`` (C, H, W) uint8 with ``boxes`` (N, 4) xyxy px; return the same three, at most ``size`` px
        wide and high, without the boxes that were cropped away.
        """
        settings = self._settings
        if happens(settings.crop):
            image, boxes = self._crop(image, boxes)
        scale = uniform(settings.resize_scale) if not square else 1.0
        image, boxes = resize(image, boxes, max(1, round(size * scale)), square)
        if happens(settings.horizontal_flip):
            boxes = _as_tensor(F.horizontal_flip(_as_boxes(boxes, image)))
            image = F.horizontal_flip(image)
        keep = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE).all(dim=1)
        return self.recolour(image), boxes[keep], labels[keep]

    def recolour(self, image: Tensor) -> Tensor:
        """Change the colours of ``image`` (3, H, W), or don't, by chance."""
        if not happens(self._settings.photometric):
            return image
        return change_colours(
            image, uniform((0.75, 1.25)), uniform((0.75, 1.25)), uniform((0.7, 1.3)), uniform((-0.03, 0.03))
        )

    def _crop(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        height, width = image.shape[-2:]
        new_height = max(1, round(height * uniform(self._settings.crop_scale)))
        new_width = max(1, round(width * uniform(self._settings.crop_scale)))
        top = int(torch.randint(0, height - new_height + 1, ()))
        left = int(torch.randint(0, width - new_width + 1, ()))
        cropped = F.crop(_as_boxes(boxes, image), top, left, new_height, new_width)
        return F.crop(image, top, left, new_height, new_width), _as_tensor(F.clamp_bounding_boxes(cropped))


def resize(image: Tensor, boxes: Tensor, size: int, square: bool) -> tuple[Tensor, Tensor]:
    """Make the longer side ``size`` px with the aspect kept, or both sides with ``square``; boxes stay inside the image."""
    height, width = image.shape[-2:]
    new_size = resized_size(height, width, size, square)
    if [height, width] == new_size:
        return image, boxes
    resized = F.resize(_as_boxes(boxes, image), new_size)
    return F.resize(image, new_size, antialias=True), _as_tensor(F.clamp_bounding_boxes(resized))


def resized_size(height: int, width: int, size: int, square: bool) -> list[int]:
    """Return the height and width that ``resize`` makes of an image."""
    scale = size / max(height, width)
    return [size, size] if square else [max(1, round(height * scale)), max(1, round(width * scale))]


def change_colours(image: Tensor, brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """Return ``image`` (3, H, W) uint8 with its colours changed by three factors (1 changes nothing) and a turn of the
    colour wheel, ``hue`` of 1 being a whole one; the same shape and type.

    All four are one linear map of RGB (saturation and hue as in NTSC's YIQ space), so they cost one pass over the
    pixels: 0.5–2 ms at 640×360, where torchvision's ColorJitter takes 14 ms, most of it for HSV.
    """
    luma = image.new_tensor(_LUMA, dtype=torch.float32)
    to_grey = luma.expand(3, 3)
    saturate = saturation * torch.eye(3) + (1 - saturation) * to_grey
    to_yiq = torch.tensor(_RGB_TO_YIQ)
    cos, sin = math.cos(math.tau * hue), math.sin(math.tau * hue)
    turn = torch.tensor([[1.0, 0, 0], [0, cos, -sin], [0, sin, cos]])
    matrix = brightness * contrast * torch.linalg.inv(to_yiq) @ turn @ to_yiq @ saturate
    pixels = image.reshape(3, -1).float()
    mean_grey = float(luma @ pixels.mean(dim=1))
    changed = torch.addmm(torch.full((3, 1), (1 - contrast) * brightness * mean_grey), matrix, pixels)
    return changed.round_().clamp_(0, 255).to(torch.uint8).reshape(image.shape)


def _as_boxes(boxes: Tensor, image: Tensor) -> tv_tensors.BoundingBoxes:
    height, width = image.shape[-2:]
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))


def _as_tensor(boxes: Tensor) -> Tensor:
    return boxes.as_subclass(Tensor).reshape(-1, 4)


def happens(probability: float) -> bool:
    """Draw whether something of this probability happens."""
    return bool(torch.rand(()) < probability)


def uniform(span: tuple[float, float]) -> float:
    """Draw a number between the two of ``span``."""
    return span[0] + (span[1] - span[0]) * float(torch.rand(()))
