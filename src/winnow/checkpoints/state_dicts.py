"""Weights by name: reading them from a file of any common kind, and how much of them fits a model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from winnow.checkpoints.class_order import ClassHead, in_class_order
from winnow.checkpoints.layouts import read_tensors, read_weights
from winnow.checkpoints.references import FileTensor, reader_of
from winnow.checkpoints.seal import is_of_winnow
from winnow.errors import WeightsError

logger = logging.getLogger(__name__)

NAMES_SHOWN = 8
"""Parameter names listed in a message before it is cut."""
_LOADED_FROM = "winnow_loaded_from"
_DRAWN = "winnow_drawn"
_FILE_TENSOR = "winnow_file_tensor"
_FIRST = 64


@dataclass(frozen=True)
class LoadReport:
    """Which of a model's entries the weights of ``source`` filled. ``missing`` and ``reshaped`` kept their random
    start, ``unexpected`` were in the weights only."""

    source: str
    matched: int
    missing: tuple[str, ...]
    reshaped: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def random_names(self) -> frozenset[str]:
        return frozenset(self.missing) | frozenset(self.reshaped)

    def log(self) -> None:
        """Log one line of counts, and one for each kind of entry that did not match."""
        total = self.matched + len(self.random_names)
        logger.info("weights of %s: %s of %s entries matched", self.source, self.matched, total)
        for kind, names in (("missing", self.missing), ("reshaped", self.reshaped), ("unexpected", self.unexpected)):
            if names:
                fate = "ignored" if kind == "unexpected" else "start from random values"
                logger.warning("weights of %s: %s %s, %s: %s", self.source, len(names), kind, fate, shortened(names))

    def require_match(self) -> None:
        """Raise WeightsError when less than half of the model was filled: these weights belong to another model."""
        total = self.matched + len(self.random_names)
        if 2 * self.matched < total:
            raise WeightsError(
                f"only {self.matched} of {total} entries of the model are in {self.source} with the "
                f"same shape; choose weights of this model (not filled: {shortened(sorted(self.random_names))})"
            )


class FileWeights(dict[str, Tensor]):
    """The tensors of the file ``path`` as they are in it; what a builder makes of them is no longer one. ``classes`` are the
    names that the file gives, None where it gives none."""

    def __init__(self, tensors: Mapping[str, Tensor], path: Path, classes: Sequence[str] | None = None) -> None:
        super().__init__(tensors)
        self.path = path
        self.classes = classes


def read_state(path: Path) -> FileWeights:
    """Read the tensors of a weights file by name, averaged ones where it has them: safetensors, a bare state dict, or a
    checkpoint of any layout in ``checkpoints.layouts``. Nothing in the file is executed. Raises WeightsError naming the
    file.
    """
    file = read_weights(path)
    return FileWeights(file.average or file.weights, path, file.classes)


def load_matching(
    model: nn.Module, state: Mapping[str, Tensor], source: str, in_file: Mapping[str, FileTensor] | None = None
) -> LoadReport:
    """Copy the entries of ``state`` whose name and shape fit into ``model``, and say what fitted.

    ``in_file``: which tensor of a file each entry is; of what ``read_state`` gave it is known. ``source`` is that file as the
    config names it.
    """
    own = model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    mark_loaded(model, fitting, source)
    if in_file is None and isinstance(state, FileWeights):
        in_file = {name: FileTensor(source, state.path, name) for name in fitting}
    mark_file_tensors(model, {name: (in_file or {}).get(name) for name in fitting})
    return compared(own, state, source)


def compared(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> LoadReport:
    """Compare by name and shape how the entries of ``state`` fit those of a model, ``own``."""
    both = own.keys() & state.keys()
    fitting = {name for name in both if own[name].shape == state[name].shape}
    return LoadReport(
        source=source,
        matched=len(fitting),
        missing=tuple(sorted(own.keys() - state.keys())),
        reshaped=tuple(sorted(both - fitting)),
        unexpected=tuple(sorted(state.keys() - own.keys())),
    )


def of_classes(
    state: Mapping[str, Tensor], model: nn.Module, head: ClassHead | None, source: str
) -> Mapping[str, Tensor]:
    """Return ``state`` with the rows of its classes in the order of the model's, where it is of a file."""
    if head is None or not isinstance(state, FileWeights):
        return state
    ordered = in_class_order(state, model.state_dict(), head, state.classes, source)
    return FileWeights(ordered, state.path, state.classes)


