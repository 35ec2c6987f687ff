"""The most memory that a piece of work held at a time, on a GPU or in this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# Resets the high-water mark to what is held now: proc(5).
_RESET_PEAK = "5"


class PeakMemory:
    """Of ``device``: what torch allocated on a GPU; on a CPU the resident memory of this whole process, where freed memory
    that is kept for the next step counts."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def restart(self) -> None:
        """Forget what was held before. Only Linux can do that for a process; elsewhere the peak is that of its whole life."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif _CLEAR.exists():
            try:
                _CLEAR.write_text(_RESET_PEAK)
            except OSError:
                return  # a sandbox may forbid it

    def read(self) -> int:
        """Return the peak in bytes."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        if _STATUS.exists():
            lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
            if "VmHWM" in lines:
                return int(lines["VmHWM"].split()[0]) * 1024
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
