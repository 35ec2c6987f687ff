from pathlib import Path

import pytest
import torch
from composed import REPOSITORY, compose_plain

from winnow.checkpoints.file import KEYS, VERSION, write_checkpoint
from winnow.checkpoints.layouts import ForeignCheckpoint
from winnow.config.compose import compose_command_line
from winnow.config.recorded import resumed_config
from winnow.errors import CheckpointError, ConfigError
from winnow.run.resolve import resolve, resolve_single
from winnow.run.resume import (
    checkpoint_to_resume,
    foreign_to_resume,
    log_other_config,
    require_one_start,
)


@pytest.fixture
def checkpoint():
    config = compose_plain("model=deformable_detr_tiny", "training.batch_size=3")
    return {"config": config, "metadata": {"choices": {"model": "deformable_detr_tiny", "training": "default"}}}


def test_the_checkpoints_config_is_followed_and_single_values_beat_it(checkpoint):
    config = resumed_config(checkpoint, compose_plain(), ["training.resume=x.pth", "training.max_epochs=20"])
    assert config["model"]["_target_"].endswith("deformable_detr_tiny")
    assert (config["training"]["batch_size"], config["training"]["max_epochs"]) == (3, 20)


def test_the_command_that_began_a_run_also_resumes_it(checkpoint):
    overrides = ["model=deformable_detr_tiny", "training.batch_size=3", "training.resume=auto"]
    config = resumed_config(checkpoint, compose_plain(*overrides), overrides)
    assert config["training"] == checkpoint["config"]["training"]


def test_a_seed_that_was_drawn_stays(checkpoint):
    assert resumed_config(checkpoint, compose_plain(), ["training.seed=null"])["training"]["seed"] == 0


def test_resuming_and_starting_from_weights_at_once_is_refused():
    composed = compose_plain("training.resume=a.pth", "training.init_from=b.pth")
    with pytest.raises(ConfigError, match=r"training.resume='a.pth' and training.init_from='b.pth' contradict"):
        require_one_start(composed)


def resolved(folder, *overrides):
    return resolve_single(compose_command_line(REPOSITORY / "conf", [*overrides, f"hydra.run.dir={folder}"]))


def test_auto_begins_from_weights_where_there_is_no_run_yet(tmp_path):
    plan = resolved(tmp_path, "training.resume=auto", "training.init_from=b.pth")
    assert (plan.settings.training.init_from, plan.checkpoint) == ("b.pth", None)


def test_what_a_stage_once_began_from_does_not_keep_it_from_being_resumed(checkpoint, tmp_path):
    last = tmp_path / "checkpoints/last.pth"
    last.parent.mkdir()
    write_checkpoint(last, {**dict.fromkeys(KEYS), "version": VERSION, **checkpoint})
    plan = resolved(tmp_path, f"training.resume={last}", "stage.init_from=b.pth")
    assert plan.checkpoint == last
    assert plan.config["stage"]["init_from"] == "b.pth"
    assert (plan.choices["model"], plan.settings.training.resume) == ("deformable_detr_tiny", None)


def test_a_plan_has_the_seed_that_was_to_be_drawn(tmp_path):
    plan = resolved(tmp_path, "training.seed=null")
    assert plan.seed == plan.config["training"]["seed"] == plan.settings.training.seed


def test_a_checkpoint_of_before_stages_could_say_more_is_resumed(checkpoint):
    checkpoint["config"]["stage"] = {"name": "single"}
    assert resumed_config(checkpoint, compose_plain(), [])["stage"]["init_allow_missing"] is None


def test_a_checkpoint_of_before_there_were_families_is_one_of_detection(checkpoint):
    del checkpoint["config"]["evaluation"]["_target_"]
    assert resumed_config(checkpoint, compose_plain(), [])["evaluation"] == compose_plain()["evaluation"]


def test_a_run_folder_is_resumed_from_its_newest_whole_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder without a checkpoint of a run"):
        checkpoint_to_resume(str(tmp_path), tmp_path / "elsewhere")
    path = tmp_path / "checkpoints/last.pth"
    path.parent.mkdir()
    write_checkpoint(path, {**dict.fromkeys(KEYS), "version": VERSION, "epoch": 3})
    assert checkpoint_to_resume(str(tmp_path), tmp_path / "elsewhere").path == path


