"""Data sets of pairs as the engine sees them, one builder per ``data`` choice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from winnow.builders import builder
from winnow.data.plan import LoadingSettings
from winnow.data.splits import Samples
from winnow.families.detection.data import PAD_MULTIPLE, DetectionData
from winnow.families.detection.formats.records import ImageRecord
from winnow.families.detection.settings import DetectionSettings
from winnow.families.pairs.check import check_kaist, check_llvip, check_synthetic
from winnow.families.pairs.frames import first
from winnow.families.pairs.records import PairRecord
from winnow.families.pairs.samples import PairCollate, PairSamples
from winnow.families.pairs.selection import make_split
from winnow.families.pairs.settings import CameraNode, PairSettings, SyntheticNode
from winnow.families.pairs.sources import Selected, select_kaist, select_llvip
from winnow.families.pairs.synthetic.store import make_pairs, read_pairs
from winnow.families.pairs.transforms import PairAugmentation
from winnow.settings import build_settings

logger = logging.getLogger(__name__)

_VAL_SEED = 0


class PairData(DetectionData):
    """Obeys ``protocols.Data``: training and validation batches of pairs, whose records are ``PairRecord``s."""

    def train_samples(
        self, records: Sequence[ImageRecord], settings: DetectionSettings, loading: LoadingSettings
    ) -> Samples:
        is_plain = loading.overfit is not None
        return PairSamples(
            cast("Sequence[PairRecord]", records),
            None if is_plain else PairAugmentation(settings.augmentation),
            settings.resize == "square",
            loading.seed,
            with_truth=False,
            modalities=cast("PairSettings", settings).modalities,
            dropout=None if is_plain else cast("PairSettings", settings).modality_dropout.model_dump(),
        )

    def val_samples(
        self, records: Sequence[ImageRecord], settings: DetectionSettings, loading: LoadingSettings
    ) -> Samples:
        return PairSamples(
            cast("Sequence[PairRecord]", records),
            None,
            settings.resize == "square",
            _VAL_SEED,
            with_truth=True,
            modalities=cast("PairSettings", settings).modalities,
        )

    def collate(self) -> PairCollate:
        return PairCollate(PAD_MULTIPLE)


@builder(SyntheticNode, check=check_synthetic)
def pairs_synthetic(*, loading: LoadingSettings, **values: Any) -> PairData:
    """Build the embedded data set, drawn under ``root`` if it is not there yet."""
    settings = build_settings(SyntheticNode, values, "data")
    folder = make_pairs(Path(settings.root), settings)
    return PairData(read_pairs(folder, "train"), read_pairs(folder, "val"), settings, loading)


@builder(CameraNode, check=check_llvip)
def llvip(*, loading: LoadingSettings, **values: Any) -> PairData:
    """Build the data of LLVIP; the keys that begin with ``kaist_`` are not read."""
    settings = build_settings(CameraNode, values, "data")
    return _build(select_llvip(settings), settings, loading)


@builder(CameraNode, check=check_kaist)
def kaist(*, loading: LoadingSettings, **values: Any) -> PairData:
    """Build the data of KAIST; the keys that begin with ``llvip_`` are not read."""
    settings = build_settings(CameraNode, values, "data")
    return _build(select_kaist(settings), settings, loading)


def _build(selected: Selected, settings: CameraNode, loading: LoadingSettings) -> PairData:
    source = selected.source
    logger.info("annotations: %s", source.words)
    for what, count in source.unused.items():
        logger.info("%d × %s", count, what)
    train, val = (
        make_split(source, part, frames, settings.modalities, settings)
        for part, frames in (("train", selected.train), ("val", selected.val))
    )
    in_both = sorted(
        {str(record.image_id) for record in train.records} & {str(record.image_id) for record in val.records}
    )
    if in_both:
        logger.warning(
            "%s_split: %d pairs are in train as well as in val: %s", source.key, len(in_both), first(in_both)
        )
    return PairData(train, val, settings, loading)
