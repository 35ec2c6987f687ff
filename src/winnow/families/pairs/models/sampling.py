"""Which anchors and proposals a detector learns from, drawn for each image from a generator of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class SeededSampler:
    """Draws a fixed number of each image's candidates, of which at most ``positive_fraction`` positive, as torchvision's sampler
    does; from the image's own generator, so that a draw does not depend on the rest of the batch, on ranks or on the device.

    ``generators`` holds one per image, for as long as a loss is computed; ``num_drawn`` counts what the last call drew.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.generators: Sequence[torch.Generator] = ()
        self.num_drawn = 0

    def __call__(self, labels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return per image the masks (N,) uint8 of the positive and of the negative candidates drawn. ``labels`` (N,) are above 0
        for positive, 0 for negative candidates; those below 0 are left out."""
        drawn = [self._draw(*one) for one in zip(labels, self.generators, strict=True)]
        self.num_drawn = sum(int(mask.sum()) for pair in drawn for mask in pair)
        return [positive for positive, _ in drawn], [negative for _, negative in drawn]

    def _draw(self, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        positive, negative = torch.where(labels >= 1)[0], torch.where(labels == 0)[0]
        most_positive = int(self.batch_size_per_image * self.positive_fraction)
        positive = _some(positive, most_positive, generator)
        negative = _some(negative, self.batch_size_per_image - len(positive), generator)
        return _mask(labels, positive), _mask(labels, negative)


def _some(places: Tensor, most: int, generator: torch.Generator) -> Tensor:
    return places[torch.randperm(len(places), generator=generator)[:most].to(places.device)]


def _mask(labels: Tensor, places: Tensor) -> Tensor:
    mask = torch.zeros_like(labels, dtype=torch.uint8)
    mask[places] = 1
    return mask
