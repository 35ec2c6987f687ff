"""A trained model as an ONNX file, kept only where onnxruntime finds with it what the model finds."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from winnow.config.plain import Config
from winnow.engine.progress import Progress
from winnow.errors import ConfigError, DataError, ExportError
from winnow.protocols import Data
from winnow.run_folder import unfinished_name
from winnow.trained.evaluation import evaluation_data, judged_by, size_of

if TYPE_CHECKING:
    from winnow.trained.model import TrainedModel

logger = logging.getLogger(__name__)

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
METRIC = "map"
MOST_APART = 0.001
"""How far the file's average precision may be from the model's."""


@dataclass(frozen=True)
class ExportReport:
    """Where the file lies, and what ``val/map`` of ``num_pictures`` is by the model and by the file."""

    path: Path
    by_model: float
    by_file: float
    num_pictures: int


def export_model(model: TrainedModel, path: Path, overrides: Sequence[str]) -> ExportReport:
    """Write and check the file; see ``TrainedModel.export``."""
    require_extra()
    _require_exportable(model)
    if path.exists():
        raise ConfigError(f"{path} is there already; remove it, or name another file")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder; the file is to lie in it")
    config, data = _data_to_check_on(model, overrides)
    if not hasattr(data, "val_pictures"):
        raise ConfigError(f"{type(data).__name__} can't give pictures to check the file on (val_pictures)")
    size = size_of(model, config)
    file = unfinished_name(path)
    try:
        _write(model, config["data"], size, file)
        report = _compared(model, data, size, path, file)
        file.replace(path)
    finally:
        file.unlink(missing_ok=True)
    return report


def require_extra() -> None:
    """Raise ConfigError where a package of the extra ``export`` can't be imported."""
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"winnow export needs the package {package} ({error}): pip install -e '.[export]'"
            ) from error


def _require_exportable(model: TrainedModel) -> None:
    name = type(model.task).__name__
    if not hasattr(model.evaluation, "onnx_model"):
        why = getattr(model.evaluation, "no_onnx", f"its family has no ONNX form ({type(model.evaluation).__name__})")
        raise ConfigError(f"{name} can't be exported: {why}")
    if not hasattr(model.task, "exportable"):
        raise ConfigError(f"{name} can't be exported: it has no form that torch's exporter takes (exportable)")
    if model.precision.device.type != "cpu" or model.precision.dtype is not None:
        raise ConfigError(
            f"the model is loaded on {model.precision.device} in {model.precision.dtype or 'float32'}, and a file computes in "
            "float32; load it with device=cpu and precision=off"
        )


def _data_to_check_on(model: TrainedModel, overrides: Sequence[str]) -> tuple[Config, Data]:
    try:
        return evaluation_data(model, overrides, "val", batch_size=1)
    except DataError as error:
        if overrides:
            raise
        raise DataError(
            f"{error}; where the run's own data is not at hand, --data names another to check the file on"
        ) from error


def _write(model: TrainedModel, node: dict[str, Any], size: int, file: Path) -> None:
    import onnx

    name = type(model.task).__name__
    logger.info("exporting %s for pictures of %d px; that takes a minute", name, size)
    try:
        exported = model.evaluation.onnx_model(model.task, node, size)  # type: ignore[attr-defined]
    except Exception as error:  # what a tracer raises on somebody's model is without end
        words = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"{name} can't be exported: torch's exporter does not take it ({type(error).__name__}: {words})"
        ) from error
    facts: dict[str, Any] = {"names": list(model.classes), "image_size": size, "winnow": version("winnow-train")}
    if model.has_category_ids:
        facts["category_ids"] = list(model.category_ids)
    else:
        logger.warning(
            "%s lacks the data set's category ids, so the file has none: its labels count from 0", model.path
        )
    onnx.helper.set_model_props(exported, {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()})
    try:
        onnx.save(exported, file)
    except OSError as error:
        raise ConfigError(f"{file.parent} can't be written: {error}") from error


@torch.inference_mode()
def _compared(model: TrainedModel, data: Data, size: int, path: Path, file: Path) -> ExportReport:
    """Return what the same evaluator makes of what model and file find on each validation picture by itself. Raises ExportError
    where they differ."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    task = judged_by(model, data)
    by_model, by_file = task.new_metric(), task.new_metric()
    num_pictures = 0
    with Progress().task("check", data.num_val_batches()) as advance:
        for pixels, batch in data.val_pictures(size):  # type: ignore[attr-defined]
            by_model.update(task.predictions(task.forward(batch), batch), batch)
            outputs = session.run(None, {session.get_inputs()[0].name: pixels})
            by_file.update(model.evaluation.from_onnx(outputs), batch)  # type: ignore[attr-defined]
            num_pictures += 1
            advance(samples=1)
    if not num_pictures:
        raise DataError("no validation picture can be read: the file was not checked, and is deleted")
    expected, found = (metric.compute().get(METRIC) for metric in (by_model, by_file))
    if expected is None or found is None:
        raise DataError(
            f"none of {num_pictures} validation pictures has an annotation: the file was not checked, and is deleted"
        )
    if not abs(found - expected) <= MOST_APART:
        raise ExportError(
            f"{path} was deleted: by onnxruntime val/map is {found:.4f}, by the model itself {expected:.4f} on {num_pictures} "
            f"pictures, and {MOST_APART} apart is allowed"
        )
    return ExportReport(path, expected, found, num_pictures)
