"""Detection data sets as the engine sees them: splits of records behind loaders, one builder per ``data`` choice."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from winnow.builders import builder
from winnow.data.plan import LoadingSettings
from winnow.data.splits import DataFacts, Samples, SplitData, chosen_samples
from winnow.data.unreadable import Unreadable
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
from winnow.families.detection.picture_report import changes_of_reading, log_pictures, pixel_words
from winnow.families.detection.rules.label_rules import COCO_BOXES, CORNERS, Convention, Reading
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
from winnow.families.detection.sources import find_coco, find_voc, find_yolo, yolo_boxes
from winnow.families.detection.trainable import BoxCounts
from winnow.families.detection.transforms import Augmentation
from winnow.reading import naming
from winnow.settings import build_settings

logger = logging.getLogger(__name__)

PAD_MULTIPLE = 32


class DetectionData(SplitData):
    """Obeys ``protocols.Data``: train and validation batches of a COCO-like data set."""

    def __init__(
        self, train: CocoSplit, val: CocoSplit | None, settings: DetectionSettings, loading: LoadingSettings
    ) -> None:
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
        self.val_split = "val"
        factors = balance(train_records, train.class_names, loading)
        self.train_records, self.val_records = train_records, val_records
        self._max_bad_images = settings.max_bad_images
        self._problems: set[str] = set()
        rule = settings.pixel_rule
        log_pictures("train", train, rule)
        if val is not None:
            log_pictures("val", val, rule)
        chosen = [(train, train_records)] + ([(val, val_records)] if val is not None else [])
        fingerprint = _fingerprint(
            [(split.fingerprint + pixel_words(split, rule), own) for split, own in chosen], factors
        )
        old = [(split.old_fingerprint or split.fingerprint, own) for split, own in chosen]
        self._old_fingerprint = _fingerprint(old, factors)
        self._splits, self.pixel_rule = [split for split, _ in chosen], rule
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
        square = settings.resize == "square"
        return DetectionSamples(records, augmentation, square, loading.seed, with_truth=False, rule=settings.pixel_rule)

    def val_samples(
        self, records: Sequence[ImageRecord], settings: DetectionSettings, loading: LoadingSettings
    ) -> Samples:
        """Return the samples to evaluate on."""
        square = settings.resize == "square"
        return DetectionSamples(records, None, square, loading.seed, with_truth=True, rule=settings.pixel_rule)

    def collate(self) -> Collate:
        """Return what makes batches of samples."""
        return Collate(PAD_MULTIPLE)

    def changes_since(self, fingerprint: str) -> list[str] | None:
        """Return what is read otherwise since a run recorded ``fingerprint`` of the same files, before fingerprints covered what
        comes out, as lines that say how it is read as then; empty for the same samples, None for other files."""
        if fingerprint != self._old_fingerprint:
            return None
        return [line for split in self._splits for line in changes_of_reading(split, self.pixel_rule)]

    def val_pictures(self, image_size: int) -> Iterator[tuple[np.ndarray, DetectionBatch]]:
        """Yield each validation image as it lies on disk, (H, W, 3) uint8, and as the batch of one that evaluation would make of
        it. Those that can't be read are named and left out."""
        samples, collate = cast("DetectionSamples", self._val), self.collate()
        for record in self.val_records:
            image = samples.pixels(record)
            if isinstance(image, Unreadable):
                logger.error("%s; left out", image.problem)
                continue
            batch = collate([samples.resized(record, image, image_size)])
            yield image.permute(1, 2, 0).numpy(), cast("DetectionBatch", batch)

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
    drawn = Reading(knows_pictures=False)
    train, val = (
        read_coco(folder / f"annotations/instances_{part}.json", folder / part, drawn) for part in ("train", "val")
    )
    return DetectionData(train, val, settings, loading)


