"""winnow: train detectors, search their settings, and use what was trained."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from winnow.commands.from_python import call, compose
    from winnow.trained.diagnose import diagnose
    from winnow.trained.load import load
    from winnow.trained.model import TrainedModel

__all__ = ["TrainedModel", "call", "compose", "diagnose", "load"]

_HOMES = {
    "TrainedModel": "winnow.trained.model",
    "call": "winnow.commands.from_python",
    "compose": "winnow.commands.from_python",
    "diagnose": "winnow.trained.diagnose",
    "load": "winnow.trained.load",
}


def __getattr__(name: str) -> Any:
    # Only when one of them is used: most of winnow's commands need no torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'winnow' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
