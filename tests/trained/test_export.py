"""Trained models as ONNX files: what onnxruntime finds with them, and when one is not kept."""

import dataclasses
import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from composed import compose_plain
from PIL import Image

import winnow
from winnow.checkpoints.file import read_checkpoint, write_checkpoint
from winnow.commands.cli import main
from winnow.errors import ConfigError, DataError, ExportError
from winnow.families.detection import onnx_model
from winnow.families.detection.evaluation import BoxEvaluation
from winnow.families.detection.found import batch_of_pictures
from winnow.families.detection.models.deformable_detr import deformable_detr_tiny
from winnow.families.detection.models.faster_rcnn import FasterRcnnTask
from winnow.families.detection.models.fcos_tiny import fcos_tiny
from winnow.families.ink.evaluation import ink_evaluation

SIZES = [(128, 128), (33, 64), (1, 1), (5, 900), (641, 333), (97, 131), (300, 400)]


def session_of(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def picture(height, width, seed=0):
    """Return a picture with edges and slopes, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(2, height // 24), max(2, width // 24), 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST))


@pytest.mark.parametrize("square", [False, True])
def test_pictures_are_prepared_as_evaluation_prepares_them(square):
    session = session_of(onnx_model._preparation(128, square, ir_version=10))
    for height, width in SIZES:
        pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        images, mask, size, original_size = session.run(None, {"image": pixels})
        batch = batch_of_pictures([pixels], ["one"], 128, square)
        assert images.shape == tuple(batch.images.shape)
        apart = np.abs(images.astype(int) - batch.images.numpy())
        assert apart.max() <= 1  # edges included; another kernel is off by 10 and more
        assert (apart > 0).mean() < 0.05
        assert np.array_equal(mask, batch.pixel_mask.numpy())
        assert tuple(size) == batch.targets[0].size
        assert tuple(original_size) == (height, width)


def task_of(name, threshold):
    torch.manual_seed(0)
    values = {key: value for key, value in compose_plain(f"model={name}")["model"].items() if key != "_target_"}
    build = {"fcos_tiny": fcos_tiny, "deformable_detr_tiny": deformable_detr_tiny}[name]
    task = build(
        classes=list("abcdefghij"), new_metric=None, max_detections=60, score_threshold=threshold, **values
    )  # fmt: skip
    with torch.no_grad():  # scores of fresh weights are nearly equal, and a pixel's last bit would decide their order
        for parameter in task.model.parameters():
            parameter.add_(0.05 * parameter.abs().mean() * torch.randn(parameter.shape))
    task.model.eval()
    return task


@pytest.mark.slow
@pytest.mark.parametrize(("name", "threshold"), [("fcos_tiny", 0.03), ("deformable_detr_tiny", 0.005)])
def test_it_finds_what_the_model_finds_on_pictures_of_any_size(name, threshold):
    task = task_of(name, threshold)
    model = onnx_model.onnx_detector(task.exportable(), 128, square=False)
    onnx.checker.check_model(model)
    assert {entry.version for entry in model.opset_import if not entry.domain} == {18}
    session = session_of(model)
    assert [(entry.name, entry.type) for entry in session.get_inputs()] == [("image", "tensor(uint8)")]
    num_found = 0
    for height, width in SIZES:
        pixels = picture(height, width)
        batch = batch_of_pictures([pixels], ["one"], 128, square=False)
        with torch.inference_mode():
            (expected,) = task.predictions(task.forward(batch), batch)
        boxes, scores, labels = session.run(None, {"image": pixels})
        assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)
        num_found += len(scores)
        assert abs(len(scores) - len(expected.scores)) <= 2  # at the threshold
        assert np.abs(np.diff(scores)).max(initial=0) == 0 or (np.diff(scores) <= 0).all()
        # Neighbours of nearly one score may change places.
        near = sum(
            bool(
                (
                    (np.abs(boxes - box).max(axis=1) < 0.02 * max(height, width))
                    & (np.abs(scores - score) < 2e-3)
                    & (labels == label)
                ).any()
            )
            for box, score, label in zip(
                expected.boxes.numpy(), expected.scores.numpy(), expected.labels.numpy(), strict=True
            )
        )
        assert near >= 0.95 * len(expected.scores)
    assert num_found > 50


@pytest.fixture
def model(run):
    return winnow.load(run, device="cpu", precision="off")


@pytest.fixture
def found_is_true(run, pictures, model, tmp_path):
    """Return overrides that name a data set whose truth is what the model finds, so that its average precision is high."""
    categories = [{"id": number, "name": name} for number, name in zip(model.category_ids, model.classes, strict=True)]
    images, annotations = [], []
    for number, path in enumerate(pictures[:4], start=1):
        with Image.open(path) as opened:
            pixels = opened.convert("RGB").crop((0, 0, 128, 80 + 11 * number))
        pixels.save(tmp_path / f"{number}.png")
        record = model.predict(tmp_path / f"{number}.png")[0].record()
        images.append(
            {"id": number, "file_name": f"{number}.png", "width": record["width"], "height": record["height"]}
        )
        annotations += [{"image_id": number, **one} for one in record["annotations"][:6]]
    content = {
        "images": images,
        "categories": categories,
        "annotations": [{**one, "id": number} for number, one in enumerate(annotations, start=1)],
    }
    (tmp_path / "found.json").write_text(json.dumps(content))
    return ["data=coco", *(
        f"data.{part}.{key}={value}"
        for part in ("train", "val")
        for key, value in (("images", tmp_path), ("annotations", tmp_path / "found.json"))
    )]  # fmt: skip


@pytest.mark.slow
def test_a_file_is_checked_and_says_what_it_knows(run, here, model, found_is_true, tmp_path, capsys, monkeypatch):
    path = tmp_path / "model.onnx"
    command = ["export", str(run), "--output", str(path), "--data", *found_is_true]
    assert main(command) == 0
    expected = model.evaluate(found_is_true, batch_size=1)["val/map"]
    assert expected > 0.2
    assert f"by onnxruntime, {expected:.4f} by the model, on 4 pictures" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert facts["names"] == list(model.classes)
    assert facts["category_ids"] == list(range(1, 11))
    assert facts["image_size"] == 128
    assert str(here) not in str(onnx.load(path))  # nor where it was made
    assert main(command) == 2
    assert "model.onnx is there already" in capsys.readouterr().err

    exported = BoxEvaluation.onnx_model

    def with_other_weights(*arguments):
        changed = exported(*arguments)
        for tensor in changed.graph.initializer:
            if len(tensor.dims) == 4:
                tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name))
        return changed

    monkeypatch.setattr(BoxEvaluation, "onnx_model", with_other_weights)
    path.unlink()
    with pytest.raises(
        ExportError, match=rf"model.onnx was deleted: by onnxruntime val/map is 0\..*{expected:.4f} on 4"
    ):
        model.export(path, found_is_true)
    assert [file for file in tmp_path.iterdir() if "onnx" in file.name] == []


def test_what_can_t_be_exported_is_named(run, here, model, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    faster_rcnn = dataclasses.replace(model, task=object.__new__(FasterRcnnTask))
    with pytest.raises(
        ConfigError, match="FasterRcnnTask can't be exported: it has no form that torch's exporter takes"
    ):
        faster_rcnn.export(path)
    ink = dataclasses.replace(model, evaluation=ink_evaluation(skeleton_threshold=0.5, key_point_threshold=0.5))
    with pytest.raises(ConfigError, match="a line is straightened, cut into tiles and put together again outside"):
        ink.export(path)
    with pytest.raises(
        ConfigError, match=r"in torch.bfloat16, and a file computes in float32; load it with device=cpu"
    ):
        winnow.load(run, device="cpu", precision="bf16").export(path)
    with pytest.raises(ConfigError, match="nowhere is no folder"):
        model.export(tmp_path / "nowhere" / "model.onnx")
    with pytest.raises(ConfigError, match="knows the classes"):
        model.export(path, _other_classes(tmp_path))
    monkeypatch.setattr(BoxEvaluation, "onnx_model", lambda *arguments: torch.zeros(2).view(3))
    with pytest.raises(
        ExportError, match=r"FcosTask can't be exported: torch's exporter does not take it \(RuntimeError: shape"
    ):
        model.export(path)
    assert list(tmp_path.glob("*onnx*")) == []


def _other_classes(folder):
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 6, 6], "area": 36, "iscrowd": 0}],
    }
    (folder / "other.json").write_text(json.dumps(content))
    paths = [("images", folder), ("annotations", folder / "other.json")]
    return ["data=coco", *(f"data.{part}.{key}={value}" for part in ("train", "val") for key, value in paths)]


def test_without_the_run_s_data_another_set_is_asked_for(run, model, tmp_path, monkeypatch):
    content = read_checkpoint(run / "checkpoints" / "best.pth")
    paths = {"images": str(tmp_path / "gone"), "annotations": str(tmp_path / "gone.json")}
    node = compose_plain(
        "data=coco", *(f"data.{part}.{key}={path}" for part in ("train", "val") for key, path in paths.items())
    )
    content["config"]["data"] = node["data"]
    write_checkpoint(tmp_path / "moved.pth", content)
    moved = winnow.load(tmp_path / "moved.pth", device="cpu", precision="off")
    with pytest.raises(DataError, match=r"gone.json.*--data names another to check the file on"):
        moved.export(tmp_path / "model.onnx")


def test_without_the_extra_it_says_what_to_install(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(run), "--output", str(tmp_path / "model.onnx")]) == 2
    assert "needs the package onnxruntime" in (printed := capsys.readouterr().err)
    assert "pip install -e '.[export]'" in printed
