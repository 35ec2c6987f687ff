"""What runs in transformers' layers of Deformable DETR instead of its own: an encoder layer that the host need not wait for,
and its kernel for multi-scale deformable attention, where that can be had."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from huggingface_hub import constants
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.integrations import hub_kernels
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrEncoderLayer,
    DeformableDetrMultiscaleDeformableAttention,
    MultiScaleDeformableAttention,
)
from transformers.utils import import_utils

from winnow.errors import ConfigError

AttentionChoice = Literal["auto", "pure", "kernel"]
Kernel = Callable[..., Tensor]

# Of a small trial, kernel against pure PyTorch, both in float32; a wrong kernel is off by as much as the values themselves.
_TRIAL_TOLERANCE = 1e-3


class UncheckedEncoderLayer(DeformableDetrEncoderLayer):
    """transformers' layer without its question whether all values are finite, which the host waits for and the compiler breaks
    its graph at.

    There, in training, infinite values are clamped and NaN stays. Here both go on into the loss: the engine looks at that once
    per step, and leaves the weights alone where it is not finite.
    """

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor, spatial_position_embeddings: Tensor | None = None,
        reference_points: Any = None, spatial_shapes: Any = None, spatial_shapes_list: Any = None,
        level_start_index: Any = None, **others: Any,
    ) -> Tensor:  # fmt: skip
        """Return what transformers' layer returns for finite values, bit for bit."""
        attended, _ = self.self_attn(
            hidden_states=hidden_states, attention_mask=attention_mask, encoder_hidden_states=hidden_states,
            encoder_attention_mask=attention_mask, position_embeddings=spatial_position_embeddings,
            reference_points=reference_points, spatial_shapes=spatial_shapes, spatial_shapes_list=spatial_shapes_list,
            level_start_index=level_start_index,
        )  # fmt: skip
        attended = nn.functional.dropout(attended, p=self.dropout, training=self.training)
        hidden_states = self.self_attn_layer_norm(hidden_states + attended)
        output: Tensor = self.final_layer_norm(hidden_states + self.mlp(hidden_states))
        return output


class RecomputedAttention(MultiScaleDeformableAttention):
    """Pure PyTorch that keeps no sampled values for the backward pass on a GPU: it samples a second time there. Of one image of
    800×800 pixels they are 218 MB per encoder layer, in float32 under autocast too. Values and gradients stay the same."""

    def forward(self, value: Tensor, *others: Any) -> Tensor:
        """Return (B, queries, heads · channels)."""
        if value.is_cuda and torch.is_grad_enabled():
            return self.recomputed(value, *others)
        output: Tensor = super().forward(value, *others)
        return output

    def recomputed(self, value: Tensor, *others: Any) -> Tensor:
        """Return the same, keeping nothing but the arguments for the backward pass."""
        output: Tensor = checkpoint(super().forward, value, *others, use_reentrant=False, preserve_rng_state=False)
        return output


class KernelAttention(MultiScaleDeformableAttention):
    """Samples the maps by ``kernel`` on a GPU, in float32 as pure PyTorch does under autocast: the kernel takes one type for
    all. Elsewhere by pure PyTorch, or, where the kernel is ``required``, not at all."""

    def __init__(self, kernel: Kernel, required: bool) -> None:
        super().__init__()
        self._kernel = kernel
        self._required = required

    @torch.compiler.disable
    def forward(self, value: Tensor, shapes: Tensor, shapes_list: list[tuple[int, int]], starts: Tensor,
                locations: Tensor, weights: Tensor, im2col_step: int) -> Tensor:  # fmt: skip
        """Return (B, queries, heads · channels). Raises ConfigError where the kernel is required and the tensors lie on a CPU."""
        if not value.is_cuda:
            if self._required:
                raise ConfigError(
                    f"model.attention=kernel, but the model is on {value.device}; allowed there: auto, pure"
                )
            pure: Tensor = super().forward(value, shapes, shapes_list, starts, locations, weights, im2col_step)
            return pure
        with torch.autocast("cuda", enabled=False):
            # The kernel goes through the batch in equal parts: the whole is one.
            return self._kernel(
                value.float(), shapes, shapes_list, starts, locations.float(), weights.float(), len(value)
            )


class NoKernelError(Exception):
    """Says why there is no kernel here."""


