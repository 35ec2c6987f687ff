"""From queries to lines: layers that let points, lines and scene tokens see each other, and move the points step by step."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from winnow.families.maps.frame import Region
from winnow.families.maps.model.positions import NUM_PLACE, SHARPNESS, place_features, place_projection, two_layers
from winnow.settings import Settings

CLASS_PRIOR = 0.01
MARGIN = 0.05
"""Points may lie outside of the region by this part of its sides: a line that ends at the edge need not end where a sigmoid
saturates."""


class DecoderSettings(Settings):
    """The keys of ``model.decoder``."""

    num_layers: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    ffn_width: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1, strict=False)


class MapOutputs(NamedTuple):
    """Of all L decoder layers, the last one last: ``logits`` (L, B, I, C) and ``points`` (L, B, I, P, 2) float32, x and y as
    parts of the region."""

    logits: Tensor
    points: Tensor


def as_parts(logits: Tensor) -> Tensor:
    """Return where points are, as parts of the region, from what the decoder moves."""
    return logits.sigmoid() * (1 + 2 * MARGIN) - MARGIN


class Attention(nn.Module):
    """Attention of queries (B, N, width) to keys and values (B, M, width)."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return self.attend(self.query(queries), self.key(keys), self.value(values))

    def attend(self, *projected: Tensor) -> Tensor:
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in projected)
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=self.dropout if self.training else 0.0)
        attended: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return attended


class SceneAttention(Attention):
    """Attention to what lies at places: a score is what places have in common and what contents have, little at first. It begins
    by looking nearby."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__(width, num_heads, dropout)
        self.places = place_projection(width)
        with torch.no_grad():
            self.places.weight.mul_(math.sqrt(SHARPNESS))
            self.query.weight.mul_(0.1)

    def nearby(self, queries: Tensor, query_places: Tensor, scene: Tensor, scene_places: Tensor) -> Tensor:
        """Attend to ``scene`` (B, S, width) by contents and the features of places."""
        query, key = self.query(queries) + self.places(query_places), self.key(scene) + self.places(scene_places)
        return self.attend(query, key, self.value(scene))


class MapDecoderLayer(nn.Module):
    """On (B, I, P, width) states: instances, the means of their points, see each other, the points of an instance see each other,
    all see the scene tokens where there is a cross-attention, and each is changed by itself."""

    def __init__(self, width: int, settings: DecoderSettings, sees_scene: bool) -> None:
        super().__init__()
        heads, dropout = settings.num_heads, settings.dropout
        self.instances, self.points = Attention(width, heads, dropout), Attention(width, heads, dropout)
        self.scene = SceneAttention(width, heads, dropout) if sees_scene else None
        self.ffn = nn.Sequential(
            nn.Linear(width, settings.ffn_width), nn.GELU(), nn.Dropout(dropout), nn.Linear(settings.ffn_width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4 if sees_scene else 3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, places: Tensor, features: Tensor, scene: Tensor, cells: Tensor) -> Tensor:
        """``places`` (B, I, P, width) are what ``features`` of places (B, I, P, ``NUM_PLACE``) say to all but the
        cross-attention; ``scene`` (B, S, width) lies at ``cells`` (B, S, ``NUM_PLACE``)."""
        norms = iter(self.norms)
        shape = states.shape
        placed = (next(norms)(states) + places).mean(dim=2)
        states = states + self.dropout(self.instances(placed, placed, placed))[:, :, None]
        placed = (next(norms)(states) + places).flatten(0, 1)
        states = states + self.dropout(self.points(placed, placed, placed).view(shape))
        if self.scene is not None:
            queries = (next(norms)(states) + places).flatten(1, 2)
            states = states + self.dropout(self.scene.nearby(queries, features.flatten(1, 2), scene, cells)).view(shape)
        return states + self.dropout(self.ffn(next(norms)(states) + places))


class MapDecoder(nn.Module):
    """Layers with a class head and a point head each.

    Each layer's points are the last one's, whose gradient ends there, moved in logits. Points, and what moves them, are float32
    whatever autocast says: a bfloat16 coordinate has steps of up to 23 cm.
    """

    sides: Tensor

    def __init__(
        self,
        settings: DecoderSettings,
        width: int,
        num_instances: int,
        num_points: int,
        num_classes: int,
        sees_scene: bool,
        region: Region,
    ) -> None:
        super().__init__()
        self.shape = (num_instances, num_points)
        self.register_buffer("sides", torch.tensor([region.width, region.length]), persistent=False)
        layers = range(settings.num_layers)
        self.layers = nn.ModuleList(MapDecoderLayer(width, settings, sees_scene) for _ in layers)
        self.places = two_layers(NUM_PLACE, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in layers)
        self.class_heads = nn.ModuleList(_class_head(width, num_classes) for _ in layers)
        self.point_heads = nn.ModuleList(_point_head(width) for _ in layers)

    def forward(self, queries: Tensor, references: Tensor, scene: Tensor, cells: Tensor) -> MapOutputs:
        """Decode (B, I·P, width) ``queries`` that start at ``references`` (I, P, 2), logits, by ``scene`` (B, S, width), whose
        tokens' places have the features ``cells`` (B, S, ``NUM_PLACE``)."""
        states = queries.unflatten(1, self.shape)
        where = references.float().expand(len(queries), -1, -1, -1)
        scene = scene + self.places(cells)
        logits, points = [], []
        for layer, norm, class_head, point_head in zip(
            self.layers, self.norms, self.class_heads, self.point_heads, strict=True
        ):
            metres = (as_parts(where.detach()) - 0.5) * self.sides
            features = place_features(metres)
            states = layer(states, self.places(features), features, scene, cells)
            with torch.autocast(queries.device.type, enabled=False):
                normed = norm(states.float())
                moved = where + point_head(normed)
                logits.append(class_head(normed.mean(dim=2)))
                points.append(as_parts(moved))
            where = moved.detach()
        return MapOutputs(torch.stack(logits), torch.stack(points))


def _class_head(width: int, num_classes: int) -> nn.Linear:
    """Build a head whose scores begin at ``CLASS_PRIOR``."""
    head = nn.Linear(width, num_classes)
    nn.init.constant_(head.bias, -math.log(1 / CLASS_PRIOR - 1))
    return head


def _point_head(width: int) -> nn.Sequential:
    """Build a head that begins by moving nothing."""
    last = nn.Linear(width, 2)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), last)
