import pytest
import torch

from winnow.families.ink.model.positions import resized, resized_by_products


@pytest.mark.parametrize("size", [(8, 8), (5, 13), (16, 3), (40, 1)])
def test_products_interpolate_values_and_gradients_as_torch_does(size):
    torch.manual_seed(0)
    upstream = torch.randn(1, 6, *size)
    outputs = []
    for function in (resized, resized_by_products):
        positions = torch.randn(1, 6, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
        output = function(positions, size)
        (gradient,) = torch.autograd.grad(output, positions, upstream)
        outputs.append((output.detach(), gradient))
    for one, other in zip(*outputs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_way_of_a_cpu_is_torchs_own_whatever_must_be_deterministic():
    positions = torch.randn(1, 4, 8, 8)
    expected = resized(positions, (3, 9))
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(resized(positions, (3, 9)), expected)
    finally:
        torch.use_deterministic_algorithms(False)
