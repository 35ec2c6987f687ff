import pytest
import torch
from foreign_files import layouts, trained
from foreign_files import save as save_file
from torch import nn

from winnow.checkpoints.class_order import ClassHead
from winnow.checkpoints.file import KEYS, VERSION, write_checkpoint
from winnow.checkpoints.initial import load_initial_weights
from winnow.engine.batch_norm import require_batches_for_batch_norm, require_share_of_each, synchronise_batch_norm
from winnow.engine.ranks import ALONE, Ranks
from winnow.errors import CheckpointError, ConfigError, WeightsError


@pytest.fixture
def save(tmp_path):
    def write(model, **changes):
        content = {**dict.fromkeys(KEYS), "version": VERSION, "model_state_dict": model.state_dict()} | changes
        write_checkpoint(tmp_path / "other.pth", content)
        return tmp_path / "other.pth"

    return write


def test_what_fits_is_loaded_and_what_does_not_is_named(save, caplog):
    source = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 3), "old": nn.Linear(1, 1)})
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 5), "new": nn.Linear(1, 1)})
    with caplog.at_level("INFO"):
        load_initial_weights(model, save(source))
    assert model["body"].weight.equal(source["body"].weight)
    assert "2 of 6 entries matched" in caplog.text
    assert "2 reshaped, start from random values: head.bias, head.weight" in caplog.text
    assert "2 missing, start from random values: new.bias, new.weight" in caplog.text
    assert "2 unexpected, ignored: old.bias, old.weight" in caplog.text


def test_averaged_weights_are_preferred(save):
    model, average = nn.Linear(2, 2), nn.Linear(2, 2)
    path = save(model, ema_state_dict={"num_updates": 1, "weights": average.state_dict()})
    target = nn.Linear(2, 2)
    load_initial_weights(target, path)
    assert target.weight.equal(average.weight)


def test_the_classes_of_a_checkpoint_are_matched_by_their_names(save):
    average, target = nn.Linear(2, 3), nn.Linear(2, 3)
    path = save(nn.Linear(2, 3), classes=["a", "b", "c"], ema_state_dict={"weights": average.state_dict()})
    load_initial_weights(target, path, head=ClassHead(["c", "a", "b"], {"weight": 1, "bias": 1}))
    assert target.weight.equal(average.weight[[2, 0, 1]])
    assert target.bias.equal(average.bias[[2, 0, 1]])


def test_weights_that_fit_nowhere_are_an_error(save):
    with pytest.raises(WeightsError, match="none of its 2 tensors fits this model"):
        load_initial_weights(nn.ModuleDict({"other": nn.Linear(7, 7)}), save(nn.Linear(2, 2)))


def test_weights_that_may_not_differ_so_leave_the_model_as_it_was(save):
    model, source = (nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, size)}) for size in (3, 5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match="2 reshaped: head.bias, head.weight"):
        load_initial_weights(model, save(source), may_differ=["old"])
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_a_batch_of_one_on_batch_norm_is_an_error_that_says_what_to_do():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    require_batches_for_batch_norm(model, 2)
    with pytest.raises(
        ConfigError, match=r"1 BatchNorm layers \(1, …\): raise training.batch_size, set training.drop_last"
    ):
        require_batches_for_batch_norm(model, 1)
    for parameter in model[1].parameters():
        parameter.requires_grad_(False)
    require_batches_for_batch_norm(model, 1)


def test_group_norm_takes_a_batch_of_one():
    require_batches_for_batch_norm(nn.Sequential(nn.GroupNorm(1, 4)), 1)
    assert torch.isfinite(nn.GroupNorm(1, 4)(torch.ones(1, 4, 2, 2))).all()


def test_a_plain_state_dict_of_another_program_is_a_start_too(tmp_path):
    source, target = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "other.pth")
    load_initial_weights(target, tmp_path / "other.pth")
    assert target.weight.equal(source.weight)


def test_a_damaged_checkpoint_is_no_start(save):
    path = save(nn.Linear(2, 2))
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        load_initial_weights(nn.Linear(2, 2), path)


def test_batch_norms_are_synchronised_under_their_own_names_and_only_between_ranks(caplog):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    names = list(model.state_dict())
    gpu = torch.device("cuda")
    assert isinstance(synchronise_batch_norm(model, gpu, ALONE)[1], nn.BatchNorm2d)
    synchronised = synchronise_batch_norm(model, gpu, Ranks(rank=0, size=2))
    assert isinstance(synchronised[1], nn.SyncBatchNorm)
    assert list(synchronised.state_dict()) == names
    assert not caplog.text
    synchronise_batch_norm(nn.Linear(2, 2), gpu, ALONE)
    assert "sync_batch_norm=true changes nothing: this model has no batch norm" in caplog.text


def test_synchronised_batch_norm_needs_an_image_on_each_rank():
    require_share_of_each(1)
    with pytest.raises(ConfigError, match="fewer images than there are ranks.*set training.drop_last=true"):
        require_share_of_each(0)


@pytest.mark.parametrize("name", layouts(nn.Linear(1, 1), torch.optim.AdamW(nn.Linear(1, 1).parameters())))
def test_every_layout_of_another_program_is_a_start(tmp_path, name):
    model, optimizer = trained(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), torch.ones(4, 2))
    target = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    load_initial_weights(target, save_file(layouts(model, optimizer)[name], tmp_path / "other.pth"))
    assert target[1].weight.equal(model[1].weight)


def test_an_encoder_alone_starts_the_model_that_has_one(tmp_path, caplog):
    encoder = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    target = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "head": nn.Linear(2, 1)})
    load_initial_weights(target, save_file({"encoder_state_dict": encoder.state_dict()}, tmp_path / "encoder.pth"))
    assert target["encoder"][1].weight.equal(encoder[1].weight)
    assert "'encoder.' put before 4 names, for so they fit this model" in caplog.text
