"""How fast a training step is, where its time goes and how much memory it takes, beside naive
float32 and pix2pix.

    OMP_WAIT_POLICY=passive python benchmarks/train_step.py         256 pixels, batch 4; minutes on two cores
    python benchmarks/train_step.py --size 64 --batch 16

All variants take turns in one process, so that a busy machine is busy for all; medians count, and
most of all the ratios. Pictures are painted, VGG16 has random weights: neither changes the speed.
Peak memory is a fresh process's.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import functools
import logging
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from macs import count_macs
from torch import Tensor, nn
from torch.nn import functional as F

import gancolor
from gancolor import color, models, presets, tables
from gancolor.data.example import draw_squares
from gancolor.data.loader import Batch
from gancolor.data.still_life import composition
from gancolor.models.backbones import VGG16, load_backbone
from gancolor.models.layers import SLOPE, BatchNorm2d
from gancolor.training import loop, objectives
from gancolor.training.plan import needs_sample
from gancolor.training.state import State

CPU = torch.device("cpu")
PEER = "pix2pix fp32"


def main() -> None:
    options = parse_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.disable()
    if options.only:
        step = makers(options.discriminator_size)[options.only](options.size, options.batch)
        for _ in range(2):
            step()
        print(peak_kib())
        return
    print(f"{describe_machine()}\n{options.size}x{options.size}, batch {options.batch}\n")
    report_steps(options)
    report_split(options)
    report_peak(options)


def parse_options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256, help="side of the training pictures")
    parser.add_argument("--batch", type=int, default=4, help="pictures a step")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median counts")
    parser.add_argument(
        "--threads", type=int, default=0, help="torch's threads (default: as torch chooses)"
    )
    parser.add_argument(
        "--discriminator-size",
        type=int,
        default=0,
        help="side at which it sees them (0: the default)",
    )
    parser.add_argument(
        "--variants", help="take these alone, separated by commas (the peer always)"
    )
    parser.add_argument(
        "--only", help="make two steps of this variant and print the peak memory in KiB"
    )
    return parser.parse_args()


def makers(judged: int = 0) -> dict[str, Callable[[int, int], Callable[[], Any]]]:
    """Each variant's name and what makes its step. `judged`: the discriminator's size, 0 for the
    default.
    """
    variants: dict[str, Callable[[int, int], Callable[[], Any]]] = {"naive fp32": naive}
    for preset in ("poster", "gan", "fast", "regression"):
        for precision in ("fp32", "bf16"):
            variants[f"{preset} {precision}"] = functools.partial(
                ours, preset=preset, precision=precision, discriminator_size=judged
            )
    return variants | {PEER: pix2pix}


def report_steps(options: Any) -> None:
    """Images a second of every variant, as ratios to naive and to the peer, and peak memory."""
    wanted = [*options.variants.split(","), PEER] if options.variants else list(makers())
    steps = {
        name: make(options.size, options.batch)
        for name, make in makers(options.discriminator_size).items()
        if name in wanted
    }
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    rows = []
    for name, values in seconds.items():
        row: dict[str, Any] = {
            "variant": name,
            "images/s": options.batch / statistics.median(values),
        }
        for other in ("naive fp32", PEER):
            if other in seconds:
                row[f"x {other}"] = statistics.median(
                    b / a for a, b in zip(values, seconds[other], strict=True)
                )
        rows.append(row | {"peak RSS, MiB": peak_memory(options, name)})
    print(tables.markdown(rows, digits=2), flush=True)


def peak_memory(options: Any, name: str) -> int:
    """MiB that two steps of a variant take in a process of their own."""
    command = [sys.executable, __file__, "--only", name, "--threads", str(options.threads)]
    command += ["--size", str(options.size), "--batch", str(options.batch)]
    command += ["--discriminator-size", str(options.discriminator_size)]
    return (
        int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        // 1024
    )


def peak_kib() -> int:
    """This process's peak memory. Linux's ru_maxrss starts at that of the process that started this
    one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(
            int(line.split()[1])
            for line in status.read_text().splitlines()
            if line.startswith("VmHWM")
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def report_split(options: Any) -> None:
    """The default step's parts, timed between hooks: every part's share adds up to the whole step."""
    state, batch = prepare("gan", options.size, options.batch, precision="bf16")
    loop.train_step(state, batch)
    rounds = []
    for _ in range(options.rounds):
        with timed_parts(state) as parts:
            start = time.perf_counter()
            loop.train_step(state, batch)
            parts["whole"] = time.perf_counter() - start
        rounds.append(parts)
    middle = {name: statistics.median(parts[name] for parts in rounds) for name in rounds[0]}
    whole = middle.pop("whole")
    middle["other"] = whole - sum(middle.values())
    rows = [
        {"part": name, "ms": 1e3 * value, "share, %": 100 * value / whole}
        for name, value in middle.items()
    ]
    print(f"\nOne step of the default preset, bf16, {1e3 * whole:.0f} ms\n")
    print(tables.markdown(rows, digits=1), flush=True)


@contextlib.contextmanager
def timed_parts(state: State) -> Iterator[dict[str, float]]:
    """Add up the seconds in each part's functions while the context lasts."""
    parts: dict[str, float] = collections.defaultdict(float)
    with contextlib.ExitStack() as stack:

        def watch(owner: Any, attribute: str, part: str) -> None:
            original = owner.__dict__.get(attribute, getattr(owner, attribute))
            call = getattr(owner, attribute)

            def timed(*args: Any, **kwargs: Any) -> Any:
                start = time.perf_counter()
                try:
                    return call(*args, **kwargs)
                finally:
                    parts[part] += time.perf_counter() - start

            setattr(owner, attribute, timed)
            stack.callback(setattr, owner, attribute, original)

        watch(objectives.DeviceBatch, "of", "to device, Lab, gray")
        watch(state.generator, "say", "generator forward")
        watch(color, "merge", "Lab -> RGB forward")
        if state.discriminator is not None:
            watch(state.discriminator, "features", "VGG16 of real and fake")
            watch(state.discriminator, "judge", "discriminator's heads forward")
        watch(torch.Tensor, "backward", "backward")
        for optimizer in state.optimizers.values():
            watch(optimizer, "step", "Adam, EMA, gradient norm")
        watch(nn.utils, "clip_grad_norm_", "Adam, EMA, gradient norm")
        if state.ema is not None:
            watch(state.ema, "update", "Adam, EMA, gradient norm")
        yield parts


def report_peak(options: Any) -> None:
    """The measured convolution peak, the step's work, and which fraction of the peak's rate the
    step reaches.
    """
    print(
        "\nWork and the convolution peak (3x3, 256 to 256 channels, 64x64, batch 4,"
        " channels_last)\n"
    )
    rows = []
    for precision in ("bf16", "fp32"):
        state, batch = prepare("gan", options.size, options.batch, precision=precision)
        work = step_macs(state, options.size) * options.batch
        loop.train_step(state, batch)
        peaks, steps = [], []
        for _ in range(options.rounds):
            peaks.append(convolution_rate(state.dtype))
            start = time.perf_counter()
            loop.train_step(state, batch)
            steps.append(time.perf_counter() - start)
        peak, step = statistics.median(peaks), statistics.median(steps)
        rate = 2 * work / step
        rows.append(
            {
                "precision": precision,
                "GMAC/picture": work / options.batch / 1e9,
                "peak, GFLOP/s": peak / 1e9,
                "step, GFLOP/s": rate / 1e9,
                "of the peak, %": 100 * rate / peak,
            }
        )
    print(tables.markdown(rows, digits=1))


def step_macs(state: State, size: int) -> int:
    """Multiply-accumulates of one picture's joint step in plain layers (some are saved, see
    docs/performance.md).
    """
    generator, judge = state.generator, state.discriminator
    assert isinstance(generator, models.Generator) and isinstance(judge, models.PatchDiscriminator)
    picture, gray = torch.zeros(1, 3, size, size), torch.zeros(1, 1, size, size)
    with state.autocast():
        encoder = count_macs(generator.encoder, picture)
        whole = count_macs(generator, gray)
        seen = torch.zeros(1, 3, judge.size, judge.size)
        features = count_macs(judge.trunk, seen, judge.TAPS[-1] + 1)
        heads = count_macs(judge.head, judge.features(models.Seen(seen, seen)))
    return int(
        whole
        + 2 * (whole - encoder)  # to weights and inputs; the encoder is frozen
        + 3 * features  # real; fake; back from fake to the picture
        + 8
        * heads  # of real and fake to their weights and inputs; of the fake again, and back to it
    )


def convolution_rate(dtype: torch.dtype) -> float:
    """Floating point operations a second of one large convolution."""
    conv = nn.Conv2d(256, 256, 3, padding=1).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(4, 256, 64, 64, dtype=dtype).to(memory_format=torch.channels_last)
    with torch.no_grad():
        conv(x)
        start = time.perf_counter()
        for _ in range(5):
            conv(x)
        seconds = (time.perf_counter() - start) / 5
    return 2 * 256 * 256 * 9 * 64 * 64 * 4 / seconds


def ours(size: int, batch: int, preset: str, **settings: Any) -> Callable[[], Any]:
    """gancolor's own step, with every phase in it."""
    state, pictures = prepare(preset, size, batch, **settings)
    return lambda: loop.train_step(state, pictures)


def prepare(preset: str, size: int, batch: int, **settings: Any) -> tuple[State, Batch]:
    if preset == "fast":
        settings["encoder_weights"] = "none"
    config = presets.build(
        preset, image_size=size, batch_size=batch, backbone_weights="none", **settings
    )
    state = State(config, CPU)
    rgb = paint(size, batch)
    if needs_sample(config):
        state.calibrate(rgb)
    state.progress = 1.0
    random = np.random.default_rng(0)
    shape = (size, size)
    drawn = [
        torch.from_numpy(draw_squares(shape, config.hints, random))[None] for _ in range(batch)
    ]
    return state, Batch(rgb=rgb, squares=torch.stack(drawn) if config.hints > 0 else None)


def paint(size: int, batch: int) -> Tensor:
    pictures = [
        torch.from_numpy(composition.paint(0, index, size)).permute(2, 0, 1)
        for index in range(batch)
    ]
    return torch.stack(pictures).contiguous()


def naive(size: int, batch: int) -> Callable[[], Any]:
    """The same networks, written down plainly: contiguous float32, nothing shared between the two
    phases.
    """
    trunk = load_backbone("none")
    generator = PlainGenerator(trunk)
    discriminator = models.Discriminator(trunk, size=size)
    judge = torch.optim.Adam(discriminator.head.parameters(), lr=2e-4, betas=(0.5, 0.999))
    painter = torch.optim.Adam(
        [p for p in generator.parameters() if p.requires_grad], lr=2e-4, betas=(0.5, 0.999)
    )
    rgb = paint(size, batch)

    def fake(lightness: Tensor) -> tuple[Tensor, Tensor]:
        ab = generator(color.gray(lightness))
        return ab, color.merge(lightness, ab, clip=False)

    def step() -> None:
        lightness, ab = color.split(rgb)
        real = color.merge(lightness, ab, clip=False)
        judge.zero_grad()
        both = discriminator.head(
            torch.cat([plain_features(discriminator, x) for x in (real, fake(lightness)[1])])
        ).squeeze(1)
        torch.stack(objectives.discriminator_loss(*both.chunk(2))).sum().backward()
        judge.step()
        painter.zero_grad()
        predicted, picture = fake(lightness)
        logits = discriminator.head(
            torch.cat([plain_features(discriminator, x) for x in (real, picture)])
        ).squeeze(1)
        (objectives.generator_loss(logits[batch:]) + 100 * objectives.l1(predicted, ab)).backward()
        painter.step()

    return step


def plain_taps(trunk: VGG16, rgb: Tensor) -> list[Tensor]:
    """VGG16 from torch's own layers."""
    x, taps = (rgb - trunk.mean) / trunk.std, []
    for index, layer in enumerate(trunk.features):
        if isinstance(layer, nn.Conv2d):
            x = F.relu(F.conv2d(x, layer.weight, layer.bias, padding=1))
            if index + 2 in trunk.ends:
                taps.append(x)
                x = F.max_pool2d(x, 2)
    return [*taps, x]


def plain_features(discriminator: models.Discriminator, rgb: Tensor) -> Tensor:
    return F.max_pool2d(plain_taps(discriminator.trunk, rgb)[-1], 2, ceil_mode=True).flatten(1)


class PlainGenerator(nn.Module):
    """The poster's generator from torch's own layers."""

    def __init__(self, trunk: VGG16, width: int = 24) -> None:
        super().__init__()
        self.trunk = trunk
        self.contract = self.double(512, 512)
        self.expand = nn.ModuleList()
        below = 512
        for level, skip in reversed(list(enumerate(tap.channels for tap in VGG16.TAPS))):
            out = min(256, width * 2**level)
            self.expand.append(self.double(below + skip, out))
            below = out
        self.last = nn.Conv2d(below, 2, 3, padding=1)

    @staticmethod
    def double(channels_in: int, channels_out: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels in (channels_in, channels_out):
            layers += [
                nn.Conv2d(channels, channels_out, 3, padding=1),
                BatchNorm2d(channels_out),
                nn.LeakyReLU(SLOPE),
            ]
        return nn.Sequential(*layers)

    def forward(self, gray: Tensor) -> Tensor:
        *skips, x = plain_taps(self.trunk, gray.expand(-1, 3, -1, -1))
        x = self.contract(x)
        for level in self.expand:
            x = level(torch.cat([F.interpolate(x, scale_factor=2.0), skips.pop()], 1))
        return torch.tanh(self.last(x))


def pix2pix(
    size: int,
    batch: int,
    rgb: Tensor | None = None,
    autocast: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> Callable[[], Any]:
    """Stock pix2pix colorization (Isola et al.): unet_256, 70x70 PatchGAN, batch norm, BCE, L1 x
    100, L to ab. `rgb`: uint8 pictures, on the device (default: painted ones, on the CPU).
    """
    generator, discriminator = Unet(min(8, size.bit_length() - 1)), patch_discriminator()
    if rgb is None:
        rgb = paint(size, batch)
    else:
        for network in (generator, discriminator):
            network.to(device=rgb.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in (*generator.modules(), *discriminator.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.02)
    painter, judge = (
        torch.optim.Adam(m.parameters(), lr=2e-4, betas=(0.5, 0.999))
        for m in (generator, discriminator)
    )

    def verdict(logits: Tensor, real: bool) -> Tensor:
        logits = logits.float()
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))

    def judged(*parts: Tensor) -> Tensor:
        with autocast():
            logits: Tensor = discriminator(torch.cat(parts, 1))
        return logits

    def step() -> None:
        lightness, ab = color.split(rgb)
        with autocast():
            fake = generator(lightness)
        fake = fake.float()
        discriminator.requires_grad_(True)
        judge.zero_grad()
        wrong = verdict(judged(lightness, fake.detach()), False)
        right = verdict(judged(lightness, ab), True)
        (0.5 * (wrong + right)).backward()
        judge.step()
        discriminator.requires_grad_(False)
        painter.zero_grad()
        (verdict(judged(lightness, fake), True) + 100 * F.l1_loss(fake, ab)).backward()
        painter.step()

    return step


class Unet(nn.Module):
    """`depth` halvings of 4x4 convolutions, 64 to 512 channels, and back with skips; dropout in the
    inner levels.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        wide = [min(512, 64 * 2**level) for level in range(depth)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, out in enumerate(wide):
            inner = 0 < level < depth - 1  # neither the outermost nor the innermost is normalized
            layers: list[nn.Module] = [nn.LeakyReLU(0.2)] if level else []
            layers.append(
                nn.Conv2d(
                    wide[level - 1] if level else 1, out, 4, 2, 1, bias=not inner and level == 0
                )
            )
            self.down.append(nn.Sequential(*layers, *([nn.BatchNorm2d(out)] if inner else [])))
        for level in reversed(range(depth)):
            given = wide[level] * (1 if level == depth - 1 else 2)
            out = wide[level - 1] if level else 2
            layers = [nn.ReLU(), nn.ConvTranspose2d(given, out, 4, 2, 1, bias=level == 0)]
            layers += [nn.BatchNorm2d(out)] if level else [nn.Tanh()]
            layers += [nn.Dropout(0.5)] if 4 <= level < depth - 1 else []
            self.up.append(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level in self.down:
            x = level(x)
            skips.append(x)
        skips.pop()
        for level in self.up:
            x = level(x)
            if skips:
                x = torch.cat([skips.pop(), x], 1)
        return x


def patch_discriminator() -> nn.Sequential:
    """The 70x70 PatchGAN on L and ab."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, 2, 1), nn.LeakyReLU(0.2)]
    for channels, out, stride in ((64, 128, 2), (128, 256, 2), (256, 512, 1)):
        layers += [
            nn.Conv2d(channels, out, 4, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 4, 1, 1))


def describe_machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    busy = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{datetime.date.today()}: {model}, {os.cpu_count()} cores{busy}, {torch.get_num_threads()}"
        f" threads; {torch.backends.cpu.get_cpu_capability()}; gancolor {gancolor.__version__},"
        f" torch {torch.__version__}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
