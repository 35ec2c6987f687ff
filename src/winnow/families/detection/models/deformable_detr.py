"""Deformable DETR as a Task, and its builders: the paper's network and one small enough for a CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from transformers import DeformableDetrConfig

from winnow.builders import builder
from winnow.checkpoints.pretrained import check_pretrained, load_or_start_random
from winnow.errors import ConfigError
from winnow.families.detection.batch import DetectionBatch, Detections
from winnow.families.detection.models.deformable_attention import AttentionChoice, choose_attention
from winnow.families.detection.models.deformable_network import (
    DeformableDetrNetwork,
    SetOutputs,
    TinyDeformableDetrNetwork,
    class_rows,
    fresh_network,
    network_from_file,
    network_from_folder,
    resnet_config,
    stored_config,
)
from winnow.families.detection.models.matcher import SetTargets, corners
from winnow.families.detection.models.set_criterion import CriterionSettings, SetCriterion
from winnow.protocols import Metric
from winnow.settings import Settings, build_settings

logger = logging.getLogger(__name__)


class DeformableDetrSettings(Settings):
    """What the paper's network and the tiny one are set by; a config from before there was ``share_heads`` has separate ones, and
    pure ``attention``."""

    num_queries: PositiveInt
    with_box_refine: bool
    share_heads: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)]
    attention: AttentionChoice = "pure"
    pretrained: bool | str
    offline: bool
    criterion: CriterionSettings


class HubSettings(DeformableDetrSettings):
    """The paper's network: ``checkpoint`` is the hub repository of its weights."""

    checkpoint: str


class TinySettings(DeformableDetrSettings):
    """The sizes of the tiny network; ``channels`` are those of strides 2, 4, 8, 16, 32."""

    d_model: Annotated[int, Field(gt=0, multiple_of=32)]
    num_heads: PositiveInt
    ffn_dim: PositiveInt
    encoder_layers: PositiveInt
    decoder_layers: PositiveInt
    num_points: PositiveInt
    channels: Annotated[list[Annotated[int, Field(gt=0, multiple_of=8)]], Field(min_length=5, max_length=5)]

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.d_model % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide d_model={self.d_model}")
        return self


class DeformableDetr:
    """The Task: scores are sigmoids over query × class, there is no class for "no object" (Zhu et al. 2021)."""

    counted_by: Mapping[str, str] = dict.fromkeys(
        (f"{name}{layers}" for layers in ("", "_aux") for name in ("loss_ce", "loss_bbox", "loss_giou")), "boxes"
    )

    def __init__(
        self,
        model: DeformableDetrNetwork,
        classes: Sequence[str],
        new_metric: Callable[[], Metric],
        criterion: SetCriterion,
        *,
        max_detections: int,
        score_threshold: float,
    ) -> None:
        self.model = model
        self.classes = tuple(classes)
        self.criterion = criterion
        self.max_detections = max_detections
        self.score_threshold = score_threshold
        self._new_metric = new_metric

    def forward(self, batch: DetectionBatch) -> SetOutputs:
        """Run the network, which normalises the uint8 images itself."""
        return self.model(batch.images, batch.pixel_mask)

    def loss_count(self, batch: DetectionBatch) -> dict[str, float]:
        """Return the number of true boxes."""
        return {"boxes": float(sum(len(target.labels) for target in batch.targets))}

    def losses(self, outputs: SetOutputs, batch: DetectionBatch, count: Mapping[str, float]) -> dict[str, Tensor]:
        """Return ``loss_ce``, ``loss_bbox``, ``loss_giou`` of the last decoder layer, and ``…_aux`` summed over the others."""
        scale = torch.tensor([2 * (target.size[1], target.size[0]) for target in batch.targets])
        scale = scale.to(outputs.logits.device, non_blocking=True)
        boxes = [_centers(target.boxes / size) for target, size in zip(batch.targets, scale, strict=True)]
        targets = SetTargets.from_images(boxes, [target.labels for target in batch.targets])
        return self.criterion(outputs.logits, outputs.boxes_cxcywh, targets, count["boxes"])

    def exportable(self) -> nn.Module:
        """Return the network and its predictions of one picture for ``winnow export``."""
        from winnow.families.detection.models.exported import ExportedDeformableDetr

        return ExportedDeformableDetr(self.model, self.max_detections, self.score_threshold)

    @torch.no_grad()
    def predictions(self, outputs: SetOutputs, batch: DetectionBatch) -> list[Detections]:
        """Return the best ``max_detections`` scores of all query × class above ``score_threshold``; one query may give
        several classes, as in the paper's code. Boxes are clipped to the original image.
        """
        table = best_boxes(outputs, self.max_detections).cpu()  # one copy from the device for the whole batch
        return [self._detections(rows, target.original_size) for rows, target in zip(table, batch.targets, strict=True)]

    @property
    def class_rows(self) -> dict[str, int]:
        """Return the entries that hold a row per class: the class head of each decoder layer."""
        return class_rows(self.model)

    @property
    def num_queries(self) -> int:
        """Return the most objects that an image may hold."""
        return int(self.model.config.num_queries)

    def new_metric(self) -> Metric:
        """Return an empty metric for one evaluation."""
        return self._new_metric()

    def _detections(self, rows: Tensor, size: tuple[int, int]) -> Detections:
        rows = rows[rows[:, 4] > self.score_threshold]
        height, width = size
        boxes = rows[:, :4] * rows.new_tensor([width, height, width, height])
        return Detections(boxes=boxes, scores=rows[:, 4], labels=rows[:, 5].long())


