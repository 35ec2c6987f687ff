"""Models of transformers from a folder that ``save_pretrained`` wrote, with our report of what was loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from winnow.checkpoints.references import FileTensor
from winnow.checkpoints.state_dicts import LoadReport, mark_file_tensors, mark_loaded
from winnow.errors import WeightsError


def model_from_folder(kind: Any, folder: Path, **options: Any) -> tuple[Any, LoadReport]:
    """Return a model of the class ``kind`` with the weights in ``folder``, by transformers' renaming of older ones, and which of
    its entries they filled; that is logged, and noted on the parameters. ``options`` are ``from_pretrained``'s.

    Raises WeightsError where nothing can be read, or less than half of the model is filled.
    """
    try:
        with _quiet_transformers():
            model, info = kind.from_pretrained(folder, output_loading_info=True, local_files_only=True, **options)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"no weights can be read from {str(folder)!r}: {error}") from error
    reshaped = sorted(entry[0] for entry in info["mismatched_keys"])
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    matched = len(model.state_dict()) - len(reshaped) - len(missing)
    report = LoadReport(str(folder), matched, tuple(missing), tuple(reshaped), tuple(unexpected))
    report.log()
    report.require_match()
    own = model.state_dict().keys() - report.random_names
    mark_loaded(model, own, str(folder))
    weights = folder / "model.safetensors"
    if weights.is_file():  # whether the bits are the file's is compared before a checkpoint refers to them
        mark_file_tensors(model, {name: FileTensor(str(folder), weights, name) for name in own})
    return model, report


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers' load report and progress bar, which say what ours says."""
    verbosity, showed_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if showed_bar:
            transformers_logging.enable_progress_bar()
