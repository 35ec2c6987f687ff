"""Predictions on pairs of a visible and an infrared picture."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_pair_run import TINY

import winnow
from winnow.commands.cli import main
from winnow.config.instantiate import instantiate
from winnow.errors import ConfigError, DataError
from winnow.trained.evaluation import loading_of
from winnow.trained.pictures import partners_below


@pytest.fixture(scope="module")
def pair_run(warm_program, workplace):
    warm_program.run(workplace, *TINY, "training.max_iter=4", "evaluation.score_threshold=0", "hydra.run.dir=pairs")
    return workplace / "pairs"


@pytest.fixture
def pair_model(pair_run, here):
    return winnow.load(pair_run, device="cpu")


@pytest.fixture
def records(pair_model):
    """Return the run's validation pairs, with absolute paths."""
    data = instantiate(pair_model.config, "data", loading=loading_of(pair_model.config, 4))
    return data, [tuple(path.absolute() for path in record.paths) for record in data.val_records]


def test_predictions_on_pairs_are_those_of_the_evaluation(pair_model, records):
    data, pairs = records
    (batch,) = data.val_batches(pair_model.image_size)
    batch = batch.to(pair_model.precision.device, pair_model.precision.memory_format)
    with torch.inference_mode():
        with pair_model.precision.autocast():
            outputs = pair_model.task.forward(batch)
        expected = pair_model.task.predictions(outputs, batch)
    found = pair_model.predict(pairs, batch_size=4)
    assert sum(len(one.scores) for one in found) > 0
    for one, other, (visible, _) in zip(found, expected, pairs, strict=True):
        assert one.name == str(visible)
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)
        assert set(one.names) <= {"person"}


def test_the_evaluation_of_pairs_is_the_run_s_to_the_last_bit(pair_run, here):
    recorded = json.loads((pair_run / "result.json").read_text())["metrics"]
    found = winnow.load(pair_run, "last").evaluate()
    assert found == {name: recorded[name] for name in found}
    assert "val/map" in found


def test_their_export_is_refused_with_the_reason(pair_run, here, capsys):
    assert main(["export", str(pair_run)]) == 2
    assert "can't be exported: models of pairs are Faster R-CNNs" in capsys.readouterr().err


def test_arrays_single_pairs_and_absent_pictures(pair_model, records):
    visible, infrared = records[1][0]
    (expected,) = pair_model.predict([(visible, infrared)])
    arrays = tuple(np.asarray(Image.open(path).convert("RGB")) for path in (visible, infrared))
    for source in ((visible, infrared), arrays, (arrays[0], arrays[1][:, :, 0])):
        assert torch.equal(pair_model.predict(source)[0].boxes, expected.boxes)
    (alone,) = pair_model.predict((visible, None))
    assert not torch.equal(alone.scores, expected.scores)
    (alone,) = pair_model.predict((None, infrared))
    assert alone.name == str(infrared)
    with pytest.raises(DataError, match=r"has two sizes, visible 160×128 px and infrared 80×128 px"):
        pair_model.predict((arrays[0], arrays[1][:, :80]))
    with pytest.raises(ConfigError, match=r"this model looks at \(visible, infrared\), None where there is none"):
        pair_model.predict([visible])
    with pytest.raises(ConfigError, match="looks at"):
        pair_model.predict([(None, None)])


def test_the_command_takes_two_folders(pair_run, here, records, tmp_path, capsys):
    for number, paths in enumerate(records[1][:3]):
        for folder, path in zip(("visible", "lwir"), paths, strict=True):
            place = tmp_path / folder / "set00" / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    Image.open(tmp_path / "lwir/set00/1.png").convert("RGB").save(tmp_path / "lwir/set00/1.jpg")
    (tmp_path / "lwir/set00/1.png").unlink()  # another suffix is found
    (tmp_path / "lwir/set00/2.png").unlink()
    command = ["predict", str(pair_run), str(tmp_path / "visible"), "--output", str(tmp_path / "out")]
    assert main(command) == 2
    assert (
        "looks at (visible, infrared); --infrared is for models of pairs, and they need it" in capsys.readouterr().err
    )
    assert main([*command, "--infrared", str(tmp_path / "lwir")]) == 1
    printed = capsys.readouterr()
    assert "2 pictures, " in printed.out
    written = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [image["file_name"].rpartition("/visible/")[2] for image in written["images"]] == [
        "set00/0.png",
        "set00/1.png",
    ]
    with Image.open(tmp_path / "out/pictures/0.png") as drawn:
        assert drawn.size == (2 * 480, 384)


def test_the_log_names_the_partner_that_is_missing(tmp_path):
    for name in ("visible/a.png", "visible/b.png", "ir/a.tif", "ir/b.jpg", "ir/b.bmp", "ir/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    visible, infrared = tmp_path / "visible", tmp_path / "ir"
    expected = [(visible / "a.png", infrared / "a.tif"), (visible / "b.png", infrared / "b.png")]
    assert partners_below([visible], infrared) == expected  # b: nobody knows which
    assert partners_below([visible / "a.png"], infrared) == expected[:1]
    with pytest.raises(DataError, match="nothing is no folder"):
        partners_below([visible], tmp_path / "nothing")
