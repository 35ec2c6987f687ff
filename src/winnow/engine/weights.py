"""Starting from another run's weights, and what a model must not contain."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from winnow.engine.checkpoint_file import read_checkpoint
from winnow.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)


def load_initial_weights(model: nn.Module, path: Path) -> None:
    """Take what fits by name and shape from a checkpoint, and say what did and what did not.

    The averaged weights where the file has them. Raises CheckpointError for a file that can't be read or fits nowhere.
    """
    checkpoint = read_checkpoint(path)
    average = checkpoint["ema_state_dict"]
    saved = average["weights"] if average else checkpoint["model_state_dict"]
    own = model.state_dict()
    matched = {name: value for name, value in saved.items() if name in own and own[name].shape == value.shape}
    reshaped = [name for name in saved if name in own and name not in matched]
    missing = [name for name in own if name not in saved]
    unexpected = [name for name in saved if name not in own]
    if not matched:
        raise CheckpointError(
            f"training.init_from={path}: none of its {len(saved)} tensors fits this model's {len(own)}"
        )
    model.load_state_dict({**own, **matched})
    logger.info(
        "initial weights from %s: %d matched, %d missing, %d of another shape, %d unexpected",
        path, len(matched), len(missing), len(reshaped), len(unexpected),
    )  # fmt: skip
    for kind, names in (("missing", missing), ("of another shape", reshaped), ("unexpected", unexpected)):
        if names:
            logger.warning("%s: %s%s", kind, ", ".join(names[:8]), " …" if len(names) > 8 else "")


def require_batches_for_batch_norm(model: nn.Module, smallest_batch: int) -> None:
    """ConfigError where a batch norm that trains would see a batch of one image: its statistics would be that image alone."""
    if smallest_batch > 1:
        return
    names = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm) and module.affine]
    trained = [name for name in names if next(model.get_submodule(name).parameters()).requires_grad]
    if trained:
        raise ConfigError(
            f"a batch of one image reaches {len(trained)} BatchNorm layers ({trained[0]}, …): raise training.batch_size, set "
            "training.drop_last=true if only the epoch's last batch is that small, freeze these layers (training.freeze), or "
            "choose a model with GroupNorm or frozen BatchNorm"
        )
