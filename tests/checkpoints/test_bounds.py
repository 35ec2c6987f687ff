"""Small files that would take gigabytes, and what stands in their error."""

import argparse
import resource
import zipfile

import numpy as np
import pytest
import torch

from winnow.checkpoints.bounds import require_stored
from winnow.checkpoints.file import KEYS, VERSION, read_checkpoint, write_checkpoint
from winnow.checkpoints.inert import read_inert
from winnow.errors import CheckpointError, WeightsError
from winnow.reading import UnreadableError


def lists(levels=40):
    value = [0, 0]
    for _ in range(levels):
        value = [value, value]
    return value


def deep(levels=300):
    value = []
    for _ in range(levels):
        value = {"a": value}
    return value


ODD = {
    "an expanded tensor": (
        lambda: torch.zeros(1).expand(10**9),
        r"a tensor of 4000000000 bytes, \(1000000000,\), whose storage has 4",
    ),
    "a view that repeats": (lambda: torch.zeros(2).as_strided((10**9,), (0,)), "whose storage has 8"),
    "a sparse tensor": (
        lambda: torch.sparse_coo_tensor([[0]], [1.0], (10**9,)),
        "sparse_coo tensor on cpu; only dense",
    ),
    "a tensor without values": (lambda: torch.zeros(10**9, device="meta"), "on meta; only dense ones with values"),
    "lists within lists": (lists, "its lists and mappings, written out, have over"),
    "a settings object of lists": (
        lambda: argparse.Namespace(a=lists()),
        "its lists and mappings, written out, have over",
    ),
    "deep mappings": (deep, "nests lists and mappings more than 100 deep"),
    "zeros": (lambda: bytearray(1000), "it names builtins.bytearray"),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor", "ignore:Sparse invariant checks")
@pytest.mark.parametrize("is_legacy", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_a_small_file_takes_no_memory_that_it_does_not_fill(tmp_path, name, is_legacy):
    make, message = ODD[name]
    path = tmp_path / "x.pth"
    torch.save({"model": {"w": torch.zeros(3)}, "odd": make()}, path, _use_new_zipfile_serialization=not is_legacy)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match=rf"x.pth cannot be read as weights: .*{message}"):
        read_inert(path, "weights", WeightsError)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("name", [name for name in ODD if "settings" not in name and "sparse" not in name])
def test_a_checkpoint_of_winnows_is_held_to_the_same(tmp_path, name):
    make, message = ODD[name]
    path = tmp_path / "last.pth"
    write_checkpoint(path, {**dict.fromkeys(KEYS), "version": VERSION, "metadata": {"odd": make()}})
    with pytest.raises(CheckpointError, match=rf"last.pth can't be read as a checkpoint: .*{message}"):
        read_checkpoint(path)


def rewritten(path, edit, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, edit(name, data))
    return path


def test_compressed_members_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"w": torch.zeros(10**7)}, path)
    rewritten(path, lambda name, data: data, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(
        WeightsError, match=r"member '.*data.pkl' is compressed, \d+ bytes that promise \d+, and torch.save"
    ):
        read_inert(path, "weights", WeightsError)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a", bytes(10_000))
        archive.filelist += archive.filelist * 99  # a table of 100 members over the same bytes
    with (
        zipfile.ZipFile(path) as archive,
        pytest.raises(UnreadableError, match=r"members promise 1000000 bytes, and the whole"),
    ):
        require_stored(path, archive)


def test_a_storage_that_promises_more_than_its_member_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"w": torch.arange(16.0)}, path)
    rewritten(path, lambda name, data: data.replace(b"K\x10", b"J" + (500_000_000).to_bytes(4, "little")))
    with pytest.raises(WeightsError, match="x.pth cannot be read as weights"):
        read_inert(path, "weights", WeightsError)


def test_an_array_that_promises_more_than_the_file_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"w": np.zeros(7)}, path)
    rewritten(path, lambda name, data: data.replace(b"K\x07\x85", b"J" + (500_000_000).to_bytes(4, "little") + b"\x85"))
    with pytest.raises(WeightsError, match="x.pth cannot be read as weights"):
        read_inert(path, "weights", WeightsError)


def test_shared_storages_and_views_are_read(tmp_path):
    path, table = tmp_path / "x.pth", torch.arange(100.0).reshape(10, 10)
    kept = {
        "a": table,
        "same": table,
        "row": table[3],
        "turned": table.t(),
        "one": torch.tensor(2.5),
        "none": torch.zeros(0, 5),
    }
    torch.save({"model": kept, "args": argparse.Namespace(betas=[0.9, 0.999])}, path)
    found = read_inert(path, "weights", WeightsError)
    assert all(torch.equal(found["model"][name], value) for name, value in kept.items())
    assert found["args"] == {"betas": [0.9, 0.999]}
