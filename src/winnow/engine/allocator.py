"""The C library's memory on a CPU: what a step frees is kept for the next one."""

from __future__ import annotations

import ctypes
import logging
import platform

logger = logging.getLogger(__name__)

# Parameters of mallopt(3) and what they are set to, in bytes.
M_TRIM_THRESHOLD, KEEP_FREE = -1, 2**31 - 1
M_MMAP_THRESHOLD, LARGEST_KEPT = -3, 2**30


def keep_freed_memory() -> bool:
    """Let blocks of up to 1 GiB be taken from the heap, and let up to 2 GiB that were freed stay there; False where the C
    library is not glibc, or refuses.

    By default each activation of some MB is mapped anew and given back in every step, and the kernel clears its pages
    each time: a quarter of a step of fcos_tiny (benchmarks/README.md). The most that fcos_tiny held at a time did not change.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    is_set = bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)) and bool(mallopt(M_TRIM_THRESHOLD, KEEP_FREE))
    if not is_set:
        logger.warning("glibc refuses to keep freed memory: steps on a CPU take longer")
    return is_set
