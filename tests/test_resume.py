"""``training.resume`` of the whole program: what may differ from the run's beginning, and what is refused."""

import json
import pickle

import pytest
import torch
from killed_parts import TINY, TRUST

from winnow.checkpoints.file import read_checkpoint, write_checkpoint

RECORDED = "a9997af65518c644"
"""What 18a9d9d, the reader of before, recorded as the fingerprint of the data below."""
OWN_DATA = [override for override in TINY if not override.startswith(("data.num", "data.size"))]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def stopped(warm_program, workplace):
    """Return a run on a COCO data set, stopped in the middle of its second epoch: a kill may come before the save that it
    follows."""
    warm_program.run(workplace, *TINY, "training.max_epochs=1", "hydra.run.dir=makes_the_data")
    made = next(workplace.glob("data/digits/v1*/")).rename(workplace / "cells")
    data = ["data=coco"]
    for part in ("train", "val"):
        data += [
            f"data.{part}.images={made}/{part}",
            f"data.{part}.annotations={made}/annotations/instances_{part}.json",
        ]
    arguments = [*OWN_DATA, *data, "training.max_epochs=3", "training.save_every_steps=1", "hydra.run.dir=run"]
    warm_program.run(workplace, *arguments, code=75, TROUBLE="stop forward 10")
    assert read_checkpoint(workplace / "run/checkpoints/last.pth")["progress"]["sample"] == 8
    return workplace / "run/checkpoints/last.pth"


@pytest.fixture
def relabelled(workplace, stopped):
    """Return the training annotations with a class renamed and an image without its boxes."""
    content = json.loads((workplace / "cells/annotations/instances_train.json").read_text())
    content["categories"][0]["name"] = "renamed"
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 1]
    paths = {}
    for part in ("train", "val"):
        val = json.loads((workplace / f"cells/annotations/instances_{part}.json").read_text())
        val["categories"] = content["categories"]
        paths[part] = workplace / f"relabelled_{part}.json"
        paths[part].write_text(json.dumps(content if part == "train" else val))
    return [f"data.{part}.annotations={path}" for part, path in paths.items()]


def test_another_architecture_is_refused_with_its_differences(warm_program, workplace, stopped):
    before = stopped.read_bytes()
    error = warm_program.run(workplace, f"training.resume={stopped}", TRUST, "model.head_channels=64", code=1)
    assert "last.pth belongs to another run" in error
    assert (
        "parameter head.classification_head.cls_logits.weight: (10, 32, 3, 3) in the file, (10, 64, 3, 3) here" in error
    )
    assert stopped.read_bytes() == before


def test_other_classes_and_other_data_are_refused_with_their_differences(warm_program, workplace, stopped, relabelled):
    error = warm_program.run(workplace, f"training.resume={stopped}", TRUST, "data=coco", *relabelled, code=1)
    assert "last.pth belongs to another run, 2 differences" in error
    assert "classes: ['0', '1', '2'" in error
    assert "here" in error.split("classes:")[1].splitlines()[0]
    assert "data fingerprint: " in error


def test_a_run_whose_data_had_another_kind_of_fingerprint_goes_on_by_the_rule_that_it_began_with(
    warm_program, workplace, stopped
):
    content = read_checkpoint(stopped)
    content["metadata"]["data_fingerprint"] = RECORDED
    for key in ("exif", "depth", "max_pixels", "mend", "box_format", "box_unit", "drop_duplicates"):
        del content["config"]["data"][key]
    older = workplace / "older/checkpoints/last.pth"
    older.parent.mkdir(parents=True)
    write_checkpoint(older, content)
    warm_program.run(workplace, f"training.resume={older}", TRUST, "hydra.run.dir=older")
    assert read_checkpoint(older)["config"]["data"]["exif"] == "by_size"
    assert read_checkpoint(older)["metadata"]["data_fingerprint"] != RECORDED


def test_with_another_batch_size_every_sample_still_comes_once_per_epoch(warm_program, workplace, stopped):
    warm_program.run(workplace, f"training.resume={stopped}", TRUST, "training.batch_size=3", "training.accumulate=1")
    result = json.loads((workplace / "run/result.json").read_text())
    assert result["cost"]["images"] == 3 * 22
    # three steps of epoch 1, one of epoch 2 with 8 samples, its other 14 in batches of 3, and epoch 3.
    assert result["steps"] == 3 + 1 + 5 + 8


@pytest.mark.parametrize(("content", "words"), [
    (lambda path: path.write_text("these are notes"), "it is no file of torch.save or safetensors"),
    (lambda path: path.write_bytes(pickle.dumps(print)), "it is no file of torch.save or safetensors"),
    (lambda path: torch.save({"version": 1, "epoch": 3}, path), "holds no tensors by name: found 'version', 'epoch'"),
    (lambda path: torch.save({"model": {"w": torch.ones(1)}, "code": print}, path), "it names builtins.print"),
    (lambda path: write_checkpoint(path, {"version": 3}), "has version 3; this winnow reads versions 1 and 2"),
    (lambda path: write_checkpoint(path, {"version": 1, "code": print}), "it holds code, which is never run"),
], ids=["text", "pickle", "unsealed", "foreign code", "newer", "code"])  # fmt: skip
def test_a_file_that_is_no_checkpoint_ends_in_one_message(warm_program, workplace, content, words):
    content(workplace / "file.pth")
    error = warm_program.run(workplace, *TINY, "training.resume=file.pth", "hydra.run.dir=wrong", code=1)
    assert "CheckpointError: file.pth" in error
    assert words in error
    assert "Traceback" not in error


def test_the_command_that_began_a_recipe_also_resumes_it(warm_program, workplace):
    arguments = [
        *TINY,
        "+experiment=digits_progressive_ema",
        "training.resize_schedule=[[1,32],[2,64]]",
        "hydra.run.dir=recipe",
    ]
    warm_program.run(workplace, *arguments, "training.max_epochs=2", code=75, TROUBLE="stop forward 10")
    printed = warm_program.run(workplace, *arguments, "training.max_epochs=2", "training.resume=auto")
    assert "recipe/checkpoints/last.pth: epoch 1, step" in printed
    saved = read_checkpoint(workplace / "recipe/checkpoints/last.pth")
    assert saved["metadata"]["choices"]["experiment"] == "digits_progressive_ema"
    assert (saved["epoch"], saved["config"]["training"]["ema"]["decay"]) == (2, 0.99)
