import hashlib
import os
import pickle
import zipfile

import pytest
import torch

from winnow.checkpoints.file import KEYS, VERSION, read_checkpoint, write_checkpoint
from winnow.checkpoints.seal import COMMENT_LENGTH, MARK, has_whole_checkpoint
from winnow.errors import CheckpointError


@pytest.fixture
def content():
    return {**dict.fromkeys(KEYS), "version": VERSION, "model_state_dict": {"weight": torch.arange(1000.0)}}


def test_what_is_written_is_read_back(tmp_path, content):
    write_checkpoint(tmp_path / "last.pth", content)
    read = read_checkpoint(tmp_path / "last.pth")
    assert read["model_state_dict"]["weight"].equal(content["model_state_dict"]["weight"])
    assert os.listdir(tmp_path) == ["last.pth"]


def test_the_file_is_an_ordinary_torch_file(tmp_path, content):
    write_checkpoint(tmp_path / "last.pth", content)
    assert torch.load(tmp_path / "last.pth", weights_only=True)["version"] == VERSION
    assert zipfile.ZipFile(tmp_path / "last.pth").testzip() is None


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_one_flipped_bit_is_noticed(tmp_path, content, position):
    path = tmp_path / "last.pth"
    write_checkpoint(path, content)
    data = bytearray(path.read_bytes())
    data[int(len(data) * position)] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="does not match"):
        read_checkpoint(path)


def test_a_torn_file_is_noticed(tmp_path, content):
    path = tmp_path / "last.pth"
    write_checkpoint(path, content)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged, cut short"):
        read_checkpoint(path)


@pytest.mark.parametrize("data", [b"", b"hello, I am text\n" * 50, pickle.dumps({"a": 1})])
def test_what_is_no_checkpoint_is_refused(tmp_path, data):
    (tmp_path / "odd.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="odd.pth"):
        read_checkpoint(tmp_path / "odd.pth")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_code_in_a_file_is_not_run(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "last.pth", {**content, "metadata": Bomb()})
    with pytest.raises(CheckpointError, match="can't be read"):
        read_checkpoint(tmp_path / "last.pth")
    assert not (tmp_path / "exploded").exists()


def test_a_newer_version_is_refused_by_name(tmp_path, content):
    write_checkpoint(tmp_path / "last.pth", {**content, "version": 3})
    with pytest.raises(CheckpointError, match="has version 3; this winnow reads versions 1 and 2"):
        read_checkpoint(tmp_path / "last.pth")


@pytest.mark.parametrize("version", [torch.zeros(0), torch.ones(3), "1", True, [1], None])
def test_a_version_that_is_no_number_is_refused_too(tmp_path, content, version):
    write_checkpoint(tmp_path / "last.pth", {**content, "version": version})
    with pytest.raises(CheckpointError, match=r"last.pth has version .*; this winnow reads versions 1 and 2"):
        read_checkpoint(tmp_path / "last.pth")


def test_a_failed_write_leaves_the_old_file(tmp_path, content):
    path = tmp_path / "last.pth"
    write_checkpoint(path, content)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_checkpoint(path, {"generator": (number for number in range(3))})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.pth"]


@pytest.mark.parametrize(("files", "expected"), [
    ({}, False), ({"last.pth": "whole"}, True), ({"last.pth": "torn"}, False), ({"last.pth": "flipped"}, False),
    ({".last.pth.7.tmp": "whole"}, False), ({"last.pth": "torn", "best.pth": "whole"}, True),
])  # fmt: skip
def test_a_run_can_be_resumed_only_from_a_whole_checkpoint(tmp_path, content, files, expected):
    (tmp_path / "checkpoints").mkdir()
    for name, state in files.items():
        path = tmp_path / "checkpoints" / name
        write_checkpoint(path, content)
        data = bytearray(path.read_bytes())
        data[500] ^= state == "flipped"
        path.write_bytes(data[:500] if state == "torn" else data)
    assert has_whole_checkpoint(tmp_path) == expected


def test_a_pickle_that_torch_stumbles_over_under_a_right_checksum_is_named(tmp_path):
    """One flipped bit of a checkpoint gave an IndexError of torch's unpickler (benchmarks/verify_flips.py)."""
    path = tmp_path / "last.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}(X\x01\x00\x00\x00au.")  # a key without its value
        archive.writestr("archive/version", b"3\n")
    data = path.read_bytes()[:-2]
    path.write_bytes(data + COMMENT_LENGTH.to_bytes(2, "little") + MARK + hashlib.sha256(data).hexdigest().encode())
    with pytest.raises(CheckpointError, match=r"last.pth can't be read as a checkpoint: list index out of range"):
        read_checkpoint(path)
