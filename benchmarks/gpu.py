"""Everything that is to be known of gancolor on a GPU, by one command of at most eight minutes.

    python benchmarks/gpu.py --out gpu.json               on a machine with CUDA
    python benchmarks/gpu.py --tiny                       the rehearsal: tiny sizes, on the CPU

It needs torch and NumPy, no network and no installed gancolor: pictures are generated, weights are
random. What else is missing on the machine is said, and what depends on it is left out and said.
Each part has its share of the time; what it did not get to is said too. With `--out` the results are
also written as JSON, after each part.

Targets, on an H100: a step of `gan` reaches 60 % of the rate at which cuDNN runs its convolutions
alone; films of 1080p, 60 frames a second; photographs of 2 megapixels, 200 a second with 16 cores.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import stand_ins  # before gancolor, which may lack some libraries here
import torch
from device_rates import convolution_seconds, count, matmul_rate, memory_rate, seconds, wait
from gpu_files import measure_films, measure_photographs
from gpu_report import TARGETS, TINY, Report, Rows, Sizes, name_of
from torch import Tensor
from train_step import describe_machine, pix2pix

from gancolor import presets, tables
from gancolor.data.loader import Batch
from gancolor.errors import is_out_of_memory
from gancolor.runtime import devices
from gancolor.training import loop
from gancolor.training.plan import needs_sample
from gancolor.training.state import State


def main() -> None:
    options = parse_options()
    logging.disable()
    if options.threads:
        torch.set_num_threads(options.threads)
    sizes = TINY if options.tiny else Sizes()
    sizes.minutes = options.minutes
    sizes.sizes = tuple(options.sizes) if options.sizes else sizes.sizes
    sizes.batches = tuple(options.batches) if options.batches else sizes.batches
    device = devices.pick_device(
        "cpu" if options.tiny and options.device == "auto" else options.device
    )
    devices.choose(device)
    report = Report(options, sizes, device)
    print(f"{describe_machine()}\n{name_of(device)}")
    if stand_ins.ABSENT:
        print(f"not installed: {', '.join(stand_ins.ABSENT)}")
    for name, share, part in PARTS:
        if not options.parts or name in options.parts.split(","):
            report.run(name, share, part)
    print(f"\n== done in {time.monotonic() - report.began:.0f} s")
    for line in report.left_out:
        print(f"left out: {line}")


def parse_options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device", default="auto", help="as gancolor's (default: a GPU if there is)"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--minutes", type=float, default=8.0, help="all that it may take")
    parser.add_argument("--sizes", type=int, nargs="+", help="sides of the training pictures")
    parser.add_argument("--batches", type=int, nargs="+", help="pictures a step, rising")
    parser.add_argument("--parts", help="these alone, separated by commas")
    parser.add_argument("--threads", type=int, default=0, help="torch's threads on the CPU")
    parser.add_argument("--out", help="write the results there, as JSON")
    return parser.parse_args()


def dtypes(device: torch.device) -> dict[str, torch.dtype]:
    known = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    return known if device.type == "cuda" else {"fp32": torch.float32}


def best_precision(device: torch.device) -> str:
    return "fp32" if devices.pick_dtype("auto", device) == torch.float32 else "bf16"


def measure_peaks(report: Report) -> dict[str, float]:
    """The most that products and copies reach here."""
    sizes, device = report.sizes, report.device
    found = {
        f"matmul {name}, TFLOP/s": matmul_rate(device, dtype, sizes.matmul, sizes.least) / 1e12
        for name, dtype in dtypes(device).items()
    }
    found["memory, GB/s"] = memory_rate(device, sizes.copied, sizes.least) / 1e9
    print(tables.markdown([{"peak": name, "rate": rate} for name, rate in found.items()], digits=1))
    return found


def prepare(preset: str, size: int, batch: int, device: torch.device) -> Callable[[], Any]:
    """What takes one step of a preset, in its last phases, in the precision that is best here."""
    random = torch.Generator().manual_seed(0)
    rgb = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=random)
    precision = best_precision(device)
    if preset == "pix2pix":
        autocast = devices.pick_autocast(devices.pick_dtype(precision, device), device)
        return pix2pix(size, batch, rgb.to(device), autocast)
    state, given = begin(preset, size, batch, device, rgb)
    return lambda: loop.train_step(state, given)


def begin(
    preset: str, size: int, batch: int, device: torch.device, rgb: Tensor
) -> tuple[State, Batch]:
    settings: dict[str, Any] = {"encoder_weights": "none"} if preset == "fast" else {}
    config = presets.build(
        preset,
        image_size=size,
        batch_size=batch,
        backbone_weights="none",
        precision=best_precision(device),
        **settings,
    )
    state = State(config, device)
    if needs_sample(config):
        state.calibrate(rgb[:4])
    state.progress = 1.0
    given = Batch(rgb=rgb)
    if config.hints > 0:
        given = Batch(rgb=rgb, squares=torch.zeros(batch, 1, size, size, dtype=torch.uint8))
    return state, given.pin_memory() if device.type == "cuda" else given


def measure_training(report: Report) -> Rows:
    """Each preset at each size, with more and more pictures a step until that gains nothing."""
    rows: Rows = []
    for size in report.sizes.sizes:
        for preset in report.sizes.presets:
            if report.over:
                report.leave_out(f"training: {preset} at {size}: no time left")
                continue
            rows.append(sweep(report, preset, size))
    print(tables.markdown(rows, digits=2), flush=True)
    return rows


def sweep(report: Report, preset: str, size: int) -> dict[str, Any]:
    """The best batch of a preset, with its rate, its memory, and its share of the peaks."""
    device, best = report.device, dict[str, Any]()
    for batch in report.sizes.batches:
        if best and report.over:
            break
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        try:
            step = prepare(preset, size, batch, device)
            spent = seconds(step, device, report.sizes.least)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        gained = batch / spent / best["images/s"] if best else float("inf")
        if gained > 1:
            peak = devices.peak_memory(device)
            best = {
                "preset": preset,
                "size": size,
                "batch": batch,
                "images/s": batch / spent,
                "ms a step": 1e3 * spent,
                "GiB": None if peak is None else peak / 2**30,
            }
        if gained < 1.03:
            break
    return best | shares(report, preset, size, best)


def shares(report: Report, preset: str, size: int, best: dict[str, Any]) -> dict[str, Any]:
    """Of the measured peaks, by the operations and bytes of a step of few pictures."""
    peaks = report.found.get("peaks", {})
    few = min(best["batch"], report.sizes.batches[:2][-1])
    operations, work = count(prepare(preset, size, few, report.device))
    pictures = best["images/s"] / few
    matmul = peaks.get(f"matmul {best_precision(report.device)}, TFLOP/s")
    memory = peaks.get("memory, GB/s")
    return {
        "GFLOP a picture": operations / few / 1e9,
        "of matmul, %": None if not matmul else operations * pictures / matmul / 1e10,
        "of memory, %": None if not memory else work.bytes * pictures / memory / 1e7,
    }


def best_batch(report: Report, preset: str, size: int) -> int:
    rows: Rows = report.found.get("training", [])
    known = [row["batch"] for row in rows if (row["preset"], row["size"]) == (preset, size)]
    return int(known[0]) if known else report.sizes.batches[:2][-1]


def measure_convolutions(report: Report) -> dict[str, Any]:
    """How long a step's convolutions take alone, beside the step: the first target."""
    device, size = report.device, report.sizes.sizes[0]
    batch = best_batch(report, "gan", size)
    step = prepare("gan", size, batch, device)
    whole = seconds(step, device, report.sizes.least)
    _, work = count(step)
    alone, share = convolution_seconds(work, device, lambda: report.over)
    row: dict[str, Any] = {
        "step of gan, ms": 1e3 * whole,
        "its convolutions alone, ms": 1e3 * alone,
        "measured, %": 100 * share,
        "step of the convolutions' rate, %": 100 * alone / whole,
    }
    if share < 1:
        report.leave_out(f"convolutions: {100 * (1 - share):.0f} % of them, no time left")
    print(tables.markdown([row], digits=1))
    print(f"target on an H100: {TARGETS['step of the convolutions' + chr(39) + ' rate, %']:.0f} %")
    return row


