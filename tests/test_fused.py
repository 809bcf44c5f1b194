"""The lean layers compute what torch's plain ones compute, forward and backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gancolor.models.fused import ConvReLU, JoinedConv, max_pool, spatial_mean

LAST = torch.channels_last


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape).to(memory_format=LAST)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_conv_relu_is_convolution_and_relu(frozen: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = ConvReLU(5, 8).to(dtype=dtype, memory_format=LAST).requires_grad_(not frozen)  # type: ignore[call-overload]
    x = draw(2, 5, 9, 7).to(dtype).requires_grad_()
    gradient = draw(2, 8, 9, 7).to(dtype)
    expected = F.relu(F.conv2d(x, layer.weight, layer.bias, padding=1))
    (wanted,) = torch.autograd.grad(expected, x, gradient)
    result = layer(x)
    (got,) = torch.autograd.grad(result, x, gradient)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(got, wanted)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected.detach())
    assert (result == 0).any() and (result > 0).any()


def test_trainable_conv_relu_has_weight_gradients() -> None:
    layer = ConvReLU(3, 4)
    layer(torch.rand(1, 3, 8, 8)).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0


def test_conv_relu_follows_autocast() -> None:
    layer = ConvReLU(3, 4).requires_grad_(False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.rand(1, 3, 8, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (2, 3)])
def test_max_pool_is_torchs(size: tuple[int, int]) -> None:
    x = draw(2, 3, *size)
    assert torch.equal(max_pool(x), F.max_pool2d(x, 2))
    assert torch.equal(max_pool(x.requires_grad_()), F.max_pool2d(x, 2))


@pytest.mark.parametrize("size", [(16, 8), (7, 5)])
def test_spatial_mean_is_the_mean(size: tuple[int, int]) -> None:
    x = draw(2, 3, *size).double().requires_grad_()
    mean = spatial_mean(x)
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean.double(), x.mean((2, 3)), rtol=1e-6, atol=1e-6)
    weights = torch.randn(2, 3)
    (got,) = torch.autograd.grad(mean, x, weights)
    torch.testing.assert_close(got, (weights.double() / (size[0] * size[1]))[:, :, None, None].expand_as(x))


@pytest.mark.parametrize("height, width", [(2, 3), (32, 40)])  # few pixels, and enough for the transposed convolution
def test_joined_conv_is_enlarge_join_convolve(height: int, width: int) -> None:
    torch.manual_seed(0)
    layer = JoinedConv(6, 4, 5)
    below, skip = draw(2, 6, height, width).requires_grad_(), draw(2, 4, 2 * height, 2 * width).requires_grad_()
    gradient = draw(2, 5, 2 * height, 2 * width)
    joined = torch.cat([F.interpolate(below, scale_factor=2.0, mode="nearest"), skip], 1)
    expected = F.conv2d(joined, layer.weight, padding=1)
    wanted = torch.autograd.grad(expected, (below, skip, layer.weight), gradient)
    result = layer(below, skip)
    got = torch.autograd.grad(result, (below, skip, layer.weight), gradient)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
