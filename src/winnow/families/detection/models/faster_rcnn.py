"""Faster R-CNN, the two-stage detector, as a task around torchvision's proposal network and box heads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.detection import FasterRCNN, FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.image_list import ImageList

from winnow.builders import builder
from winnow.checkpoints.class_order import ClassHead
from winnow.checkpoints.pretrained import FoundWeights, find_weights
from winnow.checkpoints.state_dicts import load_pretrained
from winnow.families.detection.batch import DetectionBatch, Detections
from winnow.families.detection.models.pixels import PixelNormalizer
from winnow.families.detection.models.resnet_fpn import NORM_EPS, ResnetFpnSettings, resnet50_fpn
from winnow.protocols import Metric
from winnow.settings import build_settings

COCO_WEIGHTS = FasterRCNN_ResNet50_FPN_Weights.COCO_V1


class FasterRcnnModel(nn.Module):
    """torchvision's Faster R-CNN without its resizing: ``forward`` gives the feature maps, the rest is called by the
    task."""

    def __init__(self, network: FasterRCNN) -> None:
        super().__init__()
        self.normalize = PixelNormalizer()
        self.backbone = network.backbone
        self.rpn = network.rpn
        self.roi_heads = network.roi_heads

    def forward(self, images: Tensor, pixel_mask: Tensor) -> OrderedDict[str, Tensor]:
        features: OrderedDict[str, Tensor] = self.backbone(self.normalize(images, pixel_mask))
        return features


class FasterRcnnTask:
    """Faster R-CNN (Ren et al. 2015, arXiv 1506.01497).

    Losses are means over sampled anchors and proposals, as in torchvision; weighted by images they add up over the
    micro-batches of a step. That is exact while each image gives its full sample (256 anchors, 512 proposals) and close
    to it otherwise; the samples themselves are drawn from torch's global generator, so another split draws other ones.
    Proposals, boxes and losses are computed in float32, as in lower precision whole pixels are lost; autocast is used
    by the backbone only.
    """

    counted_by: Mapping[str, str] = dict.fromkeys(
        ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"), "images"
    )
    class_rows: Mapping[str, int] = {
        f"roi_heads.box_predictor.{layer}.{part}": rows
        for layer, rows in (("cls_score", 1), ("bbox_pred", 4))
        for part in ("weight", "bias")
    }

    def __init__(self, model: FasterRcnnModel, classes: Sequence[str], new_metric: Callable[[], Metric]) -> None:
        self.model: nn.Module = model
        self.classes = list(classes)
        self._new_metric = new_metric

    def new_metric(self) -> Metric:
        return self._new_metric()

    def forward(self, batch: DetectionBatch) -> OrderedDict[str, Tensor]:
        features: OrderedDict[str, Tensor] = self.model(batch.images, batch.pixel_mask)
        return features

    def loss_count(self, batch: DetectionBatch) -> dict[str, float]:
        """Return the number of images."""
        return {"images": float(batch.num_samples)}

    def losses(
        self, outputs: OrderedDict[str, Tensor], batch: DetectionBatch, count: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Return ``loss_objectness``, ``loss_rpn_box_reg``, ``loss_classifier`` and ``loss_box_reg``, each weighted 1."""
        with self._network(training=True) as network, torch.autocast(batch.images.device.type, enabled=False):
            features, images = in_float32(outputs), image_list(batch)
            targets = torchvision_targets(batch)
            proposals, rpn_losses = network.rpn(images, features, targets)
            _, box_losses = network.roi_heads(features, proposals, images.image_sizes, targets)
        share = batch.num_samples / count["images"]
        return {name: term * share for name, term in (rpn_losses | box_losses).items()}

    @torch.no_grad()
    def predictions(self, outputs: OrderedDict[str, Tensor], batch: DetectionBatch) -> list[Detections]:
        with self._network(training=False) as network, torch.autocast(batch.images.device.type, enabled=False):
            features, images = in_float32(outputs), image_list(batch)
            proposals, _ = network.rpn(images, features)
            found, _ = network.roi_heads(features, proposals, images.image_sizes)
        return detections_of(found, batch)

    @contextmanager
    def _network(self, training: bool) -> Iterator[FasterRcnnModel]:
        """Give the model with its proposal network and box heads behaving as in training or not, whatever the model's
        own mode.
        """
        network = cast(FasterRcnnModel, self.model)
        with behaving_as(training, network.rpn, network.roi_heads):
            yield network


