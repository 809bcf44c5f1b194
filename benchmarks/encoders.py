"""Milliseconds a picture through the frozen encoders, on the CPU: ours, the same in plain torch
layers, timm's, VGG16.

    OMP_WAIT_POLICY=passive python benchmarks/encoders.py
    OMP_WAIT_POLICY=passive python benchmarks/encoders.py --threads 2 --precision bfloat16
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/encoders.py    as on a processor without AVX-512

The variants take turns, so that other programs slow down all of them alike; the fastest of the
rounds counts, in processor time with one thread. Weights are random: how fast they are does not
depend on them.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import torch

import gancolor
import gancolor._torchvision  # noqa: F401  (before timm imports torchvision)
from gancolor.models.backbones import ENCODERS

SIZES = ((64, 16), (256, 4), (256, 1))  # pixels, pictures in a batch


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    networks = build(getattr(torch, options.precision))
    print(
        f"gancolor {gancolor.__version__}, torch {torch.__version__}, {platform.machine()}, ",
        end="",
    )
    print(
        f"{torch.backends.cpu.get_cpu_capability()}, {options.precision}, threads:"
        f" {options.threads}"
    )
    print(f"| size, batch | {' | '.join(networks)} |\n|---|{'---:|' * len(networks)}")
    for size, batch in SIZES:
        gray = torch.rand(batch, 1, size, size).contiguous(memory_format=torch.channels_last)
        times = measure(networks, gray.expand(-1, 3, -1, -1), options.rounds)
        print(
            f"| {size}, {batch} |"
            f" {' | '.join(f'{1e3 * seconds / batch:.2f}' for seconds in times)} |",
            flush=True,
        )


def build(dtype: torch.dtype) -> dict[str, Callable[[torch.Tensor], object]]:
    """Return the encoders by name, in eval() and channels_last."""
    lite = ENCODERS["efficientnet-lite0"]
    networks = {
        "ours": lite.load("none"),
        "ours, plain layers": lite.load("none", trainable=True).eval(),
        "VGG16": ENCODERS["vgg16"].load("none"),
    }
    try:
        import timm
    except ImportError:
        print("timm is not installed; its column is left out")
    else:
        networks["timm"] = timm.create_model(
            "tf_efficientnet_lite0", pretrained=False, features_only=True
        ).eval()
    ready = {
        name: net.to(dtype=dtype).to(memory_format=torch.channels_last)
        for name, net in networks.items()
    }
    return ready | (
        {"timm": lambda rgb: networks["timm"]((rgb * 2 - 1).to(dtype))}
        if "timm" in networks
        else {}
    )


@torch.no_grad()
def measure(
    networks: dict[str, Callable[[torch.Tensor], object]], rgb: torch.Tensor, rounds: int
) -> list[float]:
    """Return the seconds of each network's fastest batch."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    best = [float("inf")] * len(networks)
    for turn in range(rounds + 1):
        for i, network in enumerate(networks.values()):
            begin = clock()
            network(rgb)
            if turn:  # the first warms up
                best[i] = min(best[i], clock() - begin)
    return best


if __name__ == "__main__":
    main()
