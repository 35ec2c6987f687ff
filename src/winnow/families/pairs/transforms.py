"""Augmentation of pairs: one geometry for both images, colours and brightness each by a draw of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from winnow.families.detection.transforms import Augmentation, happens, uniform
from winnow.families.pairs.batch import CHANNELS


class PairAugmentation(Augmentation):
    """As detection's, on (4, H, W) uint8: crop, size and flip are of all channels at once."""

    def recolour(self, image: Tensor) -> Tensor:
        """Change the colours of the visible image and the brightness and contrast of the infrared one, or don't, by chance."""
        visible, infrared = (image[channels] for channels in CHANNELS)
        visible = super().recolour(visible)
        if happens(self._settings.photometric):
            infrared = change_brightness(infrared, uniform((0.75, 1.25)), uniform((0.75, 1.25)))
        return torch.cat((visible, infrared))


def change_brightness(image: Tensor, brightness: float, contrast: float) -> Tensor:
    """Return ``image`` (1, H, W) uint8 with its brightness and its distance from its mean multiplied, 1 changes nothing."""
    pixels = image.float()
    mean = float(pixels.mean())
    changed = pixels.sub_(mean).mul_(contrast).add_(mean).mul_(brightness)
    return changed.round_().clamp_(0, 255).to(torch.uint8)
