"""What is loaded to predict with: the checkpoint of a detector, and pictures for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.mutations import mutated_bytes
from fuzz.pixels import image_files
from fuzz.pool import Case, Kind
from fuzz.weights import changed_content, prepare_checkpoint, written

import winnow
from winnow.checkpoints.file import write_checkpoint
from winnow.config.instantiate import instantiate
from winnow.run.build import checked_evaluation
from winnow.trained.load import KnownClasses
from winnow.trained.output import write_predictions
from winnow.trained.pictures import pictures_below

CLASSES = [str(digit) for digit in range(10)]


def _prepare(folder: Path) -> Any:
    content = prepare_checkpoint(folder)["content"]
    arguments = checked_evaluation(content["config"]).model_arguments(KnownClasses(CLASSES, range(10)))
    task: Any = instantiate(content["config"], "model", **arguments)
    weights = {name: value.detach().clone() for name, value in task.model.state_dict().items()}
    metadata = {**content["metadata"], "category_ids": list(range(1, 11))}
    content |= {"model_state_dict": weights, "classes": CLASSES, "metadata": metadata}
    write_checkpoint(folder / "best.pth", content)
    return {
        "content": content,
        "good": folder / "best.pth",
        "bytes": (folder / "best.pth").read_bytes(),
        "files": image_files(),
    }


def _loaded(rng: random.Random, shared: Any, folder: Path) -> Case:
    path = folder / "run" / "checkpoints" / "best.pth"
    path.parent.mkdir(parents=True)
    if rng.random() < 0.2:
        path.write_bytes(mutated_bytes(rng, shared["bytes"]))
    else:
        written(lambda: write_checkpoint(path, changed_content(rng, shared["content"])))
    return _case(path, _picture(rng, shared, folder), folder)


def _picture(rng: random.Random, shared: Any, folder: Path) -> Path:
    path = folder / "pictures" / rng.choice(("x.png", "x.jpg", "é \n[a].png"))
    path.parent.mkdir()
    path.write_bytes(rng.choice(shared["files"]))
    return path


def _predicted(rng: random.Random, shared: Any, folder: Path) -> Case:
    path = _picture(rng, shared, folder)
    for _ in range(rng.choice((1, 1, 3))):
        other = path.with_name(f"{rng.randrange(100)}.png")
        other.write_bytes(mutated_bytes(rng, rng.choice(shared["files"])))
    return _case(shared["good"], path, folder)


def _case(checkpoint: Path, picture: Path, folder: Path) -> Case:
    exif = "auto" if picture.suffix == ".png" else "never"
    loaded: dict[str, Any] = {}

    def load() -> None:
        loaded["model"] = winnow.load(checkpoint, device="cpu", precision="off")

    def used(use: Callable[[Any], object]) -> Callable[[], object]:
        return lambda: use(loaded["model"]) if loaded else None

    def predict(model: Any) -> None:
        for found in model.predict(pictures_below([picture.parent]), batch_size=2, exif=exif):
            repr(found)

    def write(model: Any) -> None:
        write_predictions(model, pictures_below([picture.parent]), folder / "output", 2, exif, 0.0)

    def evaluate(model: Any) -> None:
        model.evaluate([f"data.root={folder.parent / 'digits'}", "data.num_train=2", "data.num_val=1"])

    readers = {"load": load, "predict": used(predict), "write": used(write), "evaluate": used(evaluate)}
    return Case(readers, (checkpoint.name, checkpoint.parent.parent.name, picture.parent.name))


KINDS = (Kind("trained", _prepare, _loaded), Kind("predict", _prepare, _predicted))
