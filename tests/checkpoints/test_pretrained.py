import logging

import pytest

from winnow.checkpoints.pretrained import (
    check_pretrained,
    load_or_start_random,
    locate_weights,
)
from winnow.errors import ConfigError, WeightsError

CHECKPOINT = "owner/weights"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """Return an empty hub cache, and an address at which no hub answers."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


def fill_cache(cache, *names):
    """Return what the hub's client leaves after a download of ``names``."""
    repository = cache / "models--owner--weights"
    folder = repository / "snapshots" / "abc123"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123", encoding="utf-8")
    for name in names:
        (folder / name).write_bytes(b"{}")
    return folder


def started(pretrained, checkpoint=CHECKPOINT, offline=True):
    return load_or_start_random(pretrained, checkpoint, offline, load=str, start_random=lambda: "random")


def test_false_looks_nowhere(hub_cache):
    assert started(False, offline=False) == "random"


def test_true_takes_what_is_cached_without_the_network(hub_cache):
    folder = fill_cache(hub_cache, "config.json", "model.safetensors")
    assert started(True, offline=False) == str(folder)


@pytest.mark.parametrize("names", [["config.json"], ["model.safetensors"]])
def test_a_half_cached_checkpoint_is_not_taken(hub_cache, names):
    fill_cache(hub_cache, *names)
    with pytest.raises(WeightsError, match="not in the local cache"):
        started(True)


def test_true_and_offline_says_how_to_fetch(hub_cache):
    with pytest.raises(WeightsError, match=r"model.offline=true; .*hf download owner/weights.*model.pretrained=PATH"):
        started(True, offline=True)


@pytest.mark.timeout(180)
def test_true_without_a_network_says_so_soon(hub_cache):
    with pytest.raises(WeightsError, match="the hub did not give them"):
        started(True, offline=False)


def test_if_available_starts_random_with_a_loud_warning(hub_cache, caplog):
    assert started("if_available") == "random"
    assert caplog.records[0].levelno == logging.WARNING
    assert "NO PRETRAINED WEIGHTS" in caplog.text


def test_if_available_takes_what_is_there(hub_cache):
    folder = fill_cache(hub_cache, "config.json", "pytorch_model.bin")
    assert started("if_available") == str(folder)


def test_if_available_without_published_weights_starts_random():
    assert started("if_available", checkpoint=None) == "random"


def test_weights_that_do_not_fit_are_an_error_unless_they_are_optional(tmp_path):
    def load(path):
        raise WeightsError(f"{path} does not fit")

    with pytest.raises(WeightsError, match="does not fit"):
        load_or_start_random(str(tmp_path), None, True, load=load, start_random=lambda: "random")


def test_a_path_is_taken_as_it_is_and_must_exist(tmp_path):
    assert locate_weights(str(tmp_path), CHECKPOINT, offline=True) == tmp_path
    with pytest.raises(WeightsError, match="nowhere' does not exist"):
        locate_weights(str(tmp_path / "nowhere"), CHECKPOINT, offline=True)


@pytest.mark.parametrize(
    ("pretrained", "checkpoint", "message"),
    [
        (" ", CHECKPOINT, "model.pretrained is empty"),
        (True, None, "no weights of this model are published"),
        (True, "deformable-detr", "model.checkpoint='deformable-detr'"),
    ],
)
def test_what_can_never_load_is_refused_at_once(pretrained, checkpoint, message):
    with pytest.raises(ConfigError, match=message):
        check_pretrained(pretrained, checkpoint)
