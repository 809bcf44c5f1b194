"""The lean layers compute what torch's plain ones compute, forward and backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancolor.models import layers
from gancolor.models.layers import ConvReLU, JoinedConv, SameConv, max_pool, spatial_mean

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


@pytest.mark.parametrize(
    "kernel, stride, groups", [(3, 2, 1), (5, 2, 8), (3, 2, 8), (5, 1, 8), (1, 1, 1)]
)
@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_conv_pads_as_tensorflow(
    kernel: int,
    stride: int,
    groups: int,
    bounded: bool,
    frozen: bool,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layers, "MANY_POSITIONS", 1)
    torch.manual_seed(0)
    layer = SameConv(8, 8, kernel, stride, groups, bounded).to(dtype=dtype, memory_format=LAST)  # type: ignore[call-overload]
    nn.init.normal_(layer.weight, std=2)
    layer.requires_grad_(not frozen)
    x = draw(2, 8, 6, 10).to(dtype).requires_grad_()
    before = (kernel - stride) // 2
    padded = F.pad(x, (before, kernel - stride - before) * 2)
    expected = F.conv2d(padded, layer.weight, layer.bias, stride=stride, groups=groups)
    expected = F.relu6(expected) if bounded else expected
    assert expected.shape == (2, 8, 6 // stride, 10 // stride)
    assert not bounded or bool((expected == 0).any() and (expected == 6).any())
    near = {"rtol": 0.02, "atol": 0.1} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected, **near)
    result = layer(x)
    torch.testing.assert_close(result, expected, **near)
    if dtype == torch.float32:
        inputs = (x,) if frozen else (x, layer.weight, layer.bias)
        gradient = torch.randn_like(result)
        wanted = torch.autograd.grad(expected, inputs, gradient)
        torch.testing.assert_close(
            torch.autograd.grad(result, inputs, gradient), wanted, rtol=1e-3, atol=1e-3
        )


def test_same_conv_follows_autocast() -> None:
    layer = SameConv(3, 4, 3, 2).requires_grad_(False)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
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
    torch.testing.assert_close(
        got, (weights.double() / (size[0] * size[1]))[:, :, None, None].expand_as(x)
    )


@pytest.mark.parametrize(
    "height, width", [(2, 3), (32, 40)]
)  # few pixels, and enough for the transposed convolution
def test_joined_conv_is_enlarge_join_convolve(height: int, width: int) -> None:
    torch.manual_seed(0)
    layer = JoinedConv(6, 4, 5)
    below, skip = (
        draw(2, 6, height, width).requires_grad_(),
        draw(2, 4, 2 * height, 2 * width).requires_grad_(),
    )
    gradient = draw(2, 5, 2 * height, 2 * width)
    joined = torch.cat([F.interpolate(below, scale_factor=2.0, mode="nearest"), skip], 1)
    expected = F.conv2d(joined, layer.weight, padding=1)
    wanted = torch.autograd.grad(expected, (below, skip, layer.weight), gradient)
    result = layer(below, skip)
    got = torch.autograd.grad(result, (below, skip, layer.weight), gradient)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
