"""Detection data sets as the engine sees them: splits of records behind loaders, one builder per ``data`` choice."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winnow.builders import builder
from winnow.data.plan import LoadingSettings
from winnow.data.splits import DataFacts, Samples, SplitData, chosen_samples
from winnow.errors import DataError
from winnow.families.detection.batch import DetectionBatch
from winnow.families.detection.check import check_bdd100k, check_coco, check_digits, check_voc, check_yolo
from winnow.families.detection.class_choice import chosen_classes, with_classes_of
from winnow.families.detection.class_counts import (
    balance,
    log_classes,
    note_unjudged,
    objects_of_classes,
    objects_to_learn,
    warn_of_unlearnable,
)
from winnow.families.detection.formats.bdd100k import find_bdd100k
from winnow.families.detection.formats.coco import read_coco
from winnow.families.detection.formats.digits import make_digits
from winnow.families.detection.formats.records import CocoSplit, ImageRecord, columns_of, take_records
from winnow.families.detection.held_out import require_no_val, with_held_out
from winnow.families.detection.samples import Collate, DetectionSamples
from winnow.families.detection.settings import (
    Bdd100kNode,
    ChosenSettings,
    CocoNode,
    DetectionSettings,
    DigitsNode,
    HeldOutSettings,
    VocNode,
    YoloNode,
)
from winnow.families.detection.sources import find_coco, find_voc, find_yolo
from winnow.families.detection.trainable import BoxCounts
from winnow.families.detection.transforms import Augmentation
from winnow.settings import build_settings

logger = logging.getLogger(__name__)

PAD_MULTIPLE = 32


class DetectionData(SplitData):
    """Obeys ``protocols.Data``: train and validation batches of a COCO-like data set."""

    def __init__(
        self, train: CocoSplit, val: CocoSplit | None, settings: DetectionSettings, loading: LoadingSettings
    ) -> None:
        val = None if val is None else with_classes_of(train, val)
        train_records, val_records = _choose(train, val, loading)
        sizes = sorted({size for _, size in loading.resize_schedule or [(1, settings.image_size)]})
        is_square, is_augmented = settings.resize == "square", loading.overfit is None
        counts = BoxCounts.of(train_records, sizes, is_square, drops_small=is_augmented)
        _log_counts("train", train, train_records, counts.words())
        if val is not None:
            _log_counts("val", val, val_records)
        _log_classes(train, train_records, val_records, loading)
        counts.require_some()
        self.category_ids = train.category_ids
        factors = balance(train_records, train.class_names, loading)
        self.train_records, self.val_records = train_records, val_records
        self._max_bad_images = settings.max_bad_images
        self._problems: set[str] = set()
        fingerprint = _fingerprint(train, val, train_records, val_records, factors)
        super().__init__(
            DataFacts(train.class_names, fingerprint, settings.image_size),
            self.train_samples(train_records, settings, loading),
            self.val_samples(val_records, settings, loading),
            self.collate(), loading, settings.wait_for_files_seconds, factors,
        )  # fmt: skip

    def train_samples(
        self, records: Sequence[ImageRecord], settings: DetectionSettings, loading: LoadingSettings
    ) -> Samples:
        """Return the samples to train on; those of an overfit run are not augmented."""
        augmentation = Augmentation(settings.augmentation) if loading.overfit is None else None
        return DetectionSamples(records, augmentation, settings.resize == "square", loading.seed, with_truth=False)

    def val_samples(
        self, records: Sequence[ImageRecord], settings: DetectionSettings, loading: LoadingSettings
    ) -> Samples:
        """Return the samples to evaluate on."""
        return DetectionSamples(records, None, settings.resize == "square", loading.seed, with_truth=True)

    def collate(self) -> Collate:
        """Return what makes batches of samples."""
        return Collate(PAD_MULTIPLE)

    def checked(self, batches: Iterator[DetectionBatch]) -> Iterator[DetectionBatch]:
        """Pass on the batches while no more than ``data.max_bad_images`` different images can't be read."""
        for batch in batches:
            for problem in batch.problems:
                if problem not in self._problems:
                    logger.error("%s; left out", problem)
                    self._problems.add(problem)
            if len(self._problems) > self._max_bad_images:
                shown = "\n  ".join(sorted(self._problems)[:20])
                limit = f"data.max_bad_images={self._max_bad_images}"
                raise DataError(f"{len(self._problems)} images can't be read, more than {limit}:\n  {shown}")
            yield batch


@builder(DigitsNode, check=check_digits)
def digits_data(*, loading: LoadingSettings, **values: Any) -> DetectionData:
    """Build the embedded data set, made under ``root`` if it is not there yet."""
    settings = build_settings(DigitsNode, values, "data")
    folder = make_digits(Path(settings.root), settings)
    train, val = (read_coco(folder / f"annotations/instances_{part}.json", folder / part) for part in ("train", "val"))
    return DetectionData(train, val, settings, loading)


