"""Data sets of pairs as the engine sees them, one builder per ``data`` choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from winnow.builders import builder
from winnow.data.plan import LoadingSettings
from winnow.data.splits import Samples
from winnow.families.detection.data import PAD_MULTIPLE, DetectionData, DetectionSettings
from winnow.families.detection.formats.coco import ImageRecord
from winnow.families.detection.transforms import Probability
from winnow.families.pairs.records import PairRecord
from winnow.families.pairs.samples import PairCollate, PairSamples
from winnow.families.pairs.synthetic.store import SyntheticSettings, make_pairs, read_pairs
from winnow.families.pairs.transforms import PairAugmentation
from winnow.settings import Settings, build_settings

_VAL_SEED = 0


class ModalityDropout(Settings):
    """The ``data.modality_dropout`` node: how likely each image of a training pair is left out; never are both."""

    visible: Probability
    infrared: Probability

    @model_validator(mode="after")
    def _leaves_one(self) -> ModalityDropout:
        if self.visible + self.infrared > 1:
            raise ValueError(
                f"visible={self.visible:g} and infrared={self.infrared:g} are left out in turn: at most 1 together"
            )
        return self


class PairSettings(DetectionSettings):
    """What every data set of pairs has in common: the keys of ``conf/data/pairs.yaml``."""

    modalities: list[Literal["visible", "infrared"]] = Field(min_length=1)
    modality_dropout: ModalityDropout

    @field_validator("modalities")
    @classmethod
    def _are_different(cls, modalities: list[str]) -> list[str]:
        if len(set(modalities)) < len(modalities):
            raise ValueError("names one modality twice")
        return modalities


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


@builder()
def pairs_synthetic(*, loading: LoadingSettings, name: str, root: str, **values: Any) -> PairData:
    """Build the embedded data set, drawn under ``root`` if it is not there yet."""
    del name
    common, own = split_settings(values)
    folder = make_pairs(Path(root), build_settings(SyntheticSettings, own, "data"))
    return PairData(read_pairs(folder, "train"), read_pairs(folder, "val"), common, loading)


def split_settings(values: Mapping[str, Any]) -> tuple[PairSettings, dict[str, Any]]:
    """Return the settings that all data sets of pairs have, and the keys of the one."""
    common = {key: value for key, value in values.items() if key in PairSettings.model_fields}
    own = {key: value for key, value in values.items() if key not in common}
    return build_settings(PairSettings, common, "data"), own
