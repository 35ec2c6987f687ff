from dataclasses import replace
from functools import partial

import pytest
import torch
from detection_parts import batch, target
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, clip_boxes_to_image

from winnow.engine.counts import add_counts
from winnow.errors import ConfigError, WeightsError
from winnow.families.detection.batch import DetectionBatch
from winnow.families.detection.metrics.coco_ap import CocoAp
from winnow.families.detection.models.fcos import FcosOutputs, decode_boxes, fcos_losses
from winnow.families.detection.models.fcos_matching import grid_shapes, make_grid, match_locations
from winnow.families.detection.models.fcos_r50_fpn import fcos_r50_fpn
from winnow.families.detection.models.fcos_tiny import STRIDES, fcos_tiny

CLASSES = ["car", "bus", "bike"]
TINY = {"channels": [16, 32, 64, 128], "head_channels": 64, "head_convs": 2, "pretrained": False, "offline": False}


def tiny(**changes):
    torch.manual_seed(0)
    return fcos_tiny(CLASSES, partial(CocoAp, CLASSES), 100, 0.05, **{**TINY, **changes})


def crowded(seed=0, count=4, size=(128, 128)):
    """Return images with many overlapping boxes, one of them empty."""
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for number in range(count):
        corners = torch.rand(12, 2, generator=generator) * 90
        sides = 5 + torch.rand(12, 2, generator=generator) * 70
        boxes = torch.cat([corners, (corners + sides).clamp(max=size[0])], dim=1)
        labels = torch.randint(0, 3, (12,), generator=generator)
        chosen = slice(0, 0 if number == 1 else 12)
        targets.append(target(boxes[chosen].tolist(), labels[chosen].tolist(), size, image_id=number))
    return batch(*targets)


def random_outputs(data, seed=0):
    generator = torch.Generator().manual_seed(seed)
    num = sum(rows * columns for rows, columns in grid_shapes(tuple(data.images.shape[2:]), STRIDES))
    shape = (data.num_samples, num)
    return FcosOutputs(
        torch.randn(*shape, 3, generator=generator),
        torch.rand(*shape, 4, generator=generator) * 4,
        torch.randn(*shape, generator=generator),
    )


def torchvision_losses(outputs, data):
    """Return torchvision's own matching and losses on the same head outputs, as sums over the batch."""
    shapes = grid_shapes(tuple(data.images.shape[2:]), STRIDES)
    generator = AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES))
    anchors = generator(
        ImageList(data.images, [t.size for t in data.targets]), [torch.zeros(1, 1, *shape) for shape in shapes]
    )
    backbone = torch.nn.Conv2d(3, 64, 1)
    backbone.out_channels = 64
    network = FCOS(backbone, num_classes=3, anchor_generator=generator)
    head = {
        "cls_logits": outputs.logits,
        "bbox_regression": outputs.distances,
        "bbox_ctrness": outputs.centerness[..., None],
    }
    truth = [{"boxes": t.boxes, "labels": t.labels} for t in data.targets]
    return network.compute_loss(truth, head, anchors, [rows * columns for rows, columns in shapes])


@pytest.mark.parametrize(("seed", "size"), [(0, (128, 128)), (1, (128, 128)), (2, (96, 160)), (3, (160, 96))])
def test_losses_equal_torchvisions_on_the_same_outputs(seed, size):
    data = crowded(seed, size=size)
    outputs = random_outputs(data, seed)
    count = float(match_locations(data, STRIDES).wins.sum())
    ours = fcos_losses(outputs, match_locations(data, STRIDES))
    theirs = torchvision_losses(outputs, data)
    assert count > 10
    for name, key in (
        ("loss_class", "classification"),
        ("loss_box", "bbox_regression"),
        ("loss_centerness", "bbox_ctrness"),
    ):
        torch.testing.assert_close(ours[name] / count, theirs[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("split", [(1, 3), (2, 2), (3, 1)])
def test_terms_of_micro_batches_sum_to_the_terms_of_the_whole_step(split):
    task, whole = tiny(), crowded()
    parts = [
        DetectionBatch(whole.images[rows], whole.pixel_mask[rows], whole.targets[rows])
        for rows in (slice(0, split[0]), slice(split[0], None))
    ]
    count = add_counts(task.loss_count(part) for part in parts)
    assert count == task.loss_count(whole)
    expected = task.losses(task.forward(whole), whole, count)
    for name, value in expected.items():
        summed = sum(task.losses(task.forward(part), part, count)[name] for part in parts)
        torch.testing.assert_close(summed, value, rtol=1e-4, atol=1e-5)


def test_a_batch_without_boxes_has_a_finite_loss_with_a_gradient():
    task, data = tiny(), batch(target([], []), target([], []))
    assert task.loss_count(data) == {"positive_locations": 0}
    terms = task.losses(task.forward(data), data, {"positive_locations": 1.0})
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) for term in terms.values())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.model.parameters())


