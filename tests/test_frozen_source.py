"""The whole program with frozen weights that its checkpoints name by their file: begun, resumed, moved, handed on."""

import pytest
import torch
from killed_parts import TINY, TRUST
from safetensors.torch import save_file

from winnow.checkpoints.file import read_checkpoint
from winnow.checkpoints.layouts import with_frozen_weights

PLAIN = [*TINY, "model._target_=troubled.plainly_troubled"]
FROZEN = [
    *PLAIN, "training.max_epochs=2", "training.freeze=[backbone]", "training.frozen_weights=referenced",
    "model.pretrained=weights.safetensors", "training.ema.decay=0.9",
]  # fmt: skip


@pytest.fixture(scope="module")
def workplace(warm_program, tmp_path_factory):
    """Make a folder with weights of this model, and with a run that began from them and was not interrupted."""
    folder = tmp_path_factory.mktemp("frozen")
    warm_program.run(folder, *PLAIN, "training.max_iter=1", "hydra.run.dir=drawn")
    drawn = read_checkpoint(folder / "drawn/checkpoints/last.pth")["model_state_dict"]
    save_file({name: value + 0.01 for name, value in drawn.items()}, folder / "weights.safetensors")
    warm_program.run(folder, *FROZEN, "hydra.run.dir=whole")
    return folder


def weights_of(path, frozen_source=None):
    saved = with_frozen_weights(read_checkpoint(path), path, frozen_source)
    return saved["training_state_dict"], saved["model_state_dict"]


def test_a_run_goes_on_bit_by_bit_from_a_file_that_has_moved(warm_program, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    expected = weights_of(workplace / "whole/checkpoints/last.pth")
    last = workplace / "part/checkpoints/last.pth"
    warm_program.run(workplace, *FROZEN, "hydra.run.dir=part", code=75, TROUBLE="stop forward 4")
    assert not any(name.startswith("backbone") for name in read_checkpoint(last)["training_state_dict"])
    content = (workplace / "weights.safetensors").read_bytes()
    source = (workplace / "weights.safetensors").rename(workplace / "moved.safetensors")
    try:
        error = warm_program.run(workplace, f"training.resume={last}", TRUST, code=1)
        assert f"WeightsError: {last} takes its frozen weights from weights.safetensors, which is missing" in error
        again = f"training.resume={last}", TRUST, "training.frozen_source=moved.safetensors"
        assert "weights.safetensors has moved" in warm_program.run(workplace, *again)
        assert read_checkpoint(last)["frozen_references"]["sources"][0]["source"] == "moved.safetensors"
        for own, other in zip(weights_of(last), expected, strict=True):
            assert own.keys() == other.keys()
            assert all(torch.equal(value, other[name]) for name, value in own.items())
        changed = bytearray(content)
        changed[-1] ^= 1
        source.write_bytes(changed)
        error = warm_program.run(workplace, *again[:2], code=1)
        assert f"WeightsError: {last} takes its frozen weights from moved.safetensors, which has changed since" in error
    finally:
        (workplace / "weights.safetensors").write_bytes(content)


def test_a_run_starts_from_such_a_checkpoint(warm_program, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    path = workplace / "whole/checkpoints/best.pth"
    started = [*PLAIN, "training.max_iter=1", "training.freeze=[backbone]", f"training.init_from={path}"]
    warm_program.run(workplace, *started, "hydra.run.dir=started")
    _, expected = weights_of(path)
    own = read_checkpoint(workplace / "started/checkpoints/last.pth")["model_state_dict"]
    assert all(value.equal(expected[name]) for name, value in own.items() if name.startswith("backbone"))