class FasterRcnnSettings(ResnetFpnSettings):
    """``norm_eps`` of frozen batch norms, None: what the weights were trained with. A config recorded before the key existed has
    1e-5."""

    norm_eps: float | None = Field(NORM_EPS, ge=0)


@builder(FasterRcnnSettings)
def faster_rcnn_r50_fpn(
    classes: Sequence[str],
    new_metric: Callable[[], Metric],
    max_detections: int,
    score_threshold: float,
    **values: Any,
) -> FasterRcnnTask:
    """Build the task of ``model=faster_rcnn_r50_fpn``; ``pretrained=true`` means torchvision's weights from COCO, 37.0
    AP.

    The box head fits ``classes`` and starts at random unless the weights know as many classes. Raises ConfigError
    naming ``model.…`` if a setting is wrong, WeightsError if the weights can't be had or fit nothing.
    """
    settings = build_settings(FasterRcnnSettings, values, "model")
    found = find_weights(settings.pretrained, settings.offline, COCO_WEIGHTS)
    norm_eps = settings.norm_eps if settings.norm_eps is not None else eps_of(found, COCO_WEIGHTS)
    network = FasterRCNN(
        resnet50_fpn(found, settings.trainable_layers, (1, 2, 3, 4), None, norm_eps),
        num_classes=len(classes) + 1,
        box_score_thresh=score_threshold,
        box_detections_per_img=max_detections,
    )
    model = FasterRcnnModel(network)
    if found is not None:
        load_pretrained(model, found.state, found.source, ClassHead(classes, FasterRcnnTask.class_rows))
    return FasterRcnnTask(model, classes, new_metric)


def eps_of(found: FoundWeights | None, coco: WeightsEnum) -> float:
    """Return what the frozen norms of torchvision's weights ``coco`` were trained with, which is 0, where these were ``found``,
    by their name or as a file. Of all others it is the default: a variance may be 0 there."""
    is_coco = found is not None and (found.source == str(coco) or Path(found.source).name == Path(coco.url).name)
    return 0.0 if is_coco else NORM_EPS


@contextmanager
def behaving_as(training: bool, *parts: nn.Module) -> Iterator[None]:
    """Have ``parts`` behave as in training or not, whatever their own modes, which they have again afterwards."""
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.train(training)
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.train(mode)


def in_float32(features: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Return a pyramid in float32."""
    return OrderedDict((name, feature.float()) for name, feature in features.items())


def image_list(batch: DetectionBatch) -> ImageList:
    """Return the images of a batch with their sizes without padding."""
    return ImageList(batch.images, [target.size for target in batch.targets])


def torchvision_targets(batch: DetectionBatch) -> list[dict[str, Tensor]]:
    """Return the targets of a batch, with labels from 1: class 0 is torchvision's background."""
    return [{"boxes": target.boxes, "labels": target.labels + 1} for target in batch.targets]


def detections_of(found: Sequence[Mapping[str, Tensor]], batch: DetectionBatch) -> list[Detections]:
    """Return torchvision's detections of each image of a batch, in original pixels with labels from 0."""
    tables = [
        torch.cat([f["boxes"], f["scores"][:, None], f["labels"][:, None].to(f["boxes"].dtype)], dim=1) for f in found
    ]
    # One copy from the device for the whole batch.
    rows = torch.cat(tables).cpu().split([len(table) for table in tables])
    return [
        Detections(r[:, :4] * r.new_tensor(t.scale * 2), r[:, 4], r[:, 5].long() - 1)
        for r, t in zip(rows, batch.targets, strict=True)
    ]
