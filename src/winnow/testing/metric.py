"""What every ``protocols.Metric`` must keep to, as a suite of tests."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Sequence
from typing import Any

from winnow.protocols import Metric
from winnow.testing.contents import digest, tensors_of


class MetricContract:
    """Subclass it as ``Test…`` and give ``make_metric`` and ``make_parts``."""

    tolerance = 1e-9
    """Relative, between the numbers of the same parts in another order."""

    def make_metric(self) -> Metric:
        """Return an empty metric."""
        raise NotImplementedError

    def make_parts(self) -> Sequence[tuple[Any, Any]]:
        """Return three (predictions, batch) as in an evaluation, one of them without any target."""
        raise NotImplementedError

    def test_names_and_headlines_are_known_before_the_first_update(self) -> None:
        metric = self.make_metric()
        names, headlines = list(metric.names), list(metric.headlines)
        assert len(set(names)) == len(names), f"a name comes twice: {names}"
        assert set(headlines) <= set(names), f"headlines {headlines} are not all among the names {names}"
        worst = getattr(metric, "worst", {})
        assert set(worst) <= set(names), f"worst {worst} holds what is not among the names {names}"
        values = self._whole().compute()
        assert values, "compute gives no number for the parts of the suite"
        assert set(values) <= set(names), f"compute gives what names do not say: {sorted(set(values) - set(names))}"
        assert all(type(value) is float for value in values.values()), f"compute must give floats: {values}"

    def test_parts_merge_in_any_order_to_the_numbers_of_the_whole(self) -> None:
        expected = self._whole().compute()
        states = []
        for part in self.make_parts():
            metric = self.make_metric()
            metric.update(*part)
            states.append(pickle.loads(pickle.dumps(metric.state())))
        for order in itertools.permutations(range(len(states))):
            merged = self.make_metric()
            for number in order:
                merged.merge(states[number])
            self._assert_same(merged.compute(), expected, f"merged in the order {order}")

    def test_parts_may_come_in_any_order(self) -> None:
        expected = self._whole().compute()
        for order in itertools.permutations(self.make_parts()):
            self._assert_same(self._whole(order).compute(), expected, "updated in another order")

    def test_a_rank_that_saw_nothing_changes_nothing(self) -> None:
        metric = self._whole()
        expected = metric.compute()
        metric.merge(self.make_metric().state())
        self._assert_same(metric.compute(), expected, "merged with an empty one")
        alone = self.make_metric()
        alone.merge(self._whole().state())
        self._assert_same(alone.compute(), expected, "an empty one that merged the whole")

    def test_computing_changes_nothing(self) -> None:
        metric = self._whole()
        before = digest(metric.state())
        expected = metric.compute()
        assert digest(metric.state()) == before, "compute changes the state"
        self._assert_same(metric.compute(), expected, "computed a second time")

    def test_merging_leaves_the_other_state_alone(self) -> None:
        other = self._whole()
        before = digest(other.state())
        metric = self.make_metric()
        metric.merge(other.state())
        for part in self.make_parts():
            metric.update(*part)
        assert digest(other.state()) == before, "what is merged into one metric changes another"

    def test_an_evaluation_without_a_sample_gives_no_error(self) -> None:
        values = self.make_metric().compute()
        assert set(values) <= set(self.make_metric().names)

    def test_targets_may_be_missing(self) -> None:
        for part in self.make_parts():
            values = self._whole([part]).compute()
            assert set(values) <= set(self.make_metric().names)

    def test_nothing_is_kept_on_a_gpu(self) -> None:
        assert all(tensor.device.type == "cpu" for tensor in tensors_of(self._whole().state()))

    def _whole(self, parts: Sequence[tuple[Any, Any]] | None = None) -> Metric:
        metric = self.make_metric()
        for part in self.make_parts() if parts is None else parts:
            metric.update(*part)
        return metric

    def _assert_same(self, values: dict[str, float], expected: dict[str, float], what: str) -> None:
        assert values.keys() == expected.keys(), f"{what}: {sorted(values)} instead of {sorted(expected)}"
        different = {
            name: (value, expected[name])
            for name, value in values.items()
            if not (math.isclose(value, expected[name], rel_tol=self.tolerance) or value != value != expected[name])
        }
        assert not different, f"{what}: {different}"
