import copy
import functools
import logging
import re

import pytest
import torch
from composed import compose_plain
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection
from transformers.models.deformable_detr import DeformableDetrImageProcessor
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrEncoderLayer,
    DeformableDetrObjectDetectionOutput,
)

from winnow.checkpoints.references import FileTensor, moved_sources, with_references
from winnow.checkpoints.state_dicts import referable
from winnow.engine.counts import add_counts, divisors
from winnow.errors import ConfigError, WeightsError
from winnow.families.detection.batch import DetectionBatch, Target
from winnow.families.detection.models.deformable_detr import deformable_detr, deformable_detr_tiny
from winnow.families.detection.models.deformable_network import SetOutputs, resnet_config

CLASSES = ("cat", "dog", "bird")


class CountingMetric:
    def __init__(self):
        self.images = 0


@functools.cache
def composed(name):
    return compose_plain(f"model={name}")


def preset(name):
    return copy.deepcopy(composed(name))


def tiny_task(classes=CLASSES, max_detections=100, score_threshold=0.05, **changes):
    torch.manual_seed(0)
    values = {**preset("deformable_detr_tiny")["model"], **changes}
    del values["_target_"]
    return deformable_detr_tiny(classes, CountingMetric, max_detections, score_threshold, **values)


def full_task(classes=CLASSES, **changes):
    values = {**preset("deformable_detr")["model"], "offline": True, **changes}
    del values["_target_"]
    return deformable_detr(classes, CountingMetric, 100, 0.05, **values)


def target(boxes, labels, size, original_size=None):
    boxes, labels = torch.tensor(boxes).float().reshape(-1, 4), torch.tensor(labels, dtype=torch.int64)
    none = torch.zeros(0)
    return Target(1, boxes, labels, size, original_size or size, none.reshape(0, 4), none.long(), none, none.bool())


def batch_of(*targets, canvas=(64, 64)):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (len(targets), 3, *canvas), dtype=torch.uint8, generator=generator)
    mask = torch.zeros(len(targets), *canvas, dtype=torch.bool)
    for image, one in enumerate(targets):
        mask[image, : one.size[0], : one.size[1]] = True
    return DetectionBatch(images * mask[:, None], mask, targets)


def two_image_batch():
    first = target([[4, 4, 40, 30]], [0], (64, 64))
    second = target([[10, 2, 30, 30], [0, 20, 20, 40], [5, 5, 15, 25]], [2, 1, 1], (48, 40))
    return batch_of(first, second)


def losses_of(task, batch, count=None):
    counts = divisors(task.loss_count(batch)) if count is None else {"boxes": count}
    return task.losses(task.forward(batch), batch, counts)


@pytest.fixture
def source_folder(tmp_path):
    """Return a small network of transformers' own with seven classes and per-layer heads, as a trained one has; its folder."""

    def make(with_box_refine):
        config = DeformableDetrConfig(
            backbone_config=resnet_config(
                embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, layer_type="basic"
            ),
            d_model=32,
            encoder_layers=1,
            decoder_layers=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            num_queries=20,
            num_labels=7,
            with_box_refine=with_box_refine,
        )
        network = DeformableDetrForObjectDetection(config)
        network.class_embed = torch.nn.ModuleList([copy.deepcopy(head) for head in network.class_embed])
        network.bbox_embed = torch.nn.ModuleList([copy.deepcopy(head) for head in network.bbox_embed])
        if with_box_refine:
            network.model.decoder.bbox_embed = network.bbox_embed
        with torch.no_grad():
            for head in [*network.class_embed, *network.bbox_embed]:
                for parameter in head.parameters():
                    parameter.normal_()
        network.save_pretrained(tmp_path)
        return network, tmp_path

    return make


def test_the_first_class_loss_is_that_of_the_focal_prior():
    terms = losses_of(tiny_task(), two_image_batch())
    assert terms["loss_ce"].item() / 2 == pytest.approx(1.13, abs=0.1)


