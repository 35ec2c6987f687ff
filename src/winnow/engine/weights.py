"""Starting from another run's weights, and what a model must not contain."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from winnow.checkpoint_layouts import aligned
from winnow.engine.checkpoint_file import read_checkpoint
from winnow.engine.handover import require_allowed
from winnow.engine.ranks import Ranks
from winnow.engine.seal import is_sealed
from winnow.errors import ConfigError, WeightsError
from winnow.state_dicts import LoadReport, compared, load_matching, read_state

logger = logging.getLogger(__name__)


def load_initial_weights(model: nn.Module, path: Path, may_differ: Sequence[str] | None = None) -> LoadReport:
    """Take what fits by name and shape from a checkpoint or a weights file, and say what did and what did not.

    The averaged weights where a checkpoint has them. ``may_differ`` (``stage.init_allow_missing``) holds the prefixes of the
    parameters that need not be the same on both sides; None: all. Raises CheckpointError for a damaged checkpoint, WeightsError
    for a file that can't be read, fits nowhere, or differs elsewhere.
    """
    state = _checkpoint_weights(path) if is_sealed(path) else _foreign_weights(path, model)
    report = compared(model.state_dict(), state, str(path))
    if report.matched == 0:
        raise WeightsError(f"training.init_from={path}: none of its {len(state)} tensors fits this model")
    if may_differ is not None:
        require_allowed(report, may_differ)
    load_matching(model, state, str(path))
    report.log()
    return report


def _checkpoint_weights(path: Path) -> dict[str, Tensor]:
    checkpoint = read_checkpoint(path)
    average = checkpoint["ema_state_dict"]
    return dict(average["weights"] if average else checkpoint["model_state_dict"])


def _foreign_weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    state, changed = aligned(read_state(path), model.state_dict())
    if changed is not None:
        logger.warning("weights of %s: %s, for so they fit this model", path, changed)
    return state


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


def synchronise_batch_norm(model: nn.Module, device: torch.device, ranks: Ranks) -> nn.Module:
    """``model`` with batch norms that see the images of all ranks; names in its state stay. ConfigError where that can't be."""
    if device.type != "cuda":
        raise ConfigError("training.sync_batch_norm=true: torch has it for GPUs only; set it to false on a CPU")
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        logger.warning("training.sync_batch_norm=true changes nothing: this model has no batch norm that trains")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model) if ranks.size > 1 else model


def require_share_of_each(smallest_share: int) -> None:
    """ConfigError where a rank would go without an image: its synchronised batch norms would leave the others waiting."""
    if smallest_share == 0:
        raise ConfigError(
            "training.sync_batch_norm=true: the epoch's last batch has fewer images than there are ranks, and each must take "
            "part; set training.drop_last=true"
        )