def best_boxes(outputs: SetOutputs, most: int) -> Tensor:
    """Return the rows (x1, y1, x2, y2, score, label) of the ``most`` best scores of all query × class per image, (B, rows, 6),
    boxes in fractions of the image without its padding and clipped to it."""
    scores = outputs.logits[-1].float().sigmoid()
    num_classes = scores.shape[-1]
    best, index = scores.flatten(1).topk(min(most, scores[0].numel()))
    queries = torch.div(index, num_classes, rounding_mode="floor")
    boxes = corners(outputs.boxes_cxcywh[-1].float()).gather(1, queries[..., None].expand(-1, -1, 4)).clamp(0, 1)
    return torch.cat([boxes, best[..., None], (index % num_classes)[..., None].float()], dim=-1)


@builder(HubSettings)
def deformable_detr(
    classes: Sequence[str],
    new_metric: Callable[[], Metric],
    max_detections: int,
    score_threshold: float,
    **values: Any,
) -> DeformableDetr:
    """Build the paper's network: ResNet-50, four levels, six encoder and six decoder layers.

    Weights from a folder bring their own config (backbone, sizes); a random start and weights from a file use
    transformers' ResNet-50. Raises ConfigError for a wrong value before anything is loaded, WeightsError if weights are
    absent or don't fit.
    """
    settings = build_settings(HubSettings, values, "model")
    check_pretrained(settings.pretrained, settings.checkpoint)
    options = _options(settings, classes)
    config = DeformableDetrConfig(backbone_config=resnet_config(), **options)

    def start_random() -> DeformableDetrNetwork:
        logger.warning(
            "the ResNet-50 starts from random weights, its batch norms frozen at the identity: it will learn slowly "
            "and poorly; model.pretrained=true or a path loads weights"
        )
        return fresh_network(DeformableDetrNetwork, config)

    def load(path: Path) -> DeformableDetrNetwork:
        if path.is_file():
            return network_from_file(DeformableDetrNetwork, config, path)
        return network_from_folder(DeformableDetrNetwork, stored_config(path, options), path)

    network = load_or_start_random(
        settings.pretrained, settings.checkpoint, settings.offline, load=load, start_random=start_random
    )
    return _task(network, settings, classes, new_metric, max_detections, score_threshold)


@builder(TinySettings)
def deformable_detr_tiny(
    classes: Sequence[str],
    new_metric: Callable[[], Metric],
    max_detections: int,
    score_threshold: float,
    **values: Any,
) -> DeformableDetr:
    """Build the same with a small GroupNorm backbone (strides 8, 16, 32), for CPUs and tests; no weights are published.

    Raises ConfigError for a wrong value before anything is loaded, WeightsError if weights are absent or don't fit.
    """
    settings = build_settings(TinySettings, values, "model")
    check_pretrained(settings.pretrained, checkpoint=None)
    config = _tiny_config(settings, classes)

    def start_random() -> DeformableDetrNetwork:
        return fresh_network(TinyDeformableDetrNetwork, config)

    def load(path: Path) -> DeformableDetrNetwork:
        from_disk = network_from_file if path.is_file() else network_from_folder
        return from_disk(TinyDeformableDetrNetwork, config, path)

    network = load_or_start_random(settings.pretrained, None, settings.offline, load=load, start_random=start_random)
    return _task(network, settings, classes, new_metric, max_detections, score_threshold)


def _task(
    network: DeformableDetrNetwork,
    settings: DeformableDetrSettings,
    classes: Sequence[str],
    new_metric: Callable[[], Metric],
    max_detections: int,
    score_threshold: float,
) -> DeformableDetr:
    size = sum(parameter.numel() for parameter in network.parameters())
    attention = choose_attention(network, settings.attention, settings.offline)
    logger.info("%s: %s parameters; deformable attention: %s", type(network).__name__, size, attention)
    return DeformableDetr(
        network,
        classes,
        new_metric,
        SetCriterion(settings.criterion),
        max_detections=max_detections,
        score_threshold=score_threshold,
    )


def _options(settings: DeformableDetrSettings, classes: Sequence[str]) -> dict[str, Any]:
    if not classes:
        raise ConfigError("the data set has no classes, but model needs at least one")
    names = dict(enumerate(classes))
    return {
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
        "num_queries": settings.num_queries,
        "with_box_refine": settings.with_box_refine,
        "dropout": settings.dropout,
        "share_heads": settings.share_heads and not settings.with_box_refine,
    }


def _tiny_config(settings: TinySettings, classes: Sequence[str]) -> DeformableDetrConfig:
    channels = settings.channels
    # A ResNet only in name: the network puts its own backbone of these channels in its place.
    backbone = resnet_config(
        embedding_size=channels[0], hidden_sizes=channels[1:], depths=[1, 1, 1, 1], layer_type="basic"
    )
    return DeformableDetrConfig(
        backbone_config=backbone,
        d_model=settings.d_model,
        num_feature_levels=3,
        encoder_layers=settings.encoder_layers,
        decoder_layers=settings.decoder_layers,
        encoder_attention_heads=settings.num_heads,
        decoder_attention_heads=settings.num_heads,
        encoder_n_points=settings.num_points,
        decoder_n_points=settings.num_points,
        encoder_ffn_dim=settings.ffn_dim,
        decoder_ffn_dim=settings.ffn_dim,
        **_options(settings, classes),
    )


def _centers(boxes: Tensor) -> Tensor:
    """Convert xyxy to center and size."""
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=-1)
