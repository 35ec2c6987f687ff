"""Every file of conf/ composes, and what it composes to is accepted by what it builds."""

import itertools
import subprocess
import sys

import pytest
import torch
import yaml
from composed import REPOSITORY, compose_plain

from winnow.checkpoints.file import write_checkpoint
from winnow.config.flat import differences_by_name, flat
from winnow.config.instantiate import check_node, instantiate
from winnow.config.resolvers import cap, run_folder
from winnow.config.schema import RunSettings
from winnow.errors import ConfigError
from winnow.run.build import checked_evaluation
from winnow.settings import build_settings

NOT_CHOICES = {
    f"data={name}"
    for name in ("annotated_images", "detection", "labels", "one_set", "pairs", "pairs_of_cameras", "six_cameras")
}
GROUPS = ("model", "data", "evaluation", "training", "training/optimizer", "budget", "stage", "tracking")
CHOICES = [
    choice
    for group in GROUPS
    for file in sorted((REPOSITORY / "conf" / group).glob("**/*.yaml" if group == "stage" else "*.yaml"))
    if (choice := f"{group}={file.relative_to(REPOSITORY / 'conf' / group).with_suffix('')}") not in NOT_CHOICES
]
INK = ["model=inktrace", "data=ink_strokes"]
MAPS = ["model=map_qformer_tiny", "data=map_synthetic"]
PAIRS = ["model=pair_faster_rcnn_tiny", "data.llvip_root=somewhere", "data.kaist_root=somewhere"]
EXPERIMENTS = sorted(file.stem for file in (REPOSITORY / "conf/experiment").glob("*.yaml"))
NEEDED = {
    "data=bdd100k": ["data.root=somewhere"],
    **dict.fromkeys(["evaluation=ink", "stage=ink/structural", "stage=ink/dense", "stage=ink/all"], INK),
    **dict.fromkeys(["stage=structural", "stage=dense", "stage=all"], INK),  # the names of before the move
    "model=inktrace": ["data=ink_strokes"],
    "data=ink_strokes": ["model=inktrace"],
    "model=map_qformer": ["data=map_synthetic"],
    "model=map_qformer_tiny": ["data=map_synthetic"],
    "evaluation=maps": MAPS,
    "data=map_synthetic": ["model=map_qformer_tiny"],
    "data=nuscenes_map": ["model=map_qformer_tiny", "data.root=somewhere"],
    "data=map_rendered": ["model=map_qformer_tiny", "data.root=somewhere"],
    "data=ink_lines": ["model=inktrace", "data.train.images=somewhere", "data.train.annotations=somewhere"],
    "model=pair_faster_rcnn": ["data=pairs_synthetic"],
    "model=pair_faster_rcnn_tiny": ["data=pairs_synthetic"],
    "evaluation=pairs": ["model=pair_faster_rcnn_tiny", "data=pairs_synthetic"],
    "data=pairs_synthetic": ["model=pair_faster_rcnn_tiny"],
    "data=llvip": ["model=pair_faster_rcnn_tiny", "data.llvip_root=somewhere"],
    "data=kaist": ["model=pair_faster_rcnn_tiny", "data.kaist_root=somewhere"],
    "data=yolo": ["data.root=somewhere"],
    **{f"stage=pairs/{stage}": PAIRS for stage in ("llvip", "kaist", "all")},
    "data=coco": [f"data.{part}.{key}=somewhere" for part in ("train", "val") for key in ("images", "annotations")],
}


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_is_accepted(choice):
    config = compose_plain(choice, *NEEDED.get(choice, []))
    assert build_settings(RunSettings, config, "").training.max_epochs > 0
    checked_evaluation(config)  # and the model's node
    check_node(config, "data", ["loading"])
    check_node(config, "tracking", ["run_folder"])


@pytest.mark.parametrize(("overrides", "message"), [
    (["evaluation=ink"], "model=fcos_tiny is of detection, .*, evaluation=ink_evaluation is of ink"),
    (["model=inktrace"], "model=inktrace is of ink, data=digits_data is of detection, evaluation=ink_evaluation is of ink"),
    (["model=inktrace", "evaluation=boxes"], "must be of one family, but model=inktrace is of ink"),
    (["data=ink_strokes"], "model=fcos_tiny is of detection, data=.* is of ink, evaluation=box_evaluation is of detection"),
    (["+evaluation.skeleton_threshold=0.5"], "evaluation.skeleton_threshold=0.5 is not a known key; allowed here: backend,"),
    (["evaluation.score_threshold=2"], "evaluation.score_threshold=2: input should be less than or equal to 1"),
    (["+evaluation.classes=[a]"], "evaluation.classes"),
])  # fmt: skip
def test_what_does_not_fit_together_is_refused_before_data_is_read(overrides, message):
    with pytest.raises(ConfigError, match=message):
        checked_evaluation(compose_plain(*overrides))


