"""A trained model in use: predictions on pictures, and the evaluation of a data set, as the run itself would give them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from winnow.config.plain import Config
from winnow.engine.compilation import uncompiled
from winnow.engine.precision import Precision
from winnow.engine.seeding import undisturbed_rng
from winnow.errors import ConfigError, DataError
from winnow.protocols import Evaluation, Task
from winnow.trained.pictures import Picture, in_batches, is_sample, pixel_rule_of, read_own, read_sample

if TYPE_CHECKING:
    from winnow.trained.export import ExportReport

EXIF = ("auto", "never")
MOST_READERS = 8
"""Threads that read pictures, and so batches that lie in memory."""


@dataclass(frozen=True)
class TrainedModel:
    """What ``winnow.load`` returns. ``classes`` are the names by label, ``category_ids`` the data set's own ids by label
    (labels from 0 where the checkpoint lacks them: ``has_category_ids``). ``config`` is the run's, ``metrics`` what its
    evaluation gave at ``epoch``, ``image_size`` the pixels that it was evaluated at."""

    path: Path
    config: Config = field(repr=False)
    task: Task = field(repr=False)
    evaluation: Evaluation = field(repr=False)
    precision: Precision
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    has_category_ids: bool
    image_size: int
    epoch: int
    metrics: Mapping[str, float] = field(repr=False)

    def predict(self, images: Any, batch_size: int | None = None, exif: str = "auto") -> list[Any]:
        """Return what the model finds on each of ``images``, in order: paths, (H, W, 3) uint8 arrays or tensors, or one of
        them; a model of pairs takes (visible, infrared) for each, None for one that is absent; a model of maps takes mappings of
        six images and their calibration (docs/maps.md).

        For detectors that are ``FoundBoxes`` in pixels of the picture, turned as its EXIF orientation says unless ``exif`` is
        ``never``; an ink model gives ``FoundInk``, a model of maps ``FoundLines``. ``batch_size`` is training's by default.
        Raises DataError naming a picture that can't be read.
        """
        single = is_sample(images, self.picture_parts) or isinstance(images, Mapping)
        found = []
        for picture, result in self.stream([images] if single else images, batch_size, exif):
            if picture.problem is not None:
                raise DataError(picture.problem)
            found.append(result)
        return found

    @property
    def picture_parts(self) -> tuple[str, ...]:
        """Return what the pictures of one sample are called, where it is several: ``("visible", "infrared")``."""
        return tuple(getattr(self.evaluation, "picture_parts", ()))

    @torch.inference_mode()
    def stream(
        self, images: Iterable[Any], batch_size: int | None = None, exif: str = "auto"
    ) -> Iterator[tuple[Picture, Any]]:
        """Yield (picture, what is found on it) one after the other, in constant memory; a picture that can't be read comes with
        its ``problem`` and None. The next batches are read, one per core but the first, while the model looks at this one. Raises
        ConfigError for a model whose family can't read pictures."""
        if exif not in EXIF:
            raise ConfigError(f"exif={exif!r} must be auto or never")
        if not hasattr(self.evaluation, "picture_batch"):
            raise ConfigError(f"{type(self.evaluation).__name__} can't make batches of pictures (picture_batch)")
        size = self.config["training"]["batch_size"] if batch_size is None else batch_size
        if size < 1:
            raise ConfigError(f"batch_size={size} must be at least 1")
        num_readers = max(1, min(MOST_READERS, _num_cores() - 1))
        coming: deque[Future[tuple[list[Picture], Any]]] = deque()
        with ThreadPoolExecutor(num_readers) as readers, uncompiled():
            for batch in in_batches(iter(enumerate(images)), size):
                coming.append(readers.submit(self._read, batch, exif))
                if len(coming) > num_readers:
                    yield from self._found(*coming.popleft().result())
            while coming:
                yield from self._found(*coming.popleft().result())

    def evaluate(self, data: Any = (), split: str = "val", batch_size: int | None = None) -> dict[str, float]:
        """Return the numbers of ``val/…`` of the run's own evaluation, on its own data by default: the same to the last bit.

        ``data`` changes the data set, as on the command line: ``["data.root=/elsewhere"]`` changes single values,
        ``["data=coco", "data.val.images=…"]`` takes another. ``split="train"`` evaluates what was trained on. Raises ConfigError,
        DataError.
        """
        from winnow.trained.evaluation import evaluate_model

        return evaluate_model(self, [data] if isinstance(data, str) else list(data), split, batch_size)

    def export(self, path: str | Path, data: Any = ()) -> ExportReport:
        """Write the model as ONNX to ``path``, which is new, and compare it, run by onnxruntime, with the model on the validation
        set of the run's own data, or of ``data`` as in ``evaluate``.

        Load the model with ``device="cpu", precision="off"``: the file computes in float32. Raises ExportError, and leaves no
        file, where the two differ; ConfigError for a family or model that can't be exported, or without the extra ``export``.
        """
        from winnow.trained.export import export_model

        return export_model(self, Path(path), [data] if isinstance(data, str) else list(data))

    def _read(self, batch: list[tuple[int, Any]], exif: str) -> tuple[list[Picture], Any]:
        """Read pictures, and make a batch of those that can be read, and that the family can use."""
        rule = pixel_rule_of(self.config["data"])
        own = getattr(self.evaluation, "read_sample", None)
        if own is None:
            pictures = [read_sample(source, number, exif, self.picture_parts, rule) for number, source in batch]
        else:
            pictures = [read_own(own, source, number) for number, source in batch]
        try:
            return pictures, self._batch(pictures)
        except DataError:  # one that is too small for a line of text, say: it is not the others' fault
            pictures = [self._judged(picture) for picture in pictures]
            return pictures, self._batch(pictures)

    def _batch(self, pictures: Sequence[Picture]) -> Any:
        readable = [picture for picture in pictures if picture.pixels is not None]
        if not readable:
            return None
        pixels, names = [picture.pixels for picture in readable], [picture.name for picture in readable]
        return self.evaluation.picture_batch(pixels, names, self.config["data"], self.image_size)  # type: ignore[attr-defined]

    def _judged(self, picture: Picture) -> Picture:
        """Return ``picture``, with a problem where the family can't use it."""
        try:
            self._batch([picture])
        except DataError as error:
            return Picture(picture.name, None, str(error))
        return picture

    def _found(self, pictures: list[Picture], made: Any) -> Iterator[tuple[Picture, Any]]:
        results: Iterator[Any] = iter(())
        if made is not None:
            with undisturbed_rng(), self.precision.autocast():
                batch = made.to(self.precision.device, self.precision.memory_format)
                outputs = self.task.forward(batch)
            predictions = self.task.predictions(outputs, batch)
            results = iter(self.evaluation.found(predictions, batch, self.classes, self.category_ids))  # type: ignore[attr-defined]
        for picture in pictures:
            yield picture, None if picture.problem is not None else next(results)


def _num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
