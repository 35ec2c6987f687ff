"""Weights that don't train: every rank loads its own, so they are neither averaged nor sent, only compared once."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from winnow.errors import WeightsError


def frozen_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that don't train, by every name that they have."""
    named = model.named_parameters(remove_duplicate=False)
    return {name: parameter for name, parameter in named if not parameter.requires_grad}


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


def bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor in the order of its elements, on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def require_same_frozen(own: Tensor, of_rank_0: Tensor, rank: int) -> None:
    """Raise WeightsError where the frozen weights of this ``rank`` are not rank 0's, by their checksums."""
    if not torch.equal(own, of_rank_0):
        raise WeightsError(
            f"the frozen weights of rank {rank} differ from rank 0's: every rank loads its own (model.pretrained, "
            "training.init_from), so the files that they come from must be the same on every machine"
        )