def choose_attention(network: nn.Module, choice: AttentionChoice, offline: bool) -> str:
    """Have the deformable attention of ``network`` computed as ``choice`` says, and return what runs, in words. ``auto`` takes
    the kernel where it is in the hub's cache, ``kernel`` fetches it there unless ``offline``.

    Raises ConfigError where the kernel is asked for and can't be had.
    """
    pure = "pure PyTorch (grid_sample)"
    layers = [module for module in network.modules() if isinstance(module, DeformableDetrMultiscaleDeformableAttention)]
    for layer in layers:
        layer.attn = RecomputedAttention()
    if choice == "pure":
        return pure
    try:
        kernel = load_kernel(cached_only=offline or choice == "auto")
    except NoKernelError as error:
        if choice == "kernel":
            raise ConfigError(f"model.attention=kernel: {error}; allowed here: auto, pure") from error
        return f"{pure}; no kernel: {error}"
    for layer in layers:
        layer.attn = KernelAttention(kernel, required=choice == "kernel")
    return f"transformers' kernel, on a CPU {pure}" if choice == "auto" else "transformers' kernel"


def load_kernel(cached_only: bool) -> Kernel:
    """Return transformers' kernel after a small trial, from the hub's cache or, unless ``cached_only``, fetched into it.

    Raises NoKernelError where there is none for this machine, or it does not give what pure PyTorch gives.
    """
    if torch.are_deterministic_algorithms_enabled():
        raise NoKernelError("it adds up gradients in no fixed order, against training.deterministic=true")
    if not torch.cuda.is_available():
        raise NoKernelError("it needs a CUDA device, and this machine has none")
    if not import_utils.is_kernels_available():
        least, below = import_utils.KERNELS_MIN_VERSION, import_utils.KERNELS_MAX_VERSION
        raise NoKernelError(
            f"it needs the package kernels, at least {least} and below {below}: pip install 'kernels>={least},<{below}'"
        )
    kernels: Any = importlib.import_module("kernels")
    layer = MultiScaleDeformableAttention()
    try:
        hub_kernels.register_kernel_mapping_transformers()
        with _cache_only(cached_only):
            kernels.kernelize(layer, mode=kernels.Mode.TRAINING, device="cuda", use_fallback=False)
        difference = trial_difference(layer.forward)
    except Exception as error:  # what a hub, a download and a library built elsewhere may raise is without end
        where = (
            "it is not in the hub's cache, or not for this machine"
            if cached_only
            else "the hub gave none for this machine"
        )
        raise NoKernelError(f"{where} ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})") from error
    if getattr(layer.forward, "__func__", None) is MultiScaleDeformableAttention.forward:
        raise NoKernelError("transformers gave its pure PyTorch instead (is USE_HUB_KERNELS off?)")
    if not difference <= _TRIAL_TOLERANCE:
        raise NoKernelError(f"its results differ from pure PyTorch's by up to {difference:.2g}")
    forward: Kernel = layer.forward
    return forward


def trial_difference(kernel: Kernel, device: str = "cuda") -> float:
    """Return the largest difference of ``kernel``'s outputs and gradients from pure PyTorch's, on two levels of random maps."""
    generator = torch.Generator().manual_seed(0)
    sides = [(6, 5), (3, 2)]
    drawn = [
        torch.randn(2, sum(rows * columns for rows, columns in sides), 2, 8, generator=generator),
        torch.rand(2, 7, 2, len(sides), 4, 2, generator=generator) * 1.2 - 0.1,  # some outside of the map
        torch.rand(2, 7, 2, len(sides), 4, generator=generator),
    ]
    shapes = torch.tensor(sides, device=device)
    starts = torch.tensor([0, sides[0][0] * sides[0][1]], device=device)
    results = []
    for compute in (kernel, MultiScaleDeformableAttention().forward):
        value, locations, weights = (part.to(device).requires_grad_() for part in drawn)
        output = compute(value, shapes, sides, starts, locations, weights, len(value))
        gradients = torch.autograd.grad(output.square().sum(), (value, locations, weights))
        results.append([output.detach(), *gradients])
    differences = [(one - other).abs().max() / other.abs().max() for one, other in zip(*results, strict=True)]
    return float(torch.stack(differences).max())


@contextlib.contextmanager
def _cache_only(wanted: bool) -> Iterator[None]:
    """Keep everything inside off the network, as HF_HUB_OFFLINE=1 does for a whole process."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
