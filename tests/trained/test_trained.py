"""Trained models in use: loaded from a checkpoint alone, predicting on pictures, evaluated as their run was."""

import json
import os
import re

import numpy as np
import pytest
import torch
import yaml
from composed import compose_plain
from PIL import Image
from test_ink_run import UNTRACKED as INK
from trained_parts import RUN

import winnow
from winnow.checkpoints.file import read_checkpoint, write_checkpoint
from winnow.commands.cli import main
from winnow.errors import CheckpointError, ConfigError, DataError, WeightsError
from winnow.families.detection.models.deformable_detr import deformable_detr_tiny
from winnow.trained.load import build_task


def test_its_own_evaluation_is_the_run_s_to_the_last_bit(run, here):
    model = winnow.load(run, "last")
    recorded = json.loads((run / "result.json").read_text())["metrics"]
    found = model.evaluate()
    assert found == {name: recorded[name] for name in found}
    assert len(found) > 10
    assert model.evaluate(batch_size=3)["val/map"] == found["val/map"]
    assert model.evaluate(split="train") != found


def test_predictions_are_those_of_the_evaluation(run, here, pictures):
    model = winnow.load(run, device="cpu")
    (batch,) = _batches(model)
    batch = batch.to(model.precision.device, model.precision.memory_format)
    with torch.inference_mode():
        with model.precision.autocast():
            outputs = model.task.forward(batch)
        expected = model.task.predictions(outputs, batch)
    found = model.predict(pictures, batch_size=len(pictures))
    assert [one.name for one in found] == [str(path) for path in pictures]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)
        assert one.names == tuple(model.classes[label] for label in other.labels)
        assert one.category_ids == tuple(model.category_ids[label] for label in other.labels)


def _batches(model):
    from winnow.config.instantiate import instantiate
    from winnow.trained.evaluation import loading_of

    data = instantiate(model.config, "data", loading=loading_of(model.config, 8))
    return list(data.val_batches(model.image_size))


def test_paths_arrays_and_tensors_give_the_same(run, pictures):
    model = winnow.load(str(run / "checkpoints" / "best.pth"), precision="off")
    array = np.asarray(Image.open(pictures[0]).convert("RGB"))
    by_path = model.predict(pictures[0])[0]
    for other in (array, torch.from_numpy(array.copy()), torch.from_numpy(array.copy()).permute(2, 0, 1), [array]):
        (found,) = model.predict(other)
        assert torch.equal(found.boxes, by_path.boxes)
        assert found.size == array.shape[:2]


def test_a_picture_is_turned_as_its_orientation_says(run, pictures, tmp_path):
    model = winnow.load(run, precision="off")
    upright = Image.open(pictures[0]).convert("RGB").crop((0, 0, 128, 96))
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side, to be turned by 90° clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    expected = model.predict(tmp_path / "upright.png")[0]
    found = model.predict(tmp_path / "turned.png")[0]
    assert found.size == expected.size == (96, 128)
    assert (found.record()["height"], found.record()["width"]) == (96, 128)
    assert torch.equal(found.boxes, expected.boxes)
    assert model.predict(tmp_path / "turned.png", exif="never")[0].size == (128, 96)


@pytest.mark.parametrize(("picture", "message"), [
    (np.zeros((4, 4, 3), dtype=np.float32), "picture 0 holds float32, and must hold uint8"),
    (np.zeros((4, 4, 4), dtype=np.uint8), r"picture 0 has shape \(4, 4, 4\); allowed"),
    (np.zeros((0, 4, 3), dtype=np.uint8), r"picture 0 has shape \(0, 4, 3\)"),
    ([3], "picture 0 is a int; give a path"),
])  # fmt: skip
def test_what_is_no_picture_is_refused(run, picture, message):
    with pytest.raises(ConfigError, match=message):
        winnow.load(run).predict(picture)


def test_one_bad_picture_is_named(run, pictures, tmp_path):
    (tmp_path / "bad.png").write_bytes(pictures[0].read_bytes()[:200])
    model = winnow.load(run)
    with pytest.raises(DataError, match=r"bad.png cannot be read"):
        model.predict([pictures[0], tmp_path / "bad.png"])
    streamed = list(model.stream([pictures[0], tmp_path / "bad.png", tmp_path / "none.png", pictures[1]], batch_size=2))
    assert [picture.problem is None for picture, _ in streamed] == [True, False, False, True]
    assert [found is None for _, found in streamed] == [False, True, True, False]


