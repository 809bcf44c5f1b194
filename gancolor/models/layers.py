"""Layers that the networks are built of.

The first compute what plain torch layers compute with less memory traffic, which on the CPU is
where time goes (docs/performance.md has the figures): they have torch's own parameters, names and,
to rounding, results. Then come batch normalization over several processes, double convolutions,
initialization and padding.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

from gancolor.errors import ConfigError
from gancolor.runtime.devices import without_autocast

SLOPE = 0.2  # LeakyReLU's, everywhere
# Of the last layer's weights: outputs start near 0, which is gray, or an undecided logit.
LAST_GAIN = 0.01

# Below so many pixels, preparing the kernel of `JoinedConv` costs more than it saves.
_MANY_PIXELS = 2048
MANY_POSITIONS = 4096
"""Below so many positions in float32, a fused `SameConv` is no faster, and slower with AVX2."""


class ConvReLU(nn.Conv2d):
    """3x3 convolution and ReLU, (B, C, H, W) to (B, channels, H, W).

    With frozen weights on the CPU it is one oneDNN call, and only the output is kept for the
    gradient.
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
    # the operator that torch.compile uses
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, [1, 1], [1, 1], [1, 1], 1, "relu", [], ""
    )
    return y


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's "SAME" and, if `bounded`, ReLU6; weights are torch's, of
    an odd kernel.

    With frozen weights on the CPU, where no gradient is asked for, convolution and ReLU6 are one
    oneDNN call; not for small maps in float32, where bringing the weights into its order costs more
    than a ReLU6 by itself.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bounded: bool = True,
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups)
        self.bounded = bounded

    def forward(self, input: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, H / stride, W / stride); `stride`, 1 or 2,
        must divide H and W.

        At stride 2 TensorFlow pads one pixel less before than after. Here the padding stays even
        and the kernel gets a row and a column of zeros in front: the same sums, and no padded copy
        of the (much larger) input is made.
        """
        weight = self.weight if self.stride == (1, 1) else F.pad(self.weight, (1, 0, 1, 0))
        if self.bounded and self._pays(input) and _fuses(self.weight, input):
            y: Tensor = torch.ops.mkldnn._convolution_pointwise(
                input,
                weight,
                self.bias,
                self.padding,
                self.stride,
                [1, 1],
                self.groups,
                "hardtanh",
                [0.0, 6.0],
                "",
            )
            return y
        y = F.conv2d(input, weight, self.bias, self.stride, self.padding, groups=self.groups)
        return F.relu6(y, inplace=True) if self.bounded else y

    def _pays(self, x: Tensor) -> bool:
        small = x.dtype == torch.float32 and x.numel() < MANY_POSITIONS * x.shape[1]
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
    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.mkldnn, "_convolution_pointwise"
    ):
        return False
    return dtype == torch.float32 or (
        dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


class MaxPool(nn.Module):
    """2x2 max pool, (B, C, H, W) to (B, C, H // 2, W // 2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Halve H and W, which must be 2 or more."""
        return max_pool(x)


def max_pool(x: Tensor) -> Tensor:
    """Return the 2x2 max pool of `x` (B, C, H, W); without gradient, on the CPU, no 64-bit indices
    are written.
    """
    height, width = (size // 2 * 2 for size in x.shape[-2:])
    if (
        x.device.type != "cpu"
        or (x.requires_grad and torch.is_grad_enabled())
        or 0 in (height, width)
    ):
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
            # reads half precision as it is, where mean() would write a float32 copy
            x = F.avg_pool2d(x, 8)
        return x.mean((2, 3), dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        height, width = ctx.input_shape[2:]
        everywhere: Tensor = (
            (gradient / (height * width)).to(ctx.dtype)[:, :, None, None].expand(ctx.input_shape)
        )
        return everywhere


class JoinedConv(nn.Conv2d):
    """3x3 convolution, without bias, of a lower level enlarged twice (nearest) and joined with a
    skip connection.

    Neither the enlarged nor the joined tensor is made, and a skip connection that needs no gradient
    gets none computed. Over many pixels the enlarged half is a transposed convolution of the lower
    level: 4 of 9 products.
    """

    def __init__(self, channels_below: int, channels_skip: int, channels_out: int) -> None:
        super().__init__(channels_below + channels_skip, channels_out, 3, padding=1, bias=False)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        """`below` (B, channels_below, H, W) and `skip` (B, channels_skip, 2H, 2W) to (B,
        channels_out, 2H, 2W).
        """
        channels = below.shape[1]
        for_below, for_skip = self.weight.split([channels, self.in_channels - channels], dim=1)
        if below.device.type == "cpu" and below.numel() >= _MANY_PIXELS * channels:
            grown = F.conv_transpose2d(below, enlarging(for_below), stride=2, padding=1)
        else:
            grown = F.conv2d(
                F.interpolate(below, scale_factor=2.0, mode="nearest"), for_below, padding=1
            )
        return grown + F.conv2d(skip, for_skip, padding=1)


def enlarging(weight: Tensor) -> Tensor:
    """Return the 4x4 kernel whose transposed convolution of stride 2 is `weight`, 3x3, after
    nearest enlargement.

    Four enlarged pixels have one value, so the weights that meet it add up: K[t] = W[2 - t] + W[3 -
    t] on each axis.
    """
    kernel = F.pad(weight.transpose(0, 1).flip(-2, -1), (1, 1, 1, 1))
    kernel = kernel[..., :-1, :] + kernel[..., 1:, :]
    return kernel[..., :-1] + kernel[..., 1:]


class BatchNorm2d(nn.BatchNorm2d):
    """BatchNorm of (B, C, H, W) whose training statistics are those of the whole batch, spread over
    all processes.

    Float32 inside, x's dtype out. With one process, or in eval(), it is torch's own. With several,
    all must call it in the same order. Raises ConfigError for a single value per channel, which has
    no variance.
    """

    def forward(self, input: Tensor) -> Tensor:
        world = _check_world(self, input)
        return (
            super().forward(input) if world == 1 else _normalize_over_processes(self, input, world)
        )


def keep_statistics(module: nn.Module) -> None:
    """Let every BatchNorm inside use the statistics that it has, and leave them as they are, until
    the next `module.train()`.
    """
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.eval()


class BatchNorm1d(nn.BatchNorm1d):
    """BatchNorm of (B, C) whose training statistics are those of all processes; see BatchNorm2d."""

    def forward(self, input: Tensor) -> Tensor:
        world = _check_world(self, input)
        return (
            super().forward(input) if world == 1 else _normalize_over_processes(self, input, world)
        )


def _check_world(module: nn.Module, x: Tensor) -> int:
    """Return how many processes the statistics of this call span."""
    if not module.training:
        return 1
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if x.numel() // x.shape[1] * world < 2:
        raise ConfigError(
            "values per channel for BatchNorm must be 2 or more, got 1; raise --batch-size (or"
            " --image-size)"
        )
    return world


def _normalize_over_processes(
    module: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, world: int
) -> Tensor:
    """Normalize by mean and variance of all processes' values; running statistics are updated alike
    everywhere.

    Each process puts (count, mean, variance) of its share into its own row, one all_reduce fills in
    the others' rows, and the rows are combined. Unlike sums of squares this loses no digits, and
    shares may differ in size.
    """
    with without_autocast(x.device):
        values = x.float()
        over = [axis for axis in range(x.dim()) if axis != 1]
        variance, mean = torch.var_mean(values, over, correction=0)
        count = mean.new_full((1,), x.numel() // x.shape[1])
        row = torch.cat([count, mean, variance])
        rank = dist.get_rank()
        # (world, 1 + 2C), zero but for this process's row
        rows = F.pad(row[None], (0, 0, rank, world - 1 - rank))
        rows = _sum_over_processes(rows)
        counts, means, variances = rows[:, :1], rows[:, 1 : 1 + len(mean)], rows[:, 1 + len(mean) :]
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / total
        _update_running(module, mean.detach(), variance.detach() * (total / (total - 1)))
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale = module.weight.float() * torch.rsqrt(variance + module.eps)
        normalized: Tensor = (values - mean.view(shape)) * scale.view(
            shape
        ) + module.bias.float().view(shape)
    return normalized.to(x.dtype)


def _update_running(
    module: nn.BatchNorm1d | nn.BatchNorm2d, mean: Tensor, variance: Tensor
) -> None:
    if (
        module.running_mean is None
        or module.running_var is None
        or module.num_batches_tracked is None
    ):
        return
    module.num_batches_tracked.add_(1)
    momentum = (
        1.0 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
    )
    module.running_mean.lerp_(mean.to(module.running_mean.dtype), momentum)
    module.running_var.lerp_(variance.to(module.running_var.dtype), momentum)


def _sum_over_processes(x: Tensor) -> Tensor:
    total: Tensor = _AllReduce.apply(x)  # type: ignore[no-untyped-call]
    return total


class _AllReduce(torch.autograd.Function):
    """Sum over processes, whose gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def double_conv(channels_in: int, channels_out: int) -> nn.Sequential:
    """Twice (3x3 convolution, BatchNorm, LeakyReLU 0.2), poster's level; (B, channels_in, H, W)
    keeps H and W.
    """
    return nn.Sequential(*_double(nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)))


class Expanding(nn.Sequential):
    """An expanding level: the level below, enlarged twice, joined with a skip connection, through
    `double_conv`.
    """

    def __init__(self, channels_below: int, channels_skip: int, channels_out: int) -> None:
        super().__init__(*_double(JoinedConv(channels_below, channels_skip, channels_out)))

    def forward(self, below: Tensor, skip: Tensor, beside: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """`below` (B, channels_below, H, W) and `skip` (B, channels_skip, 2H, 2W) to (B,
        channels_out, 2H, 2W).

        `beside`: of the result's shape, added behind the first convolution.
        """
        first, *others = self
        x: Tensor = first(below, skip)
        if beside is not None:
            x = x + beside
        for layer in others:
            x = layer(x)
        return x


def _double(first: nn.Conv2d) -> list[nn.Module]:
    """The layers of two convolutions; BatchNorm's own shift follows them, so a bias would be taken
    away again.
    """
    layers: list[nn.Module] = []
    for conv in (
        first,
        nn.Conv2d(first.out_channels, first.out_channels, 3, padding=1, bias=False),
    ):
        layers += [conv, BatchNorm2d(first.out_channels), nn.LeakyReLU(SLOPE, inplace=True)]
    return layers


def initialize(module: nn.Module, last: nn.Module | None = None) -> None:
    """Set all weights below `module` on purpose, from torch's global generator.

    Convolutions and Linear: Kaiming normal over fan_in for LeakyReLU 0.2, which keeps the
    activations' size from layer to layer; biases 0. BatchNorm: weight 1, bias 0. The weights of
    `last`, the output layer, are made LAST_GAIN times smaller: a generator starts near gray and a
    discriminator undecided. On the device "meta", which holds no numbers, there is nothing to set:
    torch would load its compiler (two seconds) to draw none.
    """
    if any(parameter.is_meta for parameter in module.parameters()):
        return
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, a=SLOPE, mode="fan_in", nonlinearity="leaky_relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.reset_running_stats()
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
    if isinstance(last, nn.Conv2d | nn.Linear):
        with torch.no_grad():
            last.weight.mul_(LAST_GAIN)


def reflect_pad(x: Tensor, multiple: int) -> tuple[Tensor, tuple[slice, slice]]:
    """Pad (B, C, H, W) evenly by reflection until `multiple` divides H and W; any size works, 1x1
    too.

    Returns the padded tensor (x itself when nothing is missing) and the rows and columns that hold
    x: `padded[..., rows, columns]` equals x.
    """
    height, width = x.shape[-2:]
    rows, top = _reflected(height, multiple, x.device)
    columns, left = _reflected(width, multiple, x.device)
    if len(rows) > height:
        x = x.index_select(-2, rows)
    if len(columns) > width:
        x = x.index_select(-1, columns)
    return x, (slice(top, top + height), slice(left, left + width))


def _reflected(size: int, multiple: int, device: torch.device) -> tuple[Tensor, int]:
    """Return the source index of each padded position and how many stand before the first one."""
    padded = -(-size // multiple) * multiple
    before = (padded - size) // 2
    if size == 1:
        return torch.zeros(padded, dtype=torch.long, device=device), before
    # ... 2 1 [0 1 2 .. n-1] n-2 n-3 ...: a triangle wave, so small pictures are reflected again and
    # again
    position = (torch.arange(padded, device=device) - before) % (2 * (size - 1))
    return torch.minimum(position, 2 * (size - 1) - position), before
