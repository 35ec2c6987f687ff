"""Where the tokens of six images look: rays from calibration, with depth as its logarithm, and what a network makes of them."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from winnow.families.maps.batch import MapBatch

NUM_DEPTHS = 8
NEAREST_M, FARTHEST_M = 1.0, 64.0
"""Points along a ray lie at depths between these, at equal steps of the logarithm."""
HORIZON_M = 1000.0
"""A ray that meets the ground further off, or never, counts as meeting it there."""
UNIT_M = 15.0
WAVES_M = (60.0, 30.0, 15.0)
"""Lengths of the waves that tell places apart: no shorter than cells lie from each other, or what is near would be as unlike
as what is far."""
NUM_DIRECTIONS = 5
NUM_WAVES = 2 * NUM_DIRECTIONS * len(WAVES_M)
NUM_ALONG, NUM_PLACE = 3 * NUM_DEPTHS, NUM_WAVES + 2
SHARPNESS = 2.0
CONTENT = 3.0
"""How much larger than their positions image tokens begin."""
NEAREST_CELL_M, FARTHEST_CELL_M = 3.0, 36.0
"""Cells of a camera lie at depths between these."""
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


def place_features(places: Tensor) -> Tensor:
    """Return (…, ``NUM_PLACE``) of places (…, 2) in metres: waves of ``WAVES_M`` in ``NUM_DIRECTIONS``, and the place itself.

    Places are drawn together with distance, as asinh(distance / ``UNIT_M``): as they are near the origin, by the logarithm far
    from it. What two places have in common falls with the distance between them, whatever its direction.
    """
    parts = places / UNIT_M
    distance = parts.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    drawn = parts * distance.asinh() / distance
    angles = torch.arange(NUM_DIRECTIONS, device=places.device) * math.pi / NUM_DIRECTIONS
    along = drawn @ torch.stack([angles.cos(), angles.sin()])
    phases = torch.cat([along * (2 * math.pi * UNIT_M / length) for length in WAVES_M], dim=-1)
    return torch.cat([phases.cos(), phases.sin(), drawn], dim=-1)


@torch.no_grad()
def place_projection(width: int, most: int | None = None) -> nn.Linear:
    """Build a layer that keeps what places have in common: waves turned into the first ``most`` of ``width`` numbers, of the size
    of a norm's outputs."""
    layer = nn.Linear(NUM_PLACE, width, bias=False)
    turned = nn.init.orthogonal_(torch.empty(most or width, NUM_WAVES))
    layer.weight.zero_()
    layer.weight[: len(turned), :NUM_WAVES] = turned * math.sqrt(2 * width / NUM_WAVES)
    return layer


