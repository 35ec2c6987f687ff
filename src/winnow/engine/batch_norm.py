"""Batch norm in training: batches that are too small for it, and statistics over all ranks."""

from __future__ import annotations

import logging

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from winnow.engine.ranks import Ranks
from winnow.errors import ConfigError

logger = logging.getLogger(__name__)


def require_batches_for_batch_norm(model: nn.Module, smallest_batch: int) -> None:
    """Raise ConfigError if a batch norm that trains would see a batch of one image: its statistics would be that image
    alone.
    """
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


def synchronise_batch_norm(model: nn.Module, device: torch.device, ranks: Ranks) -> nn.Module:
    """Return ``model`` with batch norms that see the images of all ranks; names in its state stay. Raises ConfigError
    if that can't be.
    """
    if device.type != "cuda":
        raise ConfigError("training.sync_batch_norm=true: torch has it for GPUs only; set it to false on a CPU")
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        logger.warning("training.sync_batch_norm=true changes nothing: this model has no batch norm that trains")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model) if ranks.size > 1 else model


def require_share_of_each(smallest_share: int) -> None:
    """Raise ConfigError if a rank would go without an image: its synchronised batch norms would leave the others waiting."""
    if smallest_share == 0:
        raise ConfigError(
            "training.sync_batch_norm=true: the epoch's last batch has fewer images than there are ranks, and each must take "
            "part; set training.drop_last=true"
        )
