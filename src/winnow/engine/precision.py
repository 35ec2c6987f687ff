"""Which number format a run computes in, and how its images and weights lie in memory."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from winnow.engine.ranks import ALONE, Ranks
from winnow.errors import ConfigError

logger = logging.getLogger(__name__)

MemoryFormat = Literal["auto", "contiguous", "channels_last"]

LEAST_SCALE = 1.0
"""Of fp16 gradients: a smaller one only takes away what the format can hold, and at 0 every gradient would be finite."""


class FlooredScaler(torch.amp.GradScaler):
    """A gradient scaler whose scale never falls below ``LEAST_SCALE``, nor goes on from a lower one.

    ``has_skipped`` says of the last update whether a gradient was infinite, so that the optimizer's step was left out;
    ``was_least`` whether the scale could not have been lower then.
    """

    has_skipped = was_least = False

    def update(self, new_scale: float | Tensor | None = None) -> None:
        before = self.get_scale()
        super().update(new_scale)
        after = self.get_scale()
        self.has_skipped, self.was_least = after < before, before <= LEAST_SCALE
        if after < LEAST_SCALE:
            super().update(LEAST_SCALE)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "scale": max(LEAST_SCALE, state_dict["scale"])})


@dataclass(frozen=True)
class Precision:
    """``dtype`` of autocast on ``device``, or None for plain float32; ``asked_format`` is ``training.memory_format``."""

    device: torch.device
    dtype: torch.dtype | None
    asked_format: MemoryFormat = "auto"

    @classmethod
    def choose(cls, amp: str, device: torch.device, memory_format: MemoryFormat = "auto") -> Precision:
        """Return what ``training.amp`` and ``training.memory_format`` come to on ``device``. For amp auto is bf16 where the GPU
        has it, else fp16; on a CPU bf16 where it can multiply that format, else off."""
        dtype: torch.dtype | None
        if amp == "auto" and device.type == "cuda":
            dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        elif amp == "auto":
            dtype = torch.bfloat16 if multiplies_bf16() else None
        elif amp == "off":
            dtype = None
        else:
            dtype = torch.bfloat16 if amp == "bf16" else torch.float16
        logger.info("computing in %s on %s", "float32" if dtype is None else f"{dtype} autocast", device)
        return cls(device, dtype, memory_format)

    @property
    def memory_format(self) -> torch.memory_format:
        """Return how images and weights lie in memory. Auto is channels last, but for bf16 on a CPU without AMX, where
        that took 1.4 times as long (benchmarks/README.md).
        """
        if self.asked_format != "auto":
            return torch.contiguous_format if self.asked_format == "contiguous" else torch.channels_last
        is_slow = self.device.type == "cpu" and self.dtype is torch.bfloat16 and not _has_amx()
        return torch.contiguous_format if is_slow else torch.channels_last

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    def new_scaler(self) -> FlooredScaler:
        """Return a gradient scaler, active for fp16 alone: the other formats have float32's range."""
        return FlooredScaler(self.device.type, enabled=self.dtype is torch.float16)


def multiplies_bf16() -> bool:
    """Return whether this CPU has instructions for products of bfloat16 (AVX-512's or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def _has_amx() -> bool:
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """Return the device: ``auto`` is the first GPU where there is one, of many ranks each one's own. Raises ConfigError
    for a device that this machine lacks.
    """
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
