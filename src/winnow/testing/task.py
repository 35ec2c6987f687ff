"""What every ``protocols.Task`` must keep to, as a suite of tests. All in float32 on the CPU."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from winnow.engine.counts import add_counts, batch_counts, divisors
from winnow.engine.precision import Precision
from winnow.engine.ranks import ALONE, Ranks
from winnow.engine.schedule import LrSchedule
from winnow.engine.settings import SchedulerSettings
from winnow.engine.step import TrainStep
from winnow.protocols import Batch, Task
from winnow.testing.ranks import run_as_ranks

Terms = Mapping[str, float]
Gradients = Mapping[str, Tensor]


class GradientKeeper(torch.optim.SGD):
    """Keeps the gradients of its only step, and trains nothing."""

    gradients: dict[str, Tensor]

    def step(self, closure: Any = None) -> Any:
        named = zip(self.param_groups[0]["tensors"], self.param_groups[0]["params"], strict=True)
        self.gradients = {
            name: torch.zeros_like(value) if value.grad is None else value.grad.clone() for name, value in named
        }
        return closure


def take_step(task: Task, batches: Sequence[Batch], ranks: Ranks = ALONE) -> tuple[Terms, Gradients]:
    """Return the loss terms and the gradients of one step as the engine makes it. Raises DivergedError for one that is not
    finite."""
    task.model.train()
    named = {name: value for name, value in task.model.named_parameters() if value.requires_grad}
    group = {"params": list(named.values()), "tensors": list(named), "name": "all", "lr": 0.0, "base_lr": 0.0}
    optimizer = GradientKeeper([group])
    schedule = LrSchedule(SchedulerSettings.model_validate({"name": "constant"}), 10, 10)
    precision = Precision.choose("off", torch.device("cpu"))
    step = TrainStep(task, optimizer, schedule, precision, None, None, max_nonfinite=1, ranks=ranks)
    terms = step(batches, 0)
    assert terms is not None
    return {name: float(term) for name, term in terms.items()}, optimizer.gradients


class TaskContract:
    """Subclass it as ``Test…`` and give ``make_task``, ``make_batch`` and ``make_batch_without_targets``."""

    num_samples = 4
    micro_batch_tolerance = 1e-4
    rank_tolerance = 1e-5
    padding_tolerance: float | None = None
    """How much padding alone may change a loss term, as a part of the sample's loss; None where samples are never padded."""

    def make_task(self) -> Task:
        """Return the task with the same weights each time, without dropout. One that draws random numbers while it trains draws
        them for each sample from a generator of its own, or is set here so that nothing is left to chance."""
        raise NotImplementedError

    def make_batch(self, samples: Sequence[int]) -> Batch:
        """Return some of the samples 0 … ``num_samples`` - 1, of which all have one padded size."""
        raise NotImplementedError

    def make_batch_without_targets(self) -> Batch:
        """Return two samples without anything to find."""
        raise NotImplementedError

    def make_padded_batch(self, samples: Sequence[int]) -> Batch:
        """Return the same samples with more padding."""
        raise NotImplementedError

    def test_terms_are_finite_scalars_with_the_same_names_whatever_the_batch(self) -> None:
        task = self.make_task()
        named = []
        for batch in (self.make_batch([0]), self._whole(), self.make_batch_without_targets()):
            for is_training in (True, False):
                task.model.train(is_training)
                terms = self._terms(task, batch)
                assert all(term.shape == () for term in terms.values()), "a term must be a scalar"
                assert all(math.isfinite(float(term)) for term in terms.values()), f"not finite: {terms}"
                named.append(list(terms))
        assert all(names == named[0] for names in named), f"the names of the terms depend on the batch: {named}"

    def test_counts_are_named_numbers_that_add_up(self) -> None:
        task = self.make_task()
        whole = batch_counts(task, self._whole())
        parts = [batch_counts(task, self.make_batch([sample])) for sample in range(self.num_samples)]
        assert add_counts(parts) == whole, "the counts of single samples do not add up to those of the batch"
        assert all(count >= 0 for count in whole.values()), f"negative counts: {whole}"
        assert any(whole.values()), "the samples of the suite hold nothing to learn from"
        assert batch_counts(task, self.make_batch_without_targets()).keys() == whole.keys(), "names depend on the batch"

    def test_every_term_is_counted_by_a_count_that_there_is(self) -> None:
        task = self.make_task()
        names = batch_counts(task, self._whole())
        for term in self._terms(task, self._whole()):
            assert task.counted_by.get(term) in names or (len(names) == 1 and term not in task.counted_by), (
                f"counted_by[{term!r}] is {task.counted_by.get(term)!r}; loss_count gives {', '.join(names)}"
            )

    def test_a_step_of_micro_batches_is_the_step_of_one_batch(self) -> None:
        expected = take_step(self.make_task(), [self._whole()])
        for parts in self._splits():
            self._assert_same_step(self._step_of(parts), expected, self.micro_batch_tolerance, f"micro-batches {parts}")

    def test_two_ranks_take_the_step_of_one(self) -> None:
        expected = take_step(self.make_task(), [self._whole()])
        shares = [*(parts for parts in self._splits() if len(parts) == 2), [list(range(self.num_samples)), []]]
        for first, second in shares:
            tasks = [self.make_task(), self.make_task()]

            def work(ranks: Ranks, tasks: Any = tasks, shares: Any = (first, second)) -> tuple[Terms, Gradients]:
                batches = [self.make_batch(shares[ranks.rank])] if shares[ranks.rank] else []
                return take_step(tasks[ranks.rank], batches, ranks)

            for result in run_as_ranks(2, work):
                self._assert_same_step(result, expected, self.rank_tolerance, f"ranks with samples {first}, {second}")

    def test_a_samples_loss_does_not_depend_on_its_neighbours(self) -> None:
        task = self.make_task()
        task.model.train()
        count = divisors(batch_counts(task, self._whole()))
        alone = [self._values(task, [sample], count) for sample in range(self.num_samples)]
        for sample in range(1, self.num_samples):
            pair = self._values(task, [0, sample], count)
            for name, value in pair.items():
                own, other = alone[0][name], alone[sample][name]
                close = math.isclose(value, own + other, rel_tol=self.micro_batch_tolerance, abs_tol=1e-7)
                assert close, f"{name} of samples 0 and {sample} is {value}, but {own} and {other} of each alone"

    def test_padding_alone_changes_no_more_than_is_documented(self) -> None:
        if self.padding_tolerance is not None:
            change = self.measure_padding()
            assert change <= self.padding_tolerance, f"padding changes the loss by {change:.2g}"

    def test_predictions_are_what_the_metric_takes(self) -> None:
        task = self.make_task()
        task.model.eval()
        metric = task.new_metric()
        with torch.inference_mode():
            for batch in (self._whole(), self.make_batch_without_targets()):
                metric.update(task.predictions(task.forward(batch), batch), batch)
        assert set(metric.compute()) <= set(metric.names)

    def test_the_model_is_the_same_after_losses_and_predictions(self) -> None:
        task = self.make_task()
        before = {name: value.clone() for name, value in task.model.state_dict().items()}
        modes = {}
        with torch.inference_mode():
            for is_training in (True, False):
                task.model.train(is_training)
                modes = {name: module.training for name, module in task.model.named_modules()}
                batch = self._whole()
                outputs = task.forward(batch)
                task.losses(outputs, batch, divisors(batch_counts(task, batch)))
                task.predictions(outputs, batch)
                after = {name: module.training for name, module in task.model.named_modules()}
                assert after == modes, "losses or predictions leave a module in another mode"
        task.model.eval()
        assert all(value.equal(before[name]) for name, value in task.model.named_parameters()), "weights changed"

    def measure_padding(self) -> float:
        """Return the largest change of a loss term that more padding alone makes, as a part of the sample's whole loss."""
        task = self.make_task()
        task.model.eval()
        changes = []
        for sample in range(self.num_samples):
            plain, padded = self.make_batch([sample]), self.make_padded_batch([sample])
            count = divisors(batch_counts(task, plain))
            with torch.no_grad():
                first, second = (task.losses(task.forward(batch), batch, count) for batch in (plain, padded))
            total = float(torch.stack(list(first.values())).sum())
            changes += [abs(float(first[name] - second[name])) / total for name in first]
        return max(changes)

    def _whole(self) -> Batch:
        return self.make_batch(range(self.num_samples))

    def _splits(self) -> list[list[list[int]]]:
        every = list(range(self.num_samples))
        half = self.num_samples // 2
        return [[every[:half], every[half:]], [every[:-1], every[-1:]], [[sample] for sample in every]]

    def _terms(self, task: Task, batch: Batch) -> Mapping[str, Tensor]:
        with torch.no_grad():
            return task.losses(task.forward(batch), batch, divisors(batch_counts(task, batch)))

    def _values(self, task: Task, samples: Sequence[int], count: Mapping[str, float]) -> Terms:
        batch = self.make_batch(samples)
        with torch.no_grad():
            terms = task.losses(task.forward(batch), batch, count)
        return {name: float(term) for name, term in terms.items()}

    def _step_of(self, parts: Sequence[Sequence[int]]) -> tuple[Terms, Gradients]:
        return take_step(self.make_task(), [self.make_batch(part) for part in parts])

    def _assert_same_step(
        self, step: tuple[Terms, Gradients], expected: tuple[Terms, Gradients], tolerance: float, what: str
    ) -> None:
        (terms, gradients), (expected_terms, expected_gradients) = step, expected
        assert terms.keys() == expected_terms.keys(), f"{what}: other terms {sorted(terms)}"
        loss = sum(abs(value) for value in expected_terms.values())
        for name, value in expected_terms.items():
            difference = abs(terms[name] - value)
            assert difference <= tolerance * max(abs(value), 1e-3 * loss), (
                f"{what}: {name} {terms[name]} instead of {value}"
            )
        whole = math.hypot(*(float(gradient.norm()) for gradient in expected_gradients.values()))
        for name, gradient in expected_gradients.items():
            difference = float((gradients[name] - gradient).norm())
            # Where a gradient is nothing but rounding, as that of a bias before a norm, the whole is the measure.
            allowed = tolerance * max(float(gradient.norm()), 0.1 * whole)
            assert difference <= allowed, (
                f"{what}: the gradient of {name} differs by {difference:.3g} of {gradient.norm():.3g}"
            )
