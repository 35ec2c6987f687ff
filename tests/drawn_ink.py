"""Strokes and tiles for tests: drawn at random, by hand, and measured the slow way."""

import numpy as np
from composed import compose_plain

from winnow.data.plan import LoadingSettings
from winnow.families.ink.strokes.curves import CORNER, FREE, SMOOTH, Strokes, points_at
from winnow.families.ink.strokes.data import InkStrokesSettings, ink_strokes
from winnow.families.ink.strokes.drawing import NUM_DRAWN, draw_strokes

LOADING = {"batch_size": 8, "num_workers": 0, "drop_last": False, "seed": 0,
           "subset_size": None, "subset_seed": 42, "overfit": None}  # fmt: skip


def loading_settings(**changed):
    return LoadingSettings(**LOADING | changed)


def stroke_values(root, **changed):
    values = compose_plain("data=ink_strokes")["data"] | {"root": str(root), "num_train": 24, "num_val": 20} | changed
    values.pop("_target_")
    return values


def stroke_settings(**changed):
    return InkStrokesSettings(**stroke_values("unused", **changed))


def strokes_data(root, *, loading=None, **changed):
    return ink_strokes(loading=loading_settings(**loading or {}), **stroke_values(root, **changed))


def random_strokes(seed, level, affine=0.0, count=4, size=64):
    drawn = np.stack([np.random.default_rng([seed, number]).random(NUM_DRAWN) for number in range(count)])
    return draw_strokes(drawn, np.full(count, level), size, affine)


def strokes_by_hand(*paths, width=2.0, size=64):
    """Return one tile; a path is a list of segments of four points each, joined smoothly where the directions agree."""
    control, tile, path, joins = [], [], [], []
    for number, segments in enumerate(paths):
        for position, points in enumerate(segments):
            points = np.array(points, dtype=np.float32)
            before = None if position == 0 else np.array(segments[position - 1], dtype=np.float32)
            begin = (
                FREE
                if before is None
                else SMOOTH
                if np.allclose(before[3] - before[2], points[1] - points[0])
                else CORNER
            )
            if joins and position:
                joins[-1][1] = begin
            joins.append([begin, FREE])
            control.append(points)
            path.append(number)
            tile.append(0)
    return Strokes(
        control=np.stack(control).transpose(1, 2, 0).astype(np.float32),
        width=np.full((2, len(control)), width, dtype=np.float32),
        tile=np.array(tile), path=np.array(path), joins=np.array(joins, dtype=np.int8).T, num_tiles=1, size=size,
    )  # fmt: skip


def straight(start, end):
    """Return a segment of constant speed."""
    start, end = np.array(start, dtype=float), np.array(end, dtype=float)
    return [start + (end - start) * part / 3 for part in range(4)]


def along(strokes, tile, samples=800):
    """Return points (2, n) densely along the curves of a tile, their directions (n,), widths (n,), segments (n,) and
    parameters (n,)."""
    segments = np.flatnonzero(strokes.tile == tile)
    t = np.linspace(0, 1, samples, dtype=np.float32)
    points = [points_at(np.repeat(strokes.control[:, :, [s]], samples, axis=2), t) for s in segments]
    direction = [np.arctan2(*np.gradient(each, axis=1)[::-1]) for each in points]
    width = [strokes.width[0, s] + (strokes.width[1, s] - strokes.width[0, s]) * t for s in segments]
    return (np.concatenate(points, axis=1), np.concatenate(direction), np.concatenate(width),
            np.repeat(segments, samples), np.tile(t, len(segments)))  # fmt: skip


def centres(tiles, tile):
    """Return (2, m) centres x, y of a tile's skeleton pixels, and where they stand among the tiles' labels."""
    rows = np.arange(tiles.starts[tile], tiles.starts[tile + 1])
    size = tiles.images.shape[1]
    return np.stack((tiles.pixel[rows] % size, tiles.pixel[rows] // size)) + 0.5, rows


def distances(points, others):
    """Return (n, m) px from each of ``points`` (2, n) to each of ``others`` (2, m)."""
    return np.hypot(*(points[:, :, None] - others[:, None, :]))


def skeleton_of(tiles, tile):
    size = tiles.images.shape[1]
    skeleton = np.zeros(size * size, dtype=bool)
    skeleton[tiles.pixel[tiles.starts[tile] : tiles.starts[tile + 1]]] = True
    return skeleton.reshape(size, size)


def key_points(tiles, kind, tile=0):
    """Return sorted (column, row) of the key points of one kind."""
    (x, y), rows = centres(tiles, tile)
    marked = tiles.key_points[rows, kind]
    return sorted(zip((x[marked] - 0.5).astype(int).tolist(), (y[marked] - 0.5).astype(int).tolist(), strict=True))
