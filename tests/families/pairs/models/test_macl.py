import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from pair_model_parts import CLASSES, pair_batch, persons, tiny_task
from torch.nn.functional import normalize

from winnow.engine.counts import add_counts
from winnow.engine.precision import Precision
from winnow.engine.ranks import ALONE
from winnow.engine.schedule import LrSchedule
from winnow.engine.settings import SchedulerSettings
from winnow.engine.step import TrainStep
from winnow.errors import ConfigError
from winnow.families.pairs.metrics.pair_metric import PairMetric
from winnow.families.pairs.models.macl import AlignmentHead, background_boxes, contrast, masked_candidates
from winnow.families.pairs.models.task import shown_in_both
from winnow.testing.ranks import run_as_ranks

BOXES = ([10, 5, 24, 33], [40, 20, 60, 60])


@pytest.fixture
def data():
    return pair_batch(persons(*BOXES), persons([4, 4, 20, 36], image_id=2), persons(image_id=3))


def gradients(task, data, terms=None):
    """Return the gradient of the sum of ``terms`` (all) by tensor."""
    values = task.losses(task.forward(data), data, task.loss_count(data))
    sum(value for name, value in values.items() if terms is None or name in terms).backward()
    return {name: value.grad for name, value in task.model.named_parameters() if value.grad is not None}


def test_weight_0_gives_the_gradients_of_no_macl_bit_for_bit(data):
    plain = tiny_task()
    aligned = tiny_task(macl={"weight": 1.0})
    aligned._macl_weight = 0.0
    before = plain.model.state_dict()
    assert all(aligned.model.state_dict()[name].equal(value) for name, value in before.items())
    without, weightless = gradients(plain, data), gradients(aligned, data)
    assert all(weightless[name].equal(value) for name, value in without.items())
    with_weight = gradients(tiny_task(macl={"weight": 1.0}), data)
    assert not all(with_weight[name].equal(value) for name, value in without.items())
    assert plain.model.alignment is None
    assert list(plain.loss_count(data)) == ["images"]


def test_twice_the_weight_gives_bitwise_twice_the_gradient(data):
    once, twice = (gradients(tiny_task(macl={"weight": weight}), data, ["loss_macl"]) for weight in (0.2, 0.4))
    assert any(value.any() for name, value in once.items() if name.startswith("backbones.visible"))
    assert any(value.any() for name, value in once.items() if name.startswith("backbones.infrared"))
    assert all(twice[name].equal(2 * value) for name, value in once.items())


def test_the_term_alone_has_the_gradient_of_one_batch_in_micro_batches(data):
    four = pair_batch(
        persons(*BOXES), persons([4, 4, 20, 36], image_id=2), persons(*BOXES[::-1], image_id=3), persons(image_id=4)
    )
    task = tiny_task(macl={"weight": 1.0})
    whole = gradients(task, four, ["loss_macl"])
    cut = tiny_task(macl={"weight": 1.0})
    parts = [part_of(four, rows) for rows in ([0, 1], [2, 3])]
    count = add_counts(cut.loss_count(part) for part in parts)
    assert count == task.loss_count(four) == {"images": 4.0, "objects": 5.0}
    for part in parts:
        cut.losses(cut.forward(part), part, count)["loss_macl"].backward()
    for name, value in cut.model.named_parameters():
        if name in whole:
            torch.testing.assert_close(value.grad, whole[name], rtol=1e-4, atol=1e-6)


class TermAlone:
    """A task that learns by its contrastive term and by nothing else."""

    counted_by: ClassVar = {"loss_macl": "objects"}

    def __init__(self):
        self._task = tiny_task(macl={"weight": 1.0})
        self.model, self.forward = self._task.model, self._task.forward

    def loss_count(self, batch):
        return {"objects": self._task.loss_count(batch)["objects"]}

    def losses(self, outputs, batch, count):
        return {"loss_macl": self._task.losses(outputs, batch, count | {"images": 1.0})["loss_macl"]}


def weights_after_a_step(task, batches, ranks):
    optimizer = torch.optim.SGD([{"params": list(task.model.parameters()), "lr": 1.0, "base_lr": 1.0, "name": "all"}])
    schedule = LrSchedule(SchedulerSettings(name="constant", warmup_steps=0), 100, 100)
    step = TrainStep(task, optimizer, schedule, Precision.choose("off", torch.device("cpu")), None, None, 3, ranks)
    assert step(batches, 0) is not None
    return {name: value.detach().clone() for name, value in task.model.named_parameters()}


def test_two_ranks_take_the_step_of_one_by_the_term_alone():
    """The ranks have three objects and one that their pairs show in both images: by the mean of each it would be another step."""
    four = pair_batch(
        persons(*BOXES), persons([4, 4, 20, 36], image_id=2), persons([8, 8, 20, 32], image_id=3), persons(image_id=4)
    )
    shares = [part_of(four, rows) for rows in ([0, 1], [2, 3])]
    before = {name: value.detach().clone() for name, value in TermAlone().model.named_parameters()}
    alone = weights_after_a_step(TermAlone(), [four], ALONE)
    tasks = [TermAlone() for _ in shares]  # before there are threads, which share torch's random numbers
    both = run_as_ranks(2, lambda ranks: weights_after_a_step(tasks[ranks.rank], [shares[ranks.rank]], ranks))
    assert max(float((alone[name] - before[name]).abs().max()) for name in alone) > 0.01
    for found in both:
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)


