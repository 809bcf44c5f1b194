"""What a device can do at most, and what a piece of work asks of it: for gpu.py.

The work is counted by looking at each of torch's operators as it runs. Floating point operations are
those of convolutions and products; bytes are what each operator reads and writes, which is what
crosses the memory as long as nothing is fused. Convolutions are noted with their shapes, to be run
again alone: the rate that their library reaches on the same layers.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

_CONVOLUTIONS = {
    "aten::convolution",
    "aten::convolution_backward",
    "mkldnn::_convolution_pointwise",  # the CPU's, with its ReLU
}

Call = tuple[Any, tuple[Any, ...]]
"""An operator, and its arguments with `Shape`s for tensors."""


class Shape(tuple[Any, ...]):
    """Size, strides and dtype of a tensor."""

    __slots__ = ()

    @classmethod
    def of(cls, x: Tensor) -> Shape:
        return cls((tuple(x.shape), tuple(x.stride()), x.dtype))

    def make(self, device: torch.device) -> Tensor:
        size, strides, dtype = self
        if 0 in strides:  # expanded: one value in many places
            size_of_one = [n if stride else 1 for n, stride in zip(size, strides, strict=True)]
            return torch.randn(size_of_one, device=device).to(dtype).expand(size)
        return torch.empty_strided(size, strides, dtype=dtype, device=device).normal_()


class Work(TorchDispatchMode):
    """Counts what runs under it: `bytes`, and how often each of the `convolutions`."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.convolutions: collections.Counter[Call] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
            self.bytes += sum(x.numel() * x.element_size() for x in tensors)
        if func._schema.name in _CONVOLUTIONS:
            noted = tree_map(lambda x: Shape.of(x) if isinstance(x, Tensor) else x, args)
            self.convolutions[func, _frozen(noted)] += 1
        return result


def _frozen(value: Any) -> Any:
    """Lists as tuples, so that they can be counted."""
    if isinstance(value, Shape):
        return value
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def count(work: Callable[[], Any]) -> tuple[int, Work]:
    """The floating point operations of some work, and the rest of what it asks."""
    fused = {torch.ops.mkldnn._convolution_pointwise: _fused_operations}  # the CPU's, with its ReLU
    with FlopCounterMode(display=False, custom_mapping=fused) as operations:
        work()
    with Work() as rest:
        work()
    return operations.get_total_flops(), rest


def _fused_operations(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(conv_flop_count(list(x), list(weight), list(out_shape)))


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: torch.device, least: float, times: int = 3) -> float:
    """Seconds of one run: the mean of as many as take `least` seconds, `times` at least; the first
    is not counted. On one thread of the CPU they are the processor's, so that others do not count.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    work()
    wait(device)
    runs, start = 0, clock()
    while runs < times or clock() - start < least:
        work()
        runs += 1
        if runs % times == 0:
            wait(device)
    wait(device)
    return (clock() - start) / runs


def matmul_rate(device: torch.device, dtype: torch.dtype, side: int, least: float) -> float:
    """Floating point operations a second of a product of two square matrices."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: left @ right, device, least)


def memory_rate(device: torch.device, size: int, least: float) -> float:
    """Bytes a second of a copy: `size` bytes are read and as many written."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device, least)


def convolution_seconds(
    work: Work, device: torch.device, over: Callable[[], bool]
) -> tuple[float, float]:
    """Seconds that the noted convolutions take alone, one after another, and which share of them
    was measured before it was `over`.
    """
    total, done = 0.0, 0
    for (func, shapes), often in work.convolutions.items():
        if over():
            break
        args = [x.make(device) if isinstance(x, Shape) else x for x in shapes]
        args = [list(x) if isinstance(x, tuple) else x for x in args]
        total += often * seconds(lambda func=func, args=args: func(*args), device, 0.0, times=5)
        done += often
    return total, done / max(1, work.convolutions.total())
