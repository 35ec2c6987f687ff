"""Weights that don't train: every rank loads its own, so they are neither averaged nor sent, only compared once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from winnow.checkpoints.disk_room import in_units
from winnow.checkpoints.references import FileTensor
from winnow.checkpoints.state_dicts import bits, frozen_parameters, referable
from winnow.errors import WeightsError

logger = logging.getLogger(__name__)


def changing_tensors(model: nn.Module) -> list[Tensor]:
    """Return what training changes: the parameters that train, and all buffers."""
    frozen = frozen_parameters(model)
    return [value for name, value in model.state_dict().items() if name not in frozen]


def frozen_checksum(model: nn.Module) -> Tensor:
    """Return the SHA-256 of the frozen parameters, their names, types and shapes, as 32 bytes on the CPU."""
    sha = hashlib.sha256()
    for name, parameter in frozen_parameters(model).items():
        sha.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
        sha.update(bits(parameter).numpy().data)
    return torch.frombuffer(bytearray(sha.digest()), dtype=torch.uint8)


def require_same_frozen(own: Tensor, of_rank_0: Tensor, rank: int) -> None:
    """Raise WeightsError where the frozen weights of this ``rank`` are not rank 0's, by their checksums."""
    if not torch.equal(own, of_rank_0):
        raise WeightsError(
            f"the frozen weights of rank {rank} differ from rank 0's: every rank loads its own (model.pretrained, "
            "training.init_from), so the files that they come from must be the same on every machine"
        )


class References:
    """Which frozen weights of a run in ``run_folder`` its checkpoints name instead of holding them, found out at the first."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder
        self._found: dict[str, tuple[FileTensor, int]] | None = None

    def of(self, model: nn.Module) -> dict[str, FileTensor]:
        """Return the tensor of a file that each such parameter of ``model`` is; one that was changed since is none any more."""
        frozen = frozen_parameters(model)
        if self._found is None:
            found = referable(model, self._run_folder)
            self._found = {name: (tensor, frozen[name]._version) for name, tensor in found.items()}
            self._log(frozen)
        return {
            name: tensor
            for name, (tensor, version) in self._found.items()
            if name in frozen and frozen[name]._version == version
        }

    def _log(self, frozen: Mapping[str, nn.Parameter]) -> None:
        found = self._found or {}
        sizes = {name: value.numel() * value.element_size() for name, value in frozen.items()}
        logger.info(
            "training.frozen_weights=referenced: of %s in frozen weights checkpoints name %s by their file (%s)",
            in_units(sum(sizes.values())), in_units(sum(sizes[name] for name in found)),
            ", ".join(dict.fromkeys(tensor.source for tensor, _ in found.values())) or "none was taken unchanged from one",
        )  # fmt: skip
