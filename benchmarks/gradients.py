"""How processes average their gradients best, and how much each step sends between them.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 benchmarks/gradients.py
    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 benchmarks/gradients.py --preset fast --size 64

`flat` sends all gradients of a phase at once, after backward. `N MiB` are buckets of that size, as
`runtime/gradients.py` sends them: each as soon as backward has made its gradients, while backward
goes on. The variants take turns, step by step, so that a busy machine is busy for all. A
ratio is of two steps of one round; the median of the ratios counts.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from train_step import describe_machine, prepare

from gancolor import tables
from gancolor.config import TrainConfig
from gancolor.data.loader import Batch
from gancolor.runtime import processes
from gancolor.runtime.gradients import averaged
from gancolor.training import loop

CPU = torch.device("cpu")
FLAT = "flat"
Averaging = Callable[..., contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def flat(parameters: Iterable[Tensor], config: TrainConfig) -> Iterator[None]:
    """As `gradients.averaged`, but all at once after backward."""
    yield
    parameters = list(parameters)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    sums = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(sums)
    sums /= dist.get_world_size()
    parts = sums.split([grad.numel() for grad in grads])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))


def main() -> None:
    options = parse_options()
    logging.disable()
    state, whole = prepare(options.preset, options.size, options.batch, seed=options.seed)
    process = processes.join(CPU, state.config)
    if process.world == 1:
        raise SystemExit("start it by torchrun, with --nproc-per-node 2")
    step = functools.partial(loop.train_step, state, share_of(whole, process), process.rank)
    sums = measure_sums(step)
    variants: dict[str, Averaging] = {FLAT: flat}
    for size in options.buckets:
        variants[f"{size:g} MiB"] = functools.partial(averaged, bucket=int(size * 2**20))
    times: dict[str, list[float]] = {name: [] for name in variants}
    waits: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(options.rounds + 1):
        for name, averaging in variants.items():
            seconds, waited = timed(step, averaging)
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
    reduce = dist.all_reduce

    def counted(tensor: Tensor, *arguments: Any, **more: Any) -> Any:
        kind = "gradients" if "group" in more else "BatchNorm, loss, log"
        calls[kind] += 1
        sizes[kind] += tensor.numel() * tensor.element_size()
        return reduce(tensor, *arguments, **more)

    dist.all_reduce = counted
    try:
        step()
    finally:
        dist.all_reduce = reduce
    return {kind: (calls[kind], sizes[kind]) for kind in sorted(calls)}


def timed(step: Callable[[], Any], averaging: Averaging) -> tuple[float, float]:
    """Seconds of a step, and those of it that averaging took after backward."""
    waited = [0.0]

    @contextlib.contextmanager
    def measured(*arguments: Any) -> Iterator[None]:
        with averaging(*arguments):
            yield
            start = time.perf_counter()
        waited[0] += time.perf_counter() - start

    loop.gradients.averaged = measured
    try:
        processes.wait()
        start = time.perf_counter()
        step()
        return time.perf_counter() - start, waited[0]
    finally:
        loop.gradients.averaged = averaged


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
