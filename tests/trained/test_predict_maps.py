"""Predictions of lines around a car, from six images and their calibration."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_map_run import TINY

import winnow
from winnow.commands.cli import main
from winnow.config.instantiate import instantiate
from winnow.errors import ConfigError, DataError
from winnow.families.maps.formats.infos import read_infos
from winnow.families.maps.frame import CAMERAS
from winnow.families.maps.lines import MapLines
from winnow.families.maps.rendering.views import LIDAR_TO_EGO
from winnow.families.maps.samples import Collate
from winnow.families.maps.sources import ConvertedSource
from winnow.families.maps.surround import samples_of_infos
from winnow.trained.evaluation import loading_of


@pytest.fixture(scope="module")
def map_run(warm_program, workplace):
    warm_program.run(workplace, *TINY, "training.max_iter=2", "hydra.run.dir=maps")
    return workplace / "maps"


@pytest.fixture
def map_model(map_run, here):
    return winnow.load(map_run, device="cpu")


def val_batch(model):
    """Return the run's validation samples, one batch, and what the model finds there by the evaluation's own way."""
    (batch,) = instantiate(model.config, "data", loading=loading_of(model.config, 4)).val_batches(model.image_size)
    return batch, predictions_of(model, batch)


def predictions_of(model, batch):
    batch = batch.to(model.precision.device, model.precision.memory_format)
    with torch.inference_mode(), model.precision.autocast():
        return model.task.predictions(model.task.forward(batch), batch)


def samples_of(batch):
    """Return the samples of a drawn batch as a rig of one's own would give them: arrays and calibration."""
    images = batch.images.permute(0, 2, 3, 1).numpy().reshape(-1, 6, *batch.shape[1:], 3)
    return [
        {
            "token": str(target.image_id),
            "lidar_points": {"lidar2ego": LIDAR_TO_EGO.tolist()},
            "images": {
                name: {
                    "image": images[row, camera],
                    "cam2img": batch.intrinsics[row, camera].tolist(),
                    "lidar2cam": batch.frame_to_camera[row, camera].tolist(),
                }
                for camera, name in enumerate(CAMERAS)
            },
        }
        for row, target in enumerate(batch.targets)
    ]


def infos_of(samples, folder):
    """Write samples as a file of infos, with PNGs where nuScenes keeps images; return the file."""
    for sample in samples:
        for name, image in sample["images"].items():
            path = folder / "samples" / name / f"{sample['token']}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.pop("image")).save(path)
            image["img_path"] = path.name
    (folder / "infos.json").write_text(json.dumps({"data_list": samples}))
    return folder / "infos.json"


def test_its_own_evaluation_is_the_run_s_to_the_last_bit(map_run, here):
    recorded = json.loads((map_run / "result.json").read_text())["metrics"]
    found = winnow.load(map_run, "last").evaluate()
    assert found == {name: recorded[name] for name in found}
    assert {"val/map", "val/loss"} <= found.keys()


def test_arrays_of_a_rig_give_what_the_evaluation_finds(map_model):
    batch, expected = val_batch(map_model)
    samples = samples_of(batch)
    found = map_model.predict(samples)
    assert [one.name for one in found] == [str(target.image_id) for target in batch.targets]
    for one, other in zip(found, expected, strict=True):
        assert one.frame == "lidar"
        assert torch.equal(one.labels, other.labels)
        # A rotation in float32 is made one again: some 1e-7 of what the evaluation takes.
        assert torch.allclose(one.points, other.points, atol=1e-3)
        assert [map_model.classes[label] for label in one.labels] == list(one.names)
    (alone,) = map_model.predict(samples[0])  # without a list
    assert torch.allclose(alone.points, found[0].points, atol=1e-4)
    # The calibration counts.
    turned = {**samples[0], "images": {**samples[0]["images"], "CAM_FRONT": samples[0]["images"]["CAM_BACK"]}}
    assert not torch.allclose(map_model.predict([turned])[0].points, alone.points, atol=1e-4)


