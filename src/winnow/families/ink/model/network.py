"""The ink network: a convolutional encoder to 8×8-pixel tokens, a transformer over them, a decoder back to pixels, and heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from winnow.families.ink.batch import KEY_POINT_KINDS
from winnow.families.ink.model.blocks import Enlargement, RepVitBlock, ResidualBlock, convolution
from winnow.families.ink.model.positions import resized

TOKEN = 8
"""Pixels of a token's side; also of the blocks that a structural stage hides."""
POSITIONS = 8
"""Tokens of a side for which positions are learnt; other grids interpolate between them."""
SKELETON_PRIOR = 0.03
KEY_POINT_PRIOR = 0.05
WIDTH_PRIOR_PX = 3.0


class InkNetwork(nn.Module):
    """Ink (B, 1, H, W) in [0, 1] and what is hidden of it, (B, 1, H/8, W/8) with 1 for a hidden block, to a map per head:
    ``skeleton`` (1, logit), ``tangent`` (2, of unit length), and with ``full_heads`` ``width`` (1, px, > 0), ``offset`` (2, px
    in ±0.5), ``key_points`` (3, logits). All float32. H and W are multiples of 8.

    ``channels`` are those of the maps at full, half and quarter size, ``depths`` the blocks at half, quarter and eighth.
    Without ``skips`` all that the decoder knows has gone through the tokens; with them their convolutions begin at zero, so
    that a network which goes on from one without them begins with that one's answers.
    """

    def __init__(
        self, channels: Sequence[int], depths: Sequence[int], embed_dim: int, num_layers: int, num_heads: int,
        skips: bool, full_heads: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = convolution(2, channels[0])
        self.encoder = nn.ModuleList(
            nn.Sequential(convolution(before, after, stride=2), *(RepVitBlock(after) for _ in range(depth)))
            for (before, after), depth in zip(pairwise([*channels, embed_dim]), depths, strict=True)
        )
        self.positions = nn.Parameter(torch.empty(1, embed_dim, POSITIONS, POSITIONS))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.transformer = nn.Sequential(*(_layer(embed_dim, num_heads) for _ in range(num_layers)))
        self.norm = nn.LayerNorm(embed_dim)
        wide = [2 * count for count in channels]
        self.enlarge = nn.ModuleList(Enlargement(before, after) for before, after in pairwise([embed_dim, *wide[::-1]]))
        self.refine = nn.ModuleList(ResidualBlock(count) for count in wide[::-1])
        self.skips = nn.ModuleList(_skip(count) for count in channels[::-1]) if skips else None
        self.heads = nn.ModuleDict(_heads(wide[0], full_heads))

    def forward(self, images: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        curtain = F.interpolate(hidden, scale_factor=TOKEN, mode="nearest")
        features = self.stem(torch.cat([images * (1 - curtain), curtain], dim=1))
        maps = [features]
        for stage in self.encoder:
            features = stage(features)
            maps.append(features)
        features = self._attended(features)
        for level, (enlarge, refine) in enumerate(zip(self.enlarge, self.refine, strict=True)):
            features = enlarge(features)
            if self.skips is not None:
                features = features + self.skips[level](maps[-2 - level])
            features = refine(features)
        return {name: _in_units(name, head(features).float()) for name, head in self.heads.items()}

    def _attended(self, features: Tensor) -> Tensor:
        positions: Tensor = self.positions
        if features.shape[2:] != positions.shape[2:]:
            positions = resized(positions, (features.shape[2], features.shape[3]))
        tokens = (features + positions).flatten(2).transpose(1, 2)
        tokens = self.norm(self.transformer(tokens))
        return tokens.transpose(1, 2).unflatten(2, features.shape[2:])


def _layer(embed_dim: int, num_heads: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        embed_dim, num_heads, 4 * embed_dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )


def _skip(channels: int) -> nn.Conv2d:
    skip = nn.Conv2d(channels, 2 * channels, 1, bias=False)
    nn.init.zeros_(skip.weight)
    return skip


def _heads(channels: int, full: bool) -> dict[str, nn.Module]:
    """Build a 1×1 convolution per head, whose bias begins at what is usual there: a rare positive is not to be learnt first."""
    counts = {"skeleton": 1, "tangent": 2}
    if full:
        counts |= {"width": 1, "offset": 2, "key_points": len(KEY_POINT_KINDS)}
    biases = {
        "skeleton": _logit(SKELETON_PRIOR), "key_points": _logit(KEY_POINT_PRIOR), "width": math.log(math.expm1(WIDTH_PRIOR_PX)),
    }  # fmt: skip
    heads: dict[str, nn.Module] = {}
    for name, count in counts.items():
        head = nn.Conv2d(channels, count, 1)
        nn.init.constant_(head.bias, biases.get(name, 0.0))  # type: ignore[arg-type]
        if name == "offset":
            # Where no offset is ever known, as on real pages, none is what it goes on answering.
            nn.init.zeros_(head.weight)
        heads[name] = head
    return heads


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _in_units(name: str, raw: Tensor) -> Tensor:
    if name == "tangent":
        return F.normalize(raw, dim=1)
    if name == "width":
        return F.softplus(raw)
    if name == "offset":
        return 0.5 * torch.tanh(raw)
    return raw
