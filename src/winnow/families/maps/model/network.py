"""The network of maps: images and where their pixels look in, lines of all decoder layers out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from winnow.families.maps.frame import NUM_CAMERAS
from winnow.families.maps.language.bridge import LanguageBridge
from winnow.families.maps.model.decoder import MapDecoder, MapOutputs
from winnow.families.maps.model.positions import CONTENT, PositionEncoding, Rays
from winnow.families.maps.model.qformer import QFormer
from winnow.families.maps.model.queries import MapQueries
from winnow.families.maps.model.vision import VisionEncoder


class MapNetwork(nn.Module):
    """Images → ``vision`` → ``qformer`` with ``positions`` → scene tokens → ``queries``, which a ``language`` model may change →
    ``decoder``."""

    def __init__(
        self,
        vision: VisionEncoder,
        qformer: QFormer,
        queries: MapQueries,
        language: LanguageBridge | None,
        decoder: MapDecoder,
        width: int,
    ) -> None:
        super().__init__()
        inner = qformer.tokens.shape[-1]
        self.vision = vision
        linear, norm = nn.Linear(vision.channels, inner), nn.LayerNorm(inner)
        self.image_tokens = nn.Sequential(linear, norm)
        with torch.no_grad():  # places are told in the first half, contents in the second
            linear.weight[: inner // 2] = 0
            linear.bias[: inner // 2] = 0
            norm.weight.fill_(CONTENT)
        self.positions = PositionEncoding(inner)
        self.qformer = qformer
        self.scene = nn.Sequential(nn.Linear(inner, width), nn.LayerNorm(width))
        self.queries = queries
        self.language = language
        self.decoder = decoder

    def forward(self, images: Tensor, rays: Rays) -> MapOutputs:
        """Run on ``images`` (B·6, 3, H, W) uint8; ``rays`` are those of their tokens."""
        tokens = self.image_tokens(self.vision(images)).unflatten(0, (-1, NUM_CAMERAS)).flatten(1, 2)
        of_tokens, of_cells = self.positions(rays)
        scene = self.scene(self.qformer(tokens + of_tokens, of_cells))
        queries = self.queries(len(scene))
        if self.language is not None:
            queries = self.language(scene, queries)
        outputs: MapOutputs = self.decoder(queries, self.queries.references, scene, rays.cells[rays.which])
        return outputs