def load_pretrained(model: nn.Module, state: Mapping[str, Tensor], source: str, head: ClassHead | None = None) -> None:
    """Load weights that were asked for as ``load_matching`` does, and log it; rows of classes follow their names (``head``: the
    model's). Raises WeightsError if they would fill less than half of the model.
    """
    state = of_classes(state, model, head, source)
    compared(model.state_dict(), state, source).require_match()
    load_matching(model, state, source).log()


def mark_loaded(model: nn.Module, names: Iterable[str], source: str) -> None:
    """Note on the parameters named that their values are those of ``source``; wrapping the model keeps the note.

    For builders that load weights by themselves, so that ``winnow preflight`` can say where they came from (``load_matching``
    and ``load_pretrained`` do it). ``source`` names a file, a folder or a published model.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        if name in parameters:
            setattr(parameters[name], _LOADED_FROM, source)


def loaded_from(parameter: nn.Parameter) -> str | None:
    """Return where the values of a parameter came from; None if they were drawn."""
    source: str | None = getattr(parameter, _LOADED_FROM, None)
    return source


def mark_drawn(model: nn.Module) -> None:
    """Note on the parameters that nothing was loaded into that their values were drawn at random: for builders that know it."""
    for parameter in model.parameters():
        if loaded_from(parameter) is None:
            setattr(parameter, _DRAWN, True)


def origin_of(parameter: nn.Parameter) -> str:
    """Return where the values of a parameter came from: what filled it, ``random``, or ``not known`` where nobody said."""
    return loaded_from(parameter) or ("random" if getattr(parameter, _DRAWN, False) else "not known")


def mark_file_tensors(model: nn.Module, tensors: Mapping[str, FileTensor | None]) -> None:
    """Note on the parameters named which tensor of a weights file their values are, None: of none. A checkpoint may name that
    tensor instead of holding its values (training.frozen_weights)."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in tensors.items():
        if name in parameters:
            setattr(parameters[name], _FILE_TENSOR, tensor)


def frozen_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that don't train, by every name that they have."""
    named = model.named_parameters(remove_duplicate=False)
    return {name: parameter for name, parameter in named if not parameter.requires_grad}


def bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor in the order of its elements, on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def referable(model: nn.Module, run_folder: Path) -> dict[str, FileTensor]:
    """Return the frozen parameters that have the very bits of a tensor in a file, as what they were loaded from is read again
    and compared; what a builder's own reader makes of a file twice. Of no file in ``run_folder`` and of no checkpoint of
    winnow's: those may be deleted."""
    found: dict[str, FileTensor] = {}
    noted = {
        name: (parameter, tensor)
        for name, parameter in frozen_parameters(model).items()
        if isinstance(tensor := getattr(parameter, _FILE_TENSOR, None), FileTensor)
    }
    for file, reader in dict.fromkeys((tensor.file, tensor.reader) for _, tensor in noted.values()):
        if file.resolve().is_relative_to(run_folder.resolve()) or is_of_winnow(file):
            continue
        try:
            contents = [reader_of(reader)(file) for _ in range(2)] if reader else [read_tensors(file)]
        except WeightsError as error:
            logger.warning("the frozen weights of %s are stored, not referenced: %s", file, error)
            continue
        for name, (parameter, tensor) in noted.items():
            if (tensor.file, tensor.reader) != (file, reader):
                continue
            in_file = _name_in_file(contents[0], tensor.name, parameter)
            if in_file is not None and all(_is_same(content[in_file], parameter) for content in contents[1:]):
                found[name] = replace(tensor, name=in_file)
    return found


def _name_in_file(content: Mapping[str, Tensor], name: str, parameter: nn.Parameter) -> str | None:
    """Return the name of the tensor with the bits of ``parameter``: ``name``, or another where loading renamed it."""
    return next((other for other in (name, *content) if other in content and _is_same(content[other], parameter)), None)


def _is_same(value: Tensor, parameter: nn.Parameter) -> bool:
    if value.shape != parameter.shape:
        return False
    own, first = parameter.detach(), slice(0, _FIRST)
    if not torch.equal(bits(value.reshape(-1)[first].to(own.dtype)), bits(own.reshape(-1)[first])):
        return False  # most are told by their first values
    return torch.equal(bits(value.to(own.dtype)), bits(own))


def shortened(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"


def top_modules(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the parameters' names by their first part, without what all of them begin with."""
    parts = [name.split(".") for name in names]
    depth = 1
    while parts and len({tuple(own[:depth]) for own in parts}) == 1 and all(len(own) > depth + 1 for own in parts):
        depth += 1
    modules: dict[str, list[str]] = {}
    for own in parts:
        modules.setdefault(".".join(own[:depth]), []).append(".".join(own))
    return modules
