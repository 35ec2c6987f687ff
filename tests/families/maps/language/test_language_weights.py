"""Language models from files: their values, their words, and checkpoints that name them instead of holding them."""

import json

import pytest
import torch
from map_language_parts import language_settings, random_llm, save_folder, save_gguf

from winnow.checkpoints.layouts import with_frozen_weights
from winnow.checkpoints.references import KEY, reader_of, with_references
from winnow.checkpoints.state_dicts import loaded_from, referable
from winnow.errors import WeightsError
from winnow.families.maps.language import gguf as gguf_files
from winnow.families.maps.language.bridge import LanguageBridge
from winnow.families.maps.language.weights import language_model

DRAW = 1


def bridge(path, **values):
    return LanguageBridge(language_settings(llm_path=str(path), **values), 16, 2, 2)


def assert_holds(found, base, num_layers=2):
    expected = {name: value for name, value in base.state_dict().items() if f"layers.{num_layers}." not in name}
    if num_layers == 1:
        expected = {name: value for name, value in expected.items() if "layers.1." not in name}
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())


def assert_referenced_bit_for_bit(model, folder):
    """A checkpoint names each tensor by its file, is small, and gives the same bits again."""
    own = model.state_dict()
    references = referable(model, folder / "run")
    assert references.keys() == {name for name in own if name.startswith("llm.")}
    content = {"model_state_dict": own, "ema_state_dict": None}
    small = with_references(content, references, own)
    assert small["model_state_dict"].keys() == own.keys() - references.keys()
    whole = with_frozen_weights(small, folder / "last.pth")["model_state_dict"]
    assert all(torch.equal(value, whole[name]) and value.dtype == whole[name].dtype for name, value in own.items())
    return small


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_folder_of_transformers(tmp_path, kind):
    llm = random_llm(model_type=kind)
    folder = save_folder(llm, tmp_path / "llm")
    made = bridge(folder)
    assert_holds(made.llm, llm.model)
    assert made.prompt.tolist() == [DRAW]
    assert {loaded_from(parameter) for parameter in made.llm.parameters()} == {str(folder)}
    small = assert_referenced_bit_for_bit(made, tmp_path)
    assert [source["source"] for source in small[KEY]["sources"]] == [str(folder)]
    assert_holds(language_model(language_settings(llm_path=str(folder), llm_layers=1)), llm.model, 1)


def test_a_folder_in_several_files_is_referenced_by_each(tmp_path):
    llm = random_llm()
    folder = save_folder(llm, tmp_path / "llm", max_shard_size="20KB")
    assert (folder / "model.safetensors.index.json").is_file()
    small = assert_referenced_bit_for_bit(bridge(folder, llm_dtype="bfloat16"), tmp_path)
    assert len(small[KEY]["sources"]) > 1


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_gguf_file(tmp_path, kind):
    pytest.importorskip("gguf")
    llm = random_llm(model_type=kind)
    file = save_gguf(llm, tmp_path / "tiny.gguf")
    made = bridge(file)
    assert_holds(made.llm, llm.model)
    assert made.llm.config.rms_norm_eps == pytest.approx(llm.config.rms_norm_eps)
    assert made.prompt.tolist() == [DRAW]
    cut = bridge(file, llm_layers=1, llm_dtype="bfloat16")
    assert_holds(cut.llm.float(), llm.model.bfloat16().float(), 1)


def test_a_dequantised_and_cut_gguf_file_is_referenced_by_its_reader(tmp_path):
    gguf = pytest.importorskip("gguf")
    llm = random_llm()
    file = save_gguf(llm, tmp_path / "tiny.gguf", quantised=True)
    made = bridge(file, llm_layers=1)
    difference = made.llm.layers[0].self_attn.q_proj.weight - llm.model.layers[0].self_attn.q_proj.weight
    assert 0 < difference.abs().max() < 0.01
    value = llm.model.layers[0].mlp.up_proj.weight.detach().numpy()
    kind = gguf.GGMLQuantizationType.Q8_0
    assert torch.equal(
        made.llm.layers[0].mlp.up_proj.weight, torch.from_numpy(gguf.dequantize(gguf.quantize(value, kind), kind))
    )
    small = assert_referenced_bit_for_bit(made, tmp_path)
    assert [source["reader"] for source in small[KEY]["sources"]] == ["winnow.families.maps.language.gguf.read_gguf"]
    file.write_bytes(file.read_bytes()[:-4] + b"0000")
    with pytest.raises(WeightsError, match=r"takes its frozen weights from .*tiny\.gguf, which has changed since"):
        with_frozen_weights(small, tmp_path / "last.pth")


def test_what_a_reader_gives_otherwise_the_second_time_is_stored(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    made = bridge(save_gguf(random_llm(), tmp_path / "tiny.gguf"))
    read, given = gguf_files.GgufTensors.__getitem__, []

    def other_twice(self, name):
        given.append(name)
        return read(self, name) + (1e-3 if name == "norm.weight" and given.count(name) > 1 else 0.0)

    monkeypatch.setattr(gguf_files.GgufTensors, "__getitem__", other_twice)
    found = referable(made, tmp_path / "run")
    assert "llm.norm.weight" not in found
    assert "llm.layers.0.mlp.up_proj.weight" in found


def test_a_checkpoint_can_name_readers_of_winnow_only():
    assert reader_of("winnow.families.maps.language.gguf.read_gguf") is gguf_files.read_gguf
    for name in (
        "os.system",
        "winnow.families.maps.language.gguf.is_gguf",
        "winnow.families.maps.language.gguf.importlib",
        "",
    ):
        with pytest.raises(WeightsError, match="is no reader of weights"):
            reader_of(name)


def test_broken_files_are_named(tmp_path):
    folder = save_folder(random_llm(), tmp_path / "llm")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"has no tokenizer for model\.prompt"):
        bridge(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="holds no weights in safetensors"):
        bridge(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(WeightsError, match="is a gpt2; allowed: llama, qwen2, qwen3"):
        bridge(folder)


def test_a_broken_gguf_file_is_named(tmp_path):
    pytest.importorskip("gguf")
    file = save_gguf(random_llm(), tmp_path / "tiny.gguf")
    whole = file.read_bytes()
    for content in (whole[:40], whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=r"tiny\.gguf"):
            bridge(file)
