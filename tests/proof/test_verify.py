"""`winnow verify` and `winnow reproduce` on a small run: clean copies pass, each change is found, the run is left alone."""

import hashlib
import random
import shutil
from pathlib import Path

import pytest
import torch

from winnow.checkpoints.differences import count_values, differences
from winnow.checkpoints.file import read_checkpoint, write_checkpoint
from winnow.checkpoints.seal import COMMENT_LENGTH, MARK
from winnow.commands.cli import main
from winnow.errors import CheckpointError, ConfigError
from winnow.proof.moments import Moment, saved_moments
from winnow.proof.verify import prepare, run_verification

RUN = [
    "data.num_train=12", "data.num_val=2", "data.size=64", "data.image_size=64", "training.batch_size=4", "training.max_epochs=3",
    "training.num_workers=0", "training.save_interval=2", "training.log_interval=2", "training.ema.decay=0.9",
    "training.scheduler.warmup_steps=3", "model.channels=[8,8,16,16]", "model.head_channels=32", "report=false", "tracking=off",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(warm_program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verified")
    warm_program.run(folder, *RUN, f"hydra.run.dir={folder}/run")
    return folder / "run"


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "run"))


def found_in(folder, scratch):
    verification = prepare(folder)
    return list(verification.faults) or run_verification(verification, scratch)


def change(folder, act, name="last.pth"):
    """Change a checkpoint's content, and seal it anew."""
    path = folder / "checkpoints" / name
    content = read_checkpoint(path)
    act(content)
    write_checkpoint(path, content)


def state_of(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_a_clean_run_passes_and_is_left_as_it_was(run, capsys):
    before = state_of(run)
    assert main(["verify", str(run)]) == 0
    out = capsys.readouterr().out
    assert (
        "checkpoint_epoch_2.pth (epoch 2, step 6) to best.pth (epoch 3, step 9): 3 steps" in out or "to last.pth" in out
    )
    assert "the same to the last bit" in out
    assert state_of(run) == before


@pytest.mark.parametrize("part", ["model_state_dict", "training_state_dict", "optimizer_state_dict", "rng", "progress"])
def test_one_bit_of_any_tensor_is_found(copy, tmp_path, part):
    def flip(content):
        tensors = [tensor for tensor in _tensors(content[part]) if tensor.numel()]
        chosen = random.Random(part).choice(tensors)
        bits = chosen.view(-1)[-1:].view(torch.uint8)
        bits[0] ^= 1

    change(copy, flip)
    lines = found_in(copy, tmp_path / "again")
    assert len(lines) == 1 or part == "model_state_dict"  # the average's own names are the same tensors
    assert f"last.pth: {part}" in lines[0]


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for item in items for tensor in _tensors(item)]


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda content: content.update(step=10), "step 10; the repeat never did"),
        (lambda content: content.update(epoch=7), "the repeat never did"),
        (lambda content: content["progress"].update(sample=3), "the repeat never did"),
        (lambda content: content["metrics"].update({"train/loss": 0.5}), "metrics.train/loss"),
        (lambda content: content["progress"]["cost"].update(images=1), "progress.cost.images"),
        (lambda content: content["progress"]["cost"].update(seconds=1e9), "metrics.csv says"),
        (lambda content: content["config"]["training"].update(batch_size=5), "config.training.batch_size"),
        (lambda content: content["metadata"].update(seed=5), "metadata.seed"),
        (lambda content: content.update(timestamp="2001-01-01T00:00:00+00:00"), "timestamp"),
        (lambda content: content["classes"].reverse(), "classes"),
    ],
)  # fmt: skip
def test_a_counter_or_text_that_was_changed_is_found(copy, tmp_path, act, says):
    change(copy, act)
    (line, *_) = found_in(copy, tmp_path / "again")
    assert says in line


def test_a_bit_that_no_reader_sees_is_found(copy, tmp_path):
    path = copy / "checkpoints" / "last.pth"
    body = bytearray(path.read_bytes()[: -COMMENT_LENGTH - 2])
    body[body.index(b"ZZZZ")] ^= 1  # padding between records
    seal = COMMENT_LENGTH.to_bytes(2, "little") + MARK + hashlib.sha256(body).hexdigest().encode()
    path.write_bytes(bytes(body) + seal)
    assert "its bytes are not those" in found_in(copy, tmp_path / "again")[0]


