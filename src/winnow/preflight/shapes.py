"""What a run will hold in memory, from shapes alone: ``winnow preflight --shapes-only``, on torch's meta device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves
from transformers.modeling_layers import GradientCheckpointingLayer

from winnow.checkpoints.shapes import shapes_only
from winnow.config.instantiate import instantiate
from winnow.engine.optimizer import build_optimizer, freeze
from winnow.engine.precision import Precision
from winnow.engine.ranks import ALONE
from winnow.errors import ConfigError
from winnow.protocols import Batch, Data, Task
from winnow.run.build import checked_evaluation, loading_settings, optimizer_factory
from winnow.run.plan import RunPlan

BATCH_SIZES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Held:
    """Bytes that a training step holds until its backward pass: ``per_sample``, and ``fixed`` whatever the batch. ``again`` of a
    sample come on top while the largest layer is computed again, 0 without activation checkpointing."""

    per_sample: int
    fixed: int
    again: int

    def of(self, batch_size: int) -> int:
        return self.fixed + batch_size * (self.per_sample + self.again)


@dataclass(frozen=True)
class ShapesReport:
    """Bytes: ``weights`` and buffers, ``frozen_weights`` of them, ``gradients``, ``optimizer`` state, ``average`` (EMA), and what
    is held of activations, ``checkpointed`` with activation checkpointing, None where the model has none."""

    weights: int
    frozen_weights: int
    gradients: int
    optimizer: int
    average: int
    activations: Held
    checkpointed: Held | None

    @property
    def without_samples(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average

    def to_dict(self, batch_size: int) -> dict[str, Any]:
        """Return it as plain values, with the whole at several batch sizes, ``batch_size`` among them."""
        batches = []
        for size in sorted({*BATCH_SIZES, batch_size}):
            held = self.without_samples + self.activations.of(size)
            less = None if self.checkpointed is None else self.without_samples + self.checkpointed.of(size)
            batches.append({"batch_size": size, "bytes": held, "checkpointed_bytes": less})
        return {**asdict(self), "batches": batches}


def report_shapes(plan: RunPlan) -> ShapesReport:
    """Build the run's model without weights, and run it on the shapes of its own first training batches.

    Raises ConfigError where the model's forward pass depends on values, which shapes don't tell.
    """
    training = plan.settings.training
    evaluation = checked_evaluation(plan.config)
    precision = Precision.choose(training.amp, torch.device("cpu"), training.memory_format)
    batches = []
    for size in (1, 2):
        loading = loading_settings(plan, ALONE).model_copy(
            update={"batch_size": size, "num_workers": 0, "accumulate": 1}
        )
        data: Data = instantiate(plan.config, "data", loading=loading)
        batches.append(next(data.train_batches(1, data.image_size)))
    with shapes_only():
        task: Task = instantiate(plan.config, "model", **evaluation.model_arguments(data))
        freeze(task.model, training.freeze)
        task.model.train()
        lr = float(training.optimizer["lr"])
        optimizer = build_optimizer(optimizer_factory(plan), task.model, training.param_groups, lr, training.no_decay)
        trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
        frozen = [parameter for parameter in task.model.parameters() if not parameter.requires_grad]
        weights = size_of([*task.model.parameters(), *task.model.buffers()])
        switches = [module for module in task.model.modules() if hasattr(module, "activation_checkpointing")]
        activations, checkpointed = held_by(task, batches, precision, switches)
        return ShapesReport(
            weights, size_of(frozen), size_of(trained), _state_of(optimizer, trained),
            size_of([*trained, *task.model.buffers()]) if training.ema.decay is not None else 0,
            activations, checkpointed,
        )  # fmt: skip


def held_by(
    task: Task, batches: Sequence[Batch], precision: Precision, switches: Sequence[Any]
) -> tuple[Held, Held | None]:
    """Return what ``task`` holds of activations without and with activation checkpointing, which ``activation_checkpointing`` of
    the ``switches`` turns on (None where there are none); ``batches`` are of one sample and of two."""

    def held(checkpointed: bool) -> list[tuple[int, int]]:
        for module in switches:
            module.activation_checkpointing = checkpointed
        return [held_in_forward(task, batch, precision) for batch in batches]

    (one, one_layer), (two, two_layers) = held(False)
    activations = Held(two - one, 2 * one - two, 0)
    if not switches:
        return activations, None
    (one, _), (two, _) = held(True)
    return activations, Held(two - one, 2 * one - two, two_layers - one_layer)


def held_in_forward(task: Task, batch: Batch, precision: Precision) -> tuple[int, int]:
    """Return the bytes that a forward pass leaves behind for the backward pass besides the model's own, and how many of them the
    largest layer that can be checkpointed does."""
    own = {_storage(tensor) for tensor in [*task.model.parameters(), *task.model.buffers()]}
    with saved_tensors(task.model) as saved:
        try:
            with precision.autocast():
                outputs = task.forward(batch)
        except Exception as error:
            raise ConfigError(
                f"--shapes-only: the forward pass of {type(task).__name__} depends on values, which shapes don't tell "
                f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
            ) from error
    saved.tensors += [tensor for tensor in tree_leaves(outputs) if isinstance(tensor, Tensor)]
    return size_of(saved.tensors, own), saved.largest_layer


class Saved:
    """The ``tensors`` that autograd kept, and the bytes that it kept of the ``largest_layer``."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.largest_layer = 0


@contextlib.contextmanager
def saved_tensors(model: nn.Module) -> Iterator[Saved]:
    """Gather what autograd keeps inside for a backward pass."""
    saved = Saved()
    own = {_storage(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    begun: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.tensors.append(tensor)
        return tensor

    def before(module: nn.Module, args: Any, arguments: dict[str, Any]) -> None:
        begun.append(len(saved.tensors))
        if getattr(module, "gradient_checkpointing", False):  # held by what computes the layer again, not by autograd
            saved.tensors += [tensor for tensor in tree_leaves(arguments) if isinstance(tensor, Tensor)]

    def after(module: nn.Module, args: Any, output: Any) -> None:
        saved.largest_layer = max(saved.largest_layer, size_of(saved.tensors[begun.pop() :], own))

    with contextlib.ExitStack() as stack:
        for layer in model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                stack.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
                stack.callback(layer.register_forward_hook(after).remove)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor))
        yield saved


def size_of(tensors: Iterable[Tensor], without: Iterable[int] = ()) -> int:
    """Return the bytes of the memory in which ``tensors`` lie, each piece counted once and none that is in ``without``."""
    pieces = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}
    left_out = set(without)
    return sum(size for key, size in pieces.items() if key not in left_out)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _state_of(optimizer: Optimizer, trained: Sequence[nn.Parameter]) -> int:
    """Return the bytes of the optimizer's state after a step."""
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return size_of(value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
