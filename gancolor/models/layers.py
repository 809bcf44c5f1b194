"""Building blocks of the networks: batch normalization over processes, double convolution, initialization, padding."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from gancolor.errors import ConfigError
from gancolor.models.fused import JoinedConv

SLOPE = 0.2  # LeakyReLU's, everywhere
LAST_GAIN = 0.01  # of the last layer's weights: outputs start near 0, which is gray, or an undecided logit


class BatchNorm2d(nn.BatchNorm2d):
    """BatchNorm of (B, C, H, W) whose training statistics are those of the whole batch, spread over all processes.

    Float32 inside, x's dtype out. With one process, or in eval(), it is torch's own. With several, all must call it in
    the same order. Raises ConfigError for a single value per channel, which has no variance.
    """

    def forward(self, input: Tensor) -> Tensor:
        world = _check_world(self, input)
        return super().forward(input) if world == 1 else _normalize_over_processes(self, input, world)


class BatchNorm1d(nn.BatchNorm1d):
    """BatchNorm of (B, C) whose training statistics are those of all processes; see BatchNorm2d."""

    def forward(self, input: Tensor) -> Tensor:
        world = _check_world(self, input)
        return super().forward(input) if world == 1 else _normalize_over_processes(self, input, world)


def _check_world(module: nn.Module, x: Tensor) -> int:
    """Return how many processes the statistics of this call span."""
    if not module.training:
        return 1
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if x.numel() // x.shape[1] * world < 2:
        raise ConfigError(
            "values per channel for BatchNorm must be 2 or more, got 1; raise --batch-size (or --image-size)"
        )
    return world


def _normalize_over_processes(module: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, world: int) -> Tensor:
    """Normalize by mean and variance of all processes' values; running statistics are updated alike everywhere.

    Each process puts (count, mean, variance) of its share into its own row, one all_reduce fills in the others' rows,
    and the rows are combined. Unlike sums of squares this loses no digits, and shares may differ in size.
    """
    with torch.autocast(x.device.type, enabled=False):
        values = x.float()
        over = [axis for axis in range(x.dim()) if axis != 1]
        variance, mean = torch.var_mean(values, over, correction=0)
        count = mean.new_full((1,), x.numel() // x.shape[1])
        row = torch.cat([count, mean, variance])
        rank = dist.get_rank()
        rows = F.pad(row[None], (0, 0, rank, world - 1 - rank))  # (world, 1 + 2C), zero but for this process's row
        rows = _sum_over_processes(rows)
        counts, means, variances = rows[:, :1], rows[:, 1 : 1 + len(mean)], rows[:, 1 + len(mean) :]
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / total
        _update_running(module, mean.detach(), variance.detach() * (total / (total - 1)))
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale = module.weight.float() * torch.rsqrt(variance + module.eps)
        normalized: Tensor = (values - mean.view(shape)) * scale.view(shape) + module.bias.float().view(shape)
    return normalized.to(x.dtype)


def _update_running(module: nn.BatchNorm1d | nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    if module.running_mean is None or module.running_var is None or module.num_batches_tracked is None:
        return
    module.num_batches_tracked.add_(1)
    momentum = 1.0 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
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
    """Twice (3x3 convolution, BatchNorm, LeakyReLU 0.2), poster's level; (B, channels_in, H, W) keeps H and W."""
    return nn.Sequential(*_double(nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)))


class Expanding(nn.Sequential):
    """An expanding level: the level below, enlarged twice, joined with a skip connection, through `double_conv`."""

    def __init__(self, channels_below: int, channels_skip: int, channels_out: int) -> None:
        super().__init__(*_double(JoinedConv(channels_below, channels_skip, channels_out)))

    def forward(self, below: Tensor, skip: Tensor, beside: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """`below` (B, channels_below, H, W) and `skip` (B, channels_skip, 2H, 2W) to (B, channels_out, 2H, 2W).

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
    """The layers of two convolutions; BatchNorm's own shift follows them, so a bias would be taken away again."""
    layers: list[nn.Module] = []
    for conv in (first, nn.Conv2d(first.out_channels, first.out_channels, 3, padding=1, bias=False)):
        layers += [conv, BatchNorm2d(first.out_channels), nn.LeakyReLU(SLOPE, inplace=True)]
    return layers


def initialize(module: nn.Module, last: nn.Module | None = None) -> None:
    """Set all weights below `module` on purpose, from torch's global generator.

    Convolutions and Linear: Kaiming normal over fan_in for LeakyReLU 0.2, which keeps the activations' size from layer
    to layer; biases 0. BatchNorm: weight 1, bias 0. The weights of `last`, the output layer, are made LAST_GAIN times
    smaller: a generator starts near gray and a discriminator undecided. On the device "meta", which holds no numbers,
    there is nothing to set: torch would load its compiler (two seconds) to draw none.
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
    """Pad (B, C, H, W) evenly by reflection until `multiple` divides H and W; any size works, 1x1 too.

    Returns the padded tensor (x itself when nothing is missing) and the rows and columns that hold x:
    `padded[..., rows, columns]` equals x.
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
    # ... 2 1 [0 1 2 .. n-1] n-2 n-3 ...: a triangle wave, so small pictures are reflected again and again
    position = (torch.arange(padded, device=device) - before) % (2 * (size - 1))
    return torch.minimum(position, 2 * (size - 1) - position), before
