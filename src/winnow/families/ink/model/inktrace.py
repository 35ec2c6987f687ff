"""``model=inktrace``: the ink network as a task, with its settings, its hidden blocks and its weighted losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from winnow.builders import builder
from winnow.errors import DataError
from winnow.families.convolution import CHANNELS_PER_GROUP
from winnow.families.ink.batch import KEY_POINT_KINDS, InkBatch
from winnow.families.ink.model.losses import ink_losses
from winnow.families.ink.model.network import TOKEN, InkNetwork
from winnow.families.ink.predictions import InkPredictions
from winnow.protocols import Metric
from winnow.settings import Settings, build_settings


class LossWeights(Settings):
    """What each head's loss is multiplied by."""

    skeleton: float = Field(ge=0)
    key_points: float = Field(ge=0)
    tangent: float = Field(ge=0)
    width: float = Field(ge=0)
    offset: float = Field(ge=0)


class InktraceSettings(Settings):
    """The keys of ``model=inktrace``; ``conf/model/inktrace.yaml`` says what each does."""

    channels: list[int] = Field(min_length=3, max_length=3)
    depths: list[int] = Field(min_length=3, max_length=3)
    embed_dim: int = Field(gt=0)
    num_layers: int = Field(ge=0)
    num_heads: int = Field(gt=0)
    skips: bool
    full_heads: bool
    mask_ratio: float = Field(ge=0, lt=1)
    loss_weights: LossWeights

    @model_validator(mode="after")
    def _divide(self) -> InktraceSettings:
        if any(count < 1 or count % CHANNELS_PER_GROUP for count in [*self.channels, self.embed_dim]):
            raise ValueError(
                f"channels={self.channels} and embed_dim={self.embed_dim} must be positive multiples of {CHANNELS_PER_GROUP}"
            )
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim={self.embed_dim} must be a multiple of num_heads={self.num_heads}")
        if any(depth < 0 for depth in self.depths):
            raise ValueError(f"depths={self.depths} must not be negative")
        return self


class InktraceTask:
    """Tiles of ink to their centre-lines. While training, ``mask_ratio`` of each tile's 8×8-pixel blocks is hidden from the
    network, never from its losses; in evaluation nothing is.

    Losses are means over each image's own pixels, summed and divided by the images of the whole step, in float32 whatever
    autocast says.
    """

    counted_by: Mapping[str, str] = {f"loss_{name}": "images" for name in LossWeights.model_fields}

    def __init__(
        self, model: InkNetwork, mask_ratio: float, weights: LossWeights, new_metric: Callable[[], Metric]
    ) -> None:
        self.model: nn.Module = model
        self.classes = list(KEY_POINT_KINDS)
        self._mask_ratio = mask_ratio
        self._weights = {f"loss_{name}": weight for name, weight in weights.model_dump().items()}
        self._new_metric = new_metric

    def new_metric(self) -> Metric:
        return self._new_metric()

    def forward(self, batch: InkBatch) -> dict[str, Tensor]:
        """Return a map per head of the network, by its name. Raises DataError if a tile can't be cut into blocks."""
        height, width = batch.images.shape[2:]
        if height % TOKEN or width % TOKEN:
            raise DataError(f"tiles of {height}×{width} px; the ink network takes multiples of {TOKEN}")
        ratio = self._mask_ratio if self.model.training else 0.0
        hidden = draw_hidden(batch.num_samples, height // TOKEN, width // TOKEN, ratio)
        outputs: dict[str, Tensor] = self.model(batch.images, hidden.to(batch.images.device, non_blocking=True))
        return outputs

    def loss_count(self, batch: InkBatch) -> dict[str, float]:
        """Return the number of images."""
        return {"images": float(batch.num_samples)}

    def losses(self, outputs: dict[str, Tensor], batch: InkBatch, count: Mapping[str, float]) -> dict[str, Tensor]:
        """Return ``loss_skeleton``, ``loss_tangent`` and, with full heads, ``loss_width``, ``loss_offset``,
        ``loss_key_points``.
        """
        with torch.autocast(batch.images.device.type, enabled=False):
            terms = ink_losses(outputs, batch.target)
        return {name: self._weights[name] * term / count["images"] for name, term in terms.items()}

    @torch.no_grad()
    def predictions(self, outputs: dict[str, Tensor], batch: InkBatch) -> InkPredictions:
        """Return the predictions of each image. A key point's score is the head's times the pixel's probability of
        centre-line: off the skeleton, where it is not trained, the head may say anything.
        """
        maps = dict(outputs)
        skeleton = maps.pop("skeleton").sigmoid()
        key_points = maps.pop("key_points", None)
        if key_points is not None:
            key_points = key_points.sigmoid() * skeleton
        return InkPredictions(skeleton=skeleton, key_points=key_points, **maps)


def draw_hidden(num_images: int, rows: int, columns: int, ratio: float) -> Tensor:
    """Return (num_images, 1, rows, columns) with 1 for a hidden block, the same number in every image.

    Drawn from torch's generator on the CPU, whose state a checkpoint holds, one image after the other: a step's blocks
    are the same on every device and however the step is cut into micro-batches. Nothing is drawn if nothing is to be
    hidden.
    """
    num_blocks = rows * columns
    num_hidden = round(ratio * num_blocks)
    if num_hidden == 0:
        return torch.zeros(num_images, 1, rows, columns)
    order = torch.rand(num_images, num_blocks).argsort(dim=1, stable=True)
    return (order < num_hidden).float().view(num_images, 1, rows, columns)


@builder(InktraceSettings)
def inktrace(new_metric: Callable[..., Metric], **values: Any) -> InktraceTask:
    """Build the task of ``model=inktrace``; ``new_metric`` takes whether there are full heads to measure.

    Raises ConfigError naming ``model.…`` if a setting is wrong.
    """
    settings = build_settings(InktraceSettings, values, "model")
    model = InkNetwork(
        settings.channels, settings.depths, settings.embed_dim, settings.num_layers, settings.num_heads, settings.skips,
        settings.full_heads,
    )  # fmt: skip
    return InktraceTask(model, settings.mask_ratio, settings.loss_weights, lambda: new_metric(full=settings.full_heads))
