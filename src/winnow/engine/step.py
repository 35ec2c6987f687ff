"""One optimizer update from its micro-batches: the same path with and without mixed precision and accumulation."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from winnow.engine.counts import Counts, CountSum, add_counts, batch_counts, can_learn, divisors, require_counted
from winnow.engine.determinism import require_deterministic
from winnow.engine.ema import Ema
from winnow.engine.gradient_sum import GradientSum
from winnow.engine.gradients import FirstLook
from winnow.engine.memory import memory_explained
from winnow.engine.precision import Precision
from winnow.engine.ranks import ALONE, Ranks
from winnow.engine.schedule import LrSchedule
from winnow.engine.transfer import Transfer
from winnow.errors import DivergedError
from winnow.protocols import Batch, Task

logger = logging.getLogger(__name__)


class TrainStep:
    """Updates the weights of ``task.model`` and everything that an update carries along: scaler, EMA, learning rates."""

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        schedule: LrSchedule,
        precision: Precision,
        clip_grad_norm: float | None,
        ema: Ema | None,
        max_nonfinite: int,
        ranks: Ranks = ALONE,
        first_look: FirstLook | None = None,
    ) -> None:
        self.task = task
        self.optimizer = optimizer
        self.schedule = schedule
        self.precision = precision
        self.scaler = precision.new_scaler()
        self.transfer = Transfer(precision)
        self.ema = ema
        self.ranks = ranks
        self.nonfinite = 0
        self.nonfinite_in_a_row = 0
        self.skipped = 0
        """fp16: updates that the scaler left out for an infinite gradient, to go on with a lower scale."""
        self.held_back = 0
        """fp16: steps that were non-finite at the lowest scale; the learning rate's schedule did not count them."""
        self.is_mid_update = False
        """True from the first change of the weights to the last; a failure in between leaves nothing worth saving."""
        self.first_look = first_look
        """Looks at the gradients of each step, until it has seen enough."""
        self._max_norm = math.inf if clip_grad_norm is None else clip_grad_norm
        self._max_nonfinite = max_nonfinite
        self._is_first = True
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._gradient_sum = GradientSum(ranks, self._parameters)
        self._count_sum = CountSum(ranks)
        self._buffers = list(task.model.buffers())
        self._buffer_versions = 0

    def __call__(
        self, batches: Sequence[Batch], step: int, following: Sequence[Batch] | None = None
    ) -> dict[str, Tensor] | None:
        """Update ``step`` + 1; the step's detached loss terms over all ranks, or None where a non-finite one made it leave the
        weights alone. A rank's ``batches`` may hold no sample. On a GPU the first of the ``following`` step's batches, where
        they are known, travels there meanwhile.

        The check costs one host synchronisation per step, after the backward pass is queued: a poisoned update can't be taken
        back later. Raises DivergedError after ``max_nonfinite`` such steps in a row, MemoryExhaustedError, and ConfigError for
        what training.deterministic=true forbids.
        """
        with memory_explained(batches, self.precision, f"training step {step + 1}"):
            return self._update(batches, step, following[0] if following else None)

    def _update(self, batches: Sequence[Batch], step: int, following: Batch | None) -> dict[str, Tensor] | None:
        self._set_learning_rates(step)
        began = time.perf_counter()
        # Counted before the batches move: on a GPU each count would have to be waited for.
        batches = [batch for batch in batches if batch.num_samples]
        counts = self._counts_of_all_ranks(add_counts(batch_counts(self.task, batch) for batch in batches))
        own = require_deterministic(
            lambda: self._backward(batches, divisors(counts), following), self.precision.device, f"step {step + 1}"
        )
        terms = self._gradient_sum(own, self.precision.device)
        if self._is_first:
            # With training.compile=true most of it is the compiler's; on a GPU the kernels come on top.
            logger.info("the first step took %.1f s", time.perf_counter() - began)
            self._is_first = False
        self.scaler.unscale_(self.optimizer)
        if self.first_look is not None and self.first_look(self.optimizer, can_learn(counts), step):
            self.first_look = None
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._max_norm, foreach=True)
        loss = torch.stack(list(terms.values())).sum()
        # Under fp16 an infinite gradient is the scaler's business: it skips the step and lowers its scale.
        verdict = loss if self.scaler.is_enabled() else loss + norm
        is_finite = bool(torch.isfinite(verdict))
        if is_finite:
            is_finite = self._change_weights()
        elif self.scaler.is_enabled():
            self.scaler.update()
        if not is_finite:
            self._count_nonfinite(terms, norm, batches, step)
            terms = {}
        self.optimizer.zero_grad(set_to_none=True)
        return terms or None

    def _change_weights(self) -> bool:
        """Let the optimizer step, and the average after it. False where fp16's scaler skipped that at its lowest scale: the
        gradient is not finite, whatever it is scaled by."""
        self.is_mid_update = True
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not self.scaler.has_skipped:
            self.nonfinite_in_a_row = 0
            if self.ema is not None:
                self.ema.update()
        self.is_mid_update = False
        if not self.scaler.has_skipped:
            return True
        self.skipped += 1
        self.held_back += self.scaler.was_least
        return not self.scaler.was_least

    def counters(self) -> dict[str, float]:
        """Return how many steps left the weights alone, by why; empty where none did."""
        counts = {"train/nonfinite_steps": self.nonfinite, "perf/skipped_steps": self.skipped}
        return {name: float(count) for name, count in counts.items() if count}

    def learning_rates(self) -> dict[str, float]:
        return {f"lr/{group['name']}": float(group["lr"]) for group in self.optimizer.param_groups}

    def _set_learning_rates(self, step: int) -> None:
        factor = self.schedule.factor(step - self.held_back)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor

    def _backward(self, batches: Sequence[Batch], count: Counts, following: Batch | None) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        if not batches:
            # What the scaler unscales by is made at its first use.
            self.scaler.scale(torch.zeros((), device=self.precision.device))
        for host_batch, later in zip(batches, [*batches[1:], following], strict=False):
            batch = self.transfer(host_batch)
            self.transfer.start(later)
            with self.precision.autocast():
                terms = self.task.losses(self.task.forward(batch), batch, count)
                loss = torch.stack(list(terms.values())).sum()
            if self._is_first:  # an evaluation would find out only after an epoch
                require_counted(self.task, terms, count)
            self.scaler.scale(loss).backward()
            for name, term in terms.items():
                sums[name] = sums[name] + term.detach() if name in sums else term.detach()
        return sums

    def _counts_of_all_ranks(self, counts: Counts) -> Counts:
        """Return the sums over ranks. What the last step changed in buffers (running statistics) is made rank 0's on the
        way."""
        if self.ranks.size == 1:
            return counts
        versions = sum(buffer._version for buffer in self._buffers)
        counts, has_changed = self._count_sum(counts, versions != self._buffer_versions)
        if has_changed:
            self.ranks.share_tensors(self._buffers)
        self._buffer_versions = sum(buffer._version for buffer in self._buffers)
        return counts

    def _count_nonfinite(self, terms: dict[str, Tensor], norm: Tensor, batches: Sequence[Batch], step: int) -> None:
        self.nonfinite += 1
        self.nonfinite_in_a_row += 1
        if self.nonfinite_in_a_row < self._max_nonfinite:
            return
        values = ", ".join(f"{name} {float(term):.4g}" for name, term in terms.items())
        own = [image_id for batch in batches for image_id in batch.image_ids]
        images = [image_id for ids in self.ranks.gather(own) for image_id in ids]
        raise DivergedError(
            f"the loss or its gradient was not finite in {self.nonfinite_in_a_row} steps in a row, the last one "
            f"step {step + 1} (training.max_nonfinite={self._max_nonfinite}): {values}; gradient norm {float(norm):.4g}; "
            f"image ids {images[:20]}; lower training.optimizer.lr, clip harder, or look at these images"
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "nonfinite": self.nonfinite,
            "nonfinite_in_a_row": self.nonfinite_in_a_row,
            "skipped": self.skipped,
            "held_back": self.held_back,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.nonfinite = state["nonfinite"]
        self.nonfinite_in_a_row = state["nonfinite_in_a_row"]
        self.skipped = state.get("skipped", 0)
        self.held_back = state.get("held_back", 0)
