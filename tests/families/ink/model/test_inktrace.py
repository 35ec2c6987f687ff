import pytest
import torch
import yaml
from composed import REPOSITORY
from ink_parts import SETTINGS, some, tiles

from winnow.engine.counts import add_counts
from winnow.errors import ConfigError, DataError
from winnow.families.ink.batch import KEY_POINT_KINDS
from winnow.families.ink.metric import InkMetric
from winnow.families.ink.model.inktrace import draw_hidden, inktrace

LINES = (((4, 0, 9), 3.0), ((8, 2, 4), 1.5), None, ((12, 0, 15), 6.0), ((2, 5, 11), 2.0), ((9, 1, 8), 3.5))


def new_metric(full):
    return InkMetric(0.5, 0.3, full)


def task(**changes):
    torch.manual_seed(0)
    return inktrace(new_metric, **{**SETTINGS, **changes})


def shipped(**changes):
    values = yaml.safe_load((REPOSITORY / "conf/model/inktrace.yaml").read_text())["model"]
    return inktrace(new_metric, **{**{key: value for key, value in values.items() if key != "_target_"}, **changes})


def terms_of(task, batch, count):
    return task.losses(task.forward(batch), batch, {"images": count})


@pytest.mark.parametrize("changes", [{}, {"full_heads": False, "skips": False}])
def test_it_has_about_1_7_million_parameters(changes):
    count = sum(parameter.numel() for parameter in shipped(**changes).model.parameters())
    assert count == pytest.approx(1.7e6, rel=0.15)


def test_every_map_has_its_shape_its_unit_and_float32():
    batch = tiles(*LINES, size=32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = task().forward(batch)
    assert {name: out.shape[1] for name, out in outputs.items()} == {
        "skeleton": 1, "tangent": 2, "width": 1, "offset": 2, "key_points": len(KEY_POINT_KINDS),
    }  # fmt: skip
    assert {(out.dtype, out.shape[2:]) for out in outputs.values()} == {(torch.float32, (32, 32))}
    torch.testing.assert_close(outputs["tangent"].norm(dim=1), torch.ones(6, 32, 32))
    assert outputs["width"].min() > 0
    assert outputs["offset"].abs().max() <= 0.5


def test_without_full_heads_there_are_two_and_no_losses_of_others():
    batch, structural = tiles(*LINES), task(full_heads=False)
    outputs = structural.forward(batch)
    assert outputs.keys() == {"skeleton", "tangent"}
    assert structural.losses(outputs, batch, {"images": 6.0}).keys() == {"loss_skeleton", "loss_tangent"}
    assert structural.predictions(outputs, batch).key_points is None
    assert "width_error_px" not in structural.new_metric().names


def test_weights_multiply_the_losses():
    batch = tiles(*LINES)
    doubled = {name: 2 * weight for name, weight in SETTINGS["loss_weights"].items()}
    once, twice = (terms_of(task(loss_weights=weights), batch, 6.0) for weights in (SETTINGS["loss_weights"], doubled))
    for name, value in once.items():
        torch.testing.assert_close(2 * value, twice[name], msg=name)


@pytest.mark.parametrize("split", [[3, 3], [1, 5], [2, 2, 2]])
def test_an_accumulated_step_is_the_step_of_the_big_batch(split):
    batch, learning = tiles(*LINES), task(mask_ratio=0.5)
    torch.manual_seed(7)
    whole = terms_of(learning, batch, 6.0)
    sum(whole.values()).backward()
    gradient = {name: parameter.grad.clone() for name, parameter in learning.model.named_parameters()}
    learning.model.zero_grad()
    torch.manual_seed(7)
    rows = iter(range(6))
    for size in split:
        part = some(batch, *(next(rows) for _ in range(size)))
        sum(terms_of(learning, part, 6.0).values()).backward()
    for name, parameter in learning.model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradient[name], rtol=1e-4, atol=1e-5, msg=name)
    assert add_counts(learning.loss_count(some(batch, row)) for row in range(6)) == {"images": 6.0}


def test_the_same_part_of_every_tile_is_hidden_however_the_batch_is_cut():
    torch.manual_seed(3)
    whole = draw_hidden(5, 8, 8, 0.6)
    torch.manual_seed(3)
    parts = torch.cat([draw_hidden(2, 8, 8, 0.6), draw_hidden(3, 8, 8, 0.6)])
    assert whole.equal(parts)
    assert whole.sum(dim=(1, 2, 3)).tolist() == [38.0] * 5
    assert not whole[0].equal(whole[1])


