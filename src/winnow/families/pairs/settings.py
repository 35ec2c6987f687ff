"""The keys of the data sets of pairs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from winnow.families.detection.settings import DetectionSettings
from winnow.families.detection.transforms import Probability
from winnow.families.pairs.selection import Completeness
from winnow.families.pairs.splits import Split
from winnow.families.pairs.synthetic.store import SyntheticSettings
from winnow.settings import Settings


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


class CameraSettings(Completeness):
    """What data sets from disk have besides: the keys of ``conf/data/pairs_of_cameras.yaml``. Both sets' stand in the files of
    both, so that a command can name both for a pipeline; each reads its own."""

    llvip_root: str | None
    llvip_split: Split
    llvip_annotations: str | None
    kaist_root: str | None
    kaist_split: Split
    kaist_annotations: list[str] | None

    @field_validator("llvip_split", "kaist_split", mode="before")
    @classmethod
    def _is_official_or_lists(cls, split: Any) -> Any:
        if split != "official" and not isinstance(split, dict):
            raise ValueError("must be official, or {train: [names], val: [names]}")
        return None if split == "official" else split


class CameraNode(PairSettings, CameraSettings):
    """The keys of ``data=llvip`` and of ``data=kaist``."""

    name: str


class SyntheticNode(PairSettings, SyntheticSettings):
    """The keys of ``data=pairs_synthetic``; ``root`` is where the set is kept."""

    name: str
    root: str
