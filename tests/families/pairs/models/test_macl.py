import math
from dataclasses import replace

import pytest
import torch
from pair_model_parts import pair_batch, persons, tiny_task
from torch.nn.functional import normalize

from winnow.engine.counts import add_counts
from winnow.errors import ConfigError
from winnow.families.pairs.models.macl import AlignmentHead, background_boxes, contrast, masked_candidates
from winnow.families.pairs.models.task import shown_in_both

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