def test_the_command_reads_infos_and_names_what_is_broken(map_run, map_model, tmp_path, capsys, caplog):
    batch, expected = val_batch(map_model)
    file = infos_of(samples_of(batch), tmp_path / "drive")
    content = json.loads(file.read_text())
    content["data_list"][1]["images"]["CAM_BACK"]["cam2img"][0][0] = -1
    (tmp_path / "drive/samples/CAM_FRONT" / f"{batch.image_ids[2]}.png").unlink()
    content["data_list"].append({"token": "empty"})
    content["data_list"].append("not a sample")
    file.write_text(json.dumps(content))
    command = ["predict", str(map_run), str(file), "--output", str(tmp_path / "out"), "--min-score", "0"]
    assert main(command) == 1
    assert "1 pictures, " in capsys.readouterr().out
    for words in (
        f"sample {batch.image_ids[1]}: camera_intrinsic=", f"sample {batch.image_ids[2]}: image ", "sample empty can't be read",
        "sample 4 can't be read",
    ):  # fmt: skip
        assert words in caplog.text
    written = json.loads((tmp_path / "out/predictions.json").read_text())
    (image,) = written["images"]
    assert (image["file_name"], image["frame"]) == (str(batch.image_ids[0]), "lidar")
    assert [line["score"] for line in image["lines"]] == pytest.approx(expected[0].scores.tolist(), abs=1e-4)
    assert np.allclose([line["points"] for line in image["lines"]], expected[0].points.numpy(), atol=1e-3)
    (picture,) = (tmp_path / "out/pictures").iterdir()
    with Image.open(picture) as drawn:
        assert drawn.width > 700

    elsewhere = tmp_path / "elsewhere.json"  # the images lie below --root
    elsewhere.write_text(json.dumps({"data_list": content["data_list"][:1]}))
    command[2:5] = [str(elsewhere), "--output", str(tmp_path / "again")]
    assert main([*command, "--root", str(tmp_path / "drive"), "--no-pictures"]) == 0
    assert json.loads((tmp_path / "again/predictions.json").read_text())["images"] == written["images"]


def test_a_real_keyframe_gives_what_an_evaluation_would_find_bit_by_bit(map_model, shared_data):
    folder = shared_data / "nuscenes_mini"
    infos = folder / "infos_mmdet3d_v1.1.json"
    keyframes, _ = read_infos(infos, "singapore-onenorth", "scene-0061")
    source = ConvertedSource(folder, [(keyframes[0], MapLines.of([], []))], "lidar", "infos")
    batch = Collate(20)([source.read(0, 0, map_model.image_size)])
    (expected,) = predictions_of(map_model, batch)
    ((picture, found),) = map_model.stream(samples_of_infos([infos]))
    assert torch.equal(found.points, expected.points)
    assert torch.equal(found.scores, expected.scores)
    assert found.draw(picture.pixels, 0.0).getbbox() is not None


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("a.jpg", ConfigError, "sample 0 is 'a.jpg'; a sample is {'lidar_points'"),
        ({"token": "t", "images": {}}, DataError, "sample t is without CAM_FRONT, CAM_FRONT_RIGHT"),
        ({"images": [1]}, DataError, "sample 0 can't be read"),
    ],
    ids=["path", "no images", "list"],
)
def test_what_is_no_sample_is_refused(map_model, source, kind, message):
    with pytest.raises(kind, match=message):
        map_model.predict([source])


def test_images_of_two_shapes_are_taken_one_by_one(map_model):
    batch, _ = val_batch(map_model)
    one, other = samples_of(batch)[:2]
    for image in other["images"].values():
        image["image"] = np.ascontiguousarray(image["image"][:, : image["image"].shape[1] // 2])
        image["cam2img"][0][2] /= 2
    with pytest.raises(DataError, match=r"several shapes can't be in one batch: .*; batch_size=1 takes them"):
        map_model.predict([one, other])
    assert len(map_model.predict([one, other], batch_size=1)) == 2


def test_other_data_is_evaluated_in_the_model_s_own_region(map_run, map_model, capsys):
    more = ["data=map_synthetic", "data.num_train=1", "data.num_val=2", "data.seed=7"]
    assert map_model.evaluate(more)["val/map"] >= 0
    with pytest.raises(ConfigError, match=r"data.map_frame=ego: the model of .* was trained for data.map_frame=lidar"):
        map_model.evaluate([*more, "data.map_frame=ego"])
    with pytest.raises(ConfigError, match=r"data.num_points=10: the model"):
        map_model.evaluate(["data.num_points=10"])
    assert main(["export", str(map_run)]) == 2
    assert "can't be exported: where its images look is worked out from their calibration" in capsys.readouterr().err
    assert main(["benchmark", str(map_run), "--repeats", "1", "--device", "cpu"]) == 0
    assert main(["predict", str(map_run), str(map_run / "pictures"), "--output", "nowhere"]) == 2
    assert "name files of infos (.json)" in capsys.readouterr().err


def test_pictures_alone_say_that_infos_are_wanted(run, pictures, tmp_path, capsys):
    command = ["predict", str(run), str(pictures[0]), "--output", str(tmp_path / "out"), "--root", str(tmp_path)]
    assert main(command) == 2
    assert "looks at pictures; --root is for models of maps" in capsys.readouterr().err
