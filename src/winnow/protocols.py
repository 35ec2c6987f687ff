"""The seams of winnow: what the engine, tasks, metrics, data, tracker and trial promise each other. No behaviour lives here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

if TYPE_CHECKING:  # the sweeper needs the promises of trial and tracker, and not two seconds of imports
    import torch
    from torch import Tensor, nn


class Batch(Protocol):
    """Samples that travel together through one forward pass."""

    @property
    def num_samples(self) -> int:
        """Count samples, not images: six cameras are one sample. The position at which a run resumes counts these, in the order
        of ``Data.train_batches``; 0 in the share of a rank that goes empty."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the number of images, height and width in pixels, padding included."""
        ...

    @property
    def image_ids(self) -> Sequence[int | str]:
        """Return the data set's own ids, for messages."""
        ...

    def to(self, device: torch.device, memory_format: torch.memory_format = ...) -> Self:
        """Move the batch to where and how the model reads it; ``memory_format`` is for images."""
        ...

    def pin_memory(self) -> Self: ...


class Metric(Protocol):
    """Gathers predictions over an evaluation and turns them into named numbers.

    Holds nothing on the GPU. ``merge`` takes what ``state`` of another rank's metric gave, so that ranks can be gathered.
    It may have ``worst``, a mapping of those of its ``names`` that have a worst value to that (0 for an average precision, 100
    for a miss rate): early stopping begins to count at the first evaluation that gives another. And ``arrays()``, a mapping of
    names to numpy arrays without objects: what was found and what is true, which a run keeps of its best evaluation, so that
    reports and comparisons need no model.
    """

    @property
    def names(self) -> Sequence[str]:
        """Return every name that ``compute`` may give, known before the first ``update``."""
        ...

    @property
    def headlines(self) -> Sequence[str]:
        """Name the few of ``names`` that the log's line of an epoch shows beside the losses and the objective."""
        ...

    def update(self, predictions: Any, batch: Any) -> None: ...

    def state(self) -> Any:
        """Return a picklable value holding all that ``update`` gathered."""
        ...

    def merge(self, state: Any) -> None: ...

    def compute(self) -> dict[str, float]:
        """Return numbers named without a split (``map``, ``map_class/car``); the engine adds ``val/``."""
        ...


class Task(Protocol):
    """A model, its losses and its predictions. Never steps, logs, moves itself between devices, or knows the epoch.

    One training step over micro-batches b: ``count[name] = Σ_b loss_count(b)[name]``, over all ranks and at least 1, then for
    each b ``losses(forward(b), b, count)``. Terms are already weighted, and summed over the micro-batches of the step they
    equal the terms of the same samples in one batch, whatever the split.

    It may have ``class_rows``, a mapping of those of the model's entries that hold a row (or several) per class, in the order of
    ``classes``, to their rows per class; a background's come before. So weights of the same classes in another order fit.

    For ``winnow export`` a detector has ``exportable()``: a module of its own, with copies of the weights, that gives for one
    picture what ``predictions`` gives, in operations that ``torch.onnx.export`` takes. Its ``forward(images, pixel_mask, size,
    original_size)`` gets a batch of one, padded to any multiple of 32 px, and height and width, (2,) int64, without the padding
    and of the picture itself; it returns boxes (N, 4) xyxy in pixels of that picture, scores (N,) in descending order, labels
    (N,).
    """

    model: nn.Module

    @property
    def classes(self) -> Sequence[str]: ...

    def forward(self, batch: Any) -> Any:
        """Run the model once; what it gives is only read by ``losses`` and ``predictions``."""
        ...

    @property
    def counted_by(self) -> Mapping[str, str]:
        """Map each loss term → name of the count that divides it, by which the evaluation normalises the term over its whole
        set. Terms of a task with a single count need not be named."""
        ...

    def loss_count(self, batch: Any) -> Mapping[str, float]:
        """Return what the batch adds to each of the step's normalisers, by name: ``{"boxes": 12}``, ``{"images": 4,
        "objects": 9}``. The same names whatever the batch; all are 0 where there is nothing to learn from.
        """
        ...

    def losses(self, outputs: Any, batch: Any, count: Mapping[str, float]) -> dict[str, Tensor]:
        """Return named scalar terms whose sum is the loss, the same names whatever the batch. ``count`` holds the
        normalisers of the whole step, over all ranks, each at least 1.
        """
        ...

    def predictions(self, outputs: Any, batch: Any) -> Any:
        """Return what ``Metric.update`` takes."""
        ...

    def new_metric(self) -> Metric: ...