@builder(CocoNode, check=check_coco)
def coco_data(*, loading: LoadingSettings, **values: Any) -> DetectionData:
    """Build the data of any COCO JSON: of ``root``, or of ``train`` and ``val`` with ``images`` (a folder) and ``annotations``
    (a file); ``val`` may be null.
    """
    settings = build_settings(CocoNode, values, "data")
    return _data_of(find_coco(settings, loading.val_split), settings, COCO_BOXES, loading, loading.val_split)


@builder(Bdd100kNode, check=check_bdd100k)
def bdd100k_data(*, loading: LoadingSettings, **values: Any) -> DetectionData:
    """Build the data of BDD100K from its own folder or the converted form; conversions are kept under ``cache``."""
    settings = build_settings(Bdd100kNode, values, "data")
    return _data_of(find_bdd100k(Path(settings.root), Path(settings.cache)), settings, CORNERS, loading)


@builder(VocNode, check=check_voc)
def voc_data(*, loading: LoadingSettings, **values: Any) -> DetectionData:
    """Build the data of Pascal VOC's XML files, under ``root`` or in the folders of ``train`` and ``val``; the conversion is kept
    under ``cache``.
    """
    settings = build_settings(VocNode, values, "data")
    return _data_of(find_voc(settings, loading.val_split), settings, CORNERS, loading, loading.val_split)


@builder(YoloNode, check=check_yolo)
def yolo_data(*, loading: LoadingSettings, **values: Any) -> DetectionData:
    """Build the data of YOLO's text files, as ``root``, a ``data.yaml`` or its folder, says; the conversion is kept under
    ``cache``.
    """
    settings = build_settings(YoloNode, values, "data")
    found = find_yolo(settings, loading.val_split)
    return _data_of(found, settings, yolo_boxes(settings), loading, loading.val_split)


def _data_of(
    splits: Mapping[str, tuple[Path, Path]],
    settings: ChosenSettings,
    native: Convention,
    loading: LoadingSettings,
    val_split: str = "val",
) -> DetectionData:
    read = read_splits(splits, settings, native, holds_out=val_split == "val")
    data = DetectionData(read["train"], read.get("val"), settings, loading)
    data.val_split = val_split
    return data


def read_splits(
    splits: Mapping[str, tuple[Path, Path]], settings: ChosenSettings, native: Convention, holds_out: bool = True
) -> dict[str, CocoSplit]:
    """Return train and, where there is one, val, of the (annotation file, folder of its images) of each, whose boxes meant
    ``native``, as the settings cut and choose them; where not ``holds_out``, val is another split, and no part of train is held
    out."""
    cuts = settings if holds_out and isinstance(settings, HeldOutSettings) else None
    if cuts is not None:
        require_no_val(splits, cuts)
    reading = settings.reading(native)
    read = {part: read_coco(*paths, reading) for part, paths in splits.items()}
    if cuts is not None:
        read = with_held_out(read, cuts)
    chosen = chosen_classes(read, settings.classes, settings.ignore_categories)
    if "val" in chosen:
        with naming(splits.get("val", splits["train"])[0]):
            chosen["val"] = with_classes_of(chosen["train"], chosen["val"])
    return chosen


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


def _fingerprint(splits: Iterable[tuple[str, Sequence[ImageRecord]]], factors: np.ndarray | None) -> str:
    """Return a digest of what stands for each split, of which of its images are used, and of how often."""
    sha = hashlib.sha256()
    for words, records in splits:
        sha.update(words.encode(errors="surrogatepass"))
        sha.update("\n".join(map(str, columns_of(records).image_ids())).encode(errors="surrogatepass"))
    if factors is not None:
        sha.update(factors.tobytes())
    return sha.hexdigest()[:16]


def _log_counts(part: str, split: CocoSplit, records: Sequence[ImageRecord], words: str = "") -> None:
    boxes = len(columns_of(records).labels)
    repairs = ", ".join(f"{count} {kind}" for kind, count in split.repairs.items() if count)
    logger.info("%-5s %d images, %d boxes, %d classes%s%s", part, len(records), boxes, len(split.class_names),
                f"; {words}" if words else "", f"; repaired: {repairs}" if repairs else "")  # fmt: skip
