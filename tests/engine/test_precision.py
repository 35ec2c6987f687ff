from pathlib import Path

import pytest
import torch

from winnow.engine.precision import Precision, choose_device, multiplies_bf16
from winnow.engine.ranks import Ranks
from winnow.engine.settings import TrainingSettings
from winnow.errors import ConfigError
from winnow.settings import build_settings

CPU = torch.device("cpu")


@pytest.mark.parametrize(("amp", "dtype"), [("off", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_amp_on_a_cpu(amp, dtype):
    assert Precision.choose(amp, CPU).dtype == dtype


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the kernel does not say what the CPU can do")
def test_auto_is_bf16_on_a_cpu_with_instructions_for_it_alone():
    has_instructions = not {"amx_bf16", "avx512_bf16"}.isdisjoint(Path("/proc/cpuinfo").read_text().split())
    assert Precision.choose("auto", CPU).dtype == (torch.bfloat16 if has_instructions else None)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the kernel does not say what the CPU can do")
def test_images_are_channels_last_but_for_bf16_without_matrix_units():
    has_units = "amx_bf16" in Path("/proc/cpuinfo").read_text().split()
    assert Precision.choose("off", CPU).memory_format == torch.channels_last
    assert Precision.choose("bf16", CPU).memory_format == (
        torch.channels_last if has_units else torch.contiguous_format
    )


@pytest.mark.parametrize(("amp", "computed"), [("off", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_its_dtype(amp, computed):
    with Precision.choose(amp, CPU).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == computed


@pytest.mark.parametrize(("amp", "enabled"), [("off", False), ("bf16", False), ("fp16", True)])
def test_only_fp16_scales_gradients(amp, enabled):
    assert Precision.choose(amp, CPU).new_scaler().is_enabled() == enabled


@pytest.mark.skipif(torch.cuda.device_count() > 3, reason="this machine has that many GPUs")
def test_a_gpu_that_is_not_there_is_a_config_error():
    with pytest.raises(ConfigError, match=r"training.device='cuda:3': this machine has \d CUDA devices"):
        choose_device("cuda:3")


def test_many_ranks_on_a_cpu_share_it_and_refuse_one_gpu():
    ranks = Ranks(rank=1, size=2, local_rank=1, local_size=2)
    assert choose_device("cpu", ranks) == torch.device("cpu")
    with pytest.raises(ConfigError, match="'cuda:0' is one device for 2 ranks; use auto, cuda or cpu"):
        choose_device("cuda:0", ranks)


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="this machine has a GPU for each of two ranks")
def test_more_ranks_than_gpus_are_refused():
    with pytest.raises(ConfigError, match="2 ranks on this machine, which has . CUDA devices"):
        choose_device("cuda", Ranks(rank=0, size=2, local_rank=0, local_size=2))


def test_the_memory_format_may_be_chosen():
    for amp in ("off", "bf16"):
        assert Precision.choose(amp, CPU, "contiguous").memory_format == torch.contiguous_format
        assert Precision.choose(amp, CPU, "channels_last").memory_format == torch.channels_last
        assert Precision.choose(amp, CPU, "auto") == Precision.choose(amp, CPU)


def test_a_run_lays_its_weights_as_asked(training_values):
    assert build_settings(TrainingSettings, training_values, "training").memory_format == "auto"
    recorded = {key: value for key, value in training_values.items() if key != "memory_format"}
    assert build_settings(TrainingSettings, recorded, "training").memory_format == "auto"
    with pytest.raises(ConfigError, match=r"training\.memory_format='nhwc'.*'auto', 'contiguous' or 'channels_last'"):
        build_settings(TrainingSettings, training_values | {"memory_format": "nhwc"}, "training")


@pytest.mark.parametrize(("capabilities", "multiplies", "has_units"), [
    ({}, False, False), ({"avx512_bf16": False, "amx_bf16": False}, False, False),
    ({"avx512_bf16": True, "amx_bf16": False}, True, False), ({"amx_bf16": True}, True, True),
])  # fmt: skip
def test_other_cpus_compute_in_what_they_are_good_at(monkeypatch, capabilities, multiplies, has_units):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert multiplies_bf16() is multiplies
    assert Precision.choose("auto", CPU).dtype == (torch.bfloat16 if multiplies else None)
    laid = torch.channels_last if has_units else torch.contiguous_format
    assert Precision(CPU, torch.bfloat16).memory_format == laid
    assert Precision(CPU, torch.float16).memory_format == torch.channels_last
    assert Precision(torch.device("cuda"), torch.bfloat16).memory_format == torch.channels_last


def test_a_scale_goes_on_where_it_stood_and_never_below_the_least():
    scaler = Precision.choose("fp16", CPU).new_scaler()
    saved = scaler.state_dict()
    for scale, expected in ((4096.0, 4096.0), (0.25, 1.0), (0.0, 1.0)):
        scaler.load_state_dict({**saved, "scale": scale})
        assert scaler.get_scale() == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_without_a_gpu_the_cpu_computes(name):
    assert choose_device(name) == CPU
    assert choose_device(name, Ranks(rank=1, size=2, local_rank=1, local_size=2)) == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_has_no_bfloat16_computes_in_float16():
    assert Precision.choose("auto", torch.device("cuda")).dtype == torch.float16
