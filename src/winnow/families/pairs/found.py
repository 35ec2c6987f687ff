"""What a detector finds on pairs of pictures without annotations: (visible, infrared) as a batch in, detection's boxes out."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from PIL import Image

from winnow.errors import DataError
from winnow.families.detection.data import PAD_MULTIPLE
from winnow.families.detection.found import FoundBoxes, without_truth
from winnow.families.detection.pictures import draw_found
from winnow.families.detection.transforms import resize
from winnow.families.pairs.batch import ABSENT_PIXEL, CHANNELS, MODALITIES, PairBatch
from winnow.families.pairs.samples import PairCollate, PairSample, with_absent

Pair = Sequence[np.ndarray | None]


class FoundPair(FoundBoxes):
    """What was found on one pair; ``name`` is the visible picture's, or the infrared one's where there is no other."""

    def draw(self, pixels: Pair, min_score: float) -> Image.Image:  # type: ignore[override]
        """Draw the boxes of at least ``min_score`` onto each picture of the pair, side by side."""
        drawn = [draw_found(one, self.boxes, self.scores, self.names, min_score) for one in pixels if one is not None]
        sheet = Image.new("RGB", (sum(picture.width for picture in drawn), drawn[0].height))
        left = 0
        for picture in drawn:
            sheet.paste(picture, (left, 0))
            left += picture.width
        return sheet


def batch_of_pairs(
    pairs: Sequence[Pair], names: Sequence[str], image_size: int, square: bool, modalities: Collection[str]
) -> PairBatch:
    """Return pairs of (visible, infrared), (H, W, 3) uint8 or None for one that is absent, as evaluation sees them. Of those not
    among ``modalities`` the model sees nothing. Raises DataError for a pair of two sizes, or with nothing to see."""
    samples = []
    for pair, name in zip(pairs, names, strict=True):
        sizes = {one.shape[:2] for one in pair if one is not None}
        if len(sizes) > 1:
            words = " and ".join(
                f"{modality} {one.shape[1]}×{one.shape[0]} px"
                for modality, one in zip(MODALITIES, pair, strict=True)
                if one is not None
            )
            raise DataError(f"pair {name} has two sizes, {words}; both pictures must show the same, pixel by pixel")
        visible, infrared = (
            one is not None and modality in modalities for modality, one in zip(MODALITIES, pair, strict=True)
        )
        present = visible, infrared
        if not any(present):
            raise DataError(f"pair {name} has none of what the model looks at: {', '.join(modalities)}")
        height, width = sizes.pop()
        image, _ = resize(_pixels(pair, present, height, width), torch.zeros(0, 4), image_size, square)
        target = without_truth(name, image, (height, width))
        samples.append(PairSample(with_absent(image, present), target, present, None, seed=0))
    batch = PairCollate(PAD_MULTIPLE)(samples)
    assert isinstance(batch, PairBatch)
    return batch


def _pixels(pair: Pair, present: Sequence[bool], height: int, width: int) -> torch.Tensor:
    """Return (4, H, W) uint8: R, G, B and the infrared picture's brightness, 0 where a picture is absent."""
    pixels = np.zeros((height, width, len(ABSENT_PIXEL)), dtype=np.uint8)
    visible, infrared = (one if is_there else None for one, is_there in zip(pair, present, strict=True))
    if visible is not None:
        pixels[..., CHANNELS[0]] = visible
    if infrared is not None:
        pixels[..., 3] = np.asarray(Image.fromarray(infrared).convert("L"))
    return torch.from_numpy(pixels).permute(2, 0, 1)