def test_a_damaged_file_and_swapped_counters_are_found_before_a_step(copy, tmp_path):
    data = bytearray((copy / "checkpoints" / "best.pth").read_bytes())
    data[1000] ^= 1
    (copy / "checkpoints" / "best.pth").write_bytes(data)
    assert "damaged" in prepare(copy).faults[0]
    (copy / "checkpoints" / "best.pth").unlink()
    change(copy, lambda content: content.update(step=2))
    assert "with fewer steps" in prepare(copy).faults[0]


def test_with_one_checkpoint_nothing_can_be_repeated(copy, capsys):
    (copy / "checkpoints" / "checkpoint_epoch_2.pth").unlink()
    for path in (copy / "checkpoints").glob("best.pth"):
        path.unlink()
    assert main(["verify", str(copy)]) == 2
    assert "holds one checkpoint, of epoch 3, step 9: nothing can be repeated" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="is no run folder"):
        prepare(copy.parent / "nothing")


def test_settings_changed_in_between_are_no_alarm_but_refused(copy):
    def resumed(content):
        content["metadata"]["resumed_from"] = [{"path": "x", "epoch": 2, "step": 7}]
        content["config"]["training"]["clip_grad_norm"] = 5.0

    change(copy, resumed)
    for name in ("best.pth", "checkpoint_epoch_3.pth"):
        (copy / "checkpoints" / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"resumed between .* other settings \(training.clip_grad_norm\)"):
        prepare(copy)


def test_a_run_that_was_stopped_within_an_epoch_is_repeated_to_that_step(warm_program, tmp_path, capsys):
    folder = tmp_path / "cut"
    cut = ("training.max_epochs=2", "training.save_interval=1", "training.max_iter=5")
    warm_program.run(tmp_path, *RUN, *cut, f"hydra.run.dir={folder}")
    saved, damaged = saved_moments(folder)
    assert [each.moment for each in saved] == [Moment(1, 0, 3), Moment(2, 0, 5)]
    assert not damaged
    assert main(["verify", str(folder)]) == 0


def test_reproduce_gives_the_same_bits_and_names_what_differs(copy, tmp_path, capsys):
    environment = copy / "environment.json"
    environment.write_text(environment.read_text().replace('"package.numpy": "', '"package.numpy": "0.'))
    assert main(["reproduce", str(copy), "--output", str(tmp_path / "again")]) == 0
    out = capsys.readouterr().out
    assert "not as then: package.numpy: 0." in out
    assert out.count("the same to the last bit") == 2
    assert len(list((tmp_path / "again" / "checkpoints").glob("*.pth"))) == 2
    change(copy, lambda content: content["rng"]["torch"].__setitem__(0, content["rng"]["torch"][0] ^ 1))
    assert main(["reproduce", str(copy)]) == 1
    assert "rng.torch: 1 of" in capsys.readouterr().out


def test_differences_see_every_bit_and_kind():
    one = {"a": [1, 2.0, float("nan"), "x"], "b": torch.tensor([0.0, 1.0])}
    assert not list(differences(one, {"a": [1, 2.0, float("nan"), "x"], "b": torch.tensor([0.0, 1.0])}))
    assert list(differences({"a": 0.0}, {"a": -0.0})) == ["a: 0.0 and -0.0"]
    assert list(differences({"a": 1}, {"a": True})) == ["a: 1 and True are of different types"]
    assert list(differences(torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0]), "w")) == ["w: 1 of 2 values differ"]
    assert "type, shape" in next(differences(torch.zeros(2), torch.zeros(2, dtype=torch.float64), "w"))
    assert list(differences({"a": 1, "b": 2}, {"b": 2, "a": 1}, "d")) == ["d: the keys stand in another order"]
    assert list(differences({"a": 1}, {"b": 1})) == ["a: only in the first", "b: only in the second"]
    assert list(differences([1], [1, 2], "l")) == ["l: 1 and 2 entries"]
    assert count_values(one) == (1, 4)
