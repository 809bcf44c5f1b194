"""Gradients as means over the processes, on their way while backward makes the next ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gancolor.config import TrainConfig
from gancolor.runtime import processes

BUCKET = 4 << 20
"""Bytes that travel together: of 4 MiB, 25 MiB and all at once, the fastest on two processes over a
slow network, and no slower over a fast one (`benchmarks/gradients.py`).
"""

_groups: list[dist.ProcessGroup] = []  # the one of gradients: BatchNorm's small sums wait for none


@contextlib.contextmanager
def averaged(
    parameters: Iterable[Tensor], config: TrainConfig, bucket: int = BUCKET
) -> Iterator[None]:
    """Run a backward pass in here; after it every gradient is its mean over the processes. A
    parameter without one counts as zero.

    Gradients are sent in buckets of `bucket` bytes, those of the last parameters first, each as soon
    as backward has made all of its own and of those before it. So all processes send them in one
    order, also where one has no gradient for a parameter.
    """
    if not processes.active():
        yield
        return
    if not _groups:
        _groups.append(processes.new_group(config))
    buckets = _Buckets(parameters, bucket)
    try:
        yield
        buckets.finish()
    finally:
        buckets.close()


class _Buckets:
    """The gradients of one backward pass."""

    def __init__(self, parameters: Iterable[Tensor], most: int) -> None:
        self.buckets: list[list[Tensor]] = []
        self.place: dict[Tensor, int] = {}
        size = most
        for parameter in reversed(list(parameters)):
            if size >= most:
                self.buckets.append([])
                size = 0
            self.buckets[-1].append(parameter)
            self.place[parameter] = len(self.buckets) - 1
            size += parameter.numel() * parameter.element_size()
        self.missing = [len(bucket) for bucket in self.buckets]
        self.sent: list[tuple[Tensor, Any]] = []
        self.hooks = [p.register_post_accumulate_grad_hook(self._made) for p in self.place]

    def _made(self, parameter: Tensor) -> None:
        self.missing[self.place[parameter]] -= 1
        while len(self.sent) < len(self.buckets) and self.missing[len(self.sent)] == 0:
            self._send()

    def _send(self) -> None:
        """The next bucket."""
        bucket = self.buckets[len(self.sent)]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([grad.flatten() for grad in grads])
        self.sent.append((flat, dist.all_reduce(flat, group=_groups[0], async_op=True)))

    def finish(self) -> None:
        """Send what waits for a gradient that never came, and put the means in their places."""
        while len(self.sent) < len(self.buckets):
            self._send()
        for bucket, (flat, work) in zip(self.buckets, self.sent, strict=True):
            work.wait()
            flat /= dist.get_world_size()
            parts = flat.split([parameter.numel() for parameter in bucket])
            for parameter, part in zip(bucket, parts, strict=True):
                # In the parameter's own memory format: the fused Adam walks both memories side by
                # side, whatever their strides.
                parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))

    def close(self) -> None:
        """Let go of the parameters."""
        for hook in self.hooks:
            hook.remove()
