"""What families share that predict a set per sample: the assignment of queries to targets, and the focal loss of all queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

# Far above any cost of finite predictions, far below where sums of it lose precision: such pairs are chosen last.
UNMATCHABLE = 1e6


def assign(cost: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cheapest one-to-one matches of queries and targets.

    ``cost`` (L, B, Q, N) is per layer and sample, of which sample b has the first ``counts[b]`` targets. Gives the sample of each
    match (M,), the same in all layers, its query (L, M) and its target (L, M), int64, on the device of ``cost``.
    """
    num_layers, num_samples, num_queries = cost.shape[:3]
    table = np.nan_to_num(cost.cpu().numpy(), nan=UNMATCHABLE, posinf=UNMATCHABLE, neginf=-UNMATCHABLE)
    pairs = [
        [linear_sum_assignment(table[layer, sample, :, :count]) for sample, count in enumerate(counts)]
        for layer in range(num_layers)
    ]
    samples = np.repeat(np.arange(num_samples), [min(num_queries, count) for count in counts])
    queries = np.stack([np.concatenate([rows for rows, _ in layer]) for layer in pairs])
    targets = np.stack([np.concatenate([columns for _, columns in layer]) for layer in pairs])
    packed = torch.from_numpy(np.concatenate([samples[None], queries, targets]).astype(np.int64)).to(cost.device)
    return packed[0], packed[1 : 1 + num_layers], packed[1 + num_layers :]


def focal_sums(logits: Tensor, truth: Tensor, alpha: float, gamma: float) -> Tensor:
    """Return (L,) sums of the sigmoid focal loss over samples, queries and classes (Lin et al. 2017); ``logits`` and ``truth``,
    of 0 and 1, are (L, B, Q, K)."""
    probability = logits.sigmoid()
    miss = torch.where(truth > 0, 1 - probability, probability)
    weight = torch.where(truth > 0, alpha, 1 - alpha)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (weight * miss**gamma * cross_entropy).sum(dim=(1, 2, 3))
