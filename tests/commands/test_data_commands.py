"""``winnow data check`` and ``winnow convert``, from arguments to exit code."""

import json
import subprocess
import sys

import numpy as np
import pytest
from composed import REPOSITORY, compose_plain
from pairs_parts import write_llvip
from PIL import Image

from winnow.commands.cli import main
from winnow.families.ink.strokes.data import InkStrokesSettings, StoredStrokes
from winnow.settings import build_settings


@pytest.fixture
def data_set(tmp_path):
    """Return the arguments that name a sound data set of one image; its JSON may be changed through ``write``."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "a.jpg")
    write_coco(tmp_path, [1, 1, 5, 5])
    return ["--images", str(tmp_path / "images"), "--annotations", str(tmp_path / "coco.json")]


def write_coco(folder, bbox):
    image = {"id": 1, "file_name": "a.jpg", "width": 30, "height": 20}
    annotation = {"id": 4, "image_id": 1, "category_id": 1, "bbox": bbox, "area": 25, "iscrowd": 0}
    content = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "cat"}]}
    (folder / "coco.json").write_text(json.dumps(content))


def test_a_clean_data_set_exits_with_0(data_set, capsys):
    assert main(["data", "check", *data_set]) == 0
    assert capsys.readouterr().out.endswith("train: cat 1\nno problems\n")


def test_problems_exit_with_1_and_are_listed_by_file_and_annotation(data_set, tmp_path, capsys):
    write_coco(tmp_path, [1, 1, 50, 5])
    assert main(["data", "check", *data_set]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.split("\t")[:4] == ["train", "box partly outside the image", "a.jpg", "4"]


def test_json_is_the_only_thing_on_stdout(data_set, tmp_path, capsys):
    write_coco(tmp_path, [1, 1, 0, 5])
    assert main(["data", "check", *data_set, "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["is_clean"] is False
    assert report["counts"] == {"box without area": 1, "image without annotation": 1, "class without an object": 1}
    assert report["objects"] == {"train": {"cat": 0}}
    assert report["findings"][0]["annotation"] == 4


def test_train_and_val_are_compared(data_set, capsys):
    val = [argument.replace("--", "--val-") for argument in data_set]
    assert main(["data", "check", *data_set, *val]) == 1
    assert "both: 1 × same image in train and val" in capsys.readouterr().out


def test_the_table_is_limited_by_kind(data_set, tmp_path, capsys):
    content = json.loads((tmp_path / "coco.json").read_text())
    content["annotations"] = [content["annotations"][0] | {"id": n, "category_id": 9} for n in range(30)]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    assert main(["data", "check", *data_set, "--limit", "3"]) == 1
    out = capsys.readouterr().out
    assert out.count("\tunknown category\t") == 3
    assert "train: 30 × unknown category, 3 shown" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the data in one way"),
        (["--images", "x"], "--images and --annotations go together"),
        (["--val-images", "x", "--val-annotations", "y"], "--images and --annotations go together"),
        (
            ["--images", "x", "--annotations", "y", "--val-images", "z"],
            "--val-images and --val-annotations go together",
        ),
        (["--bdd100k", "x", "data=digits"], "name the data in one way"),
        (["data=nothing"], "nothing"),
        (["data=coco"], "data.train.images is null; name the folder, or give data.root"),
    ],
)
def test_bad_usage_exits_with_2(arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert main(["data", "check", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["data"], ["data", "check", "--format", "xml"], ["nothing"], []])
def test_unknown_commands_exit_with_2(arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


def test_outside_of_a_project_the_configs_are_winnows_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", "data=coco"]) == 2
    assert "data.train.images is null; name the folder, or give data.root" in capsys.readouterr().err


def test_a_missing_annotation_file_exits_with_1_and_a_message(tmp_path, capsys):
    assert main(["data", "check", "--images", str(tmp_path), "--annotations", str(tmp_path / "none.json")]) == 1
    assert "none.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["data", "describe"], ["study"], ["sync"], ["data", "check", "data=voc"]])
def test_a_path_that_the_system_does_not_look_at_is_one_message(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = "x" * 300
    assert main([*command, f"data.root={path}" if "check" in command else path]) == 2
    assert f"winnow: {path}" in (printed := capsys.readouterr().err)
    assert "File name too long" in printed


def test_the_data_can_be_named_as_for_training(data_set, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    overrides = [f"data.train.images={data_set[1]}", f"data.train.annotations={data_set[3]}", "data.val=null"]
    assert main(["data", "check", "data=coco", *overrides]) == 0
    assert "train: 1 images, 1 annotations read" in capsys.readouterr().out


def test_the_embedded_data_set_is_clean(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    overrides = [f"data.root={tmp_path}", "data.num_train=3", "data.num_val=2"]
    assert main(["data", "check", "data=digits", *overrides]) == 0


def test_bdd100k_is_converted_and_checked(shared_data, tmp_path, capsys):
    source = str(shared_data / "bdd100k_mini")
    assert main(["convert", "bdd100k", source, str(tmp_path / "target")]) == 0
    assert "train: 24 labels without box, 4 images, 48 boxes" in capsys.readouterr().out
    assert main(["data", "check", "--bdd100k", str(tmp_path / "target")]) == 0
    assert main(["data", "check", "--bdd100k", source, "--cache", str(tmp_path / "cache")]) == 0


def test_bdd100k_can_be_named_as_for_training(shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    overrides = [f"data.root={shared_data / 'bdd100k_mini'}", f"data.cache={tmp_path}"]
    assert main(["data", "check", "data=bdd100k", *overrides]) == 0


def test_pairs_are_checked_by_their_own_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    write_llvip(tmp_path)
    named = ["data=llvip", f"data.llvip_root={tmp_path}", "data.llvip_split={train:['01'],val:['02']}"]
    assert main(["data", "check", *named]) == 0
    (tmp_path / "infrared/train/010002.png").unlink()
    capsys.readouterr()
    assert main(["data", "check", *named]) == 1
    assert capsys.readouterr().out.startswith("train\tmissing partner\t010002\t\tthere is no infrared image")


def test_drawn_strokes_are_drawn_and_held_against_what_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    small = ["data=ink_strokes", f"data.root={tmp_path}", "data.num_train=3", "data.num_val=2", "data.image_size=32"]
    assert main(["data", "check", *small]) == 0
    assert "val: 2 images" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    values = compose_plain(*small)["data"]
    values.pop("_target_")
    kept = StoredStrokes(build_settings(InkStrokesSettings, values, "data"))
    tiles = kept.all(32)
    assert main(["data", "check", *small]) == 0
    np.savez(kept.path(32), **vars(tiles) | {"images": tiles.images + 1})
    capsys.readouterr()
    assert main(["data", "check", *small]) == 1
    assert capsys.readouterr().out.startswith("val\tkept tiles differ\tval_v1_2x32px_")
    kept.path(32).write_bytes(b"torn")
    assert main(["data", "check", *small]) == 1
    assert "unreadable file" in capsys.readouterr().out


def test_pages_are_read_whole_and_problems_named_by_file_and_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    pixels = np.full((60, 200), 255, dtype=np.uint8)
    pixels[28:32, 20:180] = 0
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels + (name == "b.png") * np.uint8(1)).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no image")
    line = {"segmentation": [[10, 20, 190, 20, 190, 40, 10, 40]], "baseline": [10, 36, 190, 36]}
    images = [{"id": n, "file_name": f"{name}.png", "width": 200, "height": 60} for n, name in enumerate("abc")]

    def check(*annotations, fmt="table"):
        content = {"images": images, "annotations": [line | more for more in annotations]}
        (tmp_path / "lines.json").write_text(json.dumps(content))
        where = [f"data.train.images={tmp_path}", f"data.train.annotations={tmp_path}/lines.json"]
        code = main(["data", "check", "data=ink_lines", *where, "--format", fmt])
        return code, capsys.readouterr().out

    code, out = check({"id": 1, "image_id": 0}, {"id": 2, "image_id": 1})
    assert (code, out.splitlines()[-2]) == (0, "train: 2 images, 2 annotations read")
    code, out = check(
        {"id": 1, "image_id": 0},
        {"id": 2, "image_id": 9},
        {"id": 3, "image_id": 1, "baseline": [10]},
        {"id": 4, "image_id": 1, "segmentation": [[10, 20, 290, 20, 190, 40, 10, 40]]},
        {"id": 5, "image_id": 2},
        {"id": 6, "image_id": 0, "segmentation": [[10, 2, 190, 2, 190, 20, 10, 20]], "baseline": [10, 18, 190, 18]},
        fmt="json",
    )
    assert code == 1
    found = [(each["kind"], each["file"], each["annotation"]) for each in json.loads(out)["findings"]]
    assert found == [
        ("malformed line", "lines.json", "2"),
        ("malformed line", "lines.json", "3"),
        ("line without ink", "a.png", "6"),
        ("line partly outside the page", "b.png", "4"),
        ("unreadable image", "c.png", None),
    ]


def test_data_without_a_check_says_how_to_give_one(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    target = ["data._target_=troubled.unchecked_data", "trusted_targets=[troubled]"]
    assert main(["data", "check", "data=digits", *target]) == 2
    assert "has no check; give it one with @builder(…, check=FUNCTION)" in capsys.readouterr().err


def test_help_answers_without_what_takes_seconds_to_import():
    heavy = "{'torch', 'mlflow', 'optuna', 'hydra', 'scipy', 'rich', 'pydantic', 'numpy'}"
    code = "import atexit, sys; from winnow.commands.cli import main; "
    code += f"atexit.register(lambda: print(sorted({heavy} & set(sys.modules)))); main(['--help'])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(
        command in printed for command in ("data", "convert", "preflight", "compare", "study", "promote", "sync")
    )
    assert printed.splitlines()[-1] == "[]"
