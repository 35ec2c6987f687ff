"""How the boxes of two detectors become those of one: non-maximum suppression over both, with a score that both have a
part in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

Found = Mapping[str, Tensor]
"""``boxes`` (N, 4) xyxy, ``scores`` (N,) and ``labels`` (N,) of one image, as torchvision gives them."""


def pooled(found: Sequence[Found], rule: str, iou: float, most: int) -> dict[str, Tensor]:
    """Return the best ``most`` boxes of all ``found``, in the order of their scores.

    Of boxes of a class that overlap by more than ``iou`` the highest-scoring stays. By the ``rule`` ``max`` it keeps its score;
    by ``mean`` it gets the mean over the detectors of the best score of those that it stands for, itself among them: a detector
    without one counts 0.
    """
    boxes, scores, labels = (torch.cat([one[name] for one in found]) for name in ("boxes", "scores", "labels"))
    kept = batched_nms(boxes, scores, labels, iou)
    if rule == "mean" and len(kept):
        owners = torch.repeat_interleave(torch.tensor([len(one["scores"]) for one in found])).to(boxes.device)
        stands_for = (box_iou(boxes[kept], boxes) > iou) & (labels[kept][:, None] == labels)
        stands_for[torch.arange(len(kept)), kept] = True
        stands_for &= stands_for.cumsum(dim=0) == 1  # each goes with the first that suppressed it
        best = [(scores * (stands_for & (owners == owner))).amax(dim=1) for owner in range(len(found))]
        new = torch.stack(best).mean(dim=0)
    else:
        new = scores[kept]
    order = new.argsort(descending=True, stable=True)[:most]
    return {"boxes": boxes[kept][order], "scores": new[order], "labels": labels[kept][order]}
