"""Leases of GPUs, on a machine that need not have any."""

import os
import re
import subprocess
import sys
import threading

import pytest

from hydra_plugins.winnow_sweeper._devices import await_devices, lease_devices, parse_listing, visible_devices
from winnow.errors import ConfigError

HOLDER = """
import sys
from pathlib import Path
from hydra_plugins.winnow_sweeper._devices import lease_devices
leases = lease_devices([0, 1], 1, Path(sys.argv[1]), {})
print(leases[0].device, flush=True)
sys.stdin.read()
"""

LISTING = """GPU 0: NVIDIA H200 (UUID: GPU-aaaa-1)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb-2)
  MIG 3g.71gb     Device  0: (UUID: MIG-cccc-3)
  MIG 3g.71gb     Device  1: (UUID: MIG-dddd-4)
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a ``nvidia-smi`` that tells of two GPUs, one of them in two parts."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'EOF'\n{LISTING}EOF\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def devices_of(leases):
    for lease in leases or ():
        lease.release()
    return leases and [lease.device for lease in leases]


@pytest.fixture
def start_holder(tmp_path):
    def start():
        holders.append(
            subprocess.Popen(
                [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        return holders[-1], holders[-1].stdout.readline().strip()

    holders = []
    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


def test_two_sweeps_never_share_a_device_and_a_dead_ones_is_free_again(tmp_path, start_holder):
    first, device = start_holder()
    _, other = start_holder()
    assert [device, other] == ["0", "1"]
    with pytest.raises(
        ConfigError, match=f"only 0 of the devices 0, 1 are free.*0 .process {first.pid}.*wait for them"
    ):
        lease_devices([0, 1], 1, tmp_path, {})
    first.kill()
    first.wait()
    assert devices_of(lease_devices([0, 1], 1, tmp_path, {})) == ["0"]


def test_a_sweep_waits_for_a_device_and_says_for_what(tmp_path, start_holder, caplog):
    holder, _ = start_holder()
    start_holder()
    threading.Timer(0.5, holder.kill).start()
    assert devices_of(await_devices([0, 1], 1, tmp_path, {})) == ["0"]
    (said,) = [record.message for record in caplog.records]
    assert re.match(rf"waiting: .*only 0 of the devices 0, 1 are free.*0 .process {holder.pid}", said)
    with pytest.raises(ConfigError, match="needs as many devices"):
        await_devices([0, 1], 3, tmp_path, {})


def test_a_lease_taken_in_vain_is_given_back(tmp_path, start_holder):
    start_holder()
    with pytest.raises(ConfigError, match=r"n_jobs=2, but only 1 of .* set hydra.sweeper.n_jobs=1, or"):
        lease_devices([0, 1], 2, tmp_path, {})
    assert devices_of(lease_devices([0, 1], 1, tmp_path, {})) == ["1"]


@pytest.mark.parametrize(("devices", "num_slots", "environment", "expected"), [
    (None, 4, {}, None),
    ("auto", 3, {}, ["GPU-aaaa-1", "MIG-cccc-3", "MIG-dddd-4"]),
    ("auto", 1, {"CUDA_VISIBLE_DEVICES": "0"}, ["GPU-aaaa-1"]),
    ("auto", 1, {"CUDA_VISIBLE_DEVICES": "MIG-dddd-4"}, ["MIG-dddd-4"]),
    ("auto", 2, {"CUDA_VISIBLE_DEVICES": "MIG-d,GPU-a"}, ["MIG-dddd-4", "GPU-aaaa-1"]),
    ("auto", 1, {"CUDA_VISIBLE_DEVICES": "GPU-a,-1,MIG-d"}, ["GPU-aaaa-1"]),
    ("auto", 1, {"CUDA_VISIBLE_DEVICES": ""}, None),
    ([1], 1, {"CUDA_VISIBLE_DEVICES": "MIG-d,GPU-a"}, ["GPU-aaaa-1"]),
    ([0, 2], 2, {}, ["GPU-aaaa-1", "MIG-dddd-4"]),
    (["GPU-aaaa-1"], 1, {}, ["GPU-aaaa-1"]),
])  # fmt: skip
def test_devices_are_known_by_one_name_however_they_are_given(
    tmp_path, machine, devices, num_slots, environment, expected
):
    assert devices_of(lease_devices(devices, num_slots, tmp_path, environment)) == expected


@pytest.mark.parametrize(("devices", "num_slots", "message"), [
    ("auto", 4, r"n_jobs=4 needs as many devices, and hydra.sweeper.devices=auto gives 3 .* set hydra.sweeper.n_jobs=3"),
    ([0], 2, r"n_jobs=2 needs as many devices, and hydra.sweeper.devices=\[0\] gives 1"),
    ([0, 0], 1, "must name different devices"),
    ([], 1, "must name different devices"),
    ([0, 7], 2, "7 is not there; visible: GPU-aaaa-1"),
])  # fmt: skip
def test_what_cannot_be_leased_is_refused_with_what_to_do(tmp_path, machine, devices, num_slots, message):
    with pytest.raises(ConfigError, match=message):
        lease_devices(devices, num_slots, tmp_path, {})


def test_a_machine_without_gpus_needs_no_lease(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    if os.path.exists("/dev/nvidia0"):
        pytest.skip("this machine has a GPU")
    assert visible_devices({}) == []
    assert lease_devices("auto", 2, tmp_path, {}) is None


def test_the_parts_of_a_divided_gpu_stand_for_it():
    assert parse_listing(LISTING) == {"0": ["GPU-aaaa-1"], "1": ["MIG-cccc-3", "MIG-dddd-4"]}
