import shlex

import pytest
from composed import compose_plain

from winnow.start.steps import PROMOTED, choose_model, expected, overrides_of, steps_of, weights_at_hand

DATA = {"data": "coco", "data.root": "my cells"}


@pytest.fixture
def nothing_at_hand(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("winnow.start.steps.WEIGHTS_PACKAGE", "no_such_package")


def test_without_weights_the_model_starts_at_random_and_how_to_get_them_is_said(nothing_at_hand):
    choice = choose_model(None)
    assert (choice.recipe, choice.overrides) == ("small_set", ())
    assert "fcos_tiny" in choice.words
    assert "--weights FILE" in choice.words


@pytest.mark.parametrize("where", ["hub", "package"])
def test_weights_at_hand_choose_the_model_that_begins_from_them(nothing_at_hand, monkeypatch, tmp_path, where):
    name = "mobilenet_v2-b0353104.pth"
    folder = tmp_path / ("checkpoints" if where == "hub" else "carrying/weights")
    folder.mkdir(parents=True)
    assert weights_at_hand() is None
    (folder / name).touch()
    if where == "package":
        (tmp_path / "carrying/__init__.py").touch()
        monkeypatch.setattr("winnow.start.steps.WEIGHTS_PACKAGE", "carrying")
        monkeypatch.syspath_prepend(tmp_path)
    choice = choose_model(None)
    assert choice.recipe == "small_set_imagenet"
    assert choice.overrides == (f"model.pretrained={folder / name}",)
    assert str(folder / name) in choice.words


def test_what_the_user_says_of_a_key_beats_the_guides_own(nothing_at_hand):
    overrides = overrides_of(DATA, choose_model(None), ["tracking=mlflow", "data.val_part=0.2"])
    assert overrides == [
        "+experiment=small_set", "data=coco", "data.root='my cells'", "tracking=mlflow", "data.val_part=0.2",
    ]  # fmt: skip
    assert overrides_of(DATA, choose_model(None), [])[-1] == "tracking=off"


def test_each_step_is_typed_as_the_command_that_it_runs(nothing_at_hand, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    overrides = overrides_of(DATA, choose_model(None), [])
    steps = steps_of(overrides, tmp_path / "my cells", tmp_path / "out put", num_slots=2, num_cores=4)
    assert [step.name for step in steps] == ["describe", "check", "preflight", "search", "promote"]
    for step in steps:
        words = shlex.split(step.typed())
        assert words[: len(step.environment)] == [f"{name}={value}" for name, value in step.environment.items()]
        assert words[len(step.environment) :] == ["winnow", *step.arguments]
        assert step.command[1:] == ["-m", "winnow", *step.arguments]
    assert steps[1].arguments == ("data", "check", "data=coco", "data.root='my cells'")
    assert steps[3].environment == {"OMP_NUM_THREADS": "2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert not steps_of(overrides, tmp_path, tmp_path, 2, 4)[3].environment


def test_the_time_that_is_named_follows_from_what_was_measured():
    stage = {
        "steps": [{"num_steps": 10, "seconds_per_step": 0.5}],
        "evaluation": {"seconds": 4.0},
        "estimate": {
            "seconds": 1000.0,
            "sizes": [{"num_epochs": 3, "epoch_seconds": 20.0}, {"num_epochs": 9, "epoch_seconds": 50.0}],
        },
    }
    took = expected(stage, wall=15.0, trial_epochs=5, part=0.5, num_slots=5)
    # To start takes 10 s; a trial is 3·20/2 + 2·50/2 s of training and five evaluations, and 12 trials on 5 slots are 3 rounds.
    assert (took.preflight, took.search, took.promote) == (20.0, 10.0 + 3 * (10.0 + 80.0 + 20.0), 1020.0)
    assert took.total == took.preflight + took.search + took.promote
    short = expected(stage, wall=15.0, trial_epochs=2, part=1.0, num_slots=12)
    assert short.search == 10.0 + 10.0 + 2 * 20.0 + 2 * 4.0


@pytest.mark.parametrize("recipe", ["small_set", "small_set_imagenet"])
def test_promotion_evaluates_as_the_recipe_does(recipe):
    interval = compose_plain(f"+experiment={recipe}")["training"]["eval_interval"]
    assert f"training.eval_interval={interval}" in PROMOTED
