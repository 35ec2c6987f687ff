"""How fast the loader is against the bare limit, decode and resize in one process: python benchmarks/data.py [--folder JPEGS].

Prints images per second of the bare loop, of the loader with 0, 1 and 2 workers, and each one's share of the limit per process.
Interleaved rounds, medians, because machines drift.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from winnow.data.image import read_image
from winnow.families.detection.data import LoadingSettings, coco_data
from winnow.families.detection.transforms import resize

AUGMENTATION = {
    "horizontal_flip": 0.5,
    "photometric": 0.0,
    "crop": 0.5,
    "crop_scale": [0.5, 1.0],
    "resize_scale": [0.75, 1.0],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a folder of JPEG files; default: two photographs, repeated")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="8 images of 64 px, 1 round: its figures mean nothing")
    options = parser.parse_args()
    if options.smoke:
        options.images, options.image_size, options.rounds = 8, 64, 1
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or photographs(Path(temporary))
        annotations = annotate(folder, Path(temporary) / "instances.json", options.images)
        print(f"{options.images} images from {folder}, resized to {options.image_size} px, 1 thread per process")
        compare(folder, annotations, options.image_size, options.rounds)


def photographs(folder: Path) -> Path:
    from sklearn.datasets import load_sample_images

    for number, image in enumerate(load_sample_images().images):
        Image.fromarray(image).resize((1280, 720)).save(folder / f"{number}.jpg", quality=90)
    return folder


def annotate(folder: Path, path: Path, count: int) -> Path:
    files = sorted(folder.glob("*.jpg"))
    images, annotations = [], []
    for number in range(count):
        with Image.open(files[number % len(files)]) as image:
            width, height = image.size
        images.append({"id": number, "file_name": files[number % len(files)].name, "width": width, "height": height})
        annotations += [
            {
                "id": number * 10 + k,
                "image_id": number,
                "category_id": 1,
                "bbox": [20 + 10 * k, 30, 100, 80],
                "area": 8000,
            }
            for k in range(10)
        ]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]})
    )
    return path


def compare(folder: Path, annotations: Path, image_size: int, rounds: int) -> None:
    def loader(num_workers: int, photometric: float = 0.0) -> Callable[[int], int]:
        loading = LoadingSettings(
            batch_size=8, num_workers=num_workers, drop_last=False, seed=0, subset_size=None, subset_seed=0, overfit=None
        )  # fmt: skip
        paths = {"images": str(folder), "annotations": str(annotations)}
        augmentation = AUGMENTATION | {"photometric": photometric}
        data = coco_data(
            loading=loading, name="bench", train=paths, val=None, image_size=image_size, resize="pad",
            augmentation=augmentation, max_bad_images=0, wait_for_files_seconds=0,
        )  # fmt: skip
        return lambda epoch: sum(batch.num_samples for batch in data.train_batches(epoch, image_size))

    def bare(epoch: int) -> int:
        del epoch
        boxes = torch.zeros((0, 4))
        entries = json.loads(annotations.read_text())["images"]
        for entry in entries:
            resize(read_image(folder / entry["file_name"], entry["width"], entry["height"]), boxes, image_size, False)
        return len(entries)

    ways: dict[str, tuple[Callable[[int], int], int]] = {
        "bare decode and resize": (bare, 1),
        "loader, in process": (loader(0), 1),
        "loader, 1 worker": (loader(1), 1),
        "loader, 2 workers": (loader(2), 2),
        "loader, 1 worker, photometric": (loader(1, 1.0), 1),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, (run, _) in ways.items():
            began = time.perf_counter()
            images = run(number + 1)
            if number:  # the first round starts workers and fills the file cache
                rates[name].append(images / (time.perf_counter() - began))
    limit = statistics.median(rates["bare decode and resize"])
    for name, (_, processes) in ways.items():
        rate = statistics.median(rates[name])
        print(f"{name:32s} {rate:7.1f} images/s   {rate / limit / processes:5.2f} of the limit per process")


if __name__ == "__main__":
    main()
