"""Named counts: what a step and an evaluation divide each loss term by."""

from dataclasses import replace

import pytest
import torch
from engine_parts import VectorData, VectorTask

from winnow.engine.counts import CountSum, add_counts, can_learn, divisors
from winnow.engine.evaluate import evaluate
from winnow.engine.loop import fit
from winnow.engine.precision import Precision
from winnow.engine.progress import Progress
from winnow.engine.stop import StopRequest
from winnow.errors import ConfigError
from winnow.testing.ranks import run_as_ranks


class PairTask(VectorTask):
    """Two terms, one per vector and one per vector whose truth is positive."""

    counted_by = {"loss_square": "vectors", "loss_positive": "positives"}  # noqa: RUF012

    def __init__(self):
        super().__init__(dropout=0)
        self.given = []

    def loss_count(self, batch):
        return {"vectors": float(batch.num_samples), "positives": float((batch.truth > 0).sum())}

    def losses(self, outputs, batch, count):
        self.given.append(dict(count))
        square, positive = self.sums(outputs, batch)
        return {"loss_square": square / count["vectors"], "loss_positive": positive / count["positives"]}

    def sums(self, outputs, batch):
        errors = outputs - batch.truth
        return errors.square().sum(), (errors.abs() * (batch.truth > 0)).sum()


class ValData(VectorData):
    """Eight validation vectors in batches of given sizes."""

    def __init__(self, *sizes):
        super().__init__()
        self.sizes = sizes

    def num_val_batches(self):
        return len(self.sizes)

    def val_batches(self, image_size):
        (whole,) = super().val_batches(image_size)
        start = 0
        for size in self.sizes:
            rows = slice(start, start + size)
            start += size
            yield replace(whole, inputs=whole.inputs[rows], truth=whole.truth[rows], image_ids=whole.image_ids[rows])


def evaluated(task, data):
    return evaluate(task, data, 8, Precision.choose("off", torch.device("cpu")), Progress(shown=False))


def run_fit(run):
    with StopRequest() as stop:
        return fit(run, stop)


@pytest.mark.parametrize("sizes", [(8,), (1, 7), (3, 2, 3)])
def test_val_loss_divides_each_term_by_its_own_count_over_the_whole_set(sizes):
    torch.manual_seed(0)
    task, data = PairTask(), ValData(*sizes)
    (whole,) = VectorData.val_batches(data, 8)
    with torch.no_grad():
        square, positive = task.sums(task.forward(whole), whole)
    num_positive = int((whole.truth > 0).sum())
    assert 0 < num_positive < 8
    expected = float(square) / 8 + float(positive) / num_positive
    assert evaluated(task, data)["val/loss"] == pytest.approx(expected, rel=1e-6)


def test_with_one_count_val_loss_is_what_one_divisor_gave_before_bit_for_bit():
    torch.manual_seed(0)
    task, data = VectorTask(dropout=0), ValData(3, 5)
    losses = []
    for batch in data.val_batches(8):
        with torch.no_grad():
            terms = task.losses(task.forward(batch), batch, {"vectors": float(batch.num_samples)})
        losses.append(float(torch.stack(list(terms.values())).sum()) * float(batch.num_samples))
    assert evaluated(task, data)["val/loss"] == sum(losses) / 8.0


def test_a_step_gives_losses_the_sums_over_its_micro_batches_by_name(make_fit):
    run = make_fit(task=PairTask(), accumulate=2)
    first, second = run.data._batch([0, 1, 2], 1, 8), run.data._batch([3], 1, 8)
    run.step([first, second], 0)
    num_positive = float((first.truth > 0).sum() + (second.truth > 0).sum())
    assert run.task.given == [{"vectors": 4.0, "positives": num_positive}] * 2


def test_a_count_of_0_divides_by_1_and_nothing_can_be_learnt_only_where_all_are_0():
    assert divisors({"images": 0.0, "objects": 0.5, "boxes": 3.0}) == {"images": 1.0, "objects": 1.0, "boxes": 3.0}
    assert can_learn({"images": 2.0, "objects": 0.0})
    assert not can_learn({"images": 0.0, "objects": 0.0})
    assert add_counts([{"a": 1.0}, {"a": 2.0, "b": 0.5}]) == {"a": 3.0, "b": 0.5}


class PlainNumber(VectorTask):
    def loss_count(self, batch):
        return float(batch.num_samples)


@pytest.mark.parametrize("train", [True, False])
def test_a_plain_number_as_count_ends_in_an_error_that_shows_the_new_form(make_fit, train):
    run = make_fit(task=PlainNumber())
    with pytest.raises(
        ConfigError, match=r'PlainNumber.loss_count returned [48].0; .* return \{"boxes": 12.0\}; .*counted_by'
    ):
        run_fit(run) if train else evaluated(run.task, run.data)


def test_a_term_that_no_known_count_divides_is_named_in_the_first_step(make_fit):
    run = make_fit(task=PairTask())
    run.task.counted_by = {"loss_square": "vectors"}
    with pytest.raises(ConfigError, match=r"counted_by\['loss_positive'\] is None; allowed .*: vectors, positives"):
        run_fit(run)
    assert run.state.step == 0


def test_a_term_that_no_known_count_divides_is_named_in_an_evaluation():
    task = PairTask()
    task.counted_by = {"loss_square": "vectors", "loss_positive": "boxes"}
    with pytest.raises(ConfigError, match=r"counted_by\['loss_positive'\] is 'boxes'; allowed .*: vectors, positives"):
        evaluated(task, ValData(8))


def test_ranks_add_up_counts_by_name_though_one_has_no_sample_in_the_first_step():
    def work(ranks):
        total = CountSum(ranks)
        first = total({} if ranks.is_main else {"images": 2.0, "objects": 5.0}, has_changed=False)
        return first, total({"objects": 1.0 + ranks.rank, "images": 3.0}, has_changed=ranks.is_main)

    expected = ({"images": 2.0, "objects": 5.0}, False), ({"images": 6.0, "objects": 3.0}, True)
    assert run_as_ranks(2, work) == [expected, expected]


def test_a_count_that_was_not_there_in_the_first_step_is_an_error_on_ranks():
    def work(ranks):
        total = CountSum(ranks)
        total({"images": 2.0}, has_changed=False)
        total({"images": 2.0, "boxes": 1.0}, has_changed=False)

    with pytest.raises(ConfigError, match="loss_count gave images, boxes, and images before; the names must stay"):
        run_as_ranks(2, work)
