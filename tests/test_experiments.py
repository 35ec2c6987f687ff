"""Runs of several recipes at once, ``+experiment=[a,b]``, and going on with them."""

import pytest
from killed_parts import TINY, TRUST, assert_same_end, last

RECIPES = {
    "short": "training: {max_epochs: 3}\nmodel: {head_convs: 1}",
    "averaged": "defaults: [quick, _self_]\ntraining: {ema: {decay: 0.9}}",
    "quick": "training: {optimizer: {lr: 2e-3}}",
}
COMMAND = [*TINY, "--config-dir", "own", "+experiment=[short,averaged]"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "own/experiment").mkdir(parents=True)
    for name, text in RECIPES.items():
        (folder / f"own/experiment/{name}.yaml").write_text(f"# @package _global_\n{text}\n")
    return folder


@pytest.fixture(scope="module")
def whole(warm_program, workplace):
    warm_program.run(workplace, *COMMAND, "hydra.run.dir=whole")
    training = last(workplace / "whole")["config"]["training"]
    assert (training["max_epochs"], training["ema"]["decay"], training["optimizer"]["lr"]) == (3, 0.9, 2e-3)
    return workplace / "whole"


@pytest.mark.parametrize(("name", "resumed"), [
    ("alone", ["training.resume={run}/checkpoints/last.pth", TRUST]),
    ("same", [*COMMAND, "hydra.run.dir={run}", "training.resume=auto"]),
])  # fmt: skip
def test_a_run_of_two_recipes_goes_on_bit_for_bit(warm_program, workplace, whole, name, resumed):
    started = warm_program.start(workplace, *COMMAND, f"hydra.run.dir={name}", TROUBLE="kill forward 11")
    assert started.wait() == -9, started.printed()
    warm_program.run(workplace, *[text.format(run=name) for text in resumed])
    assert_same_end(whole, workplace / name)


def test_another_set_of_recipes_is_refused_on_resume(warm_program, workplace, whole):
    other = [*COMMAND[:-1], "+experiment=[short]", "hydra.run.dir=whole", "training.resume=auto"]
    printed = warm_program.run(workplace, *other, code=1)
    assert "+experiment=[short]: the run began with experiment=[short,averaged], and a resumed run keeps" in printed