def test_what_would_run_a_program_or_fill_the_memory_is_left_out(run, pictures, tmp_path):
    (tmp_path / "program.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    )
    Image.new("1", (14_000, 14_000)).save(tmp_path / "large.png")
    paths = [tmp_path / "program.png", pictures[0], tmp_path / "large.png"]
    problems = [picture.problem or "" for picture, _ in winnow.load(run).stream(paths)]
    assert "program.png is PostScript, a program to be run" in problems[0]
    assert problems[1] == ""
    assert re.search(r"large.png (has 14000×14000 pixels|would take more than)", problems[2])


def test_the_command_writes_coco_and_pictures(run, pictures, tmp_path, capsys):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number, path in enumerate(pictures[:3]):
        (tmp_path / "in" / ("deep" if number else "") / "same.png").write_bytes(path.read_bytes())
        (tmp_path / "in" / f"{number}.png").write_bytes(path.read_bytes())
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    command = ["predict", str(run), str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--batch-size", "2"]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "5 pictures" in printed.out
    assert "1 pictures were left out" in printed.err
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [image["file_name"].rpartition("/in/")[2] for image in written["images"]] == [
        "0.png", "1.png", "2.png", "deep/same.png", "same.png"]  # fmt: skip
    assert {category["id"] for category in written["categories"]} >= {
        row["category_id"] for row in written["annotations"]
    }
    assert len(written["annotations"]) == len({row["id"] for row in written["annotations"]}) > 0
    assert sorted(path.name for path in (tmp_path / "out" / "pictures").iterdir()) == [
        "0.png", "1.png", "2.png", "5_same.png", "same.png"]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["pictures", "predictions.json"]
    with Image.open(tmp_path / "out" / "pictures" / "0.png") as drawn:
        assert drawn.size == (480, 480)  # small ones are enlarged, or names would hide what they name
    assert main(command) == 2
    assert "is not empty; name a folder that is new" in capsys.readouterr().err
    assert main([*command[:3], "--output", str(tmp_path / "refused/deep"), "--batch-size", "0"]) == 2
    assert "batch_size=0 must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()


def test_a_picture_whose_name_is_no_utf_8_is_written_with_it(run, pictures, tmp_path):
    name = os.fsdecode(b"\xff \xc3\xa9.png")
    (tmp_path / name).write_bytes(pictures[0].read_bytes())
    out = tmp_path / "out"
    assert main(["predict", str(run), str(tmp_path / name), "--output", str(out), "--no-pictures"]) == 0
    written = (out / "predictions.json").read_text(encoding="utf-8")
    assert "é" in written
    assert json.loads(written)["images"][0]["file_name"] == str(tmp_path / name)


def test_the_command_evaluates(run, here, capsys):
    assert main(["evaluate", str(run), "--which", "last", "--format", "json", "data.num_val=8"]) == 0
    shown = json.loads(capsys.readouterr().out)["metrics"]
    assert shown["val/map"] == json.loads((run / "result.json").read_text())["metrics"]["val/map"]
    assert main(["evaluate", str(run), "model.head_convs=3"]) == 2
    assert "says nothing of the data" in capsys.readouterr().err
    assert main(["evaluate", str(run), "data.nothing=3"]) == 2
    assert "data.nothing is not a key" in capsys.readouterr().err


def test_the_command_measures(run, capsys):
    command = ["benchmark", str(run), "--device", "cpu", "--batch-size", "2", "--repeats", "1"]
    assert main([*command, "--format", "json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    model = winnow.load(run).task.model
    assert measured["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert measured["weights_mb"] == pytest.approx(4 * measured["parameters"] / 1e6, rel=0.01)
    assert (measured["batch_size"], measured["shape"]) == (2, [128, 128])
    assert 0 < measured["forward_ms"] < measured["predict_ms"]
    assert measured["peak_mb"] > measured["weights_mb"]
    assert main(command) == 0
    assert "ms per picture" in capsys.readouterr().out
    assert main([*command, "--repeats", "0"]) == 2


@pytest.fixture
def three_splits(workplace, run, tmp_path):
    """Return a folder in Roboflow's layout with the run's validation pictures: 2 to train on, none to validate, 6 to test."""
    del run
    (annotations,) = workplace.glob("data/digits/*/annotations/instances_val.json")
    content = json.loads(annotations.read_text())
    for split, images in (("train", content["images"][:2]), ("test", content["images"][2:])):
        (tmp_path / split).mkdir()
        ids = {image["id"] for image in images}
        for image in images:
            picture = next(workplace.glob(f"data/digits/*/val/{image['file_name']}"))
            (tmp_path / split / image["file_name"]).write_bytes(picture.read_bytes())
        kept = [one for one in content["annotations"] if one["image_id"] in ids]
        (tmp_path / split / "_annotations.coco.json").write_text(
            json.dumps({**content, "images": images, "annotations": kept})
        )
    return tmp_path


def test_another_split_is_evaluated_or_what_there_is_is_said(run, here, three_splits, capsys):
    model = winnow.load(run)
    root = f"data.root={three_splits}"
    explicit = [
        f"data.{part}.{key}={three_splits / split / file}"
        for part, split in (("train", "train"), ("val", "test"))
        for key, file in (("images", ""), ("annotations", "_annotations.coco.json"))
    ]
    assert model.evaluate(["data=coco", root], split="test") == model.evaluate(["data=coco", *explicit])
    for overrides, words in ((["data=coco", root], "train, test"), ([], "train, val")):
        assert main(["evaluate", str(run), "--split", "holdout", *overrides]) == 2
        assert f"split='holdout': this data has {words}" in capsys.readouterr().err
    with pytest.raises(DataError, match="no validation images"):
        model.evaluate(["data=coco", root])


def test_other_data_is_evaluated_at_the_run_s_own_size(run, here, three_splits):
    model = winnow.load(run)
    choice = ["data=coco", f"data.root={three_splits}"]
    found = model.evaluate(choice, "test")
    assert found == model.evaluate([*choice, "data.image_size=128", "data.resize=pad"], "test")
    assert found != model.evaluate([*choice, "data.image_size=640"], "test")


def changed(run, tmp_path, change):
    content = read_checkpoint(run / "checkpoints" / "best.pth")
    change(content)
    write_checkpoint(tmp_path / "changed.pth", content)
    return tmp_path / "changed.pth"


def test_a_file_without_the_data_set_s_ids_gives_labels_and_says_so(run, pictures, tmp_path, caplog):
    known = winnow.load(run)
    assert known.has_category_ids
    assert list(known.category_ids) != list(range(len(known.classes)))
    path = changed(run, tmp_path, lambda content: content["metadata"].pop("category_ids"))
    model = winnow.load(path)
    assert list(model.category_ids) == list(range(len(model.classes)))
    assert main(["predict", str(path), str(pictures[0]), "--output", str(tmp_path / "out"), "--no-pictures"]) == 0
    assert "lacks the data set's category ids" in caplog.text


def test_a_file_does_not_choose_what_is_executed(run, tmp_path):
    def trust(content):
        content["config"]["trusted_targets"] = ["tests"]
        content["config"]["model"]["_target_"] = "tests.anything"

    with pytest.raises(ConfigError, match=r"trusts 'tests', and this command does not.*trusted_targets=\[tests\]"):
        winnow.load(changed(run, tmp_path, trust))


def test_weights_of_another_model_are_refused(run, tmp_path):
    def narrow(content):
        content["config"]["model"]["channels"] = [8, 16, 32, 64]

    with pytest.raises(WeightsError, match=r"changed.pth don't fit the model.*\n  backbone"):
        winnow.load(changed(run, tmp_path, narrow))


@pytest.mark.parametrize(("place", "value", "message"), [
    (("data", "image_size"), 2**31, r"changed.pth: data.image_size=2147483648: input should be less than or equal to 16384"),
    (("data", "image_size"), "64", r"changed.pth: data.image_size='64': input should be a valid integer"),
    (("training", "resize_schedule"), [], r"changed.pth: training.resize_schedule="),
    (("training", "batch_size"), "4", r"changed.pth: training.batch_size='4': input should be a valid integer"),
    (("training", "amp"), 3, r"changed.pth: training.amp=3: input should be 'auto', 'off', 'bf16' or 'fp16'"),
    (("model", "pretrained"), 0, r"changed.pth: model.pretrained.*=0: input should be a valid"),
    (("evaluation", "score_threshold"), "x", r"changed.pth: evaluation.score_threshold='x': input should be"),
])  # fmt: skip
def test_an_odd_value_in_a_recorded_config_is_named_with_its_file(run, tmp_path, place, value, message):
    path = changed(run, tmp_path, lambda content: content["config"][place[0]].update({place[1]: value}))
    with pytest.raises(ConfigError, match=message):
        winnow.load(path)


@pytest.mark.parametrize(("key", "value", "message"), [
    ("head_channels", 1 << 15, r"weights of \S+changed.pth don't fit .*\n"),  # 38 GB a layer
    ("head_channels", 1 << 62, r"changed.pth: the model that its config names can't be built: Storage size calculation overfl"),
    ("head_convs", 10**9, r"changed.pth: the model has more than \d+ weights, and the file holds \d+"),
])  # fmt: skip
def test_a_model_that_no_machine_could_hold_takes_no_memory_and_no_time(run, tmp_path, key, value, message):
    path = changed(run, tmp_path, lambda content: content["config"]["model"].update({key: value}))
    with pytest.raises(WeightsError, match=message):
        winnow.load(path)


def test_amp_may_be_recorded_as_true_or_false(run, tmp_path):
    path = changed(run, tmp_path, lambda content: content["config"]["training"].update(amp=False))
    assert winnow.load(path, device="cpu").precision.dtype is None


@pytest.mark.parametrize(("key", "value", "message"), [
    ("name", 7, "data.name=7: input should be a valid string"),
    ("augmentation", {"crop": torch.zeros(3)}, "that is no config of a run: "),
])  # fmt: skip
def test_an_odd_value_in_the_recorded_data_is_named_with_its_file(run, here, tmp_path, key, value, message):
    model = winnow.load(changed(run, tmp_path, lambda content: content["config"]["data"].update({key: value})))
    with pytest.raises(ConfigError, match=r"the data of the run of \S+changed.pth: " + message):
        model.evaluate(["data.num_val=4"])


@pytest.mark.parametrize(("arguments", "kind", "message"), [
    (("nowhere",), CheckpointError, "nowhere does not exist; name a run folder or a checkpoint"),
    ((".",), ConfigError, r"\. holds several runs, name one of them: .*run"),
    (("data",), ConfigError, "data is no run folder"),
    (("run", "newest"), ConfigError, "which='newest' must be best or last"),
    (("run", "best", "cpu", "fp8"), ConfigError, "precision='fp8' must be off"),
    (("run", "best", "cuda:7"), ConfigError, "cuda:7"),
    (("x" * 300,), CheckpointError, "xxx does not exist; name a run folder or a checkpoint"),
])  # fmt: skip
def test_what_can_t_be_loaded_is_said(run, here, arguments, kind, message):
    with pytest.raises(kind, match=message):
        winnow.load(*arguments)


def test_pretrained_weights_that_are_gone_are_not_missed(warm_program, workplace, run, here):
    """A run that began from a weights file is used without it."""
    torch.save(read_checkpoint(run / "checkpoints" / "best.pth")["model_state_dict"], workplace / "weights.pth")
    warm_program.run(
        workplace, *RUN, "training.max_epochs=1", "model.pretrained=weights.pth", "hydra.run.dir=from_file"
    )
    (workplace / "weights.pth").unlink()
    assert winnow.load("from_file").config["model"]["pretrained"] == "weights.pth"


def test_a_model_that_trained_with_a_gpu_s_kernel_is_used_without_one(tmp_path):
    torch.manual_seed(0)
    config = compose_plain("model=deformable_detr_tiny", "model.attention=kernel")
    arguments = {"classes": ["a"], "new_metric": None, "max_detections": 5, "score_threshold": 0.0}
    values = {key: value for key, value in config["model"].items() if key not in ("_target_", "attention")}
    weights = deformable_detr_tiny(**arguments, **values).model.state_dict()
    task = build_task(config, arguments, weights, tmp_path)
    assert all(torch.equal(task.model.state_dict()[name], weights[name]) for name in weights)


def test_an_ink_model_finds_lines(warm_program, workplace, here, tmp_path, caplog):
    warm_program.run(workplace, *INK, "training.max_epochs=1", "hydra.run.dir=ink")
    model = winnow.load(workplace / "ink")
    page = np.full((40, 150, 3), 230, dtype=np.uint8)
    page[18:22, 10:140] = 30
    Image.fromarray(page).save(tmp_path / "line.png")
    (found,) = model.predict(tmp_path / "line.png")
    assert found.size == (40, 150)
    assert found.skeleton.shape[0] == model.image_size
    assert found.skeleton.shape[1] * found.scale == pytest.approx(150)
    assert len(found.kinds) == len(found.scores) == len(found.key_points)
    small = np.zeros((3, 200, 3), dtype=np.uint8)
    streamed = list(model.stream([page, small, page], batch_size=3))
    assert [picture.problem is None for picture, _ in streamed] == [True, False, True]
    assert "200×3 px, too few for a line of text" in streamed[1][0].problem
    assert torch.equal(streamed[2][1].skeleton, streamed[0][1].skeleton)
    assert main(["predict", str(workplace / "ink"), str(tmp_path / "line.png"), "--output", str(tmp_path / "out")]) == 0
    (image,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert len(image["key_points"]) == len(found.kinds)
    with Image.open(tmp_path / "out" / "pictures" / "line.png") as drawn:
        assert drawn.size == (150, 40)
    assert "category ids" not in caplog.text
    with pytest.raises(ConfigError, match=r"can't be exported: a line is straightened, cut into tiles"):
        winnow.load(workplace / "ink", device="cpu", precision="off").export(tmp_path / "ink.onnx")
    numbers = winnow.load(workplace / "ink", "last").evaluate()
    recorded = json.loads((workplace / "ink/result.json").read_text())["metrics"]
    assert numbers == {name: recorded[name] for name in numbers}


def test_the_checkpoint_names_the_category_ids_of_its_data(run):
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["name"] == "digits"
    assert read_checkpoint(run / "checkpoints" / "last.pth")["metadata"]["category_ids"] == list(range(1, 11))
