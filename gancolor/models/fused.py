"""Layers that compute what plain torch layers compute, with less memory traffic: on the CPU that is where time goes.

docs/performance.md has the figures. Every layer has torch's own parameters, names and results (to rounding).
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

_MANY_PIXELS = 2048  # below this many, preparing the kernel of `JoinedConv` costs more than it saves
_MANY_POSITIONS = 4096  # below this many in float32, a fused `SameConv` is no faster, and slower with AVX2


class ConvReLU(nn.Conv2d):
    """3x3 convolution and ReLU, (B, C, H, W) to (B, channels, H, W).

    With frozen weights on the CPU it is one oneDNN call, and only the output is kept for the gradient.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        if not _fuses(self.weight, input):
            return F.relu(super().forward(input), inplace=True)
        if input.requires_grad and torch.is_grad_enabled():
            output: Tensor = _FrozenConvReLU.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return output
        return _conv_relu(input, self.weight, self.bias)


class _FrozenConvReLU(torch.autograd.Function):
    """`ConvReLU` whose gradient goes to the input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = _conv_relu(x, weight, bias)
        ctx.save_for_backward(weight, y)
        ctx.input_shape = x.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight, y = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, y, 0)
        return conv2d_input(ctx.input_shape, weight, gradient, padding=1), None, None


def _conv_relu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, [1, 1], [1, 1], [1, 1], 1, "relu", [], ""
    )  # the operator that torch.compile uses
    return y


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's "SAME" and, if `bounded`, ReLU6; weights are torch's, of an odd kernel.

    With frozen weights on the CPU, where no gradient is asked for, convolution and ReLU6 are one oneDNN call; not for
    small maps in float32, where bringing the weights into its order costs more than a ReLU6 by itself.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1, bounded: bool = True
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups)
        self.bounded = bounded

    def forward(self, input: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, H / stride, W / stride); `stride`, 1 or 2, must divide H and W.

        At stride 2 TensorFlow pads one pixel less before than after. Here the padding stays even and the kernel gets a
        row and a column of zeros in front: the same sums, and no padded copy of the (much larger) input is made.
        """
        weight = self.weight if self.stride == (1, 1) else F.pad(self.weight, (1, 0, 1, 0))
        if self.bounded and self._pays(input) and _fuses(self.weight, input):
            y: Tensor = torch.ops.mkldnn._convolution_pointwise(
                input, weight, self.bias, self.padding, self.stride, [1, 1], self.groups, "hardtanh", [0.0, 6.0], ""
            )
            return y
        y = F.conv2d(input, weight, self.bias, self.stride, self.padding, groups=self.groups)
        return F.relu6(y, inplace=True) if self.bounded else y

    def _pays(self, x: Tensor) -> bool:
        small = x.dtype == torch.float32 and x.numel() < _MANY_POSITIONS * x.shape[1]
        return not small and not (x.requires_grad and torch.is_grad_enabled())


def _fuses(weight: Tensor, x: Tensor) -> bool:
    """Say whether a convolution of `x` by `weight` and what follows it can be one oneDNN call."""
    if x.device.type != "cpu" or weight.requires_grad or x.dtype != weight.dtype:
        return False
    recast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") != x.dtype
    return not recast and _has_conv_relu(x.dtype)


@functools.cache
def _has_conv_relu(dtype: torch.dtype) -> bool:
    """Say whether this torch and this CPU have the fused operator for `dtype`."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


class MaxPool(nn.Module):
    """2x2 max pool, (B, C, H, W) to (B, C, H // 2, W // 2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Halve H and W, which must be 2 or more."""
        return max_pool(x)


def max_pool(x: Tensor) -> Tensor:
    """Return the 2x2 max pool of `x` (B, C, H, W); without gradient, on the CPU, no 64-bit indices are written."""
    height, width = (size // 2 * 2 for size in x.shape[-2:])
    if x.device.type != "cpu" or (x.requires_grad and torch.is_grad_enabled()) or 0 in (height, width):
        return F.max_pool2d(x, 2)
    rows = torch.maximum(x[..., 0:height:2, :], x[..., 1:height:2, :])
    return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])


def spatial_mean(x: Tensor) -> Tensor:
    """Return the mean over rows and columns of `x` (B, C, H, W), as float32 (B, C)."""
    mean: Tensor = _SpatialMean.apply(x)  # type: ignore[no-untyped-call]
    return mean


class _SpatialMean(torch.autograd.Function):
    """A mean whose gradient is expanded, never written out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.input_shape, ctx.dtype = x.shape, x.dtype
        if x.shape[2] % 8 == 0 and x.shape[3] % 8 == 0:
            x = F.avg_pool2d(x, 8)  # reads half precision as it is, where mean() would write a float32 copy
        return x.mean((2, 3), dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        height, width = ctx.input_shape[2:]
        everywhere: Tensor = (gradient / (height * width)).to(ctx.dtype)[:, :, None, None].expand(ctx.input_shape)
        return everywhere


class JoinedConv(nn.Conv2d):
    """3x3 convolution, without bias, of a lower level enlarged twice (nearest) and joined with a skip connection.

    Neither the enlarged nor the joined tensor is made, and a skip connection that needs no gradient gets none
    computed. Over many pixels the enlarged half is a transposed convolution of the lower level: 4 of 9 products.
    """

    def __init__(self, channels_below: int, channels_skip: int, channels_out: int) -> None:
        super().__init__(channels_below + channels_skip, channels_out, 3, padding=1, bias=False)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        """`below` (B, channels_below, H, W) and `skip` (B, channels_skip, 2H, 2W) to (B, channels_out, 2H, 2W)."""
        channels = below.shape[1]
        for_below, for_skip = self.weight.split([channels, self.in_channels - channels], dim=1)
        if below.device.type == "cpu" and below.numel() >= _MANY_PIXELS * channels:
            grown = F.conv_transpose2d(below, enlarging(for_below), stride=2, padding=1)
        else:
            grown = F.conv2d(F.interpolate(below, scale_factor=2.0, mode="nearest"), for_below, padding=1)
        return grown + F.conv2d(skip, for_skip, padding=1)


def enlarging(weight: Tensor) -> Tensor:
    """Return the 4x4 kernel whose transposed convolution of stride 2 is `weight`, 3x3, after nearest enlargement.

    Four enlarged pixels have one value, so the weights that meet it add up: K[t] = W[2 - t] + W[3 - t] on each axis.
    """
    kernel = F.pad(weight.transpose(0, 1).flip(-2, -1), (1, 1, 1, 1))
    kernel = kernel[..., :-1, :] + kernel[..., 1:, :]
    return kernel[..., :-1] + kernel[..., 1:]