def test_nan_in_gives_a_non_finite_loss_and_no_exception():
    task, data = tiny(), crowded()
    with torch.no_grad():
        next(task.model.head.parameters()).fill_(torch.nan)
    outputs = task.forward(data)
    assert not torch.isfinite(sum(task.losses(outputs, data, {"positive_locations": 1.0}).values()))
    assert len(task.predictions(outputs, data)) == data.num_samples


@pytest.mark.parametrize("padded", [None, (128, 160), (256, 256)])
def test_predictions_are_in_original_pixels_whatever_the_padding(padded):
    truth = target([[20, 30, 60, 80]], [1], size=(96, 128), original_size=(480, 640))
    data = batch(truth, padded=padded)
    shapes = grid_shapes(tuple(data.images.shape[2:]), STRIDES)
    num = sum(rows * columns for rows, columns in shapes)
    logits = torch.full((1, num, 3), -20.0)
    distances = torch.zeros(1, num, 4)
    place = 7 * shapes[0][1] + 5  # the location (40, 56) of stride 8
    logits[0, place, 1] = 10
    distances[0, place] = torch.tensor([20.0, 26, 20, 24]) / 8
    (found,) = tiny().predictions(FcosOutputs(logits, distances, torch.full((1, num), 10.0)), data)
    torch.testing.assert_close(found.boxes, torch.tensor([[100.0, 150, 300, 400]]))
    assert found.labels.tolist() == [1]
    assert found.scores[0] > 0.99


def one_found(size, level=0, **outputs):
    """Return outputs for an image in which the locations of ``level`` have the given values, and nothing else is found."""
    shapes = grid_shapes(size, STRIDES)
    rows = torch.cat([torch.full((height * width,), number) for number, (height, width) in enumerate(shapes)]) == level
    logits = torch.full((1, len(rows), 3), -20.0)
    distances, centerness = torch.zeros(1, len(rows), 4), torch.zeros(1, len(rows))
    logits[0, rows, 1], centerness[0, rows] = outputs["logit"], outputs["centerness"]
    distances[0, rows] = outputs["distance"]
    return FcosOutputs(logits, distances, centerness), int(rows.sum())


def test_a_score_is_the_root_of_class_times_centerness():
    outputs, _ = one_found((32, 32), level=1, logit=0.3, centerness=-0.2, distance=0.3)
    (found,) = tiny().predictions(outputs, batch(target([], [], size=(32, 32))))
    expected = (torch.tensor(0.3).sigmoid() * torch.tensor(-0.2).sigmoid()).sqrt()
    torch.testing.assert_close(found.scores, expected.expand(4))
    assert found.labels.tolist() == [1] * 4


def test_at_most_a_thousand_locations_of_a_level_are_looked_at_and_none_on_padding():
    task = fcos_tiny(CLASSES, partial(CocoAp, CLASSES), 5000, 0.05, **TINY)
    whole = batch(target([], [], size=(320, 320)))
    outputs, num_locations = one_found((320, 320), logit=3.0, centerness=3.0, distance=0.3)
    (found,) = task.predictions(outputs, whole)
    assert (num_locations, len(found.scores)) == (1600, 1000)
    (found,) = task.predictions(outputs, batch(target([], [], size=(64, 96)), padded=(320, 320)))
    assert len(found.scores) == 64 // 8 * 96 // 8
    assert found.boxes.max(dim=0).values.tolist() == pytest.approx([88 - 2.4, 56 - 2.4, 88 + 2.4, 56 + 2.4])


