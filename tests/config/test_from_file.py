import pytest
from composed import REPOSITORY

from winnow.config.compose import compose_command_line
from winnow.config.from_file import (
    decides_what_runs,
    require_run_overrides,
    require_trusted,
    search_path_override,
    trusted_by,
)
from winnow.errors import ConfigError


@pytest.mark.parametrize("override", [
    "trusted_targets=[os]", "+trusted_targets=[os]", "++trusted_targets=[os]", "~trusted_targets", "trusted_targets.0=os",
    "hydra.launcher.setup=[ls]", "hydra/launcher=x", "+hydra/callbacks=x", "+hydra.callbacks.x._target_=os.system",
    "hydra.searchpath=[pkg://x]", "experiment@hydra=x", "budget@hydra.callbacks=x", "model@_global_.trusted_targets=x",
    "+model@a.hydra=x", "--config-dir=x", "--experimental-rerun=x", "-m", "--cfg", "", "a b", "a=[",
])  # fmt: skip
def test_what_decides_what_is_executed_is_no_override_of_a_run(override):
    assert decides_what_runs(override)
    with pytest.raises(
        ConfigError, match="the list holds .*a file may set values of a run, and neither trusted_targets"
    ):
        require_run_overrides(["training.seed=1", override], "the list")


@pytest.mark.parametrize("override", [
    "model=fcos", "+experiment=[a,b]", "training.optimizer.lr=1e-4", "~training.ema", "+a.hydra=1", "model@_global_=x",
    "training.freeze=['[a]','-x']", "data.note='--cfg'", "stage=ink/all",
])  # fmt: skip
def test_values_and_choices_of_a_run_may_stand_in_a_file(override):
    assert not decides_what_runs(override)
    require_run_overrides([override], "the list")


def test_a_list_of_trusted_packages_is_compared_and_not_added():
    require_trusted(["a"], ["a", "b"], "last.pth")
    with pytest.raises(
        ConfigError, match=r"last.pth trusts 'c', and this command does not.*add trusted_targets=\[a,b,c\]"
    ):
        require_trusted(["c", "a"], ["a", "b"], "last.pth")


def test_places_of_config_groups_are_one_override():
    assert search_path_override([]) == []
    assert search_path_override(["file:///a b", "file:///it's"]) == [
        r"hydra.searchpath=['file:///a b','file:///it\'s']"
    ]
    assert search_path_override(["file:///a-b_1.c", "pkg://d.e"]) == ["hydra.searchpath=[file:///a-b_1.c,pkg://d.e]"]


@pytest.mark.parametrize("text", ["a=" + "[" * 30_000, "a=" + "[" * 5000, "a=" + "9" * 5000, "a=" + "{b:" * 2000])
def test_words_that_no_parser_takes_are_refused(text):
    assert decides_what_runs(text)
    text = text[:6000]
    with pytest.raises(ConfigError) as error:
        trusted_by([text.replace("a=", "trusted_targets=", 1)])
    assert len(str(error.value)) < 1000
    with pytest.raises(ConfigError):
        compose_command_line(REPOSITORY / "conf", [text.replace("a=", "+a=", 1)])


@pytest.mark.parametrize("choice", ["1.5", "x" * 5000, "null", "[[a]]", "{a:1}"])
def test_a_choice_that_hydra_falls_over_is_refused(choice):
    with pytest.raises(ConfigError):
        compose_command_line(REPOSITORY / "conf", [f"model={choice}"])
