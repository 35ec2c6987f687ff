"""The convolution block of the small networks, normalised in groups of channels and image by image: small batches do no harm."""

from __future__ import annotations

from torch import nn

CHANNELS_PER_GROUP = 8


def normalization(channels: int) -> nn.GroupNorm:
    """Build the normalisation of ``channels``, a multiple of 8."""
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)


def normalized_convolution(before: int, after: int, stride: int = 1) -> tuple[nn.Conv2d, nn.GroupNorm]:
    """Build a 3×3 convolution for a rectifier behind it (He et al. 2015), and its normalisation; ``stride`` 2 halves the
    map."""
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution, normalization(after)