def test_nothing_is_hidden_or_drawn_in_evaluation():
    batch, masked = tiles(*LINES), task(mask_ratio=0.6)
    masked.model.eval()
    before = torch.get_rng_state()
    first, second = masked.forward(batch), masked.forward(batch)
    assert first["skeleton"].equal(second["skeleton"])
    assert torch.get_rng_state().equal(before)
    masked.model.train()
    assert not masked.forward(batch)["skeleton"].equal(first["skeleton"])


def test_hidden_ink_is_not_seen_and_is_not_the_same_as_no_ink():
    network = task().model.eval()
    hidden = torch.zeros(1, 1, 2, 2)
    hidden[0, 0, 0, 0] = 1
    ink = torch.zeros(1, 1, 16, 16)
    ink[..., 2:5, 2:7] = 1
    assert network(ink, hidden)["skeleton"].equal(network(torch.zeros_like(ink), hidden)["skeleton"])
    assert not network(ink, hidden)["skeleton"].equal(
        network(torch.zeros_like(ink), torch.zeros_like(hidden))["skeleton"]
    )


def test_a_dense_network_begins_with_the_structural_ones_answers():
    structural, dense = task(skips=False, full_heads=False).model.eval(), task().model.eval()
    loaded = dense.load_state_dict(structural.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    added = ("skips.", "heads.width.", "heads.offset.", "heads.key_points.")
    assert loaded.missing_keys
    assert all(name.startswith(added) for name in loaded.missing_keys)
    batch, hidden = tiles(*LINES), torch.zeros(6, 1, 2, 2)
    before, after = structural(batch.images, hidden), dense(batch.images, hidden)
    assert before["skeleton"].equal(after["skeleton"])


def test_every_parameter_learns():
    learning = task()
    batch = tiles(*LINES)
    for _ in range(2):  # what begins at zero hides what is behind it from the first gradient
        learning.model.zero_grad()
        sum(terms_of(learning, batch, 6.0).values()).backward()
        with torch.no_grad():
            for parameter in learning.model.parameters():
                parameter -= 0.01 * parameter.grad
    assert not [name for name, parameter in learning.model.named_parameters() if not parameter.grad.abs().sum() > 0]


@pytest.mark.parametrize("full", [True, False])
def test_where_no_offset_is_known_none_is_learnt(full):
    learning, batch = task(), tiles(*LINES, full=full)
    optimizer = torch.optim.AdamW(learning.model.parameters(), lr=5e-3)
    for _ in range(2):
        optimizer.zero_grad()
        sum(terms_of(learning, batch, 6.0).values()).backward()
        optimizer.step()
    assert bool(learning.forward(batch)["offset"].any()) == full


def test_it_learns_two_tiles_by_heart():
    learning = task()
    batch = tiles(((4, 2, 12), 3.0), ((9, 1, 8), 4.0))
    optimizer = torch.optim.AdamW(learning.model.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        sum(terms_of(learning, batch, 2.0).values()).backward()
        optimizer.step()
    learning.model.eval()
    metric = learning.new_metric()
    metric.update(learning.predictions(learning.forward(batch), batch), batch)
    values = metric.compute()
    assert (values["iou"], values["end_point_f1"]) == (1.0, 1.0)
    assert values["width_error_px"] < 0.3


@pytest.mark.parametrize(("changes", "message"), [
    ({"channels": [8, 12, 16]}, r"channels=\[8, 12, 16\] and embed_dim=32 must be positive multiples of 8"),
    ({"num_heads": 3}, "embed_dim=32 must be a multiple of num_heads=3"),
    ({"depths": [1, -1, 1]}, r"depths=\[1, -1, 1\] must not be negative"),
    ({"mask_ratio": 1.0}, "model.mask_ratio=1.0"),
    ({"loss_weights": {**SETTINGS["loss_weights"], "skeleton": -1}}, "model.loss_weights.skeleton=-1"),
])  # fmt: skip
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        task(**changes)


def test_a_tile_that_can_not_be_cut_into_blocks_is_refused():
    with pytest.raises(DataError, match="tiles of 20×20 px; the ink network takes multiples of 8"):
        task().forward(tiles(None, size=20))
