import pytest
import torch
from engine_parts import Vectors

from winnow.engine.memory import memory_explained
from winnow.engine.precision import Precision
from winnow.errors import MemoryExhaustedError

BATCH = Vectors(torch.zeros(3, 5), torch.zeros(3), [1, 2, 3], side=5)


@pytest.mark.parametrize(("trouble", "words"), [
    (lambda: torch.empty(10**15), "can't allocate memory: you tried to allocate 4000000000000000 bytes"),
    (lambda: bytearray(2**62), "out of memory on cpu in step 1, with 3 images of 5×5 pixels in bfloat16"),
    (lambda: raise_gpu_error(), "CUDA out of memory. Tried to allocate 20.00 GiB"),
])  # fmt: skip
def test_every_kind_of_it_names_the_batch_and_gives_advice(trouble, words):
    precision = Precision(torch.device("cpu"), torch.bfloat16)
    with (
        pytest.raises(MemoryExhaustedError, match="halve training.batch_size") as caught,
        memory_explained([BATCH], precision, "step 1"),
    ):
        trouble()
    assert words in str(caught.value)


def test_other_errors_stay_what_they_are():
    precision = Precision(torch.device("cpu"), None)
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught, memory_explained([BATCH], precision, "step 1"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not isinstance(caught.value, MemoryExhaustedError)


def raise_gpu_error():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