def test_of_boxes_that_overlap_by_more_than_0_6_the_best_stays_within_its_class():
    def found(width, label):
        """Return how many of two boxes are found, 20 and ``width`` px wide."""
        outputs, _ = one_found((32, 64), logit=-20.0, centerness=5.0, distance=0.0)
        outputs.logits[0, 0, 1], outputs.logits[0, 1, label] = 5.0, 4.0
        outputs.distances[0, 0] = torch.tensor([0, 0, 20, 10]) / 8
        outputs.distances[0, 1] = torch.tensor([8, 0, width - 8, 10]) / 8
        return len(tiny().predictions(outputs, batch(target([], [], size=(32, 64))))[0].scores)

    assert [found(20 / 0.55, 1), found(20 / 0.65, 1), found(20 / 0.65, 2)] == [2, 1, 2]


def test_locations_without_a_number_take_no_place_from_others():
    outputs, count = one_found((320, 320), logit=3.0, centerness=3.0, distance=0.3)
    outputs.logits[0, : count // 2] = torch.nan
    (found,) = fcos_tiny(CLASSES, partial(CocoAp, CLASSES), 5000, 0.05, **TINY).predictions(
        outputs, batch(target([], [], size=(320, 320)))
    )
    assert len(found.scores) == count // 2


@pytest.mark.parametrize(("score", "is_found"), [(0.5, False), (0.499, True)])
def test_only_what_scores_above_the_threshold_is_found(score, is_found):
    task = fcos_tiny(CLASSES, partial(CocoAp, CLASSES), 100, score, **TINY)
    outputs, _ = one_found((32, 32), logit=0.0, centerness=0.0, distance=0.3)
    (found,) = task.predictions(outputs, batch(target([], [], size=(32, 32))))
    assert len(found.scores) == (16 if is_found else 0)


def test_predictions_are_sorted_limited_and_inside_the_image():
    task, data = tiny(), crowded()
    for found, truth in zip(task.predictions(random_outputs(data), data), data.targets, strict=True):
        assert 0 < len(found.scores) <= 100
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, 2:] <= torch.tensor(truth.original_size[::-1])).all()


