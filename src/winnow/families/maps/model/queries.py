"""The learned queries of a map: one per point of each line that may be found, and where those points start."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_EDGE = 0.02
"""Points start no nearer to the region's edge than this part of its sides."""


class MapQueries(nn.Module):
    """A query is the sum of what its instance and its point are; the latter is shared by all instances.

    ``references`` (I, P, 2) are logits of where the points of each instance start: along a straight piece of its own. If all
    points of an instance started at one place, the direction of its edges would have no meaning, and a gradient without bound.
    """

    def __init__(self, num_instances: int, num_points: int, width: int) -> None:
        super().__init__()
        self.instances = nn.Parameter(0.3 * torch.randn(num_instances, width))
        self.points = nn.Parameter(0.3 * torch.randn(num_points, width))
        self.references = nn.Parameter(spread_references(num_instances, num_points).logit())

    def forward(self, num_samples: int) -> Tensor:
        """Return (B, I·P, width); the query of instance i and point p is number i·P + p."""
        queries = (self.instances[:, None] + self.points[None]).flatten(0, 1)
        return queries.expand(num_samples, -1, -1)


def spread_references(num_instances: int, num_points: int) -> Tensor:
    """Draw straight pieces at random, (I, P, 2) in [0, 1] coordinates: 33 to 93 % of the region's size long, in any
    direction."""
    centre, part, angle = (
        torch.rand(num_instances, 1, 2),
        torch.rand(num_instances, 1, 1),
        torch.rand(num_instances, 1, 1),
    )
    direction = torch.cat([(math.pi * angle).cos(), (math.pi * angle).sin()], dim=-1)
    along = torch.linspace(-0.5, 0.5, num_points)[None, :, None] * (0.33 + 0.6 * part)
    # A piece is moved inwards, not bent at the edge: there its points would lie upon each other.
    reach = along.abs().amax(dim=1, keepdim=True) * direction.abs() + _EDGE
    return torch.minimum(torch.maximum(centre, reach), 1 - reach) + along * direction