def test_a_model_brings_its_evaluation_and_its_objective_and_the_command_line_beats_both():
    assert compose_plain()["evaluation"]["backend"] == "hotcoco"
    ink = compose_plain("model=inktrace")
    assert "skeleton_threshold" in ink["evaluation"]
    assert ink["objective"] == {"metric": "val/f1_1px", "mode": "max"}
    changed = compose_plain("model=inktrace", "evaluation.skeleton_threshold=0.4", "objective.metric=val/iou")
    assert (changed["evaluation"]["skeleton_threshold"], changed["objective"]["metric"]) == (0.4, "val/iou")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_recipe_composes_and_is_accepted(name):
    config = compose_plain(f"+experiment={name}")
    assert build_settings(RunSettings, config, "").training.max_epochs > 0
    checked_evaluation(config)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_recipe_says_its_command_its_cost_and_what_to_expect_first(name):
    lines = (REPOSITORY / "conf/experiment" / f"{name}.yaml").read_text().splitlines()
    head = "\n".join(itertools.takewhile(lambda line: line.startswith("#"), lines))
    assert lines[1].startswith(f"# python train.py +experiment={name}")
    assert "Cost:" in head
    assert "Expected:" in head


def test_a_recipe_beats_the_defaults_and_the_command_line_beats_it():
    assert compose_plain("+experiment=progressive_800")["training"]["resize_schedule"] == [[1, 640], [20, 800]]
    changed = compose_plain(
        "+experiment=progressive_800", "training.max_epochs=7", "budget=search", "model=deformable_detr"
    )
    assert changed["training"]["resize_schedule"] == [[1, 640], [20, 640]]
    assert changed["training"]["max_epochs"] == 7
    assert changed["model"]["_target_"].endswith("deformable_detr")


@pytest.mark.parametrize(("budget", "epochs", "milestones"), [("full", 50, [40]), ("search", 5, [4])])
def test_the_recipe_of_the_deformable_paper_has_its_schedule(budget, epochs, milestones):
    config = compose_plain("+experiment=deformable_detr_paper", f"budget={budget}")
    training = build_settings(RunSettings, config, "").training
    assert (training.max_epochs, training.scheduler.milestones, training.scheduler.gamma) == (epochs, milestones, 0.1)
    assert (training.scheduler.name, training.scheduler.warmup_steps, training.clip_grad_norm) == ("multistep", 0, 0.1)
    assert training.batch_size * training.accumulate == training.auto_scale_lr.base_batch_size == 32
    assert (training.optimizer["lr"], training.optimizer["weight_decay"]) == (2e-4, 1e-4)
    assert [(group.name, group.lr_scale) for group in training.param_groups] == [
        ("backbone", 0.1),
        ("projections", 0.1),
    ]
    assert (config["model"]["share_heads"], config["evaluation"]["score_threshold"]) == (True, 0.0)


@pytest.mark.parametrize(("name", "built_on"), [
    ("progressive_960", "progressive_800"), ("digits_progressive_ema", "digits_progressive"),
])  # fmt: skip
def test_a_recipe_that_builds_on_another_differs_in_what_it_says(name, built_on):
    differences, unknown = differences_by_name(
        flat(compose_plain(f"+experiment={built_on}")), flat(compose_plain(f"+experiment={name}"))
    )
    said = yaml.safe_load((REPOSITORY / "conf/experiment" / f"{name}.yaml").read_text())
    assert said["defaults"] == [built_on, "_self_"]
    assert {key for key, _, _ in differences} == flat({"training": said["training"]}).keys()
    assert not unknown


