"""What a large annotation file costs at each start: python benchmarks/large_sets.py [--images 1000000].

Makes a COCO file of COCO's size (118,000 images, 7 boxes each) with as many empty image files, and prints, each in a process of
its own, CPU and wall seconds and the memory that reading it takes on top: for the standard library's parser, pycocotools where it
is installed, the first start, which fills the cache, and the second. Then, with the data in loader processes that look at every
record: the memory that each has for itself, for the mapped records and for a Python object per image, as there was before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

BOXES_PER_IMAGE = 7.0085
NUM_CLASSES = 80
WORKERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument(
        "--folder", type=Path, help="where to make the files, kept for the next time; default: a temporary folder"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each reading, of which the fastest counts")
    parser.add_argument("--smoke", action="store_true", help="50 images, 1 round: its figures mean nothing")
    parser.add_argument("--measure", choices=sorted(READINGS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.smoke:
        options.images, options.rounds = 50, 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if options.measure:
            print(json.dumps(READINGS[options.measure](folder)))
            return
        make(folder, options.images)
        size = (folder / "coco.json").stat().st_size
        print(f"{options.images} images, {int(options.images * BOXES_PER_IMAGE)} boxes, {size / 1e6:.0f} MB")
        report(folder, options.rounds)


def make(folder: Path, num_images: int) -> None:
    """Write the annotation file and the images, unless they are there."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    if (folder / "coco.json").exists():
        return
    rng = np.random.default_rng(0)
    num_boxes = int(num_images * BOXES_PER_IMAGE)
    owners = np.sort(rng.integers(0, num_images, num_boxes)).tolist()
    corners, sides = rng.uniform(0, 400, (num_boxes, 2)).round(2), rng.uniform(5, 80, (num_boxes, 2)).round(2)
    boxes, areas = np.concatenate([corners, sides], axis=1).tolist(), sides.prod(axis=1).round(4).tolist()
    labels = rng.integers(1, NUM_CLASSES + 1, num_boxes).tolist()
    for number in range(num_images):
        (folder / "images" / f"{number:012d}.jpg").touch()
    unfinished = folder / "unfinished.json"
    with unfinished.open("w") as file:
        file.write('{"images": [')
        write_all(file.write, num_images, lambda row: {
            "license": 1, "file_name": f"{row:012d}.jpg", "height": 480, "width": 640, "id": row,
            "coco_url": f"http://images.cocodataset.org/train2017/{row:012d}.jpg", "date_captured": "2013-11-14 11:18:45",
        })  # fmt: skip
        file.write('], "annotations": [')
        write_all(file.write, num_boxes, lambda row: {
            "id": row, "image_id": owners[row], "category_id": labels[row], "bbox": boxes[row], "area": areas[row], "iscrowd": 0,
        })  # fmt: skip
        categories = [{"id": number, "name": f"class {number}"} for number in range(1, NUM_CLASSES + 1)]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    unfinished.rename(folder / "coco.json")


def write_all(write: Callable[[str], Any], count: int, entry: Callable[[int], dict[str, Any]]) -> None:
    for row in range(count):
        write((", " if row else "") + json.dumps(entry(row)))


def report(folder: Path, rounds: int) -> None:
    print(f"{'':28}{'CPU s':>8}{'wall s':>8}{'MB at most':>12}{'MB after':>10}{'MB of each worker':>19}")
    for name in READINGS:
        found = [measured(folder, name) for _ in range(1 if name == "first start" else rounds)]
        best = min(found, key=lambda one: one.get("cpu", 0))
        if "skipped" in best:
            print(f"{name:28}{best['skipped']}")
            continue
        of_workers = f"{best['worker']:19.0f}" if "worker" in best else ""
        print(f"{name:28}{best['cpu']:8.2f}{best['wall']:8.2f}{best['peak']:12.0f}{best['after']:10.0f}{of_workers}")


def measured(folder: Path, name: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--folder", str(folder), "--measure", name]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def cost(read: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return what ``read`` gives and what it takes, in MB on top of what the process had."""
    process = psutil.Process()
    before = process.memory_info().rss
    reset_peak()
    cpu, wall = time.process_time(), time.perf_counter()
    result = read()
    found = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    return result, found | {"peak": (peak() - before) / 1e6, "after": (process.memory_info().rss - before) / 1e6}


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def standard_library(folder: Path) -> dict[str, Any]:
    return cost(lambda: json.loads((folder / "coco.json").read_bytes()))[1]


def pycocotools(folder: Path) -> dict[str, Any]:
    try:
        from pycocotools.coco import COCO
    except ImportError:
        return {"skipped": "is not installed"}
    sys.stdout = sys.stderr  # it prints
    try:
        return cost(lambda: COCO(str(folder / "coco.json")))[1]
    finally:
        sys.stdout = sys.__stdout__


def first_start(folder: Path) -> dict[str, Any]:
    for path in (folder / "cache").glob("*"):
        path.unlink()
    return start(folder)


def start(folder: Path) -> dict[str, Any]:
    """Measure all that a run does with the annotations, down to the plan of its batches; then its workers."""
    from winnow.families.detection.data import coco_data

    data, found = cost(lambda: coco_data(loading=loading(), **values(folder)))
    return found | {"worker": memory_of_workers(data.train_records)}


def one_object_per_image(folder: Path) -> dict[str, Any]:
    from winnow.families.detection.data import coco_data

    data, found = cost(lambda: coco_data(loading=loading(), **values(folder)))
    records, more = cost(lambda: list(data.train_records))
    return {name: found[name] + more[name] for name in found} | {"worker": memory_of_workers(records)}


def loading() -> Any:
    from winnow.data.plan import LoadingSettings

    return LoadingSettings(
        batch_size=16, num_workers=0, drop_last=False, seed=0, subset_size=None, subset_seed=0, overfit=None
    )


def values(folder: Path) -> dict[str, Any]:
    return {
        "name": "coco", "image_size": 640, "resize": "pad", "max_bad_images": 0, "wait_for_files_seconds": 0.0, "val": None,
        "augmentation": {
            "horizontal_flip": 0.5, "photometric": 0.0, "crop": 0.0, "crop_scale": [0.5, 1.0], "resize_scale": [0.75, 1.0],
        },
        "train": {"images": str(folder / "images"), "annotations": str(folder / "coco.json")}, "cache": str(folder / "cache"),
    }  # fmt: skip


def memory_of_workers(records: Sequence[Any]) -> float:
    """Return the MB that a loader process has for itself, on the average, when all of them have looked at every record, on top of
    what one has that looked at one."""
    return own_memory(records) - own_memory(records[:1])


def own_memory(records: Sequence[Any]) -> float:
    from torch.utils.data import DataLoader

    looks: Any = _Looks(records)
    loader: DataLoader[Any] = DataLoader(looks, batch_size=None, num_workers=WORKERS)
    return float(np.mean([mb for mb in loader if mb]))


class _Looks:
    """An item for each worker, which looks at every record and gives the MB that its process has for itself."""

    def __init__(self, records: Sequence[Any]) -> None:
        self.records = records

    def __len__(self) -> int:
        return WORKERS

    def __getitem__(self, index: int) -> float:
        for record in self.records:
            assert record.boxes.shape[1] == 4
        return float(psutil.Process().memory_full_info().uss / 1e6)


READINGS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "json.loads alone": standard_library,
    "pycocotools": pycocotools,
    "first start": first_start,
    "second start": start,
    "an object per image (before)": one_object_per_image,
}


if __name__ == "__main__":
    main()
