"""Which position sees which in the language model: a causal prefix, then instances, then their points."""

from __future__ import annotations

import torch
from torch import Tensor


def visible_positions(
    num_prefix: int, num_instances: int, num_points: int, device: torch.device | None = None
) -> Tensor:
    """Return (T, T) bool, true where the row's position sees the column's; T = prefix + I + I·P positions in this order, the
    points of one instance beside each other.

    The prefix is causal, and sees nothing after it. All others see the whole prefix; instances see each other, points see their
    own instance and its points.
    """
    instances = torch.arange(num_instances, device=device)
    owner = torch.cat([instances.new_full((num_prefix,), -1), instances, instances.repeat_interleave(num_points)])
    index = torch.arange(len(owner), device=device)
    in_prefix = index < num_prefix
    is_instance = ~in_prefix & (index < num_prefix + num_instances)
    is_point = index >= num_prefix + num_instances
    sees_prefix = in_prefix[None] & (~in_prefix[:, None] | (index[None] <= index[:, None]))
    sees_instances = is_instance[:, None] & is_instance[None]
    return sees_prefix | sees_instances | (is_point[:, None] & (owner[:, None] == owner[None]))


def structured_mask(
    num_prefix: int, num_instances: int, num_points: int, dtype: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """Return the same as (1, 1, T, T) of ``dtype`` to be added to attention's logits: 0 where visible, else the lowest number.

    Transformers gives a mask of four dimensions to attention as it is, and only such a one means the same everywhere: under
    ``eager`` a bool is added as 0 and 1, and so are floats of 0 and 1 under either, which hides nothing.
    """
    visible = visible_positions(num_prefix, num_instances, num_points, device)
    hidden = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill(~visible, torch.finfo(dtype).min)
    return hidden[None, None]
