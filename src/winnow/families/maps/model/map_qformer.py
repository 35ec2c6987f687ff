"""The builders of map models: a large one with a pretrained vision encoder, and a tiny one for CPUs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from winnow.builders import builder
from winnow.checkpoints.class_order import ClassHead
from winnow.checkpoints.pretrained import check_pretrained, find_weights
from winnow.checkpoints.shapes import is_shapes_only
from winnow.checkpoints.state_dicts import load_pretrained
from winnow.families.convolution import CHANNELS_PER_GROUP
from winnow.families.maps.frame import Region
from winnow.families.maps.language.bridge import LanguageBridge
from winnow.families.maps.language.settings import LanguageSettings
from winnow.families.maps.model.decoder import DecoderSettings, MapDecoder
from winnow.families.maps.model.losses import CriterionSettings, MapCriterion
from winnow.families.maps.model.network import MapNetwork
from winnow.families.maps.model.qformer import QFormer, QFormerSettings, load_qformer
from winnow.families.maps.model.queries import MapQueries
from winnow.families.maps.model.task import MapTask
from winnow.families.maps.model.vision import CHECKPOINTS, ConvVision, Vision, VisionEncoder, build_vision
from winnow.protocols import Metric
from winnow.settings import build_settings

logger = logging.getLogger(__name__)


class MapModelSettings(LanguageSettings):
    """What both models have in common; ``conf/model/map_qformer.yaml`` says what each key does."""

    width: int = Field(gt=0)
    num_instances: int = Field(gt=0)
    qformer: QFormerSettings
    decoder: DecoderSettings
    criterion: CriterionSettings
    pretrained: bool | str
    offline: bool

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.width % self.decoder.num_heads:
            raise ValueError(f"decoder.num_heads={self.decoder.num_heads} does not divide width={self.width}")
        return self


class MapQformerSettings(MapModelSettings):
    """The keys of ``model=map_qformer``; ``checkpoint`` is a repository of the hub, null for the usual one."""

    vision: Vision
    checkpoint: str | None

    @model_validator(mode="after")
    def _checkpoint_is_used(self) -> Self:
        if self.checkpoint is not None and self.vision not in CHECKPOINTS:
            raise ValueError(
                f"checkpoint={self.checkpoint!r} with vision={self.vision}: its weights are torchvision's; allowed with "
                f"{', '.join(CHECKPOINTS)}"
            )
        return self


class MapQformerTinySettings(MapModelSettings):
    """The keys of ``model=map_qformer_tiny``."""

    channels: list[int] = Field(min_length=1)

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, channels: list[int]) -> list[int]:
        if any(count < 1 or count % CHANNELS_PER_GROUP for count in channels):
            raise ValueError(f"must be positive multiples of {CHANNELS_PER_GROUP}")
        return channels


@builder(MapQformerSettings)
def map_qformer(
    classes: Sequence[str],
    new_metric: Callable[[], Metric],
    max_lines: int,
    num_points: int,
    region: Region,
    **values: Any,
) -> MapTask:
    """Build the task of ``model=map_qformer``; ``pretrained`` is about the vision encoder.

    Raises ConfigError naming ``model.…`` if a setting is wrong, WeightsError if weights can't be had or fit nothing.
    """
    settings = build_settings(MapQformerSettings, values, "model")
    published = settings.checkpoint or CHECKPOINTS.get(settings.vision)
    check_pretrained(settings.pretrained, published or "torchvision/weights")
    vision = build_vision(settings.vision, settings.pretrained, settings.checkpoint, settings.offline)
    return _task(settings, vision, classes, new_metric, max_lines, num_points, region)


@builder(MapQformerTinySettings)
def map_qformer_tiny(
    classes: Sequence[str],
    new_metric: Callable[[], Metric],
    max_lines: int,
    num_points: int,
    region: Region,
    **values: Any,
) -> MapTask:
    """Build the same with a small convolutional encoder; ``pretrained`` is false or the path of weights of such a model.

    Raises ConfigError naming ``model.…`` if a setting is wrong, WeightsError if a weights file is missing or fits nothing.
    """
    settings = build_settings(MapQformerTinySettings, values, "model")
    check_pretrained(settings.pretrained, checkpoint=None)
    task = _task(settings, ConvVision(settings.channels), classes, new_metric, max_lines, num_points, region)
    found = find_weights(settings.pretrained, settings.offline, None)
    if found is not None:
        load_pretrained(task.model, found.state, found.source, ClassHead.of(task))
    return task


def _task(
    settings: MapModelSettings,
    vision: VisionEncoder,
    classes: Sequence[str],
    new_metric: Callable[[], Metric],
    max_lines: int,
    num_points: int,
    region: Region,
) -> MapTask:
    qformer = QFormer(settings.qformer)
    if settings.qformer.pretrained is not None and not is_shapes_only():
        load_qformer(qformer, settings.qformer.pretrained)
    width, num_instances = settings.width, settings.num_instances
    queries = MapQueries(num_instances, num_points, width)
    decoder = MapDecoder(settings.decoder, width, num_instances, num_points, len(classes), settings.bypass, region)
    language = None if settings.llm == "none" else LanguageBridge(settings, width, num_instances, num_points)
    network = MapNetwork(vision, qformer, queries, language, decoder, width)
    logger.info(
        "%s parameters; %d scene tokens, %d queries", sum(parameter.numel() for parameter in network.parameters()),
        len(qformer.tokens), num_instances * num_points,
    )  # fmt: skip
    return MapTask(network, classes, new_metric, MapCriterion(settings.criterion), region, max_lines)
