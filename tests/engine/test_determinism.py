"""What training.deterministic=true forbids, by an operation that has no deterministic kernel on a CPU either: ``put_``."""

import warnings

import pytest
import torch
from engine_parts import VectorTask
from test_loop import assert_same, weights

from winnow.engine.determinism import require_deterministic
from winnow.engine.evaluate import evaluate
from winnow.engine.seeding import make_deterministic
from winnow.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def deterministic():
    make_deterministic(True)
    yield
    make_deterministic(False)


def put(values):
    return values.clone().put_(torch.tensor([0]), torch.ones(1), accumulate=False)


class Putting(VectorTask):
    def __init__(self, method):
        super().__init__()
        self.method = method

    def losses(self, outputs, batch, count):
        if self.method == "losses":
            put(outputs.detach())
        return super().losses(outputs, batch, count)

    def predictions(self, outputs, batch):
        if self.method == "predictions":
            put(outputs)
        return super().predictions(outputs, batch)


def test_what_has_deterministic_kernels_runs_once():
    calls = []
    assert require_deterministic(lambda: calls.append(1) or 5, CPU, "step 1") == 5
    assert calls == [1]


def test_all_operations_without_a_kernel_are_named_and_the_mode_stays():
    def work():
        put(torch.zeros(3))
        put(torch.zeros(2))
        # As torch says it of an operation that a CPU has a deterministic kernel for.
        text = "other_cuda does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True)'."
        assert torch.is_deterministic_algorithms_warn_only_enabled(), "put_ comes first"
        warnings.warn(text, stacklevel=2)

    with pytest.raises(ConfigError) as told:
        require_deterministic(work, torch.device("cuda", 1), "step 3")
    assert str(told.value) == (
        "training.deterministic=true, but 2 operations in step 3 on cuda:1 have no deterministic kernel: put_, other_cuda; "
        "set training.deterministic=false, where equal runs differ by rounding, or choose another model, or train on the CPU "
        "(training.device=cpu)"
    )
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_other_errors_stay_what_they_are():
    def work():
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        require_deterministic(work, CPU, "step 1")


def test_a_run_hears_of_it_in_its_first_step_and_nothing_is_trained(make_fit):
    run = make_fit(task=Putting("losses"))
    before = weights(run)
    with pytest.raises(
        ConfigError, match="1 operation in step 1 on cpu has no deterministic kernel: put_; set training"
    ):
        run.step([next(run.data.train_batches(1, 8))], 0)
    assert_same(before, weights(run))


@pytest.mark.parametrize(
    ("method", "where"), [("losses", "the evaluation"), ("predictions", "the evaluation's predictions")]
)
def test_an_evaluation_says_so_too(make_fit, method, where):
    run = make_fit(task=Putting(method))
    with pytest.raises(ConfigError, match=f"1 operation in {where} on cpu has no deterministic kernel: put_"):
        evaluate(run.task, run.data, 8, run.step.precision, run.progress)
