"""``train.py`` on two ranks, as real processes that talk by gloo."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from composed import REPOSITORY
from killed_parts import EVERYTHING, RECORDED, TINY, TRUST, assert_same_end, last, record

# 13 images: of the last batch one rank gets one image and the other none. Without momentum no rounding error grows.
PLAIN = [
    "data.num_train=13", "data.num_val=5", "data.size=64", "data.image_size=64", "training.num_workers=0",
    "training.max_epochs=2",
    "training/optimizer=sgd", "training.optimizer.momentum=0", "training.optimizer.nesterov=false", "training.log_interval=1",
    "training.scheduler.warmup_steps=0", "trusted_targets=[troubled]", "tracking=off", RECORDED,
]  # fmt: skip
FCOS = ["model=fcos_tiny", "model.channels=[8,8,16,16]", "model.head_channels=32", "training.optimizer.lr=0.01"]
DETR = [
    "model=deformable_detr_tiny", "model.d_model=32", "model.ffn_dim=64", "model.num_queries=10", "training.optimizer.lr=0.001",
]  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


def start_ranks(program, folder, *arguments, troubles=("", "")):
    """Return one process per trouble, each told its place as torchrun does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    size = str(len(troubles))
    return [
        program.start(
            folder, *arguments, TROUBLE=trouble, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=size,
            LOCAL_WORLD_SIZE=size, **meeting,
        )
        for rank, trouble in enumerate(troubles)
    ]  # fmt: skip


def run_ranks(program, folder, *arguments, codes=(0, 0), troubles=("", "")):
    """Return what each rank printed."""
    ranks = start_ranks(program, folder, *arguments, troubles=troubles)
    ended = tuple(rank.wait() for rank in ranks)
    assert ended == codes, [rank.printed() for rank in ranks]
    return [rank.printed() for rank in ranks]


def outcome(run):
    return json.loads((run / "result.json").read_text())


@pytest.mark.parametrize(("name", "overrides"), [
    ("fcos", FCOS), ("clipped_detr_accumulated", [*DETR, "training.accumulate=2", "training.clip_grad_norm=0.01"]),
    pytest.param("detr", DETR, marks=pytest.mark.promise),
    pytest.param(
        "accumulated", [*FCOS, "training.accumulate=2", "training.ema.decay=0.9", "training.drop_last=true"],
        marks=pytest.mark.promise,
    ),
])  # fmt: skip
def test_two_ranks_do_what_one_does_with_the_doubled_batch(warm_program, workplace, name, overrides):
    one, two = workplace / f"{name}_1", workplace / f"{name}_2"
    common = [*PLAIN, "training.amp=off", *overrides]  # bf16 rounds at 0.4 %
    warm_program.run(workplace, *common, "training.batch_size=4", f"hydra.run.dir={one.name}")
    _, follower = run_ranks(warm_program, workplace, *common, "training.batch_size=2", f"hydra.run.dir={two.name}")
    assert follower == ""
    assert_close_ends(one, two)


def assert_close_ends(one, two):
    """Return the same losses at every step, metrics and weights within what another order of adding floats explains."""
    first, second = record(one / "outbox.jsonl"), record(two / "outbox.jsonl")
    assert [event[:2] for event in first] == [event[:2] for event in second]
    values = [torch.tensor([float(value) for *_, value in events], dtype=torch.float64) for events in (first, second)]
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-5, equal_nan=True)
    torch.testing.assert_close(last(two)["model_state_dict"], last(one)["model_state_dict"], rtol=1e-4, atol=1e-5)
    assert last(one)["metrics"] == pytest.approx(last(two)["metrics"], rel=1e-4, abs=1e-5, nan_ok=True)
    assert outcome(one)["cost"]["images"] == outcome(two)["cost"]["images"]


def test_ranks_without_boxes_do_not_hang_and_change_nothing(warm_program, workplace):
    common = [*PLAIN, *FCOS, "data.root=bare"]
    warm_program.run(workplace, *common, "training.max_epochs=1", "hydra.run.dir=bare_first")
    (truth,) = workplace.glob("bare/*/annotations/instances_train.json")
    content = json.loads(truth.read_text())
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] <= 2]
    truth.write_text(json.dumps(content))
    warm_program.run(workplace, *common, "training.batch_size=4", "hydra.run.dir=bare_1")
    run_ranks(warm_program, workplace, *common, "training.batch_size=2", "hydra.run.dir=bare_2")
    assert_close_ends(workplace / "bare_1", workplace / "bare_2")


