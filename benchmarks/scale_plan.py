"""What ten million photographs take: hours, storage and money, from rates that are measured.

    python benchmarks/scale_plan.py                    the table, from the rates in RATES
    python benchmarks/scale_plan.py --measure          measures those of this machine first (minutes)
    python benchmarks/scale_plan.py --pictures 1e6 --cores 16 --gpus 1 4

Rates of processors are seconds of one core for a picture (all threads together), so that other work
beside them lengthens them only as far as it takes caches and clock. They are measured on painted
photographs of 2 megapixels with some grain (--count of them), or on --folder: examined and reduced
to 420 pixels by `data prepare --resize`, packed by `data pack`, read by the loader from shards,
coloured by `general` but for the network. The rate of a GPU is an ESTIMATE, as no GPU was there:
multiplications of a training step over what such a GPU is assumed to reach of them. Prices are
examples of their date and no offers. Each row has its formula below the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from gancolor import presets, tables
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.input_files import Item
from gancolor.batch.worker import color_file
from gancolor.data import loader, shard_packer
from gancolor.data.doctor import preparation, set_plan
from gancolor.data.doctor.rules import Rules
from gancolor.data.shard_lookup import open_shards
from gancolor.data.still_life import composition


@dataclass
class Rates:
    """Measured: core seconds a picture, and MB of its file as it came and as it is packed."""

    prepare: float
    pack: float
    load: float
    color: float
    original: float
    packed: float


RATES = Rates(  # by --measure on an AMD EPYC (AVX2, no bfloat16) beside other work, 2026-11-29
    prepare=0.058, pack=0.0070, load=0.0096, color=0.40, original=0.635, packed=0.105
)


@dataclass
class Assumptions:
    """What is assumed: of a GPU, and of prices in US dollars, examples of November 2026."""

    gmac: float = 45.0  # of a training step for a picture (docs/performance.md)
    tflops: float = 200.0  # that a GPU is assumed to reach in such convolutions; an estimate
    share: float = 0.6  # of that, for a whole step; the aim for a GPU
    look_gmac: float = 6.0  # of the network for a picture that is coloured; an estimate
    efficiency: float = 0.95  # of several GPUs together; an estimate
    train_share: float = 0.8  # of the pictures, that are trained on
    cores_a_gpu: int = 16
    core_hour: float = 0.04
    gpu_hour: float = 3.0
    gb_month: float = 0.023
    put: float = 5e-6  # a request that writes or lists
    get: float = 4e-7  # a request that reads


def main() -> None:
    options = parse_options()
    rates = RATES
    if options.measure:
        logging.disable()
        torch.set_num_threads(1)  # as in the processes of a batch
        cv2.setNumThreads(1)
        rates = measure(options)
        print(", ".join(f"{f.name}={getattr(rates, f.name):.4g}" for f in fields(rates)), "\n")
    assumed = Assumptions(
        **{f.name: getattr(options, f.name) for f in fields(Assumptions)}  # type: ignore[arg-type]
    )
    print(tables.markdown(plan(int(options.pictures), rates, assumed, options), digits=2), "\n")
    print("\n".join(formulas(rates, assumed)))


def parse_options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=float, default=1e7)
    parser.add_argument("--cores", type=int, default=64, help="of the machine that prepares")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--measure", action="store_true", help="the rates of this machine")
    parser.add_argument("--count", type=int, default=64, help="pictures to measure on")
    parser.add_argument("--folder", type=Path, help="photographs of your own to measure on")
    for field in fields(Assumptions):
        kind = type(field.default)
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=field.default, help="default %(default)s")
    return parser.parse_args()


def plan(count: int, rates: Rates, assumed: Assumptions, options: Any) -> list[dict[str, object]]:
    """The rows of the table."""
    cores = options.cores
    stored = count * rates.original / 1000
    packed = count * rates.packed / 1000
    rows = [
        row("keep the originals", 0.0, stored, stored * assumed.gb_month, "a month"),
        of_cores(f"prepare, {cores} cores", count * rates.prepare, cores, packed, assumed),
        of_cores(f"pack, {cores} cores", count * rates.pack, cores, packed, assumed),
        row("keep the shards", 0.0, packed, packed * assumed.gb_month, "a month"),
    ]
    rate = assumed.tflops * assumed.share * 1000 / (2 * assumed.gmac)
    for gpus in options.gpus:
        many = gpus * rate * (assumed.efficiency if gpus > 1 else 1.0)
        hours = count * assumed.train_share / many / 3600
        words = f"{many * rates.load:,.0f} cores and {many * rates.packed / 1000:,.1f} GB/s to read"
        rows.append(
            row(f"train an epoch, {gpus} GPUs*", hours, 0.0, hours * gpus * assumed.gpu_hour, words)
        )
    for gpus in options.gpus:
        by_cores = assumed.cores_a_gpu / rates.color
        by_gpu = assumed.tflops * assumed.share * 1000 / (2 * assumed.look_gmac)
        hours = count / (gpus * min(by_cores, by_gpu)) / 3600
        requests = count * (2 * assumed.put + 2 * assumed.get)
        money = hours * gpus * assumed.gpu_hour + requests
        limit = "cores" if by_cores < by_gpu else "GPU"
        words = f"{min(by_cores, by_gpu):,.0f} pictures/s a GPU, bound by its {limit}"
        rows.append(row(f"colour all, {gpus} GPUs*", hours, stored, money, words))
    return rows


def row(what: str, hours: float, gigabytes: float, money: float, words: str) -> dict[str, object]:
    return {
        "what": what,
        "hours": hours or None,
        "storage, TB": gigabytes / 1000 or None,
        "US dollars": f"{money:,.0f}",
        "beside that": words,
    }


def of_cores(
    what: str, seconds: float, cores: int, gigabytes: float, assumed: Assumptions
) -> dict[str, object]:
    hours = seconds / cores / 3600
    return row(what, hours, gigabytes, hours * cores * assumed.core_hour, "one machine")


def formulas(rates: Rates, assumed: Assumptions) -> list[str]:
    """How each figure comes about."""
    rate = assumed.tflops * assumed.share * 1000 / (2 * assumed.gmac)
    return [
        f"prepare: pictures x {rates.prepare:.3f} s of a core / cores",
        f"pack: pictures x {rates.pack:.4f} s of a core / cores",
        f"storage: pictures x {rates.original:.2f} MB, packed x {rates.packed:.3f} MB;"
        f" a GB a month {assumed.gb_month} $",
        f"train*: pictures x {assumed.train_share} / (GPUs x {rate:,.0f} /s x"
        f" {assumed.efficiency} for several); {rate:,.0f} = {assumed.tflops:,.0f} TFLOP/s x"
        f" {assumed.share} / (2 x {assumed.gmac} GMAC), an estimate: no GPU was there",
        f"  cores to read: pictures/s x {rates.load:.4f} s of a core",
        f"colour*: pictures / (GPUs x the lesser of {assumed.cores_a_gpu} cores / {rates.color:.2f} s"
        f" and {assumed.tflops:,.0f} TFLOP/s x {assumed.share} / (2 x {assumed.look_gmac} GMAC))",
        f"  requests: one to put, one to list or look, two to get a picture:"
        f" {assumed.put * 1e6:.1f} and {assumed.get * 1e6:.1f} $ a million",
        f"a core {assumed.core_hour} $ an hour, a GPU with {assumed.cores_a_gpu} cores"
        f" {assumed.gpu_hour} $ an hour",
    ]


def measure(options: Any) -> Rates:
    """The rates of this machine."""
    with tempfile.TemporaryDirectory(prefix="scale-plan-") as place:
        work = Path(place)
        folder = options.folder or paint(work / "photographs", options.count)
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        count, original = len(paths), sum(path.stat().st_size for path in paths) / 1e6
        made = set_plan.Plan(
            name="set", sources=(str(folder),), root=work, rules=Rules(), resize=420, workers=0
        )
        prepare = core_seconds(lambda: preparation.prepare(made, lambda *told: None))
        pack = core_seconds(lambda: shard_packer.pack(str(work / "set"), work / "shards"))
        source = open_shards(str(work / "shards"), "train")
        settings: dict[str, Any] = dict(image_size=256, batch_size=16, workers=0, device="cpu")
        config = presets.build("regression", **settings, dataset=str(work / "shards"))
        batches = loader.batches(source, config=config)
        next(batches)
        turns = max(1, 2 * len(source) // 16)
        load = core_seconds(lambda: list(itertools.islice(batches, turns))) / (turns * 16)
        packed = [shard for shard in source.shards if shard.pictures]
        return Rates(
            prepare=prepare / count,
            pack=pack / count,
            load=load,
            color=coloring(paths[:12], work),
            original=original / count,
            packed=sum(s.bytes for s in packed) / sum(s.pictures for s in packed) / 1e6,
        )


def coloring(paths: list[Path], work: Path) -> float:
    """Core seconds of colouring a file, but for the network."""
    from gancolor.coloring.colorizer import Colorizer

    colorizer = Colorizer.load("general", device="cpu")
    asked = 0.0

    def predict(view: Any) -> Any:
        nonlocal asked
        answers: list[Any] = []
        asked += core_seconds(lambda: answers.append(colorizer.predict_view(view)))
        return answers[0]

    def color(path: Path) -> None:
        item = Item(path, work / "colored" / path.name)
        settings = dataclasses.replace(BatchSettings(), existing="overwrite")
        record = color_file(item, settings, colorizer.sight, predict)
        assert record.status == "done", record.error

    color(paths[0])
    asked = 0.0
    whole = core_seconds(lambda: [color(path) for path in paths])
    return (whole - asked) / len(paths)


def core_seconds(job: Callable[[], object]) -> float:
    """Seconds of processors that a job takes, in all threads and processes."""

    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    began = used()
    job()
    return used() - began


def paint(folder: Path, count: int) -> Path:
    """Painted photographs of 2 megapixels, with grain as cameras leave it."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        small = composition.paint(0, number, (306, 408))
        rgb = cv2.resize(small, (1632, 1224), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        rgb += cv2.GaussianBlur(rng.normal(0, 14, (1224, 1632, 1)), (0, 0), 0.8)[..., None]
        data = cv2.imencode(".jpg", np.clip(rgb, 0, 255).astype(np.uint8)[..., ::-1])[1]
        (folder / f"{number:04d}.jpg").write_bytes(data.tobytes())
    return folder


if __name__ == "__main__":
    main()
