"""How processes average their gradients best, and how much each step sends between them.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 benchmarks/gradients.py
    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 benchmarks/gradients.py --preset fast --size 64

`flat` is what `runtime/processes.py` does: after backward, one all-reduce of all gradients of a
phase. `N MiB` are buckets of that size, each sent as soon as backward has made its gradients, while
backward goes on; they have a process group of their own, so that BatchNorm's small sums do not wait
behind them. The variants take turns, step by step, so that a busy machine is busy for all. A
ratio is of two steps of one round; the median of the ratios counts.
"""

from __future__ import annotations

import argparse
import functools
import logging
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from train_step import describe_machine, prepare

from gancolor import tables
from gancolor.data.loader import Batch
from gancolor.runtime import processes
from gancolor.training import loop
from gancolor.training.state import State

CPU = torch.device("cpu")
FLAT = "flat"


class Buckets:
    """Gradients on their way while backward makes the next ones."""

    def __init__(self, state: State, mebibytes: float) -> None:
        self.bytes = mebibytes * 2**20
        self.group = dist.new_group()
        self.buckets: list[list[Tensor]] = []
        self.place: dict[Tensor, int] = {}
        self.missing: list[int] = []
        self.sent: dict[int, tuple[Tensor, Any]] = {}
        for phase in {id(phase.optimizer): phase for phase in state.phases}.values():
            for parameter in phase.parameters():
                parameter.register_post_accumulate_grad_hook(self._made)

    def begin(self, parameters: list[Tensor]) -> None:
        """Before backward: fill the buckets in the order in which it makes the gradients."""
        self.buckets, self.place, self.sent, size = [[]], {}, {}, 0.0
        for parameter in reversed(parameters):
            if size >= self.bytes:
                self.buckets.append([])
                size = 0.0
            self.buckets[-1].append(parameter)
            self.place[parameter] = len(self.buckets) - 1
            size += parameter.numel() * parameter.element_size()
        self.missing = list(map(len, self.buckets))

    def finish(self) -> None:
        """After backward: wait, and put the means where the gradients were."""
        for at in range(len(self.buckets)):
            if at not in self.sent:
                self._send(at)
        for at, (flat, work) in self.sent.items():
            work.wait()
            flat /= dist.get_world_size()
            parts = flat.split([parameter.numel() for parameter in self.buckets[at]])
            for parameter, part in zip(self.buckets[at], parts, strict=True):
                parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))
        self.place = {}

    def _made(self, parameter: Tensor) -> None:
        at = self.place.get(parameter)
        if at is not None:
            self.missing[at] -= 1
            if not self.missing[at]:
                self._send(at)

    def _send(self, at: int) -> None:
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.buckets[at]]
        flat = torch.cat([grad.flatten() for grad in grads])
        self.sent[at] = flat, dist.all_reduce(flat, group=self.group, async_op=True)


def main() -> None:
    options = parse_options()
    logging.disable()
    state, whole = prepare(options.preset, options.size, options.batch, seed=options.seed)
    process = processes.join(CPU, state.config)
    if process.world == 1:
        raise SystemExit("start it by torchrun, with --nproc-per-node 2")
    step = functools.partial(loop.train_step, state, share_of(whole, process), process.rank)
    sums = measure_sums(step)
    plain = processes.average_gradients
    variants: dict[str, Buckets | None] = {FLAT: None}
    variants |= {f"{size:g} MiB": Buckets(state, size) for size in options.buckets}
    times: dict[str, list[float]] = {name: [] for name in variants}
    waits: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(options.rounds + 1):
        for name, buckets in variants.items():
            seconds, waited = timed(step, buckets, plain)
            if number:  # the first warms up
                times[name].append(seconds)
                waits[name].append(waited)
    if process.leads:
        report(options, sums, times, waits)


def parse_options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="gan", choices=("gan", "fast", "regression", "poster"))
    parser.add_argument("--size", type=int, default=256, help="side of the training pictures")
    parser.add_argument("--batch", type=int, default=4, help="pictures a step, of all processes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--buckets", type=float, nargs="+", default=[4.0, 25.0], help="their sizes in MiB"
    )
    return parser.parse_args()


def share_of(batch: Batch, process: processes.Process) -> Batch:
    """The pictures of this process."""
    count = len(batch.rgb) // process.world
    own = slice(process.rank * count, (process.rank + 1) * count)
    return Batch(rgb=batch.rgb[own], squares=None if batch.squares is None else batch.squares[own])


def measure_sums(step: Callable[[], Any]) -> dict[str, tuple[int, int]]:
    """How many all-reduces a step makes and how many bytes go into them, by their kind."""
    calls: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    reduce, average, inside = dist.all_reduce, processes.average_gradients, [False]

    def counted(tensor: Tensor, *arguments: Any, **more: Any) -> Any:
        kind = "gradients" if inside[0] else "BatchNorm, loss, log"
        calls[kind] += 1
        sizes[kind] += tensor.numel() * tensor.element_size()
        return reduce(tensor, *arguments, **more)

    def noted(parameters: Iterable[Tensor]) -> None:
        inside[0] = True
        average(parameters)
        inside[0] = False

    dist.all_reduce, processes.average_gradients = counted, noted
    try:
        step()
    finally:
        dist.all_reduce, processes.average_gradients = reduce, average
    return {kind: (calls[kind], sizes[kind]) for kind in sorted(calls)}


def timed(
    step: Callable[[], Any], buckets: Buckets | None, plain: Callable[[Iterable[Tensor]], None]
) -> tuple[float, float]:
    """Seconds of a step, and those of it in which nothing else was done than averaging."""
    waited, run_phase = [0.0], loop.run_phase

    def average(parameters: Iterable[Tensor]) -> None:
        start = time.perf_counter()
        if buckets is None:
            plain(parameters)
        else:
            buckets.finish()
        waited[0] += time.perf_counter() - start

    def begun(phase: Any, *arguments: Any) -> Any:
        if buckets is not None:
            buckets.begin(phase.parameters())
        return run_phase(phase, *arguments)

    processes.average_gradients, loop.run_phase = average, begun
    try:
        processes.wait()
        start = time.perf_counter()
        step()
        return time.perf_counter() - start, waited[0]
    finally:
        processes.average_gradients, loop.run_phase = plain, run_phase


def report(
    options: Any,
    sums: dict[str, tuple[int, int]],
    times: dict[str, list[float]],
    waits: dict[str, list[float]],
) -> None:
    """Two tables: what is sent, and how long it takes."""
    print(
        f"{describe_machine()}\n{options.preset}, {options.size}x{options.size}, batch"
        f" {options.batch} of {dist.get_world_size()} processes, gloo, seed {options.seed}, median"
        f" of {options.rounds}\n"
    )
    rows = [
        {"a step sums": kind, "all-reduces": calls, "MB": size / 1e6}
        for kind, (calls, size) in sums.items()
    ]
    print(tables.markdown(rows, digits=3), end="\n\n")
    rows = [
        {
            "variant": name,
            "step, s": statistics.median(times[name]),
            "of that averaging, ms": 1000 * statistics.median(waits[name]),
            "step / flat": statistics.median(
                own / flat for own, flat in zip(times[name], times[FLAT], strict=True)
            ),
        }
        for name in times
    ]
    print(tables.markdown(rows, digits=3))


if __name__ == "__main__":
    main()