def measure_kernels(report: Report) -> Rows:
    """The ten kernels that take the most time in a step of `gan`."""
    from torch.profiler import ProfilerActivity, profile

    device, size, steps = report.device, report.sizes.sizes[0], 3
    step = prepare("gan", size, best_batch(report, "gan", size), device)
    step()
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=kinds) as profiler:
        for _ in range(steps):
            step()
        wait(device)
    on_gpu = device.type == "cuda"

    def spent(event: Any) -> float:
        return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)

    events = [
        event
        for event in profiler.key_averages()
        if not on_gpu or event.device_type == torch.autograd.DeviceType.CUDA
    ]
    total = sum(map(spent, events)) or 1.0
    rows: Rows = [
        {
            "kernel": event.key[:90],
            "calls a step": event.count / steps,
            "ms a step": spent(event) / 1e3 / steps,
            "share, %": 100 * spent(event) / total,
        }
        for event in sorted(events, key=spent, reverse=True)[:10]
    ]
    print(tables.markdown(rows, digits=2))
    return rows


def measure_compiling(report: Report) -> dict[str, Any]:
    """A step of `gan` as it is and with torch.compile of generator and VGG16, in turns."""
    device, size = report.device, report.sizes.sizes[0]
    batch = best_batch(report, "gan", size)
    plain, compiled = (prepare_compiled(size, batch, device, compile=on) for on in (False, True))
    start = time.monotonic()
    compiled()
    wait(device)
    took = time.monotonic() - start
    times: dict[str, list[float]] = {"plain": [], "compiled": []}
    for _ in range(3):
        for name, step in (("plain", plain), ("compiled", compiled)):
            times[name].append(seconds(step, device, report.sizes.least / 2))
    row = {f"{name}, ms": 1e3 * sorted(values)[1] for name, values in times.items()}
    row |= {"gain": row["plain, ms"] / row["compiled, ms"], "compiling, s": took}
    print(tables.markdown([row], digits=2))
    return row