def test_a_run_that_began_from_weights_can_be_resumed(checkpoint):
    checkpoint["config"]["training"]["init_from"] = "b.pth"
    config = resumed_config(checkpoint, compose_plain("training.resume=a.pth"), ["training.resume=a.pth"])
    assert (config["training"]["resume"], config["training"]["init_from"]) == (None, "b.pth")
    require_one_start(config)


def test_a_recipe_is_a_group_that_a_resumed_run_keeps(checkpoint):
    begun = {
        "config": compose_plain("+experiment=progressive_960"),
        "metadata": {"choices": {"experiment": "progressive_960"}},
    }
    config = resumed_config(begun, compose_plain("+experiment=progressive_960"), ["+experiment=progressive_960"])
    assert config == begun["config"]
    for saved, was in ((begun, "progressive_960"), (checkpoint, None)):
        with pytest.raises(
            ConfigError, match=f"the run began with experiment={was}, and a resumed run keeps its groups"
        ):
            resumed_config(saved, compose_plain("+experiment=progressive_800"), ["+experiment=progressive_800"])


def test_tracking_may_change(checkpoint):
    config = resumed_config(checkpoint, compose_plain("tracking=off"), ["tracking=off"])
    assert config["tracking"]["_target_"].endswith("NullTracker")


@pytest.mark.parametrize(("override", "message"), [
    ("model=fcos_tiny", "model=fcos_tiny: the run began with model=deformable_detr_tiny"),
    ("training/optimizer=sgd", "training/optimizer=sgd: the run began with"),
    ("training.max_epoch=3", r"training.max_epoch is not a key of the checkpoint's config; use \+training.max_epoch=3"),
    ("training.seed=5", "training.seed=5: the run began with 0, and the rest of the epoch would be another order of samples"),
    ("training.overfit=5", "training.overfit=5: the run began with None"),
    ("training.optimizer._target_=torch.optim.SGD", "the run began with 'torch.optim.AdamW', and another optimizer can't go on"),
    ("~training.ema", "~training.ema: a key can't be deleted on resume"),
])  # fmt: skip
def test_what_can_not_be_changed_is_refused(checkpoint, override, message):
    with pytest.raises(ConfigError, match=message):
        resumed_config(checkpoint, compose_plain(), [override])


def test_auto_without_a_checkpoint_begins_anew(tmp_path):
    assert checkpoint_to_resume("auto", tmp_path) is None
    assert checkpoint_to_resume(None, tmp_path) is None


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoint_to_resume(str(tmp_path / "last.pth"), tmp_path)


def test_a_damaged_file_falls_back_to_the_newest_whole_one_beside_it(tmp_path, caplog):
    write_checkpoint(tmp_path / "checkpoint_epoch_2.pth", {**dict.fromkeys(KEYS), "version": VERSION, "epoch": 2})
    (tmp_path / "last.pth").write_bytes(b"torn")
    found = checkpoint_to_resume(str(tmp_path / "last.pth"), tmp_path)
    assert (found.path.name, found.content["epoch"]) == ("checkpoint_epoch_2.pth", 2)
    assert "last.pth is damaged" in caplog.text


def test_a_file_of_another_kind_does_not_fall_back(tmp_path):
    write_checkpoint(tmp_path / "last.pth", {**dict.fromkeys(KEYS), "version": VERSION})
    (tmp_path / "notes.txt").write_text("these are notes")
    with pytest.raises(CheckpointError, match="notes.txt is damaged, cut short, or was not written by winnow"):
        checkpoint_to_resume(str(tmp_path / "notes.txt"), tmp_path)
    with pytest.raises(CheckpointError, match=r"notes.txt cannot be read as a checkpoint: it is no file of torch.save"):
        foreign_to_resume(str(tmp_path / "notes.txt"))


def test_what_is_foreign_is_told_by_the_files_themselves(tmp_path):
    torch.save({"model": {"weight": torch.ones(2)}}, tmp_path / "last.pth")
    assert foreign_to_resume(str(tmp_path / "last.pth")).layout == "model"
    write_checkpoint(tmp_path / "best.pth", {**dict.fromkeys(KEYS), "version": VERSION})
    assert foreign_to_resume(str(tmp_path / "best.pth")) is None
    assert (
        foreign_to_resume(str(tmp_path / "last.pth")) is None
    )  # one of ours that was torn: the whole one beside it counts
    assert foreign_to_resume("auto") is foreign_to_resume(None) is foreign_to_resume(str(tmp_path / "nowhere")) is None