def cell_places(num_cells: int, width: int, frame_to_camera: Tensor, intrinsics: Tensor) -> Tensor:
    """Return where each of N cameras' cells lies, (N, ``num_cells``, 2) in metres: in columns of the image, ``width`` px wide,
    and at depths at equal steps of the logarithm, as many as there are columns or fewer."""
    num_depths = max(count for count in range(1, math.isqrt(num_cells) + 1) if num_cells % count == 0)
    columns = (torch.arange(num_cells // num_depths, device=intrinsics.device) + 0.5) * width * num_depths / num_cells
    pixels = torch.stack([columns, intrinsics[0, 1, 2].expand_as(columns)], dim=-1)
    origin, rays = camera_rays(pixels, frame_to_camera, intrinsics)
    steps = torch.linspace(math.log(NEAREST_CELL_M), math.log(FARTHEST_CELL_M), num_depths, device=rays.device)
    return points_at(origin, rays, steps.exp())[..., :2].flatten(1, 2)


def ray_features(grid: Grid, frame_to_camera: Tensor, intrinsics: Tensor, ground: Tensor) -> Tensor:
    """Return (N, T, ``NUM_ALONG`` + ``NUM_PLACE``) float32 of the tokens of one sample's N cameras.

    Of each: points along its ray, in units of ``UNIT_M``, wherever they lie; and the place where it meets the ground.
    """
    origin, rays = camera_rays(grid.centres(frame_to_camera.device), frame_to_camera, intrinsics)
    steps = torch.linspace(math.log(NEAREST_M), math.log(FARTHEST_M), NUM_DEPTHS, device=rays.device)
    along = points_at(origin, rays, steps.exp()) / UNIT_M
    on_ground = points_at(origin, rays, ground_depths(origin, rays, ground)[..., None])[:, :, 0, :2]
    return torch.cat([along.flatten(2), place_features(on_ground)], dim=-1)


class Rays(NamedTuple):
    """Of U different calibrations: ``tokens`` (U, 6 T, ``NUM_ALONG`` + ``NUM_PLACE``) and ``cells`` (U, 6 K, ``NUM_PLACE``),
    those of the cameras one after the other; sample b of a batch has calibration ``which[b]``."""

    tokens: Tensor
    cells: Tensor
    which: Tensor


class RayCache:
    """The features of batches, with ``num_cells`` per camera, worked out once per calibration; the last ``_MOST_CACHED`` are
    kept.

    Each sample is worked out by itself, all of its cameras at once: its bits do not depend on what it is batched with.
    """

    def __init__(self, num_cells: int) -> None:
        self._num_cells = num_cells
        self._known: OrderedDict[tuple[str, Grid, torch.device], tuple[Tensor, Tensor]] = OrderedDict()

    def __call__(self, batch: MapBatch, grid: Grid) -> Rays:
        ids = batch.calibration_ids or tuple(str(index) for index in range(batch.num_samples))
        first = {calibration_id: index for index, calibration_id in reversed([*enumerate(ids)])}
        places = {calibration_id: place for place, calibration_id in enumerate(first)}
        tokens, cells = zip(*(self._of(batch, index, grid) for index in first.values()), strict=True)
        which = torch.tensor([places[calibration_id] for calibration_id in ids])
        return Rays(torch.stack(tokens), torch.stack(cells), which.to(batch.images.device, non_blocking=True))

    def _of(self, batch: MapBatch, index: int, grid: Grid) -> tuple[Tensor, Tensor]:
        """Return the features of one sample's tokens and cells."""
        key = (batch.calibration_ids[index], grid, batch.images.device) if batch.calibration_ids else None
        known = None if key is None else self._known.get(key)
        if known is None:
            calibration = batch.frame_to_camera[index], batch.intrinsics[index]
            with torch.no_grad(), torch.autocast(batch.images.device.type, enabled=False):
                tokens = ray_features(grid, *calibration, batch.ground[index])
                cells = place_features(cell_places(self._num_cells, batch.shape[2], *calibration))
            known = tokens.flatten(0, 1), cells.flatten(0, 1)
        if key is not None:
            self._known[key] = known
            self._known.move_to_end(key)
            if len(self._known) > _MOST_CACHED:
                self._known.popitem(last=False)
        return known


class PositionEncoding(nn.Module):
    """What tokens and cells are told of where they look: two layers on rays, and places on the ground. A cell and a token at one
    place are told the same of it, in the first half of the width, where rays say nothing at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.along, self.places = two_layers(NUM_ALONG, width), place_projection(width, width // 2)
        with torch.no_grad():
            cast(nn.LayerNorm, self.along[-1]).weight[: width // 2] = 0

    def forward(self, rays: Rays) -> tuple[Tensor, Tensor]:
        """Return what is added to image tokens (B, 6 T, width) and to query tokens (B, 6 K, width); worked out once for each
        calibration of the batch."""
        along, places = rays.tokens.split([NUM_ALONG, NUM_PLACE], dim=-1)
        return (self.along(along) + self.places(places))[rays.which], self.places(rays.cells)[rays.which]


@torch.no_grad()
def look_nearby(attention: Any) -> None:
    """Let an attention begin by looking at keys whose places are near, which the first half of the width tells: by chance each
    query would see what its contents happen to be like, and that is anywhere."""
    nn.init.orthogonal_(attention.key.weight, gain=math.sqrt(SHARPNESS))
    attention.query.weight.copy_(attention.key.weight)
    attention.query.weight[:, attention.query.in_features // 2 :] = 0


def two_layers(num_features: int, width: int) -> nn.Sequential:
    """Build two layers with a norm behind them."""
    return nn.Sequential(
        nn.Linear(num_features, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.LayerNorm(width)
    )
