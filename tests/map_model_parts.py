"""A small map model, and batches of drawn images for it."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from composed import compose_plain
from map_parts import CITIES, batch, lines

from winnow.families.maps.frame import Region, ground_of
from winnow.families.maps.lines import CLASSES
from winnow.families.maps.metric import MapMetric
from winnow.families.maps.model.map_qformer import map_qformer_tiny
from winnow.families.maps.rendering.views import LIDAR_TO_EGO, Views, nominal_cameras

REGION = Region(30.0, 60.0)
WIDTH, HEIGHT = 64, 32
RING = [(2, 5), (8, 5), (8, 11), (2, 11), (2, 5)]
TRUTHS = (
    lines(("divider", [(0, -30), (0, 30)]), ("ped_crossing", RING)),
    lines(),
    lines(("boundary", [(-8, -30), (-7, 0), (-9, 30)])),
    lines(("divider", [(3, -20), (4, 10)]), ("divider", [(-3, -30), (-3, 30)]), ("boundary", [(9, -30), (9, 30)])),
)


@lru_cache(maxsize=1)
def model_values():
    """Return the keys of the tiny model at a size for tests."""
    sizes = [
        "model.channels=[8,16]", "model.width=16", "model.num_instances=6", "model.qformer.tokens_per_camera=3",
        "model.qformer.width=16", "model.qformer.num_heads=2", "model.qformer.ffn_width=32", "model.decoder.num_heads=2",
        "model.decoder.ffn_width=32",
    ]  # fmt: skip
    values = compose_plain("model=map_qformer_tiny", "data=map_synthetic", *sizes)["model"]
    return {key: value for key, value in values.items() if key != "_target_"}


def tiny_map_task(classes=CLASSES, new_metric=None, max_lines=50, num_points=20, region=REGION, **changes):
    """Return the task with the same weights each time, the point heads' last layers too, which begin at zero otherwise."""
    torch.manual_seed(0)
    new_metric = new_metric or (lambda: MapMetric(CLASSES, CITIES, max_lines))
    values = model_values() | changes
    task = map_qformer_tiny(classes, new_metric, max_lines, num_points, region, **values)
    for head in task.model.decoder.point_heads:
        torch.nn.init.normal_(head[-1].weight, std=0.05)
    return task


def seen(*samples, truths=TRUTHS):
    """Return a batch of these samples: images of noise, each the same whatever it is batched with, six nominal cameras."""
    views = Views(nominal_cameras(), LIDAR_TO_EGO, ground_of(LIDAR_TO_EGO), WIDTH, HEIGHT)
    count = len(samples)
    images = [
        np.random.default_rng(sample).integers(0, 256, (6, 3, HEIGHT, WIDTH), dtype=np.uint8) for sample in samples
    ]
    made = batch(*(truths[sample] for sample in samples))
    return replace(
        made,
        images=torch.from_numpy(np.concatenate(images)).contiguous(memory_format=torch.channels_last),
        frame_to_camera=torch.from_numpy(views.frame_to_camera).float().expand(count, 6, 4, 4),
        intrinsics=torch.from_numpy(views.intrinsics).float().expand(count, 6, 3, 3),
        ground=torch.from_numpy(views.ground).float().expand(count, 3),
        targets=[replace(target, image_id=sample) for target, sample in zip(made.targets, samples, strict=True)],
        calibration_ids=("nominal",) * count,
    )
