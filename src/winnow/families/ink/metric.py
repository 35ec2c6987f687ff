"""What is measured of ink: skeletons, key points, tangents, widths and offsets, as sums over pixels and points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from winnow.families.ink.batch import KEY_POINT_KINDS, InkBatch, InkTarget
from winnow.families.ink.predictions import InkPredictions

MATCH_PX = 2.0
"""How far a key point may be from the true one that it is matched with, one to one."""
CORNER = KEY_POINT_KINDS.index("corner")
NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))
MOST_KEPT = 200
"""Tiles whose skeletons are kept for pictures: those with the worst F1 within 1 px."""
LOWEST_PEAK = 0.1
"""Peaks from this score on are kept, so that a threshold can be chosen."""


class TileResult(NamedTuple):
    """What was found in one tile. ``counts`` are those of ``skeleton_sums``; key points are (N, 3) int32 rows of kind, y and x,
    the found ones with their scores (N,); ``skeletons`` (2, H, W) bool the true and the found one, None where not kept."""

    counts: tuple[int, ...]
    is_full: bool
    true_points: NDArray[np.int32]
    found_points: NDArray[np.int32]
    scores: NDArray[np.float32]
    skeletons: NDArray[np.bool_] | None

    @property
    def f1(self) -> float:
        """Return F1 within 1 px; 1 where nothing is there and nothing was found."""
        found, true, _, near_true, near_found = self.counts
        value = _f1(near_true, found, near_found, true)
        return 1.0 if value is None else value


class InkMetric:
    """Obeys ``protocols.Metric``. All numbers are of all pixels or points of the evaluation together, not means over images.

    ``iou`` and ``f1_0px`` of the skeleton compare pixel by pixel; ``precision_1px`` is the part of the found pixels with a true
    one at a distance of at most 1 px (itself or one of its four neighbours), ``recall_1px`` that of the true ones with a found
    one, ``f1_1px`` their harmonic mean. Errors are means over the true skeleton: ``tangent_error_deg`` in 0…90 between lines
    without a direction, ``width_error_px`` absolute, ``offset_error_px`` Euclidean. Key points are peaks that reach
    ``key_point_threshold``, matched one to one within ``MATCH_PX`` so that most are matched; each kind has
    ``KIND_{precision,recall,f1}``. Images without full labels don't count for offsets and corners. What has no truth and no
    finding to measure is left out.
    """

    def __init__(self, skeleton_threshold: float, key_point_threshold: float, full: bool) -> None:
        self._skeleton_threshold = skeleton_threshold
        self._key_point_threshold = key_point_threshold
        self._full = full
        self._sums: Counter[str] = Counter()
        self._tiles: dict[int | str, TileResult] = {}

    headlines = ("f1_1px",)

    @property
    def names(self) -> list[str]:
        names = ["iou", "f1_0px", "precision_1px", "recall_1px", "f1_1px", "tangent_error_deg"]
        if self._full:
            names += ["width_error_px", "offset_error_px"]
            names += [f"{kind}_{part}" for kind in KEY_POINT_KINDS for part in ("precision", "recall", "f1")]
        return names

    @property
    def worst(self) -> dict[str, float]:
        """Return 0 for what is a part of 1; of errors none is the worst."""
        return {name: 0.0 for name in self.names if not name.endswith(("_deg", "error_px"))}

    def update(self, predictions: InkPredictions, batch: InkBatch) -> None:
        """Add a batch; predictions and targets on any one device."""
        lines = predictions.skeleton >= self._skeleton_threshold, batch.target.skeleton > 0
        sums = skeleton_sums(*lines)
        sums |= error_sums(predictions, batch.target)
        self._sums.update(
            dict(zip(sums, torch.stack([value.double() for value in sums.values()]).tolist(), strict=True))
        )
        found, scores = None, None
        if predictions.key_points is not None:
            found = peaks(predictions.key_points, min(LOWEST_PEAK, self._key_point_threshold)).cpu().numpy()
            scores = predictions.key_points.float().cpu().numpy()
            self._count_key_points(found & (scores >= np.float32(self._key_point_threshold)), batch.target)
        self._keep_tiles(lines, found, scores, batch)

    def _keep_tiles(
        self, lines: tuple[Tensor, Tensor], found: NDArray[np.bool_] | None, scores: NDArray[np.float32] | None, batch: InkBatch
    ) -> None:  # fmt: skip
        """Remember each tile, and the skeletons of the worst."""
        counts = np.stack([one.cpu().numpy() for one in skeleton_sums(*lines, by_tile=True).values()], axis=1)
        skeletons = torch.cat([lines[1], lines[0]], dim=1).cpu().numpy()
        true_points = (batch.target.key_points > 0).cpu().numpy()
        is_full = batch.target.has_full_labels.tolist()
        for row, image_id in enumerate(batch.image_ids):
            places = np.zeros((0, 3), np.int64) if found is None else np.argwhere(found[row])
            values = np.zeros(0) if scores is None else scores[row][tuple(places.T)]
            self._tiles[image_id] = TileResult(
                tuple(counts[row].tolist()), is_full[row], np.argwhere(true_points[row]).astype(np.int32),
                places.astype(np.int32), values.astype(np.float32), skeletons[row],
            )  # fmt: skip
        if len(self._tiles) > 2 * MOST_KEPT:
            self._drop_skeletons()

    def _drop_skeletons(self) -> None:
        drawable = [
            (tile.f1, str(image_id), image_id) for image_id, tile in self._tiles.items() if tile.skeletons is not None
        ]
        for _, _, image_id in sorted(drawable, key=lambda item: item[:2])[MOST_KEPT:]:
            self._tiles[image_id] = self._tiles[image_id]._replace(skeletons=None)

    def _count_key_points(self, found: NDArray[np.bool_], target: InkTarget) -> None:
        true = (target.key_points > 0).cpu().numpy()
        full = target.has_full_labels.tolist()
        for image, number in np.ndindex(*true.shape[:2]):
            if number == CORNER and not full[image]:
                continue
            kind, one, other = KEY_POINT_KINDS[number], found[image, number], true[image, number]
            self._sums[f"{kind}_found"] += int(one.sum())
            self._sums[f"{kind}_true"] += int(other.sum())
            self._sums[f"{kind}_matched"] += num_matched(np.argwhere(one), np.argwhere(other))

    def state(self) -> dict[str, Any]:
        return {"sums": dict(self._sums), "tiles": self._tiles}

    def merge(self, state: Mapping[str, Any]) -> None:
        self._sums.update(state["sums"])
        self._tiles |= state["tiles"]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was found and what is true.

        Of N tiles, by id: ``image_ids``, ``has_full_labels`` (N,), ``counts`` (N, 5) as in ``skeleton_sums``; key points as rows
        of tile, kind, y and x: ``true_points`` (M, 4), ``found_points`` (P, 4) with ``found_scores`` (P,). Of the ``kept`` worst
        K (K,) the ``true_skeletons`` and ``found_skeletons`` (K, ⌈H·W/8⌉) uint8, by ``numpy.packbits``; ``tile_size`` (H, W). And
        the thresholds, ``is_full``: whether key points are sought.
        """
        self._drop_skeletons()
        ids = sorted(self._tiles, key=str)
        tiles = [self._tiles[image_id] for image_id in ids]
        kept = [row for row, tile in enumerate(tiles) if tile.skeletons is not None]
        drawn = [skeletons for tile in tiles if (skeletons := tile.skeletons) is not None]
        packed = (
            np.packbits(np.stack(drawn).reshape(len(drawn), 2, -1), axis=2) if drawn else np.zeros((0, 2, 0), np.uint8)
        )
        return {
            "image_ids": np.array([str(image_id) for image_id in ids], dtype=np.str_),
            "has_full_labels": np.array([tile.is_full for tile in tiles], dtype=bool),
            "counts": np.array([tile.counts for tile in tiles], dtype=np.int64).reshape(-1, 5),
            "true_points": _by_tile([tile.true_points for tile in tiles]),
            "found_points": _by_tile([tile.found_points for tile in tiles]),
            "found_scores": np.concatenate([np.zeros(0, np.float32), *(tile.scores for tile in tiles)]),
            "kept": np.array(kept, dtype=np.int64),
            "true_skeletons": packed[:, 0], "found_skeletons": packed[:, 1],
            "tile_size": np.array(drawn[0].shape[1:] if drawn else (0, 0), dtype=np.int64),
            "skeleton_threshold": np.array(self._skeleton_threshold),
            "key_point_threshold": np.array(self._key_point_threshold),
            "is_full": np.array(self._full),
        }  # fmt: skip

    def compute(self) -> dict[str, float]:
        sums = self._sums
        precision = _ratio(sums["near_true"], sums["found"])
        recall = _ratio(sums["near_found"], sums["true"])
        values = {
            "iou": _ratio(sums["both"], sums["found"] + sums["true"] - sums["both"]),
            "f1_0px": _ratio(2 * sums["both"], sums["found"] + sums["true"]),
            "precision_1px": precision,
            "recall_1px": recall,
            "f1_1px": _f1(sums["near_true"], sums["found"], sums["near_found"], sums["true"]),
            "tangent_error_deg": _ratio(sums["tangent_error"], sums["true"]),
        }
        if self._full:
            values["width_error_px"] = _ratio(sums["width_error"], sums["true"])
            values["offset_error_px"] = _ratio(sums["offset_error"], sums["true_with_offset"])
            for kind in KEY_POINT_KINDS:
                matched, found, true = (sums[f"{kind}_{part}"] for part in ("matched", "found", "true"))
                values[f"{kind}_precision"] = _ratio(matched, found)
                values[f"{kind}_recall"] = _ratio(matched, true)
                values[f"{kind}_f1"] = _f1(matched, found, matched, true)
        return {name: value for name, value in values.items() if value is not None}