class Data(Protocol):
    """Batches as a pure function of (seed, epoch, index): remembers no position, whatever the number of workers."""

    @property
    def classes(self) -> Sequence[str]: ...

    @property
    def fingerprint(self) -> str:
        """Return a string that changes when the samples do; a run only resumes on the data it began with.

        Data whose string was made otherwise once may have ``changes_since(fingerprint)``: lines that say what is read otherwise
        since, empty where the samples are the same and the run goes on; None where that string was not of these files.
        """
        ...

    @property
    def image_size(self) -> int:
        """Return the size that is evaluated at, in pixels."""
        ...

    @property
    def num_train_samples(self) -> int: ...

    def num_train_batches(self, start_sample: int = 0) -> int:
        """Return the number of batches in what is left of an epoch after the first ``start_sample`` samples of its
        order; the same on all ranks.
        """
        ...

    def train_batches(self, epoch: int, image_size: int, start_sample: int = 0) -> Iterator[Any]:
        """Yield batches of what is left of epoch ``epoch`` (from 1) after the first ``start_sample`` samples of its
        order, over all ranks; those before are not read. Of many ranks each gets its own share of every batch, which
        may hold no image. Raises TransientDataError if trying again later may help.
        """
        ...

    def num_val_batches(self) -> int:
        """Return the number of validation batches, 0 if there is nothing to validate on."""
        ...

    def val_batches(self, image_size: int) -> Iterator[Any]: ...

    def smallest_batch(self, start_sample: int = 0) -> int:
        """Count the samples of the smallest batch over all ranks in what is left of an epoch after its first
        ``start_sample`` samples.
        """
        ...

    def smallest_share(self, start_sample: int = 0) -> int:
        """Count the samples of the smallest share that a rank has of such a batch; 0 if one goes empty."""
        ...

    def preview(self, count: int, image_size: int) -> Iterator[Any]:
        """Return the first ``count`` validation samples in batches of the usual size, read in this process."""
        ...


class Evaluation(Protocol):
    """How one family of tasks is judged and shown: what its models are told, and its pictures.

    It may have ``look_over(task, data)``, called once when a run is built: it logs as a warning what of the data the task can't
    learn or give, which also stands in a preflight's report. And ``metric_modes``, a mapping of its metrics' names, without a
    split, to ``max`` or ``min``, whichever is better; ``map_class/*`` stands for all that begin so. By it a sweep refuses names
    that no run will give, and the worse direction of one, before it starts anything. And ``draw_epoch(task, batches, folder,
    epoch)``, called after each evaluation with a few validation batches, which are read as they are asked for: it draws into a
    file in ``folder`` and returns that, or None.

    For a run's page it may have ``report(arrays, data, num_pictures)``: the ``winnow.sections`` of what ``Metric.arrays`` gave;
    ``data`` is None where the data can't be had, ``num_pictures`` how many of the worst samples to show, None as many as usual.
    It raises KeyError or ValueError where the arrays are not its own.

    For models in use (``winnow predict``) it has ``picture_batch(pixels, names, data, image_size)``, which makes a batch without
    truth of pictures, (H, W, 3) uint8 each, sized as the run's node ``data`` says; and ``found(predictions, batch, classes,
    category_ids)``, which gives one object per picture, with ``record()`` for JSON and ``draw(pixels, min_score)`` for a picture.
    Where a sample is several pictures, ``picture_parts`` names them, and ``pixels`` holds tuples of as many, None for one that is
    absent. Where it is more than pictures, ``read_sample(source, number)`` gives its name and what stands in ``pixels``, and
    ``samples_in(paths, root)`` the sources that files hold; both raise DataError for what can't be read. ``sample_of(picture)``
    makes such a sample of one picture, for ``winnow benchmark``.

    Where ``model_arguments`` asks for more of the data than ``classes`` and ``category_ids``, ``known_data(classes, data)`` makes
    what it takes instead from the run's node ``data``. ``data_of_model`` names keys of that node which belong to the model:
    another data set is evaluated with the run's values of them.

    For ``winnow export`` it has ``onnx_model(task, data, image_size)``, which makes an ``onnx.ModelProto`` whose input is such a
    picture, and ``from_onnx(outputs)``, which makes of its outputs what ``Metric.update`` takes for that picture; its data has
    ``val_pictures(image_size)``, which yields each validation picture as it lies on disk and as a batch of one. A family without
    such a form may say why in ``no_onnx``, the end of a sentence.
    """

    @property
    def model_argument_names(self) -> Sequence[str]:
        """Return the names of what ``model_arguments`` gives, known before data is read."""
        ...

    def model_arguments(self, data: Any) -> dict[str, Any]:
        """Return what a model's builder takes besides the keys of its config node; ``new_metric`` is always among it."""
        ...

    def draw(self, seen: Sequence[tuple[Any, Any]], classes: Sequence[str], folder: Path) -> Path:
        """Draw (batch on the CPU, what ``Task.predictions`` gave for it) into a file in ``folder``, which exists."""
        ...

    def draw_training(self, batches: Sequence[Any], classes: Sequence[str], path: Path, most: int) -> None:
        """Draw the first ``most`` images of ``batches``, which may be on a GPU, as the model gets them, with what is true."""
        ...


class Tracker(Protocol):
    """Where numbers and files of a run go. Never raises into training, never blocks it, never renames a metric."""

    def log_params(self, params: Mapping[str, Any]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None: ...

    def log_artifact(self, path: Path, folder: str = "") -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...

    def flush(self) -> bool:
        """Make what was logged so far survive a kill; a checkpoint must not know more than the log. False where it can't, or
        not within seconds. Called by the thread that writes checkpoints, while training logs on."""
        ...

    def finish(self, status: str) -> None:
        """End the tracked run with winnow's own status word (``completed``, ``diverged`` …)."""
        ...

    @property
    def run_id(self) -> str | None:
        """Return the server's id of the run, once it is known."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class Trial(Protocol):
    """The sweep's ear: hears a value per epoch and says whether to stop. Never raises, never stops anything itself."""

    def report(self, value: float, epoch: int) -> None: ...

    def spend(self, cost: Mapping[str, float]) -> None:
        """Hear after each epoch what the run has cost so far: ``images``, ``images_640`` and ``seconds``."""
        ...

    def should_prune(self) -> bool: ...


@runtime_checkable
class Stateful(Protocol):
    """Something a checkpoint must carry. Touches no files."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