@pytest.fixture(scope="module")
def whole(warm_program, workplace):
    """Return two ranks uninterrupted, with dropout, augmentation, accumulation, EMA, fp16 scaler, sizes and early stopping."""
    leader, _ = run_ranks(
        warm_program, workplace, *TINY, *EVERYTHING, RECORDED, "training.batch_size=2", "hydra.run.dir=whole"
    )
    assert "early_stopped" in leader
    return workplace / "whole"


@pytest.mark.parametrize(("lost", "moment"), [
    (1, "kill forward 11"), pytest.param(0, "kill losses 12", marks=pytest.mark.promise),
    pytest.param(1, "kill predictions 2", marks=pytest.mark.promise),
])  # fmt: skip
def test_a_killed_rank_ends_the_run_and_it_resumes_bit_by_bit(warm_program, workplace, whole, lost, moment):
    run = workplace / f"{moment} {lost}".replace(" ", "_")
    arguments = [
        *TINY,
        *EVERYTHING,
        RECORDED,
        "training.batch_size=2",
        "training.resume=auto",
        f"hydra.run.dir={run.name}",
    ]
    ranks = start_ranks(warm_program, workplace, *arguments, troubles=[moment, ""] if lost == 0 else ["", moment])
    assert ranks[lost].wait() == -signal.SIGKILL
    killed = time.monotonic()
    assert ranks[1 - lost].wait() == 1
    assert time.monotonic() - killed < 60  # gloo alone would wait for half an hour
    said = f"rank {lost} (process {ranks[lost].pid}) vanished"
    assert said in ranks[1 - lost].printed()
    assert "Traceback" not in ranks[1 - lost].printed()
    if lost == 1:
        assert outcome(run)["status"] == "failed"
        assert said in outcome(run)["reason"]
    run_ranks(warm_program, workplace, *arguments)
    assert_same_end(whole, run)
    assert record(whole / "outbox.jsonl") == record(run / "outbox.jsonl")


def test_a_stop_that_one_rank_hears_stops_all_at_the_same_step(warm_program, workplace, whole):
    run = workplace / "stopped"
    arguments = [*TINY, *EVERYTHING, RECORDED, "training.batch_size=2", f"hydra.run.dir={run.name}"]
    leader, follower = start_ranks(warm_program, workplace, *arguments, troubles=["", "stop forward 9 SIGTERM"])
    assert (leader.wait(), follower.wait()) == (75, 0)
    assert follower.printed().startswith("rank 1: WARNING SIGTERM")
    assert outcome(run)["status"] == "interrupted"
    run_ranks(warm_program, workplace, *arguments, "training.resume=auto")
    assert_same_end(whole, run)


@pytest.mark.parametrize(
    "sizes", [(2, 1), pytest.param((1, 2), marks=pytest.mark.promise), pytest.param((2, 3), marks=pytest.mark.promise)]
)
def test_another_number_of_ranks_goes_on_at_the_same_sample(warm_program, workplace, sizes):
    run = workplace / f"from_{sizes[0]}_to_{sizes[1]}"
    arguments = [
        *TINY,
        "training.max_epochs=3",
        "training.batch_size=2",
        "training.resume=auto",
        f"hydra.run.dir={run.name}",
    ]
    # Far into the second epoch: on a busy machine the last files may not be written yet.
    moment = f"kill losses {24 if sizes[0] == 1 else 8}"
    for rank in start_ranks(warm_program, workplace, *arguments, troubles=[moment] * sizes[0]):
        rank.wait()
    assert last(run)["progress"]["sample"] % 22 != 0
    run_ranks(warm_program, workplace, *arguments, codes=(0,) * sizes[1], troubles=("",) * sizes[1])
    assert (outcome(run)["status"], outcome(run)["epochs"]) == ("completed", 3)
    assert outcome(run)["cost"]["images"] == 3 * 22


