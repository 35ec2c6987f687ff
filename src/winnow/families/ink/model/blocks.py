"""The convolutional parts of the ink network. Normalised in groups of channels, image by image: a batch's other images, and the
hidden blocks of a structural stage, leave no trace in running statistics."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

CHANNELS_PER_GROUP = 8


def normalization(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)


def convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """Build a 3×3 convolution, normalised, with GELU; ``stride`` 2 halves the map."""
    conv = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(OrderedDict(conv=conv, norm=normalization(after), activation=nn.GELU()))


class RepVitBlock(nn.Module):
    """A RepViT block (Wang et al. 2023, arXiv 2307.09283): neighbours are mixed per channel, then channels per pixel.

    timm's has batch norms, which fold into the convolutions for phones; ours has group norms, for the reason above.
    """

    def __init__(self, channels: int, expansion: int = 2) -> None:
        super().__init__()
        self.neighbours = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.scale = nn.Conv2d(channels, channels, 1, groups=channels)
        self.norm = normalization(channels)
        self.mixer = nn.Sequential(
            nn.Conv2d(channels, expansion * channels, 1), nn.GELU(), nn.Conv2d(expansion * channels, channels, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        features = self.norm(features + self.neighbours(features) + self.scale(features))
        return features + self.mixer(features)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside the identity; their sum begins at zero, so that depth does no harm at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = normalization(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.norm(self.second(self.first(features)))


class Enlargement(nn.Module):
    """A map of twice the height and width: each pixel's channels become those of its four parts."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.parts = nn.Sequential(nn.Conv2d(before, 4 * after, 1), nn.PixelShuffle(2))

    def forward(self, features: Tensor) -> Tensor:
        enlarged: Tensor = self.parts(features)
        return enlarged
