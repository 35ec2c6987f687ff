"""``python train.py`` as a user runs it: real processes, real files, a real MLflow store."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from composed import REPOSITORY
from killed_parts import TRUST

TINY = [
    "data.num_train=24", "data.num_val=6", "data.size=64", "data.image_size=64", "training.batch_size=4",
    "training.num_workers=0", "training.max_epochs=3", "training.log_interval=2", "training.ema.decay=0.9",
    "training.scheduler.warmup_steps=0", "model.channels=[8,8,16,16]", "model.head_channels=32",
]  # fmt: skip


@pytest.fixture(scope="session")
def train(warm_program):
    """Run ``train.py``; ``cold`` in a Python of its own, as a user does."""

    def train(folder, *overrides, check=True, cold=False, **environment):
        if cold:
            command = [sys.executable, str(REPOSITORY / "train.py"), *overrides]
            clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "HYDRA"))}
            result = subprocess.run(command, cwd=folder, env=clean | environment, capture_output=True, text=True)
        else:
            program = warm_program.start(folder, *overrides, errors_apart=True, **environment)
            code = program.wait()
            result = subprocess.CompletedProcess(overrides, code, program.printed(), program.errors.read_text())
        if check:
            assert result.returncode == 0, result.stdout + result.stderr
            assert "Warning" not in result.stderr, result.stderr
        return result

    return train


def run_folder(folder, *overrides, name="run"):
    return folder / name, [*TINY, f"hydra.run.dir={name}", *overrides]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="module")
def whole(train, workplace):
    """Return an uninterrupted, tracked run: (its folder, what it printed)."""
    folder, overrides = run_folder(workplace, name="whole")
    return folder, train(workplace, *overrides, cold=True).stdout


def weights(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.pth", weights_only=True)


def assert_same_run(first, second):
    one, other = weights(first), weights(second)
    for key in ("model_state_dict", "training_state_dict", "optimizer_state_dict", "ema_state_dict"):
        assert_equal(one.get(key), other.get(key))
    assert one["metrics"] == other["metrics"]
    assert one["best"] == other["best"]


def assert_equal(one, other):
    if isinstance(one, torch.Tensor):
        assert one.equal(other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        [assert_equal(one[key], other[key]) for key in one]
    elif isinstance(one, list | tuple):
        [assert_equal(a, b) for a, b in zip(one, other, strict=True)]
    else:
        assert one == other


def test_a_run_leaves_everything_behind(whole):
    folder, printed = whole
    result = json.loads((folder / "result.json").read_text())
    assert (result["status"], result["epochs"], result["steps"]) == ("completed", 3, 18)
    assert result["objective"] == result["best"]["value"] == max(result["best"]["value"], result["metrics"]["val/map"])
    assert result["cost"]["images"] == 72
    assert result["cost"]["images_640"] == pytest.approx(72 * 64 * 64 / 640**2)
    for name in ("train.log", "config.yaml", "environment.json", "pictures/val_detections.png"):
        assert (folder / name).stat().st_size > 0
    assert weights(folder, "best")["metric"] == "val/map"
    assert len(re.findall(r"epoch +\d/3 ", printed)) == 3
    assert yaml.safe_load((folder / "config.yaml").read_text())["training"]["batch_size"] == 4


def test_mlflow_holds_the_run(whole, workplace):
    from mlflow import MlflowClient

    folder, _ = whole
    result = json.loads((folder / "result.json").read_text())
    client = MlflowClient(f"sqlite:///{workplace}/mlflow.db")
    run = client.get_run(result["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.optimizer.lr"] == "0.003"
    assert run.data.metrics["best/map"] == pytest.approx(result["objective"])
    assert run.data.metrics["best/loss"] == pytest.approx(result["best_metrics"]["val/loss"])
    assert not any(name.startswith("final/") for name in run.data.metrics)
    assert {"val/map_50", "train/loss_class", "lr/default", "perf/images_per_second", "cost/images_640"} <= set(
        run.data.metrics
    )
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "val/map")] == [6, 12, 18]
    artifacts = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "environment.json", "pictures", "checkpoints"} <= artifacts


def test_the_saved_config_reproduces_the_run(train, whole, workplace):
    saved = yaml.safe_load((whole[0] / "config.yaml").read_text())
    saved["tracking"] = {"_target_": "winnow.tracking.null_tracker.NullTracker"}
    (workplace / "saved.yaml").write_text(yaml.safe_dump(saved))
    train(workplace, "--config-path", str(workplace), "--config-name", "saved", "hydra.run.dir=again")
    assert_same_run(whole[0], workplace / "again")


@pytest.mark.parametrize("moment", ["losses 1 SIGTERM", "losses 9 SIGINT", "predictions 3 SIGUSR1"])
def test_interrupted_and_resumed_equals_uninterrupted(train, whole, workplace, moment):
    name = f"part_{moment.split()[-1]}"
    folder, overrides = run_folder(workplace, "tracking=off", "model._target_=troubled.plainly_troubled", name=name)
    stopped = train(workplace, *overrides, TRUST, check=False, TROUBLE=f"stop {moment}")
    assert stopped.returncode == 75, stopped.stderr
    assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"
    assert weights(folder)["step"] < weights(whole[0])["step"]
    train(workplace, f"training.resume={name}/checkpoints/last.pth", TRUST)
    assert json.loads((folder / "result.json").read_text())["status"] == "completed"
    assert_same_run(whole[0], folder)


def test_resuming_a_finished_run_says_so_and_changes_nothing(train, whole, workplace):
    folder, _ = whole
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"}
    printed = train(workplace, "training.resume=whole/checkpoints/last.pth").stdout
    assert "this run is finished, nothing was changed" in printed
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"}
    changed = {path.relative_to(folder) for path in before if before[path] != after.get(path)}
    assert not {path for path in changed if path.parts[0] not in (".hydra",)}


def test_a_run_killed_between_its_last_save_and_its_result_is_concluded_when_resumed(train, workplace):
    folder, overrides = run_folder(workplace, "tracking=off", "training.max_epochs=1", name="unconcluded")
    train(workplace, *overrides)
    (folder / "result.json").unlink()
    (folder / "pictures/val_detections.png").unlink()
    train(workplace, "training.resume=unconcluded/checkpoints/last.pth")
    assert json.loads((folder / "result.json").read_text())["status"] == "completed"
    assert (folder / "pictures/val_detections.png").exists()


def test_an_unreadable_validation_image_does_not_fail_the_run(train, workplace):
    _, overrides = run_folder(workplace, "tracking=off", "training.max_epochs=1", "data.root=torn", name="torn_first")
    train(workplace, *overrides)
    image = next(workplace.glob("torn/*/val/000001.jpg"))
    image.write_bytes(image.read_bytes()[:300])
    folder, overrides = run_folder(workplace, "tracking=off", "training.max_epochs=1", "data.root=torn", name="torn")
    assert "image id 1: image" in train(workplace, *overrides).stdout
    assert json.loads((folder / "result.json").read_text())["status"] == "completed"


WRONG = [
    (["training.max_epoch=3"], "Key 'max_epoch' is not in struct"),
    (["model=yolo"], "Could not find 'model/yolo'"),
    (["training.amp=fp8"], "ConfigError: training.amp='fp8': input should be 'auto', 'off', 'bf16' or 'fp16'"),
    (["+model.depth=3"], "ConfigError: model.depth=3 is not a known key; allowed here: channels"),
    (["model.channels=[8,8]"], "model.channels"),
    (["data=coco"], "ConfigError: data.train.images is null; name the folder, or give data.root"),
    (["data=bdd100k", "data.root=nowhere"], "nowhere"),
    (["+data.colour=red"], "ConfigError: data.colour='red' is not a known key"),
    (["training.resume=nowhere/checkpoints/last.pth"], "CheckpointError: no checkpoint at nowhere/checkpoints/last.pth"),
    (["training.freeze=[encoder]"], "ConfigError: training.freeze='encoder' matches none of"),
    (["objective.metric=val/mAP"], "ConfigError: objective.metric='val/mAP' is not a metric of this run"),
    (["tracking.uri=gopher://x"], "ConfigError: tracking.uri"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"), WRONG, ids=lambda value: value[-1] if isinstance(value, list) else ""
)
def test_what_a_user_got_wrong_ends_in_one_message(train, workplace, overrides, message):
    tracking = [] if any("tracking" in override for override in overrides) else ["tracking=off"]
    own = [override for override in TINY if not any("data" in chosen for chosen in overrides) or "data" not in override]
    result = train(workplace, *own, *overrides, *tracking, "hydra.run.dir=wrong", check=False)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_a_second_run_does_not_write_over_a_finished_one(train, whole, workplace):
    folder, overrides = run_folder(workplace, "tracking=off", name="whole")
    before = (folder / "checkpoints/last.pth").read_bytes()
    result = train(workplace, *overrides, check=False)
    assert result.returncode == 1
    assert "already holds a run (checkpoints, tracking); go on with it by training.resume=auto" in result.stderr
    assert (folder / "checkpoints/last.pth").read_bytes() == before
    assert json.loads((folder / "result.json").read_text())["status"] == "completed"


def test_two_runs_do_not_share_a_folder(warm_program, train, workplace):
    _, overrides = run_folder(workplace, "tracking=off", "training.max_epochs=500", name="shared")
    first = warm_program.start(workplace, *overrides)
    first.wait_for_line("epoch")
    second = train(workplace, *overrides, check=False)
    first.signal(signal.SIGTERM)
    assert (first.wait(), second.returncode) == (75, 1)
    assert f"shared belongs to a run that is still going on (process {first.pid} on " in second.stderr
    assert json.loads((workplace / "shared/result.json").read_text())["status"] == "interrupted"


def test_the_traceback_can_be_asked_for(train, workplace):
    result = train(workplace, "training.amp=fp8", "hydra.run.dir=wrong", check=False, HYDRA_FULL_ERROR="1")
    assert "Traceback" in result.stderr


def test_a_run_that_diverges_says_where_and_is_recorded_as_diverged(train, workplace):
    diverging = ["training.optimizer.lr=1e30", "training.max_nonfinite=3", "training.clip_grad_norm=null"]
    folder, overrides = run_folder(workplace, "tracking=off", *diverging, name="diverged")
    result = train(workplace, *overrides, check=False)
    assert result.returncode == 1
    assert re.search(
        r"DivergedError: .* 3 steps in a row, the last one step \d+ .*loss_class .*image ids \[", result.stderr
    )
    recorded = json.loads((folder / "result.json").read_text())
    assert recorded["status"] == "diverged"
    assert "image ids" in recorded["reason"]


def test_weights_of_another_run_are_a_start(train, whole, workplace):
    start = f"training.init_from={whole[0]}/checkpoints/best.pth"
    folder, overrides = run_folder(workplace, "tracking=off", start, "training.max_epochs=1", name="warm")
    printed = train(workplace, *overrides).stdout
    assert re.search(r"weights of .*best.pth: (\d+) of \1 entries matched", printed)
    assert json.loads((folder / "result.json").read_text())["status"] == "completed"
    more = train(workplace, "training.resume=warm/checkpoints/last.pth", "training.max_epochs=2").stdout
    assert "resumed from" in more
    assert "initial weights" not in more
    assert json.loads((folder / "result.json").read_text())["epochs"] == 2


def readme_commands():
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [line.split("#")[0].strip() for line in lines if line.startswith("python train.py") and "…" not in line]
    return list(dict.fromkeys(commands))


def harmless(command):
    """Return the arguments of ``command`` and what else keeps it from training."""
    arguments = shlex.split(command)[2:]
    if "-m" in arguments:
        return tuple(dict.fromkeys([*arguments, "hydra.sweeper.dry_run=true"]))
    return tuple(arguments if {"--help", "--cfg"} & set(arguments) else [*arguments, "--cfg", "job", "--resolve"])


@pytest.mark.parametrize("arguments", dict.fromkeys(map(harmless, readme_commands())), ids=" ".join)
def test_the_commands_of_the_readme_compose(train, arguments, tmp_path):
    words = "what would run" if "-m" in arguments else "training"
    assert words in train(tmp_path, *arguments).stdout
