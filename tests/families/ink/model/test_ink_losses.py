import pytest
import torch
from ink_parts import some, tiles

from winnow.families.ink.model.losses import ink_losses, mean_on, nearness, skeleton_loss

LINES = (((4, 0, 9), 3.0), ((8, 2, 4), 1.5), None, ((12, 0, 15), 6.0))


def outputs_for(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = batch.images.shape[2:]
    counts = {"skeleton": 1, "tangent": 2, "width": 1, "offset": 2, "key_points": 3}
    maps = {name: torch.randn(batch.num_samples, count, *size, generator=generator) for name, count in counts.items()}
    return {**maps, "tangent": torch.nn.functional.normalize(maps["tangent"], dim=1)}


def test_no_loss_of_an_image_depends_on_its_neighbours():
    batch = tiles(*LINES)
    outputs = outputs_for(batch)
    together = ink_losses(outputs, batch.target)
    alone = [
        ink_losses({name: out[[row]] for name, out in outputs.items()}, some(batch, row).target) for row in range(4)
    ]
    for name, value in together.items():
        torch.testing.assert_close(value, sum(terms[name] for terms in alone), msg=name)


def test_each_mask_is_its_own_images():
    batch = tiles(((4, 0, 9), 3.0), ((8, 2, 4), 1.5))
    wrong = torch.zeros(2, 1, 16, 16)
    wrong[0, 0, 8] = wrong[1, 0, 4] = 100.0  # each is wrong where only the other has ink
    assert mean_on(batch.target.skeleton, wrong).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ["loss_tangent", "loss_width", "loss_offset", "loss_key_points"])
def test_an_image_without_ink_adds_to_the_skeletons_loss_only(name):
    batch = tiles(None)
    assert ink_losses(outputs_for(batch), batch.target)[name] == 0
    assert ink_losses(outputs_for(batch), batch.target)["loss_skeleton"] > 0


@pytest.mark.parametrize("line", [((4, 0, 9), 3.0), None])
def test_the_loss_of_the_truth_is_next_to_nothing(line):
    batch = tiles(line)
    target = batch.target
    sure = {"skeleton": 40 * target.skeleton - 20, "key_points": 40 * target.key_points - 20}
    outputs = {**sure, "tangent": target.tangent, "width": target.width, "offset": target.offset}
    assert all(value < 1e-4 for value in ink_losses(outputs, target).values())


def test_dice_of_an_empty_image_is_worse_the_more_is_found():
    empty = torch.zeros(1, 1, 16, 16)
    little, much = (skeleton_loss(torch.full_like(empty, logit), empty) for logit in (-4.0, 2.0))
    assert 0 < little < much


def test_offsets_and_corners_teach_nothing_where_they_are_unknown():
    known, unknown = tiles(((4, 0, 9), 3.0)), tiles(((4, 0, 9), 3.0), full=False)
    for batch in (known, unknown):
        batch.target.key_points[0, 2, 4, 4] = 1
    outputs = {name: out.requires_grad_() for name, out in outputs_for(known).items()}
    terms = ink_losses(outputs, unknown.target)
    sum(terms.values()).backward()
    assert terms["loss_offset"] == 0
    assert outputs["key_points"].grad[:, 2].abs().sum() == 0
    assert outputs["key_points"].grad[:, :2].abs().sum() > 0
    assert ink_losses(outputs, known.target)["loss_offset"] > 0


def test_a_pixel_beside_a_key_point_is_hardly_wrong():
    truth = torch.zeros(1, 1, 9, 9)
    truth[0, 0, 4, 4] = 1
    near = nearness(truth)[0, 0, 4]
    assert near[4] == 1
    assert 1 > near[5] > near[6] > near[7] == 0
    assert near.flip(0).equal(near)


def test_nonfinite_predictions_give_a_nonfinite_loss():
    batch = tiles(((4, 0, 9), 3.0))
    outputs = outputs_for(batch)
    for name in outputs:
        broken = {**outputs, name: torch.full_like(outputs[name], torch.nan)}
        assert not torch.stack(list(ink_losses(broken, batch.target).values())).isfinite().all(), name
