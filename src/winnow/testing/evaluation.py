"""What every ``protocols.Evaluation`` must keep to, with a data set and a model of its family, as a suite of tests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from winnow.data.plan import LoadingSettings
from winnow.engine.evaluate import evaluate
from winnow.engine.precision import Precision
from winnow.engine.progress import Progress
from winnow.engine.ranks import ALONE, Ranks
from winnow.protocols import Data, Evaluation, Task
from winnow.testing.contents import digest
from winnow.testing.data import PLAIN
from winnow.testing.ranks import run_as_ranks


class EvaluationContract:
    """Subclass it as ``Test…`` and give ``make_evaluation``, ``make_data`` and ``make_task``."""

    tolerance = 1e-5
    """Relative, between the numbers of the same samples in other batches or on other ranks."""

    def make_evaluation(self) -> Evaluation:
        raise NotImplementedError

    def make_data(self, loading: LoadingSettings) -> Data:
        """Return data of at least three validation samples, of which all have one padded size."""
        raise NotImplementedError

    def make_task(self, arguments: Mapping[str, Any]) -> Task:
        """Return a model with the same weights each time, from what the evaluation tells it."""
        raise NotImplementedError

    def data(self, **changes: Any) -> Data:
        return self.make_data(LoadingSettings.model_validate({**PLAIN, **changes}))

    def test_what_a_model_is_told_is_known_before_data_is_read(self) -> None:
        evaluation = self.make_evaluation()
        names = list(evaluation.model_argument_names)
        arguments = evaluation.model_arguments(self.data())
        assert sorted(arguments) == sorted(names), (
            f"model_argument_names holds {names}, and model_arguments gives {sorted(arguments)}"
        )
        assert "new_metric" in names, "a model must be told new_metric"

    def test_numbers_do_not_depend_on_the_batches(self) -> None:
        expected = self._numbers(self.data(batch_size=1))
        assert math.isfinite(expected["val/loss"])
        assert len(expected) > 1, "the metric gives no number"
        for size in (2, 100):
            self._assert_same(self._numbers(self.data(batch_size=size)), expected, f"batches of {size}")

    def test_numbers_do_not_depend_on_the_ranks(self) -> None:
        expected = self._numbers(self.data(batch_size=2))
        for size in (1, 100):
            splits = [self.data(batch_size=size, rank=rank, ranks=2) for rank in (0, 1)]
            tasks = [
                self._task(data) for data in splits
            ]  # before there are threads, which share torch's random numbers

            def work(ranks: Ranks, splits: Any = splits, tasks: Any = tasks) -> dict[str, float]:
                return self._numbers(splits[ranks.rank], tasks[ranks.rank], ranks)

            every = run_as_ranks(2, work)
            for numbers in every:
                self._assert_same(numbers, expected, f"two ranks with batches of {size}")

    def test_pictures_lie_in_the_folder_and_change_nothing(self, tmp_path: Path) -> None:
        evaluation, data = self.make_evaluation(), self.data(batch_size=2)
        task = self.make_task(evaluation.model_arguments(data))
        task.model.eval()
        batches = list(data.preview(3, data.image_size))
        with torch.inference_mode():
            seen = [(batch, task.predictions(task.forward(batch), batch)) for batch in batches]
        before = digest(seen)
        path = evaluation.draw(seen, data.classes, tmp_path)
        assert path.parent == tmp_path, f"{path} does not lie in the folder"
        assert path.stat().st_size > 0
        assert digest(seen) == before, "drawing changes what is drawn"

    def test_training_batches_are_drawn_as_many_as_asked_for(self, tmp_path: Path) -> None:
        evaluation, data = self.make_evaluation(), self.data(batch_size=2)
        batches = list(data.train_batches(1, data.image_size))
        before = digest(batches)
        for most in (1, 100):
            path = tmp_path / f"train_{most}.png"
            evaluation.draw_training(batches, data.classes, path, most)
            assert path.stat().st_size > 0
        assert (tmp_path / "train_1.png").read_bytes() != (tmp_path / "train_100.png").read_bytes(), (
            "most is not obeyed"
        )
        assert digest(batches) == before, "drawing changes what is drawn"

    def _task(self, data: Data) -> Task:
        return self.make_task(self.make_evaluation().model_arguments(data))

    def _numbers(self, data: Data, task: Task | None = None, ranks: Ranks = ALONE) -> dict[str, float]:
        precision = Precision.choose("off", torch.device("cpu"))
        return evaluate(task or self._task(data), data, data.image_size, precision, Progress(shown=False), ranks)

    def _assert_same(self, numbers: dict[str, float], expected: dict[str, float], what: str) -> None:
        assert numbers.keys() == expected.keys(), f"{what}: {sorted(numbers)} instead of {sorted(expected)}"
        different = {
            name: (value, expected[name])
            for name, value in numbers.items()
            if not (
                math.isclose(value, expected[name], rel_tol=self.tolerance, abs_tol=1e-9)
                or (math.isnan(value) and math.isnan(expected[name]))
            )
        }
        assert not different, f"{what}: {different}"
