"""kill -9 at defined moments, resume, and compare bit for bit with the run that nobody killed."""

import pytest
from killed_parts import EVERYTHING, RECORDED, TINY, assert_same_end, last, record

BETWEEN_STEPS = "kill forward 11"
WITHIN_A_STEP = "kill losses 12"
IN_EVALUATION = "kill predictions 4"
BEFORE_ANY_SAVE = "kill losses 2"
WRITING_LAST = "tear losses 19 500000"
WRITING_AFTER_EVALUATION = "tear predictions 2 500000"
MOMENTS = [BETWEEN_STEPS, WITHIN_A_STEP, IN_EVALUATION, BEFORE_ANY_SAVE, WRITING_LAST, WRITING_AFTER_EVALUATION]
VARIANTS = {
    "plain": ["training.max_epochs=4"],
    "bf16 and dropped last": ["training.max_epochs=4", "training.amp=bf16", "training.drop_last=true"],
    "milestones and sgd": [
        "training.max_epochs=4", "training/optimizer=sgd", "training.scheduler.name=multistep",
        "training.scheduler.milestones=[2]",
    ],
    "single batches": ["training.max_epochs=3", "training.accumulate=1", "training.save_every_steps=3"],
    "deterministic": ["training.max_epochs=3", "training.deterministic=true", "training.eval_interval=2"],
}  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def whole(warm_program, workplace):
    """Return everything at once, uninterrupted: augmentation, dropout, accumulation, EMA, fp16 scaler, sizes, early stopping."""
    printed = warm_program.run(workplace, *TINY, *EVERYTHING, RECORDED, "hydra.run.dir=whole")
    assert "early_stopped" in printed
    return workplace / "whole"


def killed_and_resumed(program, workplace, overrides, moment, *changes):
    name = moment.replace(" ", "_") + str(len(list(workplace.iterdir())))
    started = program.start(workplace, *TINY, *overrides, f"hydra.run.dir={name}", TROUBLE=moment)
    assert started.wait() in (-9, -25), started.printed()
    again = [*TINY, *overrides, *changes, "training.resume=auto", f"hydra.run.dir={name}"]
    return workplace / name, program.run(workplace, *again)


@pytest.mark.parametrize(("moment", "changes"), [
    (BETWEEN_STEPS, ["training.num_workers=2"]), (WRITING_LAST, []),
    pytest.param(IN_EVALUATION, [], marks=pytest.mark.promise),
    pytest.param(WRITING_AFTER_EVALUATION, [], marks=pytest.mark.promise),
])  # fmt: skip
def test_killed_and_resumed_equals_uninterrupted_bit_by_bit(warm_program, workplace, whole, moment, changes):
    run, _ = killed_and_resumed(warm_program, workplace, [*EVERYTHING, RECORDED], moment, *changes)
    assert_same_end(whole, run)
    assert record(whole / "outbox.jsonl") == record(run / "outbox.jsonl")


def test_a_write_that_a_kill_tore_leaves_the_file_before_it_whole(warm_program, workplace):
    arguments = [*TINY, "training.max_epochs=3", "hydra.run.dir=torn"]
    assert warm_program.start(workplace, *arguments, TROUBLE=WRITING_LAST).wait() == -25
    files = sorted((workplace / "torn/checkpoints").iterdir())
    assert [file.suffix for file in files] == [".tmp", ".pth", ".pth", ".pth"]
    assert files[0].stat().st_size == 500000
    assert last(workplace / "torn")["step"] == 6


@pytest.mark.promise
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_recipe_is_exact_at_each_moment(warm_program, workplace, variant, moment):
    whole = workplace / f"whole {variant}".replace(" ", "_")
    if not whole.exists():
        warm_program.run(workplace, *TINY, *VARIANTS[variant], RECORDED, f"hydra.run.dir={whole.name}")
    run, _ = killed_and_resumed(
        warm_program, workplace, [*VARIANTS[variant], RECORDED], moment, "training.num_workers=1"
    )
    assert_same_end(whole, run)
    assert record(whole / "outbox.jsonl") == record(run / "outbox.jsonl")


@pytest.mark.promise
def test_a_run_killed_again_and_again_still_ends_as_the_uninterrupted_one(warm_program, workplace, whole):
    arguments = [*TINY, *EVERYTHING, RECORDED, "training.resume=auto", "hydra.run.dir=often"]
    for moment in [*MOMENTS, "kill forward 3", "kill predictions 1"]:
        assert warm_program.start(workplace, *arguments, TROUBLE=moment).wait() in (-9, -25, 0)
    warm_program.run(workplace, *arguments)
    assert_same_end(whole, workplace / "often")
    assert record(whole / "outbox.jsonl") == record(workplace / "often/outbox.jsonl")
