"""The losses of ink. Each image's are worked out by themselves and then summed: none depends on its neighbours in the batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from winnow.families.ink.batch import KEY_POINT_KINDS, InkTarget

FOCUS = 2.0
NEARNESS = 4.0
SPREAD_PX = 1.0
REACH_PX = 2
"""A pixel beside a key point is hardly wrong: CornerNet's penalty, with a Gaussian of ``SPREAD_PX``, cut off at ``REACH_PX``."""
CORNER = KEY_POINT_KINDS.index("corner")


def ink_losses(outputs: Mapping[str, Tensor], target: InkTarget) -> dict[str, Tensor]:
    """Return unweighted sums over the images of each head's loss, float32 scalars; a NaN in gives a NaN out.

    The skeleton's is over all pixels, the others' over the pixels of the image's own skeleton: an image without ink
    adds nothing to them. So does one without full labels to offset and corners, which nobody knows there.
    """
    full = target.has_full_labels.float()
    mask = target.skeleton
    per_image = {"loss_skeleton": skeleton_loss(outputs["skeleton"], mask)}
    per_image["loss_tangent"] = mean_on(mask, 1 - (outputs["tangent"] * target.tangent).sum(dim=1, keepdim=True))
    if "width" in outputs:
        offset_error = (outputs["offset"] - target.offset).abs().sum(dim=1, keepdim=True)
        per_image["loss_width"] = mean_on(mask, (outputs["width"] - target.width).abs())
        per_image["loss_offset"] = mean_on(mask, offset_error) * full
        per_image["loss_key_points"] = key_point_loss(outputs["key_points"], target.key_points, mask, full)
    return {name: values.sum() for name, values in per_image.items()}


def mean_on(mask: Tensor, values: Tensor) -> Tensor:
    """Return per image the mean of ``values`` (B, 1, H, W) where its own ``mask`` is 1, (B,); 0 where it is 1 nowhere."""
    pixels = mask.sum(dim=(1, 2, 3))
    return torch.where(mask > 0, values, 0.0).sum(dim=(1, 2, 3)) / pixels.clamp(min=1)


def skeleton_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return per image cross-entropy, the mean over its pixels, and Dice (Milletari et al. 2016) with one pixel added
    above and below, so that an image without ink has one, too: (B,).
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=(1, 2, 3))
    found = logits.sigmoid()
    both, either = (found * truth).sum(dim=(1, 2, 3)), (found + truth).sum(dim=(1, 2, 3))
    return cross_entropy + 1 - (2 * both + 1) / (either + 1)


def key_point_loss(logits: Tensor, truth: Tensor, mask: Tensor, full: Tensor) -> Tensor:
    """Return per image CornerNet's focal loss (Law & Deng 2018, eq. 1) on the skeleton, over the number of its key
    points: (B,).
    """
    known = mask.expand_as(truth).clone()
    known[:, CORNER] *= full[:, None, None]
    positive = torch.where(truth > 0, (1 - logits.sigmoid()).pow(FOCUS) * F.logsigmoid(logits), 0.0)
    tolerance = (1 - nearness(truth)).pow(NEARNESS)
    negative = torch.where(truth > 0, 0.0, tolerance * logits.sigmoid().pow(FOCUS) * F.logsigmoid(-logits))
    count = (truth * known).sum(dim=(1, 2, 3)).clamp(min=1)
    return -torch.where(known > 0, positive + negative, 0.0).sum(dim=(1, 2, 3)) / count


def nearness(truth: Tensor) -> Tensor:
    """Return 1 on a key point (B, K, H, W), less around it by a Gaussian, 0 beyond ``REACH_PX``."""
    steps = torch.arange(-REACH_PX, REACH_PX + 1, device=truth.device, dtype=truth.dtype)
    bell = torch.exp(-steps.square() / (2 * SPREAD_PX**2))
    kinds = truth.shape[1]
    kernel = (bell[:, None] * bell).expand(kinds, 1, -1, -1)
    return F.conv2d(truth, kernel, padding=REACH_PX, groups=kinds).clamp(max=1)