def test_what_ended_one_rank_is_told_by_the_first(warm_program, workplace):
    arguments = [*TINY, "training.batch_size=2", "hydra.run.dir=told"]
    leader, follower = run_ranks(warm_program, workplace, *arguments, codes=(1, 1), troubles=("", "memory 1"))
    assert outcome(workplace / "told")["reason"].startswith(
        "RankError: rank 1: MemoryExhaustedError: out of memory on cpu"
    )
    assert "RankError: rank 1: MemoryExhaustedError" in leader
    assert follower.startswith("rank 1: ERROR")
    assert "Traceback" not in leader + follower


def test_ranks_diverge_together_and_name_the_images_of_all(warm_program, workplace):
    diverging = ["training.optimizer.lr=1e30", "training.max_nonfinite=2", "training.clip_grad_norm=null"]
    arguments = [*TINY, *diverging, "training.accumulate=1", "training.batch_size=3", "hydra.run.dir=diverged"]
    _, follower = run_ranks(warm_program, workplace, *arguments, codes=(1, 1))
    assert outcome(workplace / "diverged")["status"] == "diverged"
    images = re.search(r"image ids \[([^]]*)\]", outcome(workplace / "diverged")["reason"])[1]
    assert len(set(images.split(", "))) == 6
    assert follower == ""


WRONG = [
    (["training.amp=fp8"], "ConfigError: training.amp='fp8'"),
    (["training.freeze=[encoder]"], "ConfigError: training.freeze='encoder' matches none of"),
    (["training.num_ranks=4"], "ConfigError: training.num_ranks=4, but torchrun started 2; set it to null"),
    (["training.sync_batch_norm=true"], "ConfigError: training.sync_batch_norm=true: torch has it for GPUs only"),
    (["-m", "training.seed=1,2"], "ConfigError: torchrun can't start a multirun"),
    (["hydra.mode=MULTIRUN", "training.seed=1,2"], "ConfigError: torchrun can't start a multirun"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"), WRONG, ids=lambda value: value[-1] if isinstance(value, list) else ""
)
def test_what_a_user_got_wrong_is_said_once_and_ends_all_ranks(warm_program, workplace, overrides, message):
    arguments = [*PLAIN, *FCOS, *overrides, "hydra.run.dir=wrong", "hydra.sweep.dir=wrong_sweep"]
    leader, follower = start_ranks(warm_program, workplace, *arguments)
    assert leader.wait() == 1
    follower.signal(signal.SIGTERM)  # as torchrun does when a rank has failed
    assert follower.wait() in (0, 1, -signal.SIGTERM)
    assert leader.printed().count(message) == 1
    assert "Traceback" not in leader.printed() + follower.printed()
    # Its own refusal and how to see more, where it came to that before it was ended.
    assert len(follower.printed().splitlines()) <= 2
    assert not list(workplace.glob("wrong_sweep/*/checkpoints"))


def test_what_prints_and_runs_nothing_does_not_wait_for_the_others(warm_program, workplace):
    leader, follower = run_ranks(warm_program, workplace, *PLAIN, "--cfg", "job", "-p", "training")
    assert "num_ranks: null" in leader
    assert follower == ""


def test_a_finished_run_says_so_on_ranks_too(warm_program, workplace, whole):
    leader, follower = run_ranks(warm_program, workplace, "training.resume=whole/checkpoints/last.pth", TRUST)
    assert "this run is finished, nothing was changed" in leader
    assert follower == ""


def followers_of(process):
    return [child for child in psutil.Process(process).children() if "winnow.run.follower" in child.cmdline()]


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 75), pytest.param(signal.SIGKILL, -9, marks=pytest.mark.promise)]
)
def test_ranks_that_the_run_started_end_with_it(warm_program, workplace, sent, code):
    run = workplace / f"started_{sent.name}"
    leader = warm_program.start(
        workplace, *TINY, "training.max_epochs=500", "training.num_ranks=2", f"hydra.run.dir={run.name}"
    )
    leader.wait_for_line("epoch   1/")
    followers = followers_of(leader.pid)
    assert len(followers) == 1
    leader.signal(sent)
    assert leader.wait() == code
    _, alive = psutil.wait_procs(followers, timeout=60)
    assert not alive
    if code == 75:
        assert outcome(run)["status"] == "interrupted"
        assert last(run)["progress"]["rng_ranks"]


