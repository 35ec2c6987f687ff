"""The builders of pair detectors: a large one on ImageNet's weights and a tiny one for CPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator
from torch import nn
from torchvision.models import ResNet50_Weights, WeightsEnum
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from winnow.builders import builder
from winnow.checkpoints.class_order import ClassHead
from winnow.checkpoints.pretrained import FoundWeights, check_pretrained, find_weights
from winnow.checkpoints.state_dicts import load_pretrained
from winnow.families.convolution import CHANNELS_PER_GROUP
from winnow.families.detection.models import mobilenet_fpn, resnet_fpn
from winnow.families.detection.models.imagenet import load_classifier, set_input_channels
from winnow.families.detection.models.pixels import PixelNormalizer
from winnow.families.pairs.batch import MODALITIES
from winnow.families.pairs.models.detector import DetectorShape, PairDetector
from winnow.families.pairs.models.fusion import ConcatFusion, GatedFusion
from winnow.families.pairs.models.macl import AlignmentHead
from winnow.families.pairs.models.network import FUSED, PairNetwork, give_own_norms, make_backbones
from winnow.families.pairs.models.task import PairFasterRcnnTask
from winnow.families.pairs.models.tiny_pyramid import STRIDES, TinyPyramid
from winnow.protocols import Metric
from winnow.settings import Settings, build_settings

FUSIONS = {"mid": ConcatFusion, "gated": GatedFusion}
NUM_CHANNELS = 4
PYRAMID_CHANNELS = 256
PYRAMID_STRIDES = (4, 8, 16, 32)
HEAD_CHANNELS = 1024
WEIGHTS: dict[str, WeightsEnum] = {
    "resnet50": ResNet50_Weights.IMAGENET1K_V1,
    "mobilenet_v2": mobilenet_fpn.IMAGENET_WEIGHTS,
}
NUM_LAYERS = {"resnet50": resnet_fpn.NUM_LAYERS, "mobilenet_v2": mobilenet_fpn.NUM_LAYERS}


class MaclSettings(Settings):
    """``weight`` of the contrastive term that aligns both modalities; with 0 there is none."""

    weight: float = Field(ge=0)


class PairModelSettings(Settings):
    """What all pair detectors have in common. ``anchor_sizes``: one per level, the root of the area in px;
    ``anchor_ratios``: height over width; ``late_score`` matters to ``fusion: late`` alone; ``pixel_mean`` and
    ``pixel_std`` are those of red, green, blue and infrared in [0, 1]; ``rpn_samples`` anchors and ``roi_samples``
    proposals of each pair are learnt from, and ``max_proposals`` kept."""

    fusion: Literal["visible", "infrared", "early", "mid", "gated", "late"]
    shared_backbone: bool
    own_norms: bool
    late_score: Literal["max", "mean"]
    anchor_sizes: list[float] = Field(min_length=1)
    anchor_ratios: list[float] = Field(min_length=1)
    rpn_samples: int = Field(gt=1)
    roi_samples: int = Field(gt=1)
    sampling_ratio: int = Field(gt=0)
    max_proposals: int = Field(gt=0)
    macl: MaclSettings
    pixel_mean: list[float] = Field(min_length=NUM_CHANNELS, max_length=NUM_CHANNELS)
    pixel_std: list[float] = Field(min_length=NUM_CHANNELS, max_length=NUM_CHANNELS)
    pretrained: bool | str
    offline: bool

    @field_validator("anchor_sizes", "anchor_ratios", "pixel_std")
    @classmethod
    def _check_positive(cls, values: list[float]) -> list[float]:
        if any(value <= 0 for value in values):
            raise ValueError("must be above 0")
        return values

    @model_validator(mode="after")
    def _check_macl(self) -> PairModelSettings:
        if self.macl.weight > 0 and self.fusion in (*MODALITIES, "early"):
            raise ValueError(
                f"model.macl.weight={self.macl.weight:g} needs the features of both modalities, but model.fusion={self.fusion} "
                "has none before fusion; allowed with mid, gated, late"
            )
        return self

    @model_validator(mode="after")
    def _check_sharing(self) -> PairModelSettings:
        if self.shared_backbone and self.fusion in (*MODALITIES, "early"):
            raise ValueError(
                f"model.shared_backbone=true, but model.fusion={self.fusion} has one backbone; allowed with mid, gated, late"
            )
        if self.own_norms and not self.shared_backbone:
            raise ValueError(
                "model.own_norms=true needs model.shared_backbone=true; two backbones have their own anyway"
            )
        return self


class PairFasterRcnnSettings(PairModelSettings):
    """The keys of ``model=pair_faster_rcnn``. ``trainable_layers`` counts from the last stage (5 = all of resnet50, 6
    of mobilenet_v2) and matters only when weights were loaded."""

    backbone: Literal["resnet50", "mobilenet_v2"]
    trainable_layers: int = Field(ge=0)

    @model_validator(mode="after")
    def _check_levels(self) -> PairFasterRcnnSettings:
        if self.trainable_layers > NUM_LAYERS[self.backbone]:
            raise ValueError(
                f"model.trainable_layers={self.trainable_layers}: {self.backbone} has {NUM_LAYERS[self.backbone]}"
            )
        return _with_levels(self, len(PYRAMID_STRIDES) + 1)


class PairFasterRcnnTinySettings(PairModelSettings):
    """The keys of ``model=pair_faster_rcnn_tiny``. ``channels`` of the stages of strides 2, 4, 8 and 16, multiples of 8."""

    channels: list[int] = Field(min_length=4, max_length=4)
    pyramid_channels: int = Field(gt=0)
    head_channels: int = Field(gt=0)

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, channels: list[int]) -> list[int]:
        if any(count < 1 or count % CHANNELS_PER_GROUP for count in channels):
            raise ValueError(f"must be positive multiples of {CHANNELS_PER_GROUP}")
        return channels

    @model_validator(mode="after")
    def _check_levels(self) -> PairFasterRcnnTinySettings:
        return _with_levels(self, len(STRIDES))


class _Injected(NamedTuple):
    """What the evaluation gives every model."""

    classes: Sequence[str]
    new_metric: Callable[[], Metric]
    max_detections: int
    score_threshold: float


@builder(PairFasterRcnnSettings)
def pair_faster_rcnn(
    classes: Sequence[str],
    new_metric: Callable[[], Metric],
    max_detections: int,
    score_threshold: float,
    **values: Any,
) -> PairFasterRcnnTask:
    """Build the task of ``model=pair_faster_rcnn``; ``pretrained=true`` means torchvision's weights from ImageNet, in
    each backbone. A path may also name weights of such a model as a whole.

    Raises ConfigError naming ``model.…`` if a setting is wrong, WeightsError if the weights can't be had or fit nothing.
    """
    settings = build_settings(PairFasterRcnnSettings, values, "model")
    found = find_weights(settings.pretrained, settings.offline, WEIGHTS[settings.backbone])
    shape = DetectorShape(
        PYRAMID_CHANNELS, PYRAMID_STRIDES, settings.anchor_sizes, settings.anchor_ratios, HEAD_CHANNELS,
        settings.rpn_samples, settings.roi_samples, settings.sampling_ratio, settings.max_proposals,
    )  # fmt: skip

    def make(channels: int) -> BackboneWithFPN:
        backbone = _large_backbone(settings, found)
        is_classifier = found is not None and not _is_whole(found)
        if found is not None and is_classifier:
            load_classifier(backbone, found)
        if channels != 3:
            set_input_channels(backbone, channels, found.source if found is not None and is_classifier else None)
        return backbone

    given = _Injected(classes, new_metric, max_detections, score_threshold)
    task = _build(settings, make, (*(str(level) for level in range(len(PYRAMID_STRIDES))), "pool"), shape, given)
    if found is not None and _is_whole(found):
        load_pretrained(task.model, found.state, found.source, ClassHead.of(task))
    return task


@builder(PairFasterRcnnTinySettings)
def pair_faster_rcnn_tiny(
    classes: Sequence[str],
    new_metric: Callable[[], Metric],
    max_detections: int,
    score_threshold: float,
    **values: Any,
) -> PairFasterRcnnTask:
    """Build the task of ``model=pair_faster_rcnn_tiny``; ``pretrained`` is false or the path of a weights file, and
    nothing is ever fetched.

    Raises ConfigError naming ``model.…`` if a setting is wrong, WeightsError if the weights file is missing or fits nothing.
    """
    settings = build_settings(PairFasterRcnnTinySettings, values, "model")
    check_pretrained(settings.pretrained, checkpoint=None)
    shape = DetectorShape(
        settings.pyramid_channels, STRIDES, settings.anchor_sizes, settings.anchor_ratios, settings.head_channels,
        settings.rpn_samples, settings.roi_samples, settings.sampling_ratio, settings.max_proposals,
    )  # fmt: skip
    given = _Injected(classes, new_metric, max_detections, score_threshold)
    task = _build(
        settings, lambda channels: TinyPyramid(channels, settings.channels, settings.pyramid_channels),
        [str(level) for level in range(len(STRIDES))], shape, given,
    )  # fmt: skip
    found = find_weights(settings.pretrained, settings.offline, None)
    if found is not None:
        load_pretrained(task.model, found.state, found.source, ClassHead.of(task))
    return task


def _build(
    settings: PairModelSettings,
    make: Callable[[int], nn.Module],
    levels: Sequence[str],
    shape: DetectorShape,
    given: _Injected,
) -> PairFasterRcnnTask:
    """Put the parts together that ``settings.fusion`` needs, on pyramids of ``levels``."""
    backbones = make_backbones(settings.fusion, settings.shared_backbone, make)
    if settings.own_norms:
        for backbone in backbones.values():
            give_own_norms(backbone)
    fusion = FUSIONS[settings.fusion](levels, shape.channels) if settings.fusion in FUSIONS else None
    names = {"late": MODALITIES, "visible": ("visible",), "infrared": ("infrared",)}.get(settings.fusion, (FUSED,))
    detectors = {
        name: PairDetector(shape, len(given.classes), given.score_threshold, given.max_detections) for name in names
    }
    weight = settings.macl.weight
    # Built last, from a generator of its own: the detector begins with the same weights without it.
    alignment = AlignmentHead(shape.channels, shape.strides, shape.sampling_ratio) if weight > 0 else None
    network = PairNetwork(
        PixelNormalizer(settings.pixel_mean, settings.pixel_std), backbones, fusion, detectors, alignment
    )
    return PairFasterRcnnTask(
        network, given.classes, given.new_metric, settings.late_score, given.max_detections, weight
    )


def _large_backbone(settings: PairFasterRcnnSettings, found: FoundWeights | None) -> BackboneWithFPN:
    if settings.backbone == "mobilenet_v2":
        return mobilenet_fpn.mobilenet_v2_fpn(found, settings.trainable_layers)
    return resnet_fpn.resnet50_fpn(found, settings.trainable_layers, (1, 2, 3, 4), None)


def _is_whole(found: FoundWeights) -> bool:
    """Tell weights of a pair detector from those of a classifier."""
    return any(name.startswith("backbones.") for name in found.state)


def _with_levels(settings: Any, count: int) -> Any:
    if len(settings.anchor_sizes) != count:
        raise ValueError(
            f"model.anchor_sizes has {len(settings.anchor_sizes)} sizes; allowed: {count}, one per level of the pyramid"
        )
    return settings
