"""winnow: train detectors, search their settings, and use what was trained."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from winnow.trained.load import load
    from winnow.trained.model import TrainedModel

__all__ = ["TrainedModel", "load"]


def __getattr__(name: str) -> Any:
    # Only when one of them is used: most of winnow's commands need no torch.
    if name == "load":
        from winnow.trained.load import load

        return load
    if name == "TrainedModel":
        from winnow.trained.model import TrainedModel

        return TrainedModel
    raise AttributeError(f"module 'winnow' has no attribute {name!r}")