@pytest.mark.parametrize("file", sorted((REPOSITORY / "conf").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_begins_by_saying_what_it_is(file):
    lines = [line for line in file.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    assert "/work" not in file.read_text()


@pytest.mark.parametrize(("overrides", "key", "value"), [
    (["training=baseline"], "max_epochs", 50),
    (["training=baseline", "budget=search"], "max_epochs", 5),
    (["training=smoke", "budget=search"], "max_epochs", 2),
    (["training=baseline", "budget=search", "training.max_epochs=20"], "max_epochs", 20),
    (["stage=ink/structural", *INK], "max_epochs", 30),
    (["stage=ink/dense", *INK], "max_epochs", 50),
    (["stage=ink/structural", *INK, "budget=search"], "max_epochs", 5),
    (["stage=ink/dense", *INK, "budget=search", "training.max_epochs=20"], "max_epochs", 20),
    (["budget=search"], "subset_size", 1000),
    (["training=smoke", "budget=search"], "subset_size", 100),
    (["training=progressive"], "resize_schedule", [[1, 640], [20, 800], [40, 960]]),
    (["training=progressive", "budget=search"], "resize_schedule", [[1, 640], [20, 640], [40, 640]]),
    (["training=overfit"], "overfit", 10),
    (["model=deformable_detr", "training=baseline"], "amp", "auto"),
])  # fmt: skip
def test_a_budget_caps_presets_and_the_command_line_beats_both(overrides, key, value):
    assert compose_plain(*overrides)["training"][key] == value


def test_a_budget_caps_the_resolution():
    bdd = ["data=bdd100k", "data.root=x"]
    assert compose_plain(*bdd)["data"]["image_size"] == 640
    assert compose_plain(*bdd, "budget=smoke")["data"]["image_size"] == 256
    assert compose_plain(*bdd, "budget=smoke", "data.image_size=800")["data"]["image_size"] == 800


@pytest.mark.parametrize("model", ["deformable_detr", "deformable_detr_tiny", "fcos_tiny"])
def test_a_model_brings_its_learning_rate_and_the_command_line_beats_it(model):
    own = compose_plain(f"model={model}")["training"]["optimizer"]["lr"]
    assert (
        own == yaml.safe_load((REPOSITORY / f"conf/model/{model}.yaml").read_text())["training"]["optimizer"]["lr"]
        or own == 3e-3
    )
    assert compose_plain(f"model={model}", "training.optimizer.lr=0.5")["training"]["optimizer"]["lr"] == 0.5


def test_the_printed_config_composes_to_itself(tmp_path):
    command = [sys.executable, str(REPOSITORY / "train.py"), "--cfg", "job", "--resolve"]
    chosen = ["training=progressive", "budget=search", "model=deformable_detr_tiny", "training.batch_size=3"]
    first = subprocess.run([*command, *chosen], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    (tmp_path / "saved.yaml").write_text(first)
    again = [*command, "--config-path", str(tmp_path), "--config-name", "saved"]
    second = subprocess.run(again, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert yaml.safe_load(first) == yaml.safe_load(second)


@pytest.mark.parametrize("flags", [["--help"], ["--cfg", "job"]])
def test_asking_imports_nothing_heavy(flags, tmp_path):
    code = (
        "import runpy, sys, atexit\n"
        f"sys.argv = ['train.py', *{flags!r}]\n"
        "heavy = {'torch', 'mlflow', 'optuna', 'transformers', 'sklearn'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        f"runpy.run_path({str(REPOSITORY / 'train.py')!r}, run_name='__main__')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stderr.strip().splitlines()[-1] == "[]"
    assert "fcos_tiny" in result.stdout


@pytest.mark.parametrize(("target", "message"), [
    ("os.system", r"model._target_='os.system' is not trusted; add its package to trusted_targets, as \[os\]"),
    ("winnow.families.nowhere.Model", "model._target_='winnow.families.nowhere.Model' can't be imported"),
    (None, "model._target_ must name the class or function to build, got None"),
])  # fmt: skip
def test_a_target_must_be_trusted_and_exist(target, message):
    with pytest.raises(ConfigError, match=message):
        check_node({"model": {"_target_": target}, "trusted_targets": []}, "model", [])


SPAWNED = {"_target_": "winnow.tracking.spawned.Spawned", "command": ["/bin/false"], "environment": {}, "output": "x"}


@pytest.mark.parametrize(("wrong", "message"), [
    (SPAWNED, r"optimizer.betas._target_='winnow.tracking.spawned.Spawned' is not trusted"),
    ([SPAWNED], r"optimizer.betas\[0\]._target_='winnow.tracking.spawned.Spawned' is not trusted"),
    ({"_target_": "winnow.sweep.promotion._composed", "overrides": [], "program": "evil.py"}, "is not trusted"),
    ({"_target_": "winnow.families.detection.formats.digits.make_digits", "root": "x"}, "is nothing that a config may build"),
    ({"_target_": "torch.optim.lr_scheduler.LambdaLR"}, "is nothing that a config may build"),
    ({"_target_": "winnow.families.detection.formats.bdd100k.os.system", "command": "false"}, "may build: it lives in posix;"),
    ({"_target_": "torch.optim.optimizer.torch.load", "f": "x"}, "may build: it lives in torch.serialization;"),
])  # fmt: skip
def test_nothing_of_winnow_but_its_builders_is_built(wrong, message):
    node = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.1, "betas": wrong}
    with pytest.raises(ConfigError, match=message):
        instantiate({"optimizer": node, "trusted_targets": ["own"]}, "optimizer")


def test_what_the_command_line_trusts_by_name_is_built():
    node = {"_target_": "torch.optim.swa_utils.get_ema_multi_avg_fn", "decay": 0.5}
    assert callable(instantiate({"x": node, "trusted_targets": ["torch.optim.swa_utils"]}, "x"))


def test_what_is_trusted_can_not_pass_on_what_is_not(tmp_path, monkeypatch):
    (tmp_path / "passing_on.py").write_text(
        "import os\nfrom winnow.families.detection.formats.digits import make_digits\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("make_digits", "os.system"):
        with pytest.raises(ConfigError, match="is nothing that a config may build"):
            instantiate({"data": {"_target_": f"passing_on.{name}"}, "trusted_targets": ["passing_on"]}, "data")


@pytest.mark.parametrize(("value", "limit", "capped"), [
    (50, 5, 5), (3, 5, 3), (50, None, 50), (None, 5, 5), (None, None, None), ("[[1, 640], [9, 960]]", 800, [[1, 640], [9, 800]]),
])  # fmt: skip
def test_cap_is_the_smaller_of_value_and_limit(value, limit, capped):
    assert cap(value, limit) == capped


def test_a_resumed_run_goes_on_in_its_own_folder(tmp_path):
    checkpoint = tmp_path / "a" / "checkpoints" / "last.pth"
    checkpoint.parent.mkdir(parents=True)
    write_checkpoint(checkpoint, {"version": 1})
    assert run_folder(str(checkpoint), "outputs/b") == str(tmp_path / "a")
    write_checkpoint(checkpoint.with_name("best.pth"), {"version": 1})
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])
    assert run_folder(str(checkpoint), "outputs/b") == str(tmp_path / "a")


@pytest.mark.parametrize("name", ["last.ckpt", "last.pth"])
def test_another_programs_file_in_a_folder_of_that_name_begins_a_folder_of_its_own(tmp_path, name):
    checkpoint = tmp_path / "version_0" / "checkpoints" / name
    checkpoint.parent.mkdir(parents=True)
    torch.save({"state_dict": {"w": torch.ones(1)}}, checkpoint)
    assert run_folder(str(checkpoint), "outputs/b") == "outputs/b"


@pytest.mark.parametrize("resume", [
    "run", "run/first", "run/first/checkpoints/last.pth", "run/second/checkpoints",
])  # fmt: skip
def test_a_pipeline_and_each_of_its_stages_go_on_in_the_folder_of_the_whole(tmp_path, resume):
    for folder in ("run/first/checkpoints", "run/second"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "run/pipeline.yaml").touch()
    write_checkpoint(tmp_path / "run/first/checkpoints/last.pth", {"version": 1})
    expected = "outputs/b" if resume.endswith("second/checkpoints") else str(tmp_path / "run")
    assert run_folder(str(tmp_path / resume), "outputs/b") == expected


def test_a_run_folder_is_resumed_by_its_own_name(tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    assert run_folder(str(tmp_path / "run"), "outputs/b") == str(tmp_path / "run")


@pytest.mark.parametrize("resume", [None, "auto", "nowhere/checkpoints/last.pth", __file__])
def test_a_path_outside_of_a_run_folder_names_none(resume):
    assert run_folder(resume, "outputs/b") == "outputs/b"