def detections_one_by_one(outputs, data, most, threshold):
    """Return (boxes, scores, labels) per image, each found by itself from beginning to end."""
    grid = make_grid(tuple(data.images.shape[2:]), STRIDES, torch.device("cpu"))
    results = []
    for logits, distances, centerness, truth in zip(
        outputs.logits, outputs.distances, outputs.centerness, data.targets, strict=True
    ):
        on_image = (grid.points[:, 0] < truth.size[1]) & (grid.points[:, 1] < truth.size[0])
        scores = (logits.float().sigmoid() * centerness.float().sigmoid()[:, None]).sqrt()
        scores = torch.where(on_image[:, None], scores, 0.0)
        boxes = decode_boxes(distances.float(), grid.points, grid.strides)
        candidates = []
        for part, numbers in zip(
            scores.split(grid.level_sizes), torch.arange(len(boxes)).split(grid.level_sizes), strict=True
        ):
            values, places = part.flatten().topk(min(1000, part.numel()))
            keep = values > threshold
            candidates.append((boxes[numbers[places // 3]][keep], values[keep], (places % 3)[keep]))
        found, values, labels = (torch.cat(parts) for parts in zip(*candidates, strict=True))
        found = clip_boxes_to_image(found, truth.size)
        keep = batched_nms(found, values, labels, 0.6)[:most]
        results.append((found[keep] * torch.tensor(truth.scale * 2), values[keep], labels[keep]))
    return results


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # bfloat16 has many equal scores
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.999])
def test_predictions_of_a_batch_are_those_of_each_image_bit_for_bit(dtype, threshold):
    size = (128, 96)
    data = crowded(size=size)
    targets = [
        replace(truth, size=(128 - 20 * i, 96), original_size=(333, 500)) for i, truth in enumerate(data.targets)
    ]
    data = replace(data, targets=targets)
    outputs = FcosOutputs(*(value.to(dtype) for value in vars(random_outputs(data)).values()))
    task = fcos_tiny(CLASSES, partial(CocoAp, CLASSES), 70, threshold, **TINY)
    found = task.predictions(outputs, data)
    for one, (boxes, scores, labels) in zip(found, detections_one_by_one(outputs, data, 70, threshold), strict=True):
        assert one.boxes.equal(boxes)
        assert one.scores.equal(scores)
        assert one.labels.equal(labels)
    assert len(found[0].scores) == (0 if threshold == 0.999 else 70)


@pytest.mark.parametrize("training", [True, False])
def test_losses_and_predictions_do_not_depend_on_the_models_mode(training):
    task, data = tiny(), crowded()
    task.model.train(training)
    outputs = task.forward(data)
    assert task.losses(outputs, data, {"positive_locations": 10.0}).keys() == {
        "loss_class",
        "loss_box",
        "loss_centerness",
    }
    assert len(task.predictions(outputs, data)) == 4


def test_a_location_just_at_the_radius_is_not_positive():
    data = batch(target([[8, 8, 136, 136]], [0], size=(160, 160)))
    matches = match_locations(data, STRIDES)
    assert matches.stride[matches.wins].tolist() == [16.0] * 4
    # The centre lies at 72 px, 1.5 strides are 24 px: 48 and 96 are just too far.
    assert sorted(matches.points[matches.wins].tolist()) == [[64, 64], [64, 80], [80, 64], [80, 80]]


def test_a_location_on_the_edge_of_the_image_belongs_to_a_box_that_reaches_over_it():
    matches = match_locations(batch(target([[-10, -10, 12, 12]], [0], size=(64, 64))), STRIDES)
    assert sorted(matches.points[matches.wins].tolist()) == [[0, 0], [0, 8], [8, 0], [8, 8]]


def test_autocast_gives_float32_losses():
    task, data = tiny(), crowded()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = task.losses(task.forward(data), data, {"positive_locations": 10.0})
    assert {term.dtype for term in terms.values()} == {torch.float32}


def test_the_tiny_model_is_tiny_and_has_no_batch_norm():
    model = tiny().model
    assert 0.4e6 < sum(p.numel() for p in model.parameters()) < 0.5e6
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_weights_of_a_file_are_loaded_but_for_what_does_not_fit(tmp_path, caplog):
    source = tiny()
    torch.save(source.model.state_dict(), tmp_path / "tiny.pth")
    with caplog.at_level("INFO"):
        loaded = fcos_tiny(
            ["a"] * 5, partial(CocoAp, ["a"] * 5), 100, 0.05, **TINY | {"pretrained": str(tmp_path / "tiny.pth")}
        )
    weight = "backbone.stages.0.0.0.weight"
    assert loaded.model.state_dict()[weight].equal(source.model.state_dict()[weight])
    assert "cls_logits" in caplog.text


@pytest.mark.parametrize(("changes", "message"), [
    ({"channels": [8, 8]}, "model.channels"), ({"channels": [8, 8, 8, 9]}, "multiples of 8"),
    ({"head_convs": 0}, "model.head_convs=0"),
    ({"head_channels": 48}, "model.head_channels=48"), ({"pretrained": True}, "no weights of this model are published"),
])  # fmt: skip
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**changes)


@pytest.mark.parametrize("build", [fcos_r50_fpn])
def test_weights_that_are_not_there_offline_are_an_error_that_says_where(build, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=str(tmp_path)):
        build(CLASSES, partial(CocoAp, CLASSES), 100, 0.05, pretrained=True, offline=True, trainable_layers=3)


def test_the_large_fcos_computes_losses_and_predictions():
    torch.manual_seed(0)
    task = fcos_r50_fpn(CLASSES, partial(CocoAp, CLASSES), 100, 0.0, pretrained=False, offline=True, trainable_layers=5)
    data = crowded(count=2)
    outputs = task.forward(data)
    terms = task.losses(outputs, data, task.loss_count(data))
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) for term in terms.values())
    assert len(task.predictions(outputs, data)) == 2
