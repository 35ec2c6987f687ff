"""Which number format a run computes in."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from winnow.engine.ranks import ALONE, Ranks
from winnow.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precision:
    """``dtype`` of autocast on ``device``, or None for plain float32."""

    device: torch.device
    dtype: torch.dtype | None

    @classmethod
    def choose(cls, amp: str, device: torch.device) -> Precision:
        """From ``training.amp``: auto is bf16 where the GPU has it, else fp16; on a CPU bf16 where it has AMX, else off."""
        dtype: torch.dtype | None
        if amp == "auto" and device.type == "cuda":
            dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        elif amp == "auto":
            dtype = torch.bfloat16 if has_bf16_matrix_units() else None
        elif amp == "off":
            dtype = None
        else:
            dtype = torch.bfloat16 if amp == "bf16" else torch.float16
        logger.info("computing in %s on %s", "float32" if dtype is None else f"{dtype} autocast", device)
        return cls(device, dtype)

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    def new_scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler, active for fp16 alone: the other formats have float32's range."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)


def has_bf16_matrix_units() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in units of their own (Intel's AMX).

    AVX-512's bfloat16 instructions alone are no reason: autocast with them took longer than float32 (benchmarks/README.md).
    """
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """``auto`` is the first GPU where there is one, of many ranks each one's own; ConfigError for a device that this machine
    lacks."""
    if ranks.size > 1:
        return _device_of_rank(name, ranks)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(f"training.device={name!r}: this machine has {count} CUDA devices; use auto or cpu")
    return device


def _device_of_rank(name: str, ranks: Ranks) -> torch.device:
    count = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and count == 0):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise ConfigError(f"training.device={name!r} is one device for {ranks.size} ranks; use auto, cuda or cpu")
    if ranks.local_size > count:
        raise ConfigError(
            f"{ranks.local_size} ranks on this machine, which has {count} CUDA devices; use fewer ranks or training.device=cpu"
        )
    device = torch.device("cuda", ranks.local_rank)
    torch.cuda.set_device(device)
    return device