def test_queries_look_at_different_places_from_the_start():
    boxes = tiny_task().forward(two_image_batch()).boxes_cxcywh
    assert boxes[-1, 0, :, :2].std(dim=0).min() > 0.1


def test_terms_of_micro_batches_add_up_to_those_of_the_batch():
    task, batch = tiny_task(), two_image_batch()
    whole = losses_of(task, batch, 4)
    parts = [
        DetectionBatch(batch.images[i : i + 1], batch.pixel_mask[i : i + 1], batch.targets[i : i + 1]) for i in (0, 1)
    ]
    first, second = (losses_of(task, part, 4) for part in parts)
    assert add_counts(task.loss_count(part) for part in parts) == task.loss_count(batch) == {"boxes": 4}
    torch.testing.assert_close({name: first[name] + second[name] for name in whole}, whole, rtol=1e-4, atol=1e-5)


def test_it_learns_a_batch_by_heart():
    task, batch = tiny_task(), two_image_batch()
    optimizer = torch.optim.AdamW(task.model.parameters(), 2e-3)
    values = []
    for _ in range(15):
        loss = sum(losses_of(task, batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]


@pytest.mark.parametrize("boxes", [([], []), ([[1, 1, 9, 9]], [0])])
def test_images_without_boxes_train(boxes):
    task = tiny_task()
    batch = batch_of(target([], [], (64, 64)), target(*boxes, (64, 64)))
    sum(losses_of(task, batch, 1).values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in task.model.parameters())


def test_nan_weights_make_the_loss_non_finite_without_an_error():
    task = tiny_task()
    with torch.no_grad():
        task.model.bbox_embed[0].layers[0].weight.fill_(torch.nan)
    assert not torch.isfinite(sum(losses_of(task, two_image_batch()).values()))


def heads_of(model):
    """Return the tensors of the class heads and of the box heads, by decoder layer."""
    return [[list(head.parameters()) for head in heads] for heads in (model.class_embed, model.bbox_embed)]


@pytest.mark.parametrize(("refine", "shared"), [(True, True), (True, False), (False, False)])
def test_decoder_layers_have_heads_of_their_own(refine, shared):
    for first, second in heads_of(tiny_task(with_box_refine=refine, share_heads=shared).model):
        assert not {id(tensor) for tensor in first} & {id(tensor) for tensor in second}


def test_without_refinement_all_decoder_layers_share_the_heads_as_in_the_authors_code():
    separate, shared = (tiny_task(with_box_refine=False, share_heads=share).model for share in (False, True))
    for first, second in heads_of(shared):
        assert [id(tensor) for tensor in first] == [id(tensor) for tensor in second]
    assert separate.state_dict().keys() == shared.state_dict().keys()
    for (_, last), (_, tensors) in zip(heads_of(separate), heads_of(shared), strict=True):
        assert all(mine.equal(theirs) for mine, theirs in zip(tensors, last, strict=True))
    assert (
        preset("deformable_detr")["model"]["share_heads"]
        is preset("deformable_detr_tiny")["model"]["share_heads"]
        is True
    )


def test_shared_heads_learn_from_every_layer_and_survive_their_checkpoint(tmp_path):
    task = tiny_task(with_box_refine=False)
    task.model.train()
    outputs = task.forward(two_image_batch())
    outputs.logits[0].sum().backward()
    assert task.model.class_embed[-1].weight.grad.abs().sum() > 0
    torch.save(task.model.state_dict(), tmp_path / "shared.pth")
    again = tiny_task(with_box_refine=False, pretrained=str(tmp_path / "shared.pth")).model
    assert all(value.equal(task.model.state_dict()[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize("as_folder", [False, True])
def test_of_separate_heads_in_a_file_all_layers_take_the_last_ones(tmp_path, as_folder):
    separate = tiny_task(with_box_refine=False, share_heads=False).model
    with torch.no_grad():
        for head in [*separate.class_embed, *separate.bbox_embed]:
            for parameter in head.parameters():
                parameter.normal_()
    if as_folder:
        separate.save_pretrained(tmp_path)
    else:
        torch.save(separate.state_dict(), tmp_path / "separate.pth")
    path = tmp_path if as_folder else tmp_path / "separate.pth"
    shared = tiny_task(with_box_refine=False, pretrained=str(path)).model
    for (_, last), layers in zip(heads_of(separate), heads_of(shared), strict=True):
        assert all(mine.equal(theirs) for layer in layers for mine, theirs in zip(layer, last, strict=True))


def test_a_copy_for_ema_refines_by_its_own_box_heads():
    model = copy.deepcopy(tiny_task(with_box_refine=True).model)
    assert model.model.decoder.bbox_embed is model.bbox_embed


def test_boxes_are_float32_under_autocast():
    task = tiny_task()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = task.forward(two_image_batch())
    assert outputs.boxes_cxcywh.dtype == outputs.logits.dtype == torch.float32


@pytest.mark.parametrize("canvas", [(64, 64), (96, 64), (128, 160)])
def test_true_boxes_come_back_in_original_pixels_whatever_the_padding(canvas):
    task = tiny_task()
    batch = batch_of(target([[10, 8, 30, 40]], [1], size=(50, 40), original_size=(500, 200)), canvas=canvas)
    logits = torch.full((2, 1, 30, 3), -9.0)
    logits[:, 0, 4, 1] = 9.0
    boxes = torch.rand(2, 1, 30, 4)
    boxes[:, 0, 4] = torch.tensor([20 / 40, 24 / 50, 20 / 40, 32 / 50])
    outputs = SetOutputs(logits, boxes)
    (found,) = task.predictions(outputs, batch)
    torch.testing.assert_close(found.boxes, torch.tensor([[50.0, 80.0, 150.0, 400.0]]))
    assert found.labels.tolist() == [1]
    assert task.losses(outputs, batch, {"boxes": 1})["loss_bbox"].item() == pytest.approx(0, abs=1e-5)


def test_predictions_are_those_of_transformers():
    task = tiny_task(max_detections=15, score_threshold=0.4)
    batch, logits = two_image_batch(), torch.randn(2, 2, 30, 3)
    boxes = torch.cat([torch.rand(2, 2, 30, 2) * 0.4 + 0.3, torch.rand(2, 2, 30, 2) * 0.5], dim=-1)
    theirs = DeformableDetrImageProcessor().post_process_object_detection(
        DeformableDetrObjectDetectionOutput(logits=logits[-1], pred_boxes=boxes[-1]), 0.4, [(64, 64), (48, 40)], 15
    )
    for ours, expected in zip(task.predictions(SetOutputs(logits, boxes), batch), theirs, strict=True):
        torch.testing.assert_close(
            {"scores": ours.scores, "labels": ours.labels, "boxes": ours.boxes}, expected, rtol=1e-4, atol=1e-4
        )


def test_predicted_boxes_are_clipped_by_their_corners():
    task = tiny_task()
    logits = torch.full((1, 1, 30, 3), 3.0)
    outputs = SetOutputs(logits, torch.tensor([0.9, 0.5, 0.6, 2.0]).expand(1, 1, 30, 4))
    (found,) = task.predictions(outputs, batch_of(target([], [], (64, 64), (100, 200))))
    torch.testing.assert_close(found.boxes[0], torch.tensor([120.0, 0.0, 200.0, 100.0]))


@pytest.mark.parametrize("name", ["deformable_detr", "deformable_detr_tiny"])
def test_every_parameter_group_matches_something(name):
    task = tiny_task() if name.endswith("tiny") else full_task(pretrained=False)
    names = [parameter for parameter, _ in task.model.named_parameters()]
    for group in preset(name)["training"]["param_groups"]:
        assert any(re.search(group["pattern"], parameter) for parameter in names), group


def test_the_tiny_network_is_tiny_and_the_full_one_says_that_it_starts_random(caplog):
    caplog.set_level(logging.INFO)
    assert sum(parameter.numel() for parameter in tiny_task().model.parameters()) < 1e6
    full = full_task(pretrained=False)
    assert "ResNet-50 starts from random weights" in caplog.text
    assert "deformable attention: pure PyTorch" in caplog.text
    assert all(parameter.requires_grad for parameter in full.model.parameters())


@pytest.mark.parametrize("refine", [True, False])
def test_loaded_weights_give_the_outputs_of_transformers(source_folder, refine):
    network, folder = source_folder(refine)
    task = full_task([f"class {i}" for i in range(7)], pretrained=str(folder), num_queries=20, with_box_refine=refine)
    batch = two_image_batch()
    network.eval()
    task.model.eval()
    with torch.no_grad():
        expected = network(task.model.normalize(batch.images, batch.pixel_mask), pixel_mask=batch.pixel_mask)
        outputs = task.forward(batch)
    torch.testing.assert_close(outputs.logits[-1], expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs.boxes_cxcywh[-1], expected.pred_boxes, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("refine", [True, False])
def test_a_resized_class_head_starts_at_the_prior_and_is_reported(source_folder, refine, caplog):
    network, folder = source_folder(refine)
    model = full_task(pretrained=str(folder), num_queries=20, with_box_refine=refine).model
    assert "reshaped, start from random values: class_embed.0.bias" in caplog.text
    for layer, head in enumerate(model.class_embed):
        torch.testing.assert_close(head.bias, torch.full((3,), -4.595), atol=1e-3, rtol=0)
        assert torch.equal(model.bbox_embed[layer].layers[0].weight, network.bbox_embed[layer].layers[0].weight)


def test_only_the_stem_and_first_stage_of_a_loaded_backbone_are_frozen(source_folder):
    model = full_task(pretrained=str(source_folder(False)[1]), num_queries=20).model
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert all(re.search(r"backbone\.model\.(embedder|encoder\.stages\.0)\.", name) for name in frozen)


def test_tiny_weights_survive_save_pretrained(tmp_path):
    task, batch = tiny_task(), two_image_batch()
    task.model.save_pretrained(tmp_path / "folder")
    torch.save({"model": task.model.state_dict()}, tmp_path / "checkpoint.pth")
    for path in (tmp_path / "folder", tmp_path / "checkpoint.pth"):
        again = tiny_task(pretrained=str(path))
        torch.testing.assert_close(again.forward(batch), task.forward(batch))


def test_frozen_weights_of_a_save_pretrained_folder_can_be_referred_to(tmp_path):
    folder = tmp_path / "folder"
    tiny_task().model.save_pretrained(folder)
    task = tiny_task(pretrained=str(folder))
    names = {name for name, _ in task.model.named_parameters() if name.startswith("model.backbone")}
    for name, parameter in task.model.named_parameters():
        parameter.requires_grad_(name not in names)
    found = referable(task.model, tmp_path / "run")
    assert set(found) == names
    assert {(tensor.source, tensor.file) for tensor in found.values()} == {(str(folder), folder / "model.safetensors")}
    with torch.no_grad():
        changed = min(names)
        task.model.get_parameter(changed).add_(1)
    assert set(referable(task.model, tmp_path / "run")) == names - {changed}


def test_a_folder_of_frozen_weights_that_has_moved_is_named_as_a_folder(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    model = tiny_task().model
    model.save_pretrained(old)
    own = dict(model.state_dict())
    references = {name: FileTensor(str(old), old / "model.safetensors", name) for name in list(own)[:2]}
    checkpoint = with_references({"model_state_dict": own}, references, own)
    old.rename(new)
    for given in (new, new / "model.safetensors"):
        assert moved_sources(checkpoint, tmp_path / "last.pth", str(given)) == {str(old): str(new)}


def test_two_stage_and_other_models_are_refused(source_folder):
    folder = source_folder(True)[1]
    config = folder / "config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"two_stage": false', '"two_stage": true'), encoding="utf-8")
    with pytest.raises(WeightsError, match="the two-stage variant"):
        full_task(pretrained=str(folder))
    config.write_text(text.replace('"model_type": "deformable_detr"', '"model_type": "detr"'), encoding="utf-8")
    with pytest.raises(WeightsError, match="a 'detr' model"):
        full_task(pretrained=str(folder))


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"only 0 of \d+ entries"):
        tiny_task(pretrained=str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_queries": 0}, "model.num_queries=0"),
        ({"num_queries": "30"}, "model.num_queries='30'"),
        ({"dropout": 1.5}, "model.dropout=1.5"),
        ({"d_model": 48}, "model.d_model=48"),
        ({"num_heads": 5}, "num_heads=5 does not divide d_model=64"),
        ({"channels": [8, 16]}, "model.channels="),
        ({"pretrained": None}, "model.pretrained"),
        ({"pretrained": True}, "model.pretrained=true, but no weights of this model are published"),
        ({"criterion": {}}, "model.criterion.class_cost is missing"),
        ({"classes": ()}, "no classes"),
    ],
)
def test_wrong_values_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny_task(**changes)


def test_metrics_are_new_each_time():
    task = tiny_task()
    assert task.new_metric() is not task.new_metric()


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_an_encoder_layer_in_training_gives_what_transformers_gives_bit_for_bit(dropout):
    task = tiny_task(dropout=dropout)
    (ours,) = task.model.model.encoder.layers
    theirs = copy.deepcopy(ours)
    theirs.__class__ = DeformableDetrEncoderLayer
    inputs = {}
    ours.register_forward_pre_hook(lambda layer, args, named: inputs.update(args=args, named=named), with_kwargs=True)
    task.model.train()
    task.forward(two_image_batch())
    results = []
    for layer in (ours, theirs):
        states = inputs["args"][0].detach().requires_grad_()
        torch.manual_seed(1)
        output = layer(states, *inputs["args"][1:], **inputs["named"])
        results.append([output, *torch.autograd.grad(output.square().sum(), [states, *layer.parameters()])])
    assert all(one.equal(other) for one, other in zip(*results, strict=True))


class Reads(TorchDispatchMode):
    """Counts the numbers that are read from tensors, for which a host waits."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_no_number_is_read_from_the_device_in_a_forward_pass_of_training():
    task, batch = tiny_task(dropout=0.1), two_image_batch()
    task.model.train()
    with Reads() as reads:
        task.forward(batch)
    assert reads.count == 0


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_what_is_not_finite_in_the_encoder_reaches_the_loss(bad):
    task = tiny_task()
    task.model.train()
    with torch.no_grad():
        task.model.model.encoder.layers[0].final_layer_norm.bias.fill_(bad)
    assert not torch.isfinite(sum(losses_of(task, two_image_batch()).values()))


def test_what_lies_on_padding_does_not_reach_the_outputs():
    task = tiny_task()
    task.model.eval()
    batch = two_image_batch()
    expected = task.forward(batch)
    noise = torch.Generator().manual_seed(5)
    num_spoilt = []

    def spoil(module, args, features):
        mask = torch.nn.functional.interpolate(batch.pixel_mask[:, None].float(), features.shape[-2:]) > 0
        num_spoilt.append(int((~mask).sum()))
        return torch.where(mask, features, torch.randn(features.shape, generator=noise))

    for projection in task.model.model.input_proj:
        projection.register_forward_hook(spoil)
    found = task.forward(batch)
    assert sum(num_spoilt) > 10
    assert found.logits.equal(expected.logits)
    assert found.boxes_cxcywh.equal(expected.boxes_cxcywh)
