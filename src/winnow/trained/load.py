"""A trained model from its checkpoint alone: no data set, no config and no code beside it is needed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch.nn.modules.module import register_module_parameter_registration_hook

from winnow.checkpoints.file import read_checkpoint
from winnow.checkpoints.folder import checkpoint_in
from winnow.checkpoints.layouts import with_frozen_weights
from winnow.checkpoints.pretrained import standing_in
from winnow.config.instantiate import instantiate
from winnow.config.plain import Config
from winnow.config.recorded import followed_config
from winnow.engine.precision import Precision, choose_device
from winnow.engine.restorable import require_content
from winnow.engine.schedule import SizeSchedule
from winnow.engine.seeding import undisturbed_rng
from winnow.engine.settings import amp_word
from winnow.errors import CheckpointError, ConfigError, WeightsError
from winnow.protocols import Task
from winnow.reading import naming, reason
from winnow.run.build import checked_evaluation
from winnow.run.rehearsal import only_errors
from winnow.settings import MAX_IMAGE_SIZE, Settings, build_settings
from winnow.trained.model import TrainedModel

Which = Literal["best", "last"]

_Size = Annotated[int, Field(ge=1, le=MAX_IMAGE_SIZE)]


class _UsedTraining(Settings):
    batch_size: int = Field(gt=0)
    amp: Literal["auto", "off", "bf16", "fp16"]
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    resize_schedule: list[Annotated[tuple[int, _Size], Field(strict=False)]] | None = Field(None, min_length=1)

    _amp_word = field_validator("amp", mode="before")(amp_word)


class _UsedData(Settings):
    image_size: _Size | None = None  # not every family has one


class _Used(Settings):
    """What of a recorded config a model in use goes by, besides its nodes ``model`` and ``evaluation``."""

    training: _UsedTraining
    data: _UsedData


@dataclass(frozen=True)
class KnownClasses:
    """What a checkpoint knows of the data that its model was trained on; ``category_ids`` are the data set's own, by label."""

    classes: Sequence[str]
    category_ids: Sequence[int]


def load(
    run: str | Path,
    which: Which = "best",
    device: str = "auto",
    precision: str | None = None,
    trusted_targets: Sequence[str] = (),
    frozen_source: str | None = None,
) -> TrainedModel:
    """Return the trained model of a run folder, or of a checkpoint file.

    ``which``: best.pth or last.pth of a folder. The weights are those that were evaluated: with EMA the average. ``device`` is
    ``auto``, ``cpu`` or ``cuda``; ``precision`` is ``off`` (float32), ``bf16``, ``fp16`` or ``auto``, None as in training.
    ``trusted_targets`` names packages of one's own that the model needs: a file never chooses what is executed.
    ``frozen_source`` is where a file is now that frozen weights were taken from.

    Raises CheckpointError for a damaged file, ConfigError for what is not trusted or not allowed, WeightsError where the weights
    don't fit the model.
    """
    if which not in ("best", "last"):
        raise ConfigError(f"which={which!r} must be best or last")
    if precision not in (None, "off", "bf16", "fp16", "auto"):
        raise ConfigError(f"precision={precision!r} must be off, bf16, fp16 or auto")
    path = Path(run)
    if not os.path.exists(path):  # also false for a name that no file can have
        raise CheckpointError(f"{path} does not exist; name a run folder or a checkpoint")
    path = checkpoint_in(path, which) if path.is_dir() else path
    content = with_frozen_weights(read_checkpoint(path), path, frozen_source)
    require_content(content, path)
    config = followed_config(content, list(trusted_targets), str(path))
    with naming(path, "the config of "):
        used = _used(config)
    amp = used.training.amp if precision is None else precision
    chosen = Precision.choose(amp, choose_device(device), used.training.memory_format)
    known = KnownClasses(content["classes"], category_ids_of(content))
    with naming(path, "the config of "):
        evaluation = checked_evaluation(config)
        of_data = evaluation.known_data(known.classes, config["data"]) if hasattr(evaluation, "known_data") else known
        task = build_task(config, evaluation.model_arguments(of_data), content["model_state_dict"], path)
    task.model.to(chosen.device).to(memory_format=chosen.memory_format)
    task.model.eval()
    return TrainedModel(
        path=path,
        config=config,
        task=task,
        evaluation=evaluation,
        precision=chosen,
        classes=tuple(known.classes),
        category_ids=tuple(known.category_ids),
        has_category_ids="category_ids" in content["metadata"],
        image_size=SizeSchedule.of(used.training.resize_schedule, used.data.image_size or 0).final,
        epoch=content["epoch"],
        metrics=dict(content["metrics"]),
    )