@pytest.mark.parametrize(("config", "lines"), [
    ({"training": {"optimizer": {"lr": 0.5}, "batch_size": 16}}, ["training.optimizer.lr: 0.5 in the file, 0.003 here"]),
    ({"lr": 0.5, "batch_size": 8}, ["training.optimizer.lr: 0.5 in the file", "training.batch_size: 8 in the file, 16 here"]),
    ({"height": 3, "name": "x"}, ["not a key here: height, name"]),
    ({"batch_size": 16}, ["they do not differ"]),
    (None, ["holds no config: the command line's is followed"]),
])  # fmt: skip
def test_another_programs_config_is_compared_and_not_applied(caplog, config, lines):
    log_other_config(ForeignCheckpoint(Path("old.pth"), "model", {}, config=config), compose_plain())
    assert all(line in caplog.text for line in lines), caplog.text
    assert "here" not in caplog.text or "is not applied" in caplog.text


def test_a_training_key_that_is_younger_than_the_run_is_as_composed(checkpoint):
    del checkpoint["config"]["training"]["require_gradients"]
    assert resumed_config(checkpoint, compose_plain(), [])["training"]["require_gradients"] is True


@pytest.mark.parametrize(
    "name", ["os", "torch.hub", "mlflow", "winnow", "tests", "benchmarks", "killed_parts", "nowhere"]
)
def test_a_file_can_not_have_more_trusted_than_the_command_does(checkpoint, name):
    checkpoint["config"]["trusted_targets"] = [name]
    with pytest.raises(
        ConfigError,
        match=rf"the config of the checkpoint trusts '{name}', and this command does not.*add trusted_targets=\[{name}\]",
    ):
        resumed_config(checkpoint, compose_plain(), [])
    config = resumed_config(checkpoint, compose_plain(f"trusted_targets=[{name}]"), [f"trusted_targets=[{name}]"])
    assert config["trusted_targets"] == [name]


def test_what_the_command_trusts_beyond_the_file_is_trusted_and_named_in_the_advice(checkpoint):
    assert resumed_config(checkpoint, compose_plain("trusted_targets=[mine]"), [])["trusted_targets"] == ["mine"]
    checkpoint["config"]["trusted_targets"] = ["mine", "os"]
    with pytest.raises(ConfigError, match=r"trusts 'os', .*add trusted_targets=\[mine,os\]"):
        resumed_config(checkpoint, compose_plain("trusted_targets=[mine]"), [])


@pytest.mark.parametrize("place", [
    ("training", "optimizer", "foreach"), ("training", "no_decay"), ("evaluation", "note"), ("tracking", "tags"),
    ("model", "extra"), ("data", "extra"), ("objective", "metric"), ("budget", "max_iter"),
])  # fmt: skip
def test_no_target_of_a_file_runs_wherever_it_stands(checkpoint, tmp_path, place):
    *nodes, last = place
    node = checkpoint["config"]
    for key in nodes:
        node = node.setdefault(key, {})
    node[last] = [{"deep": {"_target_": "subprocess.check_call", "_args_": [["touch", str(tmp_path / "ran")]]}}]
    path = tmp_path / "checkpoints/last.pth"
    path.parent.mkdir()
    write_checkpoint(path, {**dict.fromkeys(KEYS), "version": VERSION, **checkpoint})
    command = compose_command_line(REPOSITORY / "conf", [f"training.resume={path}", f"hydra.run.dir={tmp_path}"])
    with pytest.raises(ConfigError):
        resolve(command)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", ["${oc.env:HOME}", ["a", {"b": "x-${oc.env:HOME}"}]])
def test_a_file_can_not_have_the_environment_looked_up(checkpoint, value):
    checkpoint["config"]["tracking"]["tags"] = {"seen": value}
    with pytest.raises(ConfigError, match=r"holds tracking.tags.seen=.*oc.env:HOME.*, and no run records"):
        resumed_config(checkpoint, compose_plain(), [])


def test_keys_that_came_later_can_be_given_to_an_older_run(checkpoint):
    for key in ("no_decay", "frozen_weights", "frozen_source"):
        del checkpoint["config"]["training"][key]
    checkpoint["config"]["training"]["ema"] = {"decay": 0.9}
    composed = compose_plain("training.ema.also_raw=true")
    training = resumed_config(checkpoint, composed, ["training.ema.also_raw=true"])["training"]
    assert training["ema"] == {"decay": 0.9, "also_raw": True}
    assert (training["no_decay"], training["frozen_weights"]) == ([], "stored")