def test_predictions_say_the_term_beside_chance_and_the_metric_means_them_over_objects(data):
    task = tiny_task(macl={"weight": 0.5})
    found = task.predictions(task.forward(data), data)
    assert found.beside_chance[:, 0].tolist() == [2, 1, 0]
    metric = PairMetric(CLASSES)
    for rows in ([0], [1, 2]):  # as two ranks, whatever their batches
        of_rank, part = PairMetric(CLASSES), part_of(data, rows)
        of_rank.update(task.predictions(task.forward(part), part), part)
        metric.merge(of_rank.state())
    values = metric.compute()
    assert set(values) <= set(metric.names)
    (term,) = (
        v for name, v in task.losses(task.forward(data), data, task.loss_count(data)).items() if name == "loss_macl"
    )
    assert values["macl"] == pytest.approx(float(term.detach()) / 0.5, rel=1e-5)
    regions = [
        torch.cat([t.boxes, background_boxes(t.boxes, (64, 64), seed)])
        for t, seed in zip(data.targets, data.seeds, strict=True)
    ]
    candidates = [
        int((~row).sum())
        for where, n in zip(regions, (2, 1), strict=False)
        for row in masked_candidates(where, torch.arange(n))
    ]
    assert values["macl_chance"] == pytest.approx(sum(math.log(n) for n in candidates) / 3, rel=1e-5)


def test_without_macl_there_is_nothing_beside_chance(data):
    task, metric = tiny_task(), PairMetric(CLASSES)
    metric.update(task.predictions(task.forward(data), data), data)
    assert not {"macl", "macl_chance"} & metric.compute().keys()


def part_of(batch, rows):
    return replace(
        batch, images=batch.images[rows], pixel_mask=batch.pixel_mask[rows], targets=[batch.targets[row] for row in rows],
        present=batch.present[rows], seeds=tuple(batch.seeds[row] for row in rows),
    )  # fmt: skip


def test_the_temperature_starts_at_007_and_is_clamped():
    head = AlignmentHead(8, (4, 8), 1)
    assert float(head.temperature.detach()) == pytest.approx(0.07)
    for given, clamped in ((-50.0, 0.01), (50.0, 1.0)):
        head.log_temperature.data.fill_(given)
        assert float(head.temperature.detach()) == pytest.approx(clamped)


def test_the_temperature_is_learnt(data):
    assert gradients(tiny_task(macl={"weight": 1.0}), data, ["loss_macl"])["alignment.log_temperature"] != 0


def test_what_overlaps_an_object_by_more_than_03_is_no_negative():
    regions = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [7, 0, 17, 10], [50, 50, 60, 60]])
    rows = torch.tensor([0, 3])
    assert masked_candidates(regions, rows).tolist() == [[False, True, False, False], [False] * 4]
    one, other = (normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))) for seed in (0, 1))
    is_positive = torch.tensor([True, False, False])
    changed = other.clone(), one.clone()
    for features in changed:
        features[1] = -features[1]
    terms = [
        contrast(first, second, regions, is_positive, torch.tensor(0.1))
        for first, second in ((one, other), changed[::-1])
    ]
    assert terms[0].equal(terms[1])


def test_where_nothing_tells_regions_apart_the_loss_is_chance():
    """Chance is ln of the candidates, here of three and not of the overlapping fourth."""
    alike = torch.ones(4, 6)
    regions = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [17, 0, 27, 10], [50, 50, 60, 60]])
    found = contrast(alike, alike, regions, torch.tensor([True]), torch.tensor(0.07))
    assert float(found) == pytest.approx(math.log(3), rel=1e-5)


def test_only_objects_that_both_images_show_are_told_to_agree(data):
    shown = [
        torch.tensor([[True, True], [True, False]]),
        torch.tensor([[False, True]]),
        torch.empty(0, 2, dtype=torch.bool),
    ]
    assert [one.tolist() for one in shown_in_both(replace(data, seen_in=shown))] == [[True, False], [False], []]
    absent = torch.tensor([[True, True], [True, False], [True, True]])
    assert [one.tolist() for one in shown_in_both(replace(data, present=absent))] == [[True, True], [False], []]
    task = tiny_task(macl={"weight": 1.0})
    some = replace(data, seen_in=shown)
    assert task.loss_count(some)["objects"] == 1
    assert not gradients(task, some)["alignment.projection.0.weight"].equal(
        gradients(tiny_task(macl={"weight": 1.0}), data)["alignment.projection.0.weight"]
    )


def test_background_is_drawn_from_the_pairs_seed_and_lies_in_the_image():
    boxes = torch.tensor([[10.0, 5, 24, 33], [40, 20, 60, 60]])
    first = background_boxes(boxes, (64, 70), 5)
    assert first.shape == (8, 4)
    assert first.equal(background_boxes(boxes, (64, 70), 5))
    assert not first.equal(background_boxes(boxes, (64, 70), 6))
    assert (first >= 0).all()
    assert (first[:, 2] <= 70).all()
    assert (first[:, 3] <= 64).all()
    assert len(background_boxes(boxes[:0], (64, 70), 5)) == 0


def test_the_head_has_no_batch_norm_and_draws_nothing_of_the_common_generator():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    head = AlignmentHead(8, (4, 8), 1)
    assert torch.rand(2).equal(expected)
    assert [m.normalized_shape for m in head.modules() if isinstance(m, torch.nn.LayerNorm)] == [(128,), (64,)]
    assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in head.modules())


@pytest.mark.parametrize("fusion", ["visible", "infrared", "early"])
def test_macl_needs_both_modalities_before_fusion(fusion):
    with pytest.raises(ConfigError, match=f"model.macl.weight=0.2 needs .* model.fusion={fusion} has none"):
        tiny_task(fusion=fusion, macl={"weight": 0.2})
