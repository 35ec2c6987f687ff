"""An evaluation computes as the training does, and leaves no trace in it."""

import pytest
import torch
from engine_parts import VectorData, VectorTask

from winnow.engine.evaluate import evaluate
from winnow.engine.precision import Precision
from winnow.engine.progress import Progress


class Drawing(VectorTask):
    """Draws random numbers, and notes what it computes in."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def predictions(self, outputs, batch):
        torch.rand(3)
        assert not self.model.training
        self.dtypes.append(outputs.dtype)
        return super().predictions(outputs, batch)


@pytest.mark.parametrize(("amp", "dtype"), [("off", torch.float32), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("training", [True, False])
def test_it_computes_in_the_runs_precision_and_leaves_mode_and_random_numbers_as_they_were(amp, dtype, training):
    task = Drawing()
    task.model.train(training)
    state = torch.get_rng_state()
    values = evaluate(task, VectorData(), 8, Precision.choose(amp, torch.device("cpu")), Progress())
    assert task.model.training is training
    assert torch.get_rng_state().equal(state)
    assert task.dtypes == [dtype]
    assert list(values) == ["val/score", "val/loss"]


def test_the_mode_is_restored_after_an_error_too():
    task = Drawing()
    task.model.train()
    task.losses = None
    with pytest.raises(TypeError):
        evaluate(task, VectorData(), 8, Precision.choose("off", torch.device("cpu")), Progress())
    assert task.model.training
