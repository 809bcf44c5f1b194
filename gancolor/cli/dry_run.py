"""`gancolor sample --dry-run`: what would be done, where, and about how long it would take."""

from __future__ import annotations

import dataclasses
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gancolor.cli.progress import duration
from gancolor.cli.saying import say
from gancolor.errors import DataError, shown

if TYPE_CHECKING:
    from gancolor.batch.report import Record
    from gancolor.batch.sources import Item
    from gancolor.batch.worker import BatchSettings
    from gancolor.colorizer import Colorizer

_SAMPLES = 3  # pictures that are coloured to see how long it takes


def show(colorizer: Colorizer, items: Iterator[Item], settings: BatchSettings) -> list[str]:
    """Print what would become of each file; returns a line for each that would fail. Nothing is kept."""
    from gancolor.batch import engine, worker
    from gancolor.photographs import reading

    told: list[Record] = []
    samples: list[Item] = []
    rng = random.Random(0)
    pictures, films, pixels = 0, 0, 0.0
    for item in engine.preview(items, settings, told.append):
        targets = ", ".join(shown(target) for target in worker.targets(item, settings))
        if item.film:
            films += 1
            say(f"{shown(item.source)} -> {targets} (a film)")
            continue
        try:
            width, height, _ = reading.probe(item.source, max_pixels=settings.max_pixels)
        except DataError as error:
            told.append(engine.failed(item, str(error)))
            continue
        pictures, pixels = pictures + 1, pixels + width * height / 1e6
        say(f"{shown(item.source)} -> {targets} ({width}x{height})")
        place = len(samples) if len(samples) < _SAMPLES else rng.randrange(pictures)
        if place < _SAMPLES:
            samples[place : place + 1] = [item]
    failures = [record.error or record.source for record in told if record.status == "failed"]
    skipped = sum(record.status == "skipped" for record in told)
    parts = [f"{pictures:,} picture{'s' * (pictures != 1)} ({pixels:,.1f} megapixels) would be coloured"]
    parts += [f"{films:,} film{'s' * (films != 1)}"] if films else []
    parts += [f"{skipped:,} have a result already"] if skipped else []
    parts += [f"{len(failures):,} would fail"] if failures else []
    say(", ".join(parts) + _estimate(colorizer, samples, settings, pixels, films > 0))
    return failures


def _estimate(colorizer: Colorizer, samples: list[Item], settings: BatchSettings, pixels: float, films: bool) -> str:
    """How long all pictures would take, by colouring a few of them into a folder that is removed."""
    from gancolor.batch import engine
    from gancolor.batch.report import Report

    done: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="gancolor-") as folder:
        aside = [
            dataclasses.replace(item, target=Path(folder, str(number), item.target.name))
            for number, item in enumerate(samples)
        ]
        plain = dataclasses.replace(settings, existing="overwrite", limit=None, workers=settings.workers and 1)
        with Report(Path(folder)) as report:
            engine.run(colorizer, aside, plain, report=report, progress=done.append)
    done = [record for record in done if record.status == "done"]
    size = sum((record.width or 0) * (record.height or 0) for record in done) / 1e6
    if not size:
        return "; nothing was written"
    seconds = sum(record.seconds for record in done) / size * pixels
    words = f"; one after another in about {duration(seconds)}, by what {len(done)} of them took"
    return f"{words}{', the films apart' if films else ''}; nothing was written"
