"""What ``training.deterministic=true`` forbids: said with the names of all operations that lack a deterministic kernel."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

from winnow.errors import ConfigError

Result = TypeVar("Result")

# As torch words it in its error and in its warning, behind the operation's name.
_LACKS = " does not have a deterministic implementation"


def require_deterministic(work: Callable[[], Result], device: torch.device, during: str) -> Result:
    """Return what ``work`` gives.

    With training.deterministic=true torch ends it at its first operation without a deterministic kernel. Then ``work`` is done
    once more with any kernel, and ConfigError raised with the names of all such operations and with what can be done.
    """
    try:
        return work()
    except RuntimeError as error:
        if _LACKS not in str(error):
            raise
        names = _operations_without(work) or [str(error).partition(_LACKS)[0]]
        advice = "set training.deterministic=false, where equal runs differ by rounding, or choose another model"
        if device.type != "cpu":
            advice += ", or train on the CPU (training.device=cpu)"
        raise ConfigError(
            f"training.deterministic=true, but {len(names)} operation{'s' * (len(names) > 1)} in {during} on {device} "
            f"{'have' if len(names) > 1 else 'has'} no deterministic kernel: {', '.join(names)}; {advice}"
        ) from error


def _operations_without(work: Callable[[], object]) -> list[str]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with contextlib.suppress(RuntimeError):  # memory may be short by now; what was found is worth telling
                work()
    finally:
        torch.use_deterministic_algorithms(True)
    texts = [str(warning.message) for warning in caught]
    return list(dict.fromkeys(text.partition(_LACKS)[0] for text in texts if _LACKS in text))
