"""Where the tokens of six images look: rays from calibration, with depth as its logarithm, and what a network makes of them."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from winnow.families.maps.batch import MapBatch

NUM_DEPTHS = 8
NEAREST_M, FARTHEST_M = 1.0, 64.0
"""Points along a ray lie at depths between these, at equal steps of the logarithm."""
HORIZON_M = 1000.0
"""A ray that meets the ground further off, or never, counts as meeting it there."""
UNIT_M = 15.0
NUM_OCTAVES = 4
NUM_FEATURES = 3 * NUM_DEPTHS + 4 * NUM_OCTAVES + 1
_MOST_CACHED = 64


class Grid(NamedTuple):
    """Tokens of one image: ``rows`` × ``columns``, one per ``stride`` × ``stride`` px from the upper left corner on."""

    rows: int
    columns: int
    stride: int

    @property
    def num_tokens(self) -> int:
        return self.rows * self.columns

    def centres(self, device: torch.device) -> Tensor:
        """Return the pixel (x, y) in the middle of each token, (T, 2)."""
        rows = torch.arange(self.rows, device=device, dtype=torch.float32)
        columns = torch.arange(self.columns, device=device, dtype=torch.float32)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        return (torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) * self.stride


def camera_rays(pixels: Tensor, frame_to_camera: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Return where N cameras stand, (N, 3), and the rays (N, T, 3) through (T, 2) pixels of each, in the map's frame: what is
    seen at depth d lies at origin + d · ray. ``frame_to_camera`` (N, 4, 4), ``intrinsics`` (N, 3, 3) upper triangular."""
    y = (pixels[None, :, 1] - intrinsics[:, None, 1, 2]) / intrinsics[:, None, 1, 1]
    x = (pixels[None, :, 0] - intrinsics[:, None, 0, 2] - intrinsics[:, None, 0, 1] * y) / intrinsics[:, None, 0, 0]
    in_camera = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    rotation, translation = frame_to_camera[:, :3, :3], frame_to_camera[:, :3, 3]
    return -(translation[:, None] @ rotation)[:, 0], in_camera @ rotation


def points_at(origin: Tensor, rays: Tensor, depths: Tensor) -> Tensor:
    """Return the points (N, T, D, 3) in metres at (D,) or (N, T, D) ``depths`` along rays."""
    return origin[:, None, None] + depths[..., None] * rays[:, :, None]


def ground_depths(origin: Tensor, rays: Tensor, ground: Tensor) -> Tensor:
    """Return at which depth (N, T) in metres the rays meet the ground z = a x + b y + c, at the most ``HORIZON_M``."""
    falls = rays[..., 2] - rays[..., :2] @ ground[:2]
    height = origin[:, :2] @ ground[:2] + ground[2] - origin[:, 2]
    return 1 / (falls / height[:, None]).clamp(min=1 / HORIZON_M)


def ray_features(grid: Grid, frame_to_camera: Tensor, intrinsics: Tensor, ground: Tensor) -> Tensor:
    """Return (N, T, ``NUM_FEATURES``) float32 of the tokens of one sample's N cameras.

    Of each: points along its ray, in units of ``UNIT_M``, wherever they lie; and where the ray meets the ground, as the angle of
    its direction from the frame's origin and the logarithm of its distance, both as waves of ``NUM_OCTAVES`` lengths.
    """
    origin, rays = camera_rays(grid.centres(frame_to_camera.device), frame_to_camera, intrinsics)
    steps = torch.linspace(math.log(NEAREST_M), math.log(FARTHEST_M), NUM_DEPTHS, device=rays.device)
    along = points_at(origin, rays, steps.exp()) / UNIT_M
    on_ground = points_at(origin, rays, ground_depths(origin, rays, ground)[..., None])[:, :, 0, :2]
    distance = (on_ground.norm(dim=-1, keepdim=True).clamp(min=0.1) / UNIT_M).log()
    place = torch.cat([torch.atan2(on_ground[..., 1:], on_ground[..., :1]), distance], dim=-1)
    phases = (place[..., None] * 2.0 ** torch.arange(NUM_OCTAVES, device=rays.device)).flatten(2)
    return torch.cat([along.flatten(2), distance, phases.cos(), phases.sin()], dim=-1)


class Rays(NamedTuple):
    """Of U different calibrations ``features`` (U, 6 T, ``NUM_FEATURES``), the tokens of the cameras one after the other; sample
    b of a batch has calibration ``which[b]``."""

    features: Tensor
    which: Tensor


class RayCache:
    """``ray_features`` of batches, worked out once per calibration; the last ``_MOST_CACHED`` are kept.

    Each sample is worked out by itself, all of its cameras at once: its bits do not depend on what it is batched with.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, Grid, torch.device], Tensor] = OrderedDict()

    def __call__(self, batch: MapBatch, grid: Grid) -> Rays:
        ids = batch.calibration_ids or tuple(str(index) for index in range(batch.num_samples))
        first = {calibration_id: index for index, calibration_id in reversed([*enumerate(ids)])}
        places = {calibration_id: place for place, calibration_id in enumerate(first)}
        features = torch.stack([self._of(batch, index, grid) for index in first.values()])
        which = torch.tensor([places[calibration_id] for calibration_id in ids])
        return Rays(features, which.to(features.device, non_blocking=True))

    def _of(self, batch: MapBatch, index: int, grid: Grid) -> Tensor:
        """Return (6 T, ``NUM_FEATURES``) of one sample."""
        key = (batch.calibration_ids[index], grid, batch.images.device) if batch.calibration_ids else None
        known = None if key is None else self._known.get(key)
        if known is None:
            with torch.no_grad(), torch.autocast(batch.images.device.type, enabled=False):
                known = ray_features(
                    grid, batch.frame_to_camera[index], batch.intrinsics[index], batch.ground[index]
                ).flatten(0, 1)
        if key is not None:
            self._known[key] = known
            self._known.move_to_end(key)
            if len(self._known) > _MOST_CACHED:
                self._known.popitem(last=False)
        return known


class PositionEncoding(nn.Module):
    """What a token is told of where it looks: two layers on its ray's features, normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(NUM_FEATURES, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.LayerNorm(width)
        )

    def forward(self, rays: Rays) -> Tensor:
        """Return (B, 6 T, width); worked out once for each calibration of the batch."""
        encoded: Tensor = self.layers(rays.features)
        return encoded[rays.which]