@builder(CocoNode, check=check_coco)
def coco_data(*, loading: LoadingSettings, **values: Any) -> DetectionData:
    """Build the data of any COCO JSON: of ``root``, or of ``train`` and ``val`` with ``images`` (a folder) and ``annotations``
    (a file); ``val`` may be null.
    """
    settings = build_settings(CocoNode, values, "data")
    return _data_of(find_coco(settings), settings, loading)


@builder(Bdd100kNode, check=check_bdd100k)
def bdd100k_data(*, loading: LoadingSettings, **values: Any) -> DetectionData:
    """Build the data of BDD100K from its own folder or the converted form; conversions are kept under ``cache``."""
    settings = build_settings(Bdd100kNode, values, "data")
    return _data_of(find_bdd100k(Path(settings.root), Path(settings.cache)), settings, loading)


@builder(VocNode, check=check_voc)
def voc_data(*, loading: LoadingSettings, **values: Any) -> DetectionData:
    """Build the data of Pascal VOC's XML files, under ``root`` or in the folders of ``train`` and ``val``; the conversion is kept
    under ``cache``.
    """
    settings = build_settings(VocNode, values, "data")
    return _data_of(find_voc(settings), settings, loading)


@builder(YoloNode, check=check_yolo)
def yolo_data(*, loading: LoadingSettings, **values: Any) -> DetectionData:
    """Build the data of YOLO's text files, as ``root``, a ``data.yaml`` or its folder, says; the conversion is kept under
    ``cache``.
    """
    settings = build_settings(YoloNode, values, "data")
    return _data_of(find_yolo(settings), settings, loading)


def _data_of(
    splits: Mapping[str, tuple[Path, Path]], settings: ChosenSettings, loading: LoadingSettings
) -> DetectionData:
    read = read_splits(splits, settings)
    return DetectionData(read["train"], read.get("val"), settings, loading)


def read_splits(splits: Mapping[str, tuple[Path, Path]], settings: ChosenSettings) -> dict[str, CocoSplit]:
    """Return train and, where there is one, val, of the (annotation file, folder of its images) of each, as the settings cut and
    choose them."""
    if isinstance(settings, HeldOutSettings):
        require_no_val(splits, settings)
    read = {part: read_coco(*paths, settings.cache_folder) for part, paths in splits.items()}
    if isinstance(settings, HeldOutSettings):
        read = with_held_out(read, settings)
    return chosen_classes(read, settings.classes, settings.ignore_categories)


def _choose(
    train: CocoSplit, val: CocoSplit | None, loading: LoadingSettings
) -> tuple[Sequence[ImageRecord], Sequence[ImageRecord]]:
    """Choose the records to train and to evaluate on; an overfit run evaluates on what it trains on."""
    objects = objects_to_learn(train.records, len(train.class_names)) if loading.subset_stratified else None
    records = take_records(train.records, chosen_samples(len(train.records), loading, objects))
    if not len(records):
        raise DataError("the training split holds no images")
    if loading.overfit is not None:
        return records, records
    return records, val.records if val is not None else ()


def _log_classes(
    train: CocoSplit, train_records: Sequence[ImageRecord], val_records: Sequence[ImageRecord], loading: LoadingSettings
) -> None:
    chosen = objects_of_classes(train_records, train.class_names)
    log_classes("train", chosen)
    if loading.overfit is None:
        in_file = objects_of_classes(train.records, train.class_names)
        warn_of_unlearnable(in_file, chosen, f"training.subset_size={loading.subset_size}")
        if len(val_records):
            of_val = objects_of_classes(val_records, train.class_names)
            log_classes("val", of_val)
            note_unjudged(of_val)


def _fingerprint(
    train: CocoSplit,
    val: CocoSplit | None,
    train_records: Sequence[ImageRecord],
    val_records: Sequence[ImageRecord],
    factors: np.ndarray | None,
) -> str:
    sha = hashlib.sha256()
    for split, records in ((train, train_records), (val, val_records)):
        if split is not None:
            sha.update(split.fingerprint.encode(errors="surrogatepass"))
            sha.update("\n".join(map(str, columns_of(records).image_ids())).encode(errors="surrogatepass"))
    if factors is not None:
        sha.update(factors.tobytes())
    return sha.hexdigest()[:16]


def _log_counts(part: str, split: CocoSplit, records: Sequence[ImageRecord], words: str = "") -> None:
    boxes = len(columns_of(records).labels)
    repairs = ", ".join(f"{count} {kind}" for kind, count in split.repairs.items() if count)
    logger.info("%-5s %d images, %d boxes, %d classes%s%s", part, len(records), boxes, len(split.class_names),
                f"; {words}" if words else "", f"; repaired: {repairs}" if repairs else "")  # fmt: skip
