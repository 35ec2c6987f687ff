"""The language model itself: from a transformers folder or a GGUF file, or of random weights; the base model, without a head."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModel

from winnow.checkpoints.references import FileTensor, reader_name
from winnow.checkpoints.shapes import is_shapes_only
from winnow.checkpoints.state_dicts import mark_file_tensors, mark_loaded, shortened
from winnow.errors import ConfigError, WeightsError
from winnow.families.maps.extra import require_package
from winnow.families.maps.language.gguf import ARCHITECTURES, is_gguf, read_gguf
from winnow.families.maps.language.settings import LanguageSettings, LoraSettings, RandomLanguageModelSettings
from winnow.families.pretrained_folder import model_from_folder

logger = logging.getLogger(__name__)

_INDEX, _WEIGHTS = "model.safetensors.index.json", "model.safetensors"
_PREFIX = "model."
"""What a model with a head puts before the names of its base model."""


def language_model(settings: LanguageSettings) -> Any:
    """Return the base model of ``model.llm_path``, its first ``llm_layers``, or a random one: frozen, but for LoRA's matrices.

    Raises ConfigError for a path that is not there or a missing package, WeightsError for weights that don't fit.
    """
    options = {"attn_implementation": settings.llm_attention, "dtype": getattr(torch, settings.llm_dtype)}
    if settings.llm_path is None:
        model: Any = AutoModel.from_config(_cut(_random_config(settings.llm_random), settings.llm_layers), **options)
    else:
        path = _existing(settings.llm_path)
        config = _cut(_stored_config(path), settings.llm_layers)
        if is_shapes_only():
            model = AutoModel.from_config(config, **options)
        elif is_gguf(path):
            model = _from_gguf(path, settings.llm_path, config, options)
        else:
            model = _from_folder(path, settings.llm_path, config, options)
    model.requires_grad_(False)
    if settings.llm == "lora":
        add_lora(model, settings.lora)
    return model


def add_lora(model: nn.Module, settings: LoraSettings) -> None:
    """Put LoRA's matrices, which train in float32, beside the linear layers of a frozen model. Raises ConfigError."""
    require_package("peft", "model.llm=lora")
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.tuners_utils import cast_adapter_dtype

    try:
        inject_adapter_in_model(
            LoraConfig(
                r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.targets), lora_dropout=0.0
            ),
            model,
        )
    except ValueError as error:
        raise ConfigError(f"model.lora.targets={list(settings.targets)}: {error}") from error
    cast_adapter_dtype(model, "default", autocast_adapter_dtype=True)


def _existing(llm_path: str) -> Path:
    path = Path(llm_path).expanduser()
    if is_gguf(path) or (path / "config.json").is_file():
        return path
    raise ConfigError(
        f"model.llm_path={llm_path!r} is neither a folder of transformers, with config.json, nor a GGUF file; null: a random one"
    )


def _stored_config(path: Path) -> Any:
    """Return the config beside or in the weights. Raises WeightsError for another kind of model than Llama and Qwen."""
    if is_gguf(path):
        require_package("gguf", f"model.llm_path={str(path)!r}")
    where = (path.parent, {"gguf_file": path.name}) if is_gguf(path) else (path, {})
    try:
        config = AutoConfig.from_pretrained(where[0], local_files_only=True, **where[1])
    except Exception as error:  # transformers' parsers of damaged files raise errors of all kinds
        raise WeightsError(f"model.llm_path={str(path)!r} has no config that can be read: {error!r}") from error
    if config.model_type not in ARCHITECTURES:
        raise WeightsError(
            f"model.llm_path={str(path)!r} is a {config.model_type}; allowed: {', '.join(ARCHITECTURES)}"
        )
    config.attention_dropout = 0.0
    return config


def _random_config(shape: RandomLanguageModelSettings) -> Any:
    return AutoConfig.for_model(
        shape.model_type,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_key_value_heads,
        head_dim=shape.hidden_size // shape.num_heads,
        vocab_size=shape.vocab_size,
        initializer_range=shape.initializer_range,
        attention_dropout=0.0,
    )


def _cut(config: Any, num_layers: int | None) -> Any:
    if num_layers is None:
        return config
    if num_layers > config.num_hidden_layers:
        raise ConfigError(
            f"model.llm_layers={num_layers}, but the model has {config.num_hidden_layers}; null: all of them"
        )
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:num_layers]
    return config


def _from_gguf(path: Path, source: str, config: Any, options: Mapping[str, Any]) -> Any:
    model: Any = AutoModel.from_config(config, **options)
    content = read_gguf(path)
    own = model.state_dict()
    missing = sorted(own.keys() - content.keys())
    if missing:
        raise WeightsError(f"{path} lacks {', '.join(missing[:8])} of its own model")
    for name, value in own.items():
        tensor = content[name]
        if tensor.shape != value.shape:
            raise WeightsError(f"{path}: {name} is {tuple(tensor.shape)}, but its config makes it {tuple(value.shape)}")
        value.copy_(tensor)
    _mark(model, source, {name: FileTensor(source, path, name, reader_name(read_gguf)) for name in own})
    return model


def _from_folder(path: Path, source: str, config: Any, options: Mapping[str, Any]) -> Any:
    files = _files_by_tensor(path)
    model, report = model_from_folder(AutoModel, path, config=config, use_safetensors=True, **options)
    if report.random_names:
        lacking = shortened(sorted(report.random_names))
        raise WeightsError(
            f"model.llm_path={source!r}: {len(report.random_names)} tensors are missing or misshapen: {lacking}"
        )
    names = {name: next(n for n in (_PREFIX + name, name) if n in files) for name in model.state_dict()}
    _mark(model, source, {name: FileTensor(source, files[stored], stored) for name, stored in names.items()})
    return model


def _files_by_tensor(folder: Path) -> dict[str, Path]:
    """Return the name of each tensor of a folder → the safetensors file that holds it."""
    try:
        if (folder / _INDEX).is_file():
            index = json.loads((folder / _INDEX).read_text())
            return {name: folder / file for name, file in index["weight_map"].items()}
        with safe_open(folder / _WEIGHTS, "pt") as file:
            return dict.fromkeys(file.keys(), folder / _WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise WeightsError(f"{folder} holds no weights in safetensors that can be read: {error}") from error


def _mark(model: nn.Module, source: str, tensors: Mapping[str, FileTensor]) -> None:
    mark_loaded(model, tensors, source)
    mark_file_tensors(model, tensors)
