"""Detection data sets as the engine sees them: splits of records behind loaders, one builder per ``data`` choice."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from winnow.builders import builder
from winnow.data.plan import LoadingSettings
from winnow.data.splits import DataFacts, Samples, SplitData, chosen_samples
from winnow.errors import ConfigError, DataError
from winnow.families.detection.batch import DetectionBatch
from winnow.families.detection.check import check_bdd100k, check_coco, check_digits
from winnow.families.detection.formats.bdd100k import find_bdd100k
from winnow.families.detection.formats.coco import CocoSplit, ImageRecord, read_coco, require_same_classes
from winnow.families.detection.formats.digits import DigitsSettings, make_digits
from winnow.families.detection.samples import Collate, DetectionSamples
from winnow.families.detection.trainable import BoxCounts
from winnow.families.detection.transforms import Augmentation, AugmentationSettings
from winnow.settings import Settings, build_settings

logger = logging.getLogger(__name__)

PAD_MULTIPLE = 32


class DetectionSettings(Settings):
    """What every detection data set has in common: the keys of ``conf/data/detection.yaml``."""

    image_size: int = Field(ge=16)
    resize: Literal["pad", "square"]
    augmentation: AugmentationSettings
    max_bad_images: int = Field(ge=0)
    wait_for_files_seconds: float = Field(ge=0, strict=False)


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
        counts.require_some()
        self.category_ids = train.category_ids
        self.train_records, self.val_records = train_records, val_records
        self._max_bad_images = settings.max_bad_images
        self._problems: set[str] = set()
        fingerprint = _fingerprint(train, val, train_records, val_records)
        super().__init__(
            DataFacts(train.class_names, fingerprint, settings.image_size),
            self.train_samples(train_records, settings, loading),
            self.val_samples(val_records, settings, loading),
            self.collate(), loading, settings.wait_for_files_seconds,
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


@builder(check=check_digits)
def digits_data(*, loading: LoadingSettings, name: str, root: str, **values: Any) -> DetectionData:
    """Build the embedded data set, made under ``root`` if it is not there yet."""
    del name
    common, own = _split_settings(values)
    folder = make_digits(Path(root), build_settings(DigitsSettings, own, "data"))
    train, val = (read_coco(folder / f"annotations/instances_{part}.json", folder / part) for part in ("train", "val"))
    return DetectionData(train, val, common, loading)


@builder(check=check_coco)
def coco_data(
    *,
    loading: LoadingSettings,
    name: str,
    train: Mapping[str, str],
    val: Mapping[str, str] | None,
    **values: Any,
) -> DetectionData:
    """Build the data of any COCO JSON: ``train`` and ``val`` hold ``images`` (a folder) and ``annotations`` (a file);
    ``val`` may be null.
    """
    del name
    common, own = _split_settings(values)
    build_settings(Settings, own, "data")
    train_split = _read_split(train, "train")
    val_split = None if val is None or val.get("annotations") is None else _read_split(val, "val")
    return DetectionData(train_split, val_split, common, loading)


@builder(check=check_bdd100k)
def bdd100k_data(*, loading: LoadingSettings, name: str, root: str, cache: str, **values: Any) -> DetectionData:
    """Build the data of BDD100K from its own folder or the converted form; conversions are kept under ``cache``."""
    del name
    common, own = _split_settings(values)
    build_settings(Settings, own, "data")
    splits = find_bdd100k(Path(root), Path(cache))
    return DetectionData(read_coco(*splits["train"]), read_coco(*splits["val"]), common, loading)


def _read_split(paths: Mapping[str, str], part: str) -> CocoSplit:
    unknown = sorted(set(paths) - {"images", "annotations"})
    if unknown:
        raise ConfigError(f"data.{part}.{unknown[0]} is not a known key; allowed here: annotations, images")
    return read_coco(Path(paths["annotations"]), Path(paths["images"]))


def _split_settings(values: Mapping[str, Any]) -> tuple[DetectionSettings, dict[str, Any]]:
    common = {key: value for key, value in values.items() if key in DetectionSettings.model_fields}
    own = {key: value for key, value in values.items() if key not in common}
    return build_settings(DetectionSettings, common, "data"), own


def _choose(
    train: CocoSplit, val: CocoSplit | None, loading: LoadingSettings
) -> tuple[Sequence[ImageRecord], Sequence[ImageRecord]]:
    """Choose the records to train and to evaluate on; an overfit run evaluates on what it trains on."""
    if val is not None:
        require_same_classes(train, val)
    records = [train.records[index] for index in chosen_samples(len(train.records), loading)]
    if not records:
        raise DataError("the training split holds no images")
    if loading.overfit is not None:
        return records, records
    return records, val.records if val is not None else ()


def _fingerprint(
    train: CocoSplit, val: CocoSplit | None, train_records: Sequence[ImageRecord], val_records: Sequence[ImageRecord]
) -> str:
    sha = hashlib.sha256()
    for split, records in ((train, train_records), (val, val_records)):
        if split is not None:
            sha.update(split.fingerprint.encode())
            sha.update("\n".join(str(record.image_id) for record in records).encode())
    return sha.hexdigest()[:16]


def _log_counts(part: str, split: CocoSplit, records: Sequence[ImageRecord], words: str = "") -> None:
    boxes = sum(len(record.boxes) for record in records)
    repairs = ", ".join(f"{count} {kind}" for kind, count in split.repairs.items() if count)
    logger.info("%-5s %d images, %d boxes, %d classes%s%s", part, len(records), boxes, len(split.class_names),
                f"; {words}" if words else "", f"; repaired: {repairs}" if repairs else "")  # fmt: skip