def category_ids_of(content: Mapping[str, Any]) -> list[int]:
    """Return the data set's own category ids by label; labels from 0 where the checkpoint lacks them."""
    ids = content["metadata"].get("category_ids")
    classes = content["classes"]
    is_whole = isinstance(ids, list) and len(ids) == len(classes) and all(type(number) is int for number in ids)
    return list(ids) if is_whole else list(range(len(classes)))


def build_task(config: Config, arguments: Mapping[str, Any], weights: Mapping[str, torch.Tensor], path: Path) -> Task:
    """Return the task of ``config`` with ``weights``. It is built without its pretrained weights, which may be gone by now; where
    another model comes out so, as if its own were those, and with them only where that does not do. Raises WeightsError where
    the weights don't fit, before there is memory for a model of another size."""
    nodes = [config["model"]]
    # The run asked for the kernel where it trained; here it is used where it can be had.
    if nodes[0].get("attention") == "kernel":
        nodes[0] = {**nodes[0], "attention": "auto"}
    found: list[AbstractContextManager[None]] = [nullcontext()]
    if nodes[0].get("pretrained", False) is not False:
        nodes = [{**nodes[0], "pretrained": False}, nodes[0], nodes[0]]
        found = [nullcontext(), _suppressing_misfits(weights), nullcontext()]
    for node, as_found in zip(nodes, found, strict=True):
        build = partial(instantiate, {**config, "model": node}, "model", **arguments)
        # not that it starts from random weights: it gets its own right after
        with undisturbed_rng(), only_errors(), as_found:
            wrong = _differences(weights, _without_memory(build, len(weights)).model.state_dict())
            if not wrong:
                task: Task = build()
                task.model.load_state_dict(dict(weights))
                return task
    raise WeightsError(
        f"the weights of {path} don't fit the model that its config names:\n  " + "\n  ".join(wrong[:10])
    )


@contextmanager
def _suppressing_misfits(weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Have ``weights`` stand in for pretrained ones; a model that can't begin from them is none."""
    with suppress(WeightsError), standing_in(weights):
        yield


def _without_memory(build: Callable[[], Task], num_weights: int) -> Task:
    """Return a task whose weights have a shape and no values, or a whole one where its model reads them while it is built. Raises
    WeightsError for a model that can't be built, or has many more parameters than ``num_weights``: a file may name one of any
    size and depth."""
    most, seen = 10 * num_weights + 1000, itertools.count(1)

    def count(*_: Any) -> None:
        if next(seen) > most:
            raise WeightsError(f"the model has more than {most} weights, and the file holds {num_weights}")

    counting = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError, TypeError):
        seen = itertools.count(1)
        try:
            return build()
        except (MemoryError, RuntimeError, TypeError) as error:
            raise WeightsError(f"the model that its config names can't be built: {reason(error)}") from error
    finally:
        counting.remove()


def _used(config: Config) -> _Used:
    values = {
        node: {name: config[node][name] for name in kind.model_fields.keys() & config[node].keys()}
        for node, kind in (("training", _UsedTraining), ("data", _UsedData))
    }
    return build_settings(_Used, values, "")


def _differences(saved: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    shapes = [{name: tuple(value.shape) for name, value in weights.items()} for weights in (saved, own)]
    return [
        f"{name}: {shapes[0].get(name, 'absent')} in the file, {shapes[1].get(name, 'absent')} in the model"
        for name in sorted(shapes[0].keys() | shapes[1].keys())
        if shapes[0].get(name) != shapes[1].get(name)
    ]