def skeleton_sums(found: Tensor, true: Tensor, by_tile: bool = False) -> dict[str, Tensor]:
    """Count pixels of two skeletons (B, 1, H, W) bool: found, true, in both, and with one of the other within 1 px; of all tiles
    together, or of each (B,)."""
    parts = {
        "found": found, "true": true, "both": found & true,
        "near_true": found & grown(true), "near_found": true & grown(found),
    }  # fmt: skip
    return {name: part.flatten(1).sum(dim=1) if by_tile else part.sum() for name, part in parts.items()}


def grown(pixels: Tensor) -> Tensor:
    """Return (B, 1, H, W) bool: True where a pixel, or one of its four neighbours, is."""
    padded = F.pad(pixels, (1, 1, 1, 1))
    height, width = pixels.shape[2:]
    result = pixels
    for down, right in NEIGHBOURS:
        result = result | padded[:, :, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
    return result


def error_sums(predictions: InkPredictions, target: InkTarget) -> dict[str, Tensor]:
    """Sum errors over the true skeleton; return them with the number of pixels of those images whose offsets are known."""
    mask = target.skeleton > 0
    (cos, sin), (true_cos, true_sin) = predictions.tangent.split(1, dim=1), target.tangent.split(1, dim=1)
    doubled = torch.atan2((sin * true_cos - cos * true_sin).abs(), cos * true_cos + sin * true_sin)
    sums = {"tangent_error": torch.where(mask, torch.rad2deg(doubled) / 2, 0.0).sum()}
    if predictions.width is not None and predictions.offset is not None:
        known = mask & target.has_full_labels[:, None, None, None]
        distance = (predictions.offset - target.offset).norm(dim=1, keepdim=True)
        sums["width_error"] = torch.where(mask, (predictions.width - target.width).abs(), 0.0).sum()
        sums["offset_error"] = torch.where(known, distance, 0.0).sum()
        sums["true_with_offset"] = known.sum()
    return sums


def peaks(scores: Tensor, threshold: float) -> Tensor:
    """Find where (B, K, H, W) scores reach ``threshold`` and are the highest of their 5×5 pixels; of equal ones the
    first is.
    """
    flat = scores.flatten(2)
    order = flat.argsort(dim=2, descending=True, stable=True)
    # Ranks differ where scores are equal, and float32 holds them exactly.
    places = torch.arange(flat.shape[2], 0, -1, device=scores.device, dtype=torch.float32)
    rank = torch.empty_like(flat, dtype=torch.float32).scatter_(2, order, places.expand_as(flat)).view_as(scores)
    return (scores >= threshold) & (rank == F.max_pool2d(rank, 5, stride=1, padding=2))


def num_matched(found: NDArray[np.int64], true: NDArray[np.int64]) -> int:
    """Count the most pairs of found (N, 2) and true (M, 2) points, one to one, that are at most ``MATCH_PX`` apart."""
    if not len(found) or not len(true):
        return 0
    near = np.linalg.norm(found[:, None] - true[None], axis=2) <= MATCH_PX
    return int(near[linear_sum_assignment(near, maximize=True)].sum())


def _by_tile(points: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Return (N, 4) from the (n, 3) of each tile: the tile's row before them."""
    rows = [np.column_stack([np.full(len(own), row, np.int32), own]) for row, own in enumerate(points)]
    return np.concatenate([np.zeros((0, 4), np.int32), *rows])


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _f1(matched_found: float, found: float, matched_true: float, true: float) -> float | None:
    """Return F1 of matched parts of what was found and what is true; 0 if only one of the two is there, None if neither is."""
    if not found or not true:
        return 0.0 if found or true else None
    precision, recall = matched_found / found, matched_true / true
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
