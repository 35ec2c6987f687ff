"""Compares winnow's COCO AP with pycocotools: the largest difference of any number, and how much faster it is.

``python benchmarks/evaluation.py --images 5000``; the boxes are drawn at random, detections are jittered truth and
noise.
"""

from __future__ import annotations

import argparse
import time

import torch

from winnow.data.batch import DetectionBatch, Detections, Target
from winnow.metrics.coco_ap import BACKENDS, CocoAp

SIDE = 640
JITTER = 8.0
"""Standard deviation of a detection's sides around the true ones, in pixels."""

Sample = tuple[DetectionBatch, list[Detections]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="per image")
    parser.add_argument("--boxes", type=int, default=7, help="true boxes per image; COCO has 7")
    parser.add_argument("--classes", type=int, default=10, help="BDD100K has 10, COCO 80")
    options = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    samples = [
        draw_sample(index, options.classes, options.boxes, options.detections, generator)
        for index in range(options.images)
    ]
    values, seconds = {}, {}
    for backend in BACKENDS:
        values[backend], seconds[backend] = evaluate(samples, options.classes, backend)
        per_image = 1000 * seconds[backend] / options.images
        print(f"{backend:18} {seconds[backend]:7.2f} s  {per_image:6.3f} ms/image  map {values[backend]['map']:.4f}")
    ours, reference = values["winnow"], values["pycocotools"]
    difference = max(abs(ours.get(name, float("inf")) - reference[name]) for name in reference)
    print(f"largest difference of {len(reference)} numbers: {difference:.1e}")
    print(f"time ratio: {seconds['pycocotools'] / seconds['winnow']:.1f}")


def evaluate(samples: list[Sample], num_classes: int, backend: str) -> tuple[dict[str, float], float]:
    """The metric's numbers and the seconds from the first update to the last number."""
    metric = CocoAp([f"class {index}" for index in range(num_classes)], score_threshold=0.0, backend=backend)
    start = time.perf_counter()
    for batch, detections in samples:
        metric.update(detections, batch)
    return metric.compute(), time.perf_counter() - start


def draw_sample(
    image_id: int, num_classes: int, num_boxes: int, num_detections: int, generator: torch.Generator
) -> Sample:
    """One image's truth, one box in twenty a crowd, and detections of which seven in ten have the true class."""
    corners = torch.rand(num_boxes, 2, generator=generator) * SIDE * 0.8
    sizes = torch.rand(num_boxes, 2, generator=generator) ** 2 * SIDE * 0.5 + 4
    boxes = torch.cat([corners, (corners + sizes).clamp(max=SIDE)], dim=1)
    labels = torch.randint(num_classes, (num_boxes,), generator=generator)
    crowd = torch.rand(num_boxes, generator=generator) < 0.05
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    target = Target(image_id, boxes, labels, (SIDE, SIDE), (SIDE, SIDE), boxes, labels, areas, crowd)
    source = torch.randint(num_boxes, (num_detections,), generator=generator)
    found = boxes[source] + torch.randn(num_detections, 4, generator=generator) * JITTER
    scores = torch.rand(num_detections, generator=generator).sort(descending=True).values
    is_right = torch.rand(num_detections, generator=generator) < 0.7
    guesses = torch.randint(num_classes, (num_detections,), generator=generator)
    detections = Detections(found, scores, torch.where(is_right, labels[source], guesses))
    nothing = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    return DetectionBatch(nothing, torch.ones(1, 1, 1, dtype=torch.bool), [target]), [detections]


if __name__ == "__main__":
    main()
