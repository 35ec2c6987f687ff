"""A trained model evaluated on data, its own or another set, as its run did."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from winnow.config.compose import compose_command_line
from winnow.config.instantiate import check_node, instantiate
from winnow.config.plain import Config
from winnow.config.recorded import with_values
from winnow.data.plan import LoadingSettings
from winnow.engine.evaluate import evaluate
from winnow.engine.progress import Progress
from winnow.errors import ConfigError, DataError
from winnow.protocols import Data, Metric, Task
from winnow.reading import naming
from winnow.settings import build_settings

if TYPE_CHECKING:
    from winnow.trained.model import TrainedModel

# Of a data node, what belongs to how a model is evaluated rather than to the data.
_OF_EVALUATION = ("image_size", "resize")


class _WithMetric:
    """A task that is judged by another metric; all else is the task's own."""

    def __init__(self, task: Task, new_metric: Any) -> None:
        self._task = task
        self._new_metric = new_metric

    def new_metric(self) -> Metric:
        metric: Metric = self._new_metric()
        return metric

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


def evaluate_model(
    model: TrainedModel, overrides: Sequence[str], split: str, batch_size: int | None
) -> dict[str, float]:
    """Return ``val/…`` of the data that ``overrides`` make of the run's own; see ``TrainedModel.evaluate``."""
    config, data = evaluation_data(model, overrides, split, batch_size)
    return evaluate(judged_by(model, data), data, size_of(model, config), model.precision, Progress())


def evaluation_data(
    model: TrainedModel, overrides: Sequence[str], split: str, batch_size: int | None
) -> tuple[Config, Data]:
    """Return the config of an evaluation on ``split``, and data whose validation batches are that split. Raises ConfigError for
    a split that the data has not, or for other classes than the model's; DataError where there is nothing to evaluate on."""
    is_own = not any(text.startswith("data=") for text in overrides)
    with naming(model.path, "the data of the run of ") if is_own else contextlib.nullcontext():
        of_model = tuple(getattr(model.evaluation, "data_of_model", ()))
        config = {**model.config, "data": data_node(model.config, overrides, of_model)}
        _require_values_of_model(model, config["data"], of_model)
        check_node(config, "data", ["loading"])
        data = _data_of_split(config, loading_of(config, batch_size), split)
    if list(data.classes) != list(model.classes):
        raise ConfigError(
            f"the model of {model.path} knows the classes {list(model.classes)}, and this data has {list(data.classes)}"
            + ("; data.classes=[…] chooses and orders them by name" if "classes" in config["data"] else "")
        )
    if not data.num_val_batches():
        raise DataError("the data has no validation images; split=train evaluates those that were trained on")
    return config, data


def _data_of_split(config: Config, loading: LoadingSettings, split: str) -> Data:
    if split == "train":  # an overfit run is evaluated on all that it trains on
        data: Data = instantiate(config, "data", loading=loading)
        return instantiate(config, "data", loading=loading.model_copy(update={"overfit": data.num_train_samples}))
    data = instantiate(config, "data", loading=loading.model_copy(update={"val_split": split}))
    if split != "val" and getattr(data, "val_split", "val") != split:
        raise ConfigError(f"split={split!r}: this data has train, val")
    return data


def judged_by(model: TrainedModel, data: Data) -> Task:
    """Return the model's task with the metric of ``data``, which may number its categories otherwise, or lie in other cities."""
    goes_by_data = hasattr(data, "category_ids") or hasattr(model.evaluation, "known_data")
    arguments = model.evaluation.model_arguments(data)
    judged: Any = _WithMetric(model.task, arguments["new_metric"]) if goes_by_data else model.task
    task: Task = judged
    return task


def _require_values_of_model(model: TrainedModel, node: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raise ConfigError where ``node`` has another value than the run's of a key that belongs to the model."""
    for key in keys:
        if node.get(key) != model.config["data"].get(key):
            raise ConfigError(
                f"data.{key}={node.get(key)}: the model of {model.path} was trained for "
                f"data.{key}={model.config['data'].get(key)}"
            )


def data_node(config: Config, overrides: Sequence[str], of_model: Sequence[str] = ()) -> dict[str, Any]:
    """Return the node ``data``: the recorded one with single values changed, or another choice, composed from the project's
    configs, at the size at which the run is evaluated, and with its values of the keys ``of_model``, unless others are asked for.
    Raises ConfigError for what is no override of ``data``."""
    for text in overrides:
        if not text.lstrip("+~").startswith(("data=", "data.")):
            raise ConfigError(f"{text!r} says nothing of the data; allowed: data=CHOICE and data.KEY=VALUE")
    if any(text.startswith("data=") for text in overrides):
        node = dict(compose_command_line(None, overrides).config["data"])
        asked = {text.lstrip("+~").partition("=")[0] for text in overrides}
        own = {
            key: config["data"][key]
            for key in (*_OF_EVALUATION, *of_model)
            if key in config["data"] and f"data.{key}" not in asked
        }
        return {**node, **{key: value for key, value in own.items() if key in node}}
    return dict(with_values({"data": config["data"]}, list(overrides))["data"])


def loading_of(config: Config, batch_size: int | None) -> LoadingSettings:
    """Return how the run loaded its data, in batches of another size where one is asked for."""
    training = config["training"]
    values = {name: training[name] for name in LoadingSettings.model_fields.keys() & training.keys()}
    if batch_size is not None:
        values["batch_size"] = batch_size
    return build_settings(LoadingSettings, {**values, "drop_last": False, "class_balance": "none"}, "training")


def size_of(model: TrainedModel, config: Config) -> int:
    """Return the image size to evaluate at: the run's, or another one that was asked for."""
    asked = config["data"].get("image_size")
    return asked if asked != model.config["data"].get("image_size") and isinstance(asked, int) else model.image_size
