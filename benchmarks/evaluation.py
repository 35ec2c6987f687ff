"""winnow's COCO AP by hotcoco against pycocotools: python benchmarks/evaluation.py [--images 5000] [--quick].

Truth and detections are made once: the boxes of the real sets in ../shared/data (blood cells, driving, people at night),
repeated with jitter until there are enough images, and per image 100 detections around them. Without these files boxes are drawn
at random, and it says so. Prints the seconds of each evaluator, from the first update to the last number, the largest difference
of any number to pycocotools', and ends with exit code 1 where that is above 1e-9.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from winnow.families.detection.batch import DetectionBatch, Detections, Target
from winnow.families.detection.metrics.coco_ap import BACKENDS, CocoAp

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = ("bccd", "bdd100k_mini", "kaist_mini", "llvip_mini")
REFERENCE = "pycocotools"
NUM_CLASSES = 10
"""As many as BDD100K has. Labels are shifted from image to image, so that each class has its share."""
JITTER = 0.06
"""Standard deviation of each side of a detection, in parts of the true box's sides."""

Sample = tuple[DetectionBatch, list[Detections]]
Frame = tuple[tuple[int, int], Tensor, Tensor, Tensor]
"""An image's (height, width), boxes xyxy, labels and crowd flags."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="per image")
    parser.add_argument("--rounds", type=int, default=3, help="of the fast evaluators; the reference runs once")
    parser.add_argument("--quick", action="store_true", help="500 images, 1 round")
    parser.add_argument("--smoke", action="store_true", help="20 images, 1 round: its seconds mean nothing")
    options = parser.parse_args()
    images, rounds = (500, 1) if options.quick else (20, 1) if options.smoke else (options.images, options.rounds)

    frames = real_frames()
    print(
        f"{images} images × {options.detections} detections, from {len(frames)} real frames"
        if frames
        else "boxes at random"
    )
    generator = torch.Generator().manual_seed(0)
    samples = [make_sample(index, frames, options.detections, generator) for index in range(images)]
    values, seconds = {}, {}
    for backend in BACKENDS:
        runs = [evaluate(samples, backend) for _ in range(1 if backend == REFERENCE else rounds)]
        values[backend], seconds[backend] = runs[0][0], statistics.median(run[1] for run in runs)
    worst = 0.0
    for backend in BACKENDS:
        difference = max(abs(values[backend].get(name, 2.0) - value) for name, value in values[REFERENCE].items())
        worst = max(worst, difference)
        print(
            f"{backend:18} {seconds[backend]:7.2f} s  {seconds[REFERENCE] / seconds[backend]:5.1f}× as fast  "
            f"map {values[backend]['map']:.4f}  largest difference of {len(values[REFERENCE])} numbers {difference:.1e}"
        )
    return int(worst > 1e-9)


def evaluate(samples: list[Sample], backend: str) -> tuple[dict[str, float], float]:
    """Return the metric's numbers and the seconds from the first update to the last number."""
    metric = CocoAp([f"class {index}" for index in range(NUM_CLASSES)], score_threshold=0.0, backend=backend)
    start = time.perf_counter()
    for batch, detections in samples:
        metric.update(detections, batch)
    return metric.compute(), time.perf_counter() - start


def real_frames() -> list[Frame]:
    """Return every annotated image of the COCO files in the shared sets."""
    frames = []
    for path in sorted(path for name in SETS for path in SHARED.glob(f"{name}/annotations/instances_*.json")):
        content = json.loads(path.read_text())
        annotations: dict[int, list[dict]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
        labels = {category["id"]: index % NUM_CLASSES for index, category in enumerate(content["categories"])}
        for image in content["images"]:
            own = [annotation for annotation in annotations[image["id"]] if min(annotation["bbox"][2:]) > 0]
            if own:
                boxes = torch.tensor([annotation["bbox"] for annotation in own]).float()
                boxes[:, 2:] += boxes[:, :2]
                crowd = torch.tensor([bool(annotation.get("iscrowd", 0)) for annotation in own])
                classes = torch.tensor([labels[annotation["category_id"]] for annotation in own])
                frames.append(((image["height"], image["width"]), boxes, classes, crowd))
    return frames


def random_frame(generator: torch.Generator) -> Frame:
    corners = torch.rand(7, 2, generator=generator) * 500
    sizes = torch.rand(7, 2, generator=generator) ** 2 * 320 + 4
    labels = torch.randint(NUM_CLASSES, (7,), generator=generator)
    return (
        (640, 640),
        torch.cat([corners, (corners + sizes).clamp(max=640)], 1),
        labels,
        torch.zeros(7, dtype=torch.bool),
    )


def make_sample(image_id: int, frames: list[Frame], num_detections: int, generator: torch.Generator) -> Sample:
    """Return a frame with its boxes moved a little, one in twenty a crowd, and detections of which seven in ten have the true
    class."""
    size, boxes, labels, crowd = frames[image_id % len(frames)] if frames else random_frame(generator)
    boxes, labels = jittered(boxes, generator), (labels + image_id) % NUM_CLASSES
    crowd = crowd | (torch.rand(len(boxes), generator=generator) < 0.05)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    target = Target(image_id, boxes, labels, size, size, boxes, labels, areas, crowd)
    source = torch.randint(len(boxes), (num_detections,), generator=generator)
    found = jittered(boxes[source], generator)
    scores = torch.rand(num_detections, generator=generator).sort(descending=True).values
    is_right = torch.rand(num_detections, generator=generator) < 0.7
    guesses = torch.randint(NUM_CLASSES, (num_detections,), generator=generator)
    detections = Detections(found, scores, torch.where(is_right, labels[source], guesses))
    nothing = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    return DetectionBatch(nothing, torch.ones(1, 1, 1, dtype=torch.bool), [target]), [detections]


def jittered(boxes: Tensor, generator: torch.Generator) -> Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + sides * torch.randn(boxes.shape, generator=generator) * JITTER
    return torch.cat([moved[:, :2], torch.maximum(moved[:, 2:], moved[:, :2] + 1)], dim=1)


if __name__ == "__main__":
    sys.exit(main())
