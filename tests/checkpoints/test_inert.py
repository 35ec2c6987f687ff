import argparse
import json
import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_files import Bomb
from omegaconf import OmegaConf
from torch import nn

from winnow.checkpoints.inert import read_inert
from winnow.errors import CheckpointError


def read(path):
    return read_inert(path, "a checkpoint", CheckpointError)


@pytest.mark.parametrize(("value", "plain"), [
    (argparse.Namespace(lr=1, sub=argparse.Namespace(x=2)), {"lr": 1, "sub": {"x": 2}}),
    (np.float64(0.25), 0.25),
    (np.bool_(True), True),
    (Path("a/b"), "a/b"),
    (defaultdict(list, {"a": [1]}), {"a": [1]}),
    (OmegaConf.create({"a": {"b": [1, 2]}, "n": None}), {"a": {"b": [1, 2]}, "n": None}),
    (OmegaConf.create({"never": "${oc.env:HOME}"}), {"never": "${oc.env:HOME}"}),
    ((1, ["x"]), (1, ["x"])),
])  # fmt: skip
@pytest.mark.parametrize("is_zip", [True, False])
def test_settings_of_other_programs_become_plain_values(tmp_path, value, plain, is_zip):
    torch.save({"config": value}, tmp_path / "file", _use_new_zipfile_serialization=is_zip)
    assert read(tmp_path / "file") == {"config": plain}


def test_arrays_become_tensors(tmp_path):
    torch.save({"x": np.arange(3)}, tmp_path / "file")
    assert read(tmp_path / "file")["x"].equal(torch.arange(3))


@pytest.mark.parametrize(
    ("content", "name"), [(Bomb(), "posix.mkdir"), (nn.Linear(2, 2), "torch.nn.modules.linear.Linear")]
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_what_would_have_to_run_is_refused_by_name_and_does_not_run(tmp_path, monkeypatch, content, name, is_zip):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"w": torch.ones(1)}, "extra": content}, "file", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(
        CheckpointError, match=f"file cannot be read as a checkpoint: it names {name}, and to read that means"
    ):
        read(Path("file"))
    assert not Path("exploded").exists()


@pytest.mark.parametrize(("content", "words"), [
    (b"these are notes", r"no file of torch.save or safetensors \(it begins with b'these are notes'\)"),
    (b"", "no file of torch.save"),
    (b"\x89PNG\r\n\x1a\n" + bytes(50), "no file of torch.save"),
    (pickle.dumps({"a": 1}), "no file of torch.save"),
    (b"PK\x03\x04" + bytes(50), "damaged or cut short"),
    ((200).to_bytes(8, "little") + b'{"weight": 3', "damaged or cut short"),
], ids=["text", "empty", "picture", "pickle", "zip", "safetensors"])  # fmt: skip
def test_a_file_of_another_kind_is_refused(tmp_path, content, words):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read(tmp_path / "file")


def test_a_long_name_in_a_damaged_header_is_not_repeated_whole(tmp_path):
    header = json.dumps({"w" * 50_000: 3}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="damaged or cut short") as refusal:
        read(tmp_path / "x.safetensors")
    assert len(str(refusal.value)) < 2000


def test_a_flipped_bit_and_a_missing_end_are_noticed(tmp_path):
    torch.save({"w": torch.arange(10_000.0)}, tmp_path / "file")
    data = bytearray((tmp_path / "file").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "flipped").write_bytes(data)
    (tmp_path / "cut").write_bytes(data[:-100])
    for name in ("flipped", "cut"):
        with pytest.raises(CheckpointError, match=f"{name} cannot be read as a checkpoint: damaged or cut short"):
            read(tmp_path / name)


@pytest.mark.parametrize(("name", "words"), [("nowhere", "looked for"), (".", "a folder")])
def test_a_missing_file_is_named(tmp_path, name, words):
    with pytest.raises(CheckpointError, match=f"there is no such file .*{words}"):
        read(tmp_path / name)
