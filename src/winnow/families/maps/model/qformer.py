"""One Q-Former for all cameras, each with query tokens of its own that see the image tokens of that camera only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from winnow.checkpoints.state_dicts import FileWeights, LoadReport, compared, load_matching, read_state
from winnow.errors import WeightsError
from winnow.families.maps.frame import NUM_CAMERAS
from winnow.families.maps.model.positions import look_nearby
from winnow.settings import Settings

_BERT_LAYER = re.compile(r"^(?:.*\.)?encoder\.layer\.(\d+)\.(.+)$")


class QFormerSettings(Settings):
    """The keys of ``model.qformer``; ``pretrained`` is the path of a BERT's or a BLIP-2's weights, or null."""

    tokens_per_camera: int = Field(gt=0)
    width: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    ffn_width: int = Field(gt=0)
    cross_attention_every: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1, strict=False)
    pretrained: str | None

    @model_validator(mode="after")
    def _heads_divide(self) -> QFormerSettings:
        if self.width % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide width={self.width}")
        return self


class QFormer(nn.Module):
    """``Blip2QFormerModel`` over the tokens of all cameras of a sample.

    ``tokens_per_camera`` query tokens per camera, learned, look at that camera's image tokens in cross-attention, and at each
    other in self-attention.
    """

    def __init__(self, settings: QFormerSettings) -> None:
        super().__init__()
        self.tokens_per_camera = settings.tokens_per_camera
        self.tokens = nn.Parameter(0.02 * torch.randn(NUM_CAMERAS * settings.tokens_per_camera, settings.width))
        self.model = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=settings.width,
                encoder_hidden_size=settings.width,
                num_hidden_layers=settings.num_layers,
                num_attention_heads=settings.num_heads,
                intermediate_size=settings.ffn_width,
                cross_attention_frequency=settings.cross_attention_every,
                hidden_dropout_prob=settings.dropout,
                attention_probs_dropout_prob=settings.dropout,
                # At BERT's 0.02 narrow layers hardly change what they are given.
                initializer_range=settings.width**-0.5,
            )
        )

        layers: Any = self.model.encoder.layer
        with torch.no_grad():
            for layer in layers:
                # What a token saw of its own place is not to be lost among what all the others saw.
                layer.attention.output.dense.weight.mul_(0.1)
                if layer.has_cross_attention:
                    look_nearby(layer.crossattention.attention)

    def forward(self, image_tokens: Tensor, places: Tensor) -> Tensor:
        """Map (B, 6 T, width) image tokens, a camera's beside each other, to (B, 6 K, width); ``places`` (B, 6 K, width) are
        added to the query tokens."""
        mask = camera_mask(self.tokens_per_camera, image_tokens.shape[1] // NUM_CAMERAS, image_tokens.device)
        outputs = self.model(
            query_embeds=self.tokens + places,
            encoder_hidden_states=image_tokens,
            encoder_attention_mask=mask,
        )
        return cast(Tensor, outputs.last_hidden_state)


def camera_mask(num_queries: int, num_tokens: int, device: torch.device) -> Tensor:
    """Return the mask (1, 1, 6 ``num_queries``, 6 ``num_tokens``) that is added to attention scores: 0 within a camera, else
    minus infinity."""
    camera = torch.arange(NUM_CAMERAS, device=device)
    of_query, of_token = camera.repeat_interleave(num_queries), camera.repeat_interleave(num_tokens)
    mask = torch.zeros(len(of_query), len(of_token), device=device)
    return mask.masked_fill(of_query[:, None] != of_token, -torch.inf)[None, None]


def load_qformer(qformer: QFormer, path: str) -> LoadReport:
    """Fill what fits of the Q-Former from a file, or a folder of ``save_pretrained``, of a BERT or a BLIP-2; log what fitted.

    Raises WeightsError where the file can't be read or fills less than half.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        file = next(
            (own for name in ("model.safetensors", "pytorch_model.bin") if (own := file / name).is_file()), file
        )
    if not file.is_file():
        raise WeightsError(f"model.qformer.pretrained={path!r} is no file of weights, nor a folder that holds one")
    state = read_state(file)
    renamed = FileWeights(as_qformer(state), state.path)
    report = compared(qformer.model.state_dict(), renamed, path)
    report.require_match()
    load_matching(qformer.model, renamed, path)
    report.log()
    return report


def as_qformer(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a BERT's or a BLIP-2's entries by the names of ``Blip2QFormerModel``; what belongs to neither keeps its name.

    A BERT's feed-forward layers become those of the query tokens. A BLIP-2 has both those and, for texts, a BERT's.
    """
    of_blip = {name.removeprefix("qformer."): value for name, value in state.items() if name.startswith("qformer.")}
    if of_blip:
        return of_blip
    renamed = {}
    for name, value in state.items():
        found = _BERT_LAYER.match(name)
        own = name if found is None else f"encoder.layer.{found[1]}.{_renamed_part(found[2])}"
        renamed[own] = value
    return renamed


def _renamed_part(name: str) -> str:
    for old, new in (
        ("attention.self.", "attention.attention."),
        ("intermediate.", "intermediate_query."),
        ("output.", "output_query."),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