@pytest.mark.promise
def test_a_multirun_starts_each_jobs_own_ranks_and_no_second_sweep(warm_program, workplace):
    sweep = [
        "-m", "hydra/sweeper=winnow", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1",
        "training.optimizer.lr=choice(0.01,0.02)", "training.num_ranks=2", "hydra.sweep.dir=sweep", "training.max_epochs=1",
    ]  # fmt: skip
    warm_program.run(workplace, *TINY, *sweep)
    results = {path.parent.name: outcome(path.parent)["status"] for path in workplace.glob("sweep/*/result.json")}
    assert results == {"0": "completed", "1": "completed"}
    for job in ("0", "1"):
        assert len(last(workplace / "sweep" / job)["progress"]["rng_ranks"]) == 1


@pytest.mark.promise
def test_torchrun_starts_them_and_ends_them_when_one_is_killed(workplace):
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2", str(REPOSITORY / "train.py")]
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY / 'tests'}:{os.environ.get('PYTHONPATH', '')}"}
    with (workplace / "torchrun.txt").open("wb") as output:
        process = subprocess.Popen(
            [*torchrun, *TINY, "training.max_epochs=500", "hydra.run.dir=torchrun"], cwd=workplace, env=environment,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    while not (workplace / "torchrun/checkpoints/last.pth").exists():
        assert process.poll() is None, (workplace / "torchrun.txt").read_text()
        time.sleep(0.1)
    ranks = {child.environ()["RANK"]: child for child in psutil.Process(process.pid).children()}
    ranks["1"].kill()
    assert process.wait(timeout=120) == 1
    assert outcome(workplace / "torchrun")["status"] == "failed"
    assert f"rank 1 (process {ranks['1'].pid}) vanished" in outcome(workplace / "torchrun")["reason"]
    subprocess.run(
        [*torchrun, "training.resume=torchrun/checkpoints/last.pth", TRUST, "training.max_epochs=4"], cwd=workplace,
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    assert outcome(workplace / "torchrun")["status"] == "completed"


def test_gradients_that_no_rank_has_are_said_by_rank_0_alone(warm_program, workplace):
    spare = ["model._target_=untrained.unused_head", "training.param_groups=[{name: spare, pattern: '^spare'}]"]
    common = [
        *PLAIN,
        *FCOS,
        *spare,
        "trusted_targets=[troubled,untrained]",
        "training.batch_size=2",
        "hydra.run.dir=spare",
    ]
    leader, follower = run_ranks(warm_program, workplace, *common, codes=(1, 1))
    assert "UntrainedError: parameter group 'spare' gets no gradient" in leader
    assert follower == ""


def test_every_rank_loads_its_own_frozen_weights(warm_program, workplace):
    """And what they train on them is what one rank trains; the file is not what is drawn from the seed."""
    weights = {
        name: value + 0.01 for name, value in last(trained_once(warm_program, workplace))["model_state_dict"].items()
    }
    torch.save(weights, workplace / "weights.pth")
    common = [
        *PLAIN, *FCOS, "training.amp=off", "training.freeze=[backbone]", "training.ema.decay=0.9",
        "training.init_from=weights.pth",
    ]  # fmt: skip
    warm_program.run(workplace, *common, "training.batch_size=4", "hydra.run.dir=frozen_1")
    run_ranks(warm_program, workplace, *common, "training.batch_size=2", "hydra.run.dir=frozen_2")
    assert_close_ends(workplace / "frozen_1", workplace / "frozen_2")
    frozen = last(workplace / "frozen_2")["model_state_dict"]
    assert all(value.equal(weights[name]) for name, value in frozen.items() if name.startswith("backbone"))


def trained_once(program, workplace):
    program.run(workplace, *PLAIN, *FCOS, "training.max_iter=1", "hydra.run.dir=once")
    return workplace / "once"


def test_ranks_whose_frozen_weights_differ_end_before_they_train(warm_program, workplace):
    leader, _ = run_ranks(
        warm_program, workplace, *PLAIN, *FCOS, "model._target_=troubled.plainly_troubled", "training.freeze=[backbone]",
        "training.batch_size=2", "hydra.run.dir=other", codes=(1, 1), troubles=("", "other weights"),
    )  # fmt: skip
    assert "rank 1: WeightsError: the frozen weights of rank 1 differ from rank 0's" in leader
