"""The settings of the map data sets."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from winnow.families.maps.frame import MapFrame, Region
from winnow.families.maps.rendering.drawing import PAINTED
from winnow.families.maps.samples import AugmentationSettings
from winnow.families.maps.truth import Recipe
from winnow.settings import MAX_IMAGE_SIZE, Settings

Length = Annotated[float, Field(gt=0, le=1000, strict=False)]
"""In metres."""


class MapSettings(Settings):
    """What every map data set has in common: the keys of ``conf/data/six_cameras.yaml``."""

    name: str
    map_frame: MapFrame
    region: Annotated[tuple[Length, Length], Field(strict=False)]
    image_size: int = Field(ge=16, le=MAX_IMAGE_SIZE)
    num_points: int = Field(ge=2, le=100)
    augmentation: AugmentationSettings

    @property
    def area(self) -> Region:
        return Region(*self.region)


class NuscenesMapSettings(MapSettings):
    """The keys of ``conf/data/nuscenes_map.yaml``."""

    root: str
    ground_truth: str
    boundary_layers: Annotated[
        tuple[Literal["road_segment", "lane", "drivable_area"], ...], Field(min_length=1, strict=False)
    ]
    split: str
    max_bad_samples: int = Field(ge=0)
    wait_for_files_seconds: float = Field(ge=0, strict=False)

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.map_frame, *self.region, self.boundary_layers)


class PaintedSettings(MapSettings):
    """What rendered map data sets have in common besides."""

    @model_validator(mode="after")
    def _is_painted(self) -> Self:
        if self.region[0] > PAINTED.width or self.region[1] > PAINTED.length:
            raise ValueError(
                f"region={list(self.region)} is larger than what is painted, {PAINTED.width:g} × {PAINTED.length:g} m"
            )
        return self


class MapSyntheticSettings(PaintedSettings):
    """The keys of ``conf/data/map_synthetic.yaml``."""

    num_train: int = Field(gt=0)
    num_val: int = Field(ge=0)
    new_scenes: bool
    seed: int = Field(ge=0)


class MapRenderedSettings(PaintedSettings):
    """The keys of ``conf/data/map_rendered.yaml``."""

    root: str
    train_cities: list[str] = Field(min_length=1)
    val_cities: list[str]
    seconds: float = Field(gt=0, strict=False)