def prepare_compiled(
    size: int, batch: int, device: torch.device, *, compile: bool
) -> Callable[[], Any]:
    rgb = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    state, given = begin("gan", size, batch, device, rgb)
    if compile:
        generator: Any = state.generator
        generator.say = torch.compile(generator.say)
        if state.trunk is not None:
            state.trunk.compile()
    return lambda: loop.train_step(state, given)


def measure_network(report: Report) -> Rows:
    """The network alone on views, one at a time and in batches, without any file."""
    device, size, rows = report.device, report.sizes.view, list[dict[str, Any]]()
    rgb = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)
    for preset in ("gan", "fast"):
        state, _ = begin(preset, size, 4, device, rgb)
        generator = state.averaged.eval()
        for batch in report.sizes.batches[:5]:
            if report.over:
                report.leave_out(f"network: {preset} with {batch}: no time left")
                break
            gray = torch.rand(batch, 1, size, size, device=device)

            def look(gray: Tensor = gray, state: State = state, generator: Any = generator) -> None:
                with torch.inference_mode(), state.autocast():
                    generator(gray)

            spent = seconds(look, device, report.sizes.least / 2)
            rows.append({"preset": preset, "views at once": batch, "views/s": batch / spent})
    print(tables.markdown(rows, digits=1))
    return rows


PARTS: Sequence[tuple[str, float, Callable[[Report], Any]]] = (
    ("peaks", 0.1, measure_peaks),
    ("training", 0.45, measure_training),
    ("convolutions", 0.3, measure_convolutions),
    ("kernels", 0.3, measure_kernels),
    ("network", 0.2, measure_network),
    ("photographs", 0.4, measure_photographs),
    ("films", 0.5, measure_films),
    ("compiling", 1.0, measure_compiling),
)
"""Each with its share of the time that the ones before it left."""

if __name__ == "__main__":
    main()
