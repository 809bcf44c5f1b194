"""`gancolor sample --dry-run`: what would be done, where, and about how long it would take.

`gancolor sample` on files: what the engine does with each, shown as it goes.
"""

from __future__ import annotations

import dataclasses
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancolor import __version__
from gancolor.cli.options import say, say_above
from gancolor.cli.progress import Lines, duration
from gancolor.errors import DataError, shown

if TYPE_CHECKING:
    from tqdm import tqdm

    from gancolor.batch.input_files import Item
    from gancolor.batch.report import Record
    from gancolor.batch.worker import BatchSettings
    from gancolor.coloring.colorizer import Colorizer


_SAMPLES = 3  # pictures that are coloured to see how long it takes


def show(colorizer: Colorizer, items: Iterator[Item], settings: BatchSettings) -> list[str]:
    """Print what would become of each file; returns a line for each that would fail. Nothing is
    kept.
    """
    from gancolor.batch import dispatch, worker
    from gancolor.images import reader

    told: list[Record] = []
    samples: list[Item] = []
    rng = random.Random(0)
    pictures, films, pixels = 0, 0, 0.0
    for item in dispatch.preview(items, settings, told.append):
        targets = ", ".join(shown(target) for target in worker.targets(item, settings))
        if item.film:
            films += 1
            say(f"{shown(item.source)} -> {targets} (a film)")
            continue
        try:
            width, height, _ = reader.probe(item.source, max_pixels=settings.max_pixels)
        except DataError as error:
            told.append(dispatch.failed(item, str(error)))
            continue
        pictures, pixels = pictures + 1, pixels + width * height / 1e6
        say(f"{shown(item.source)} -> {targets} ({width}x{height})")
        place = len(samples) if len(samples) < _SAMPLES else rng.randrange(pictures)
        if place < _SAMPLES:
            samples[place : place + 1] = [item]
    failures = [record.error or record.source for record in told if record.status == "failed"]
    skipped = sum(record.status == "skipped" for record in told)
    parts = [
        f"{pictures:,} picture{'s' * (pictures != 1)} ({pixels:,.1f} megapixels) would be coloured"
    ]
    parts += [f"{films:,} film{'s' * (films != 1)}"] if films else []
    parts += [f"{skipped:,} have a result already"] if skipped else []
    parts += [f"{len(failures):,} would fail"] if failures else []
    say(", ".join(parts) + _estimate(colorizer, samples, settings, pixels, films > 0))
    return failures


def _estimate(
    colorizer: Colorizer, samples: list[Item], settings: BatchSettings, pixels: float, films: bool
) -> str:
    """How long all pictures would take, by colouring a few of them into a folder that is removed."""
    from gancolor.batch import dispatch
    from gancolor.batch.report import Report

    done: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="gancolor-") as folder:
        aside = [
            dataclasses.replace(item, target=Path(folder, str(number), item.target.name))
            for number, item in enumerate(samples)
        ]
        plain = dataclasses.replace(
            settings, existing="overwrite", limit=None, workers=settings.workers and 1
        )
        with Report(Path(folder)) as report:
            dispatch.run(colorizer, aside, plain, report=report, progress=done.append)
    done = [record for record in done if record.status == "done"]
    size = sum((record.width or 0) * (record.height or 0) for record in done) / 1e6
    if not size:
        return "; nothing was written"
    seconds = sum(record.seconds for record in done) / size * pixels
    words = f"; one after another in about {duration(seconds)}, by what {len(done)} of them took"
    return f"{words}{', the films apart' if films else ''}; nothing was written"


_MOST_NOTES = 40  # shown; the report has them all
_FOR_FILMS = {  # parameter -> option
    "strength": "--strength",
    "key_interval": "--key-interval",
    "codec": "--codec",
    "crf": "--crf",
    "encoder_preset": "--encoder-preset",
    "start": "--from",
    "end": "--to",
    "resume": "--resume",
}
_NOT_FOR_FILMS = {
    "keep_color": "--keep-color",
    "consensus": "--consensus",
    "variants": "--variants",
    "seed": "--seed",
    "show_confidence": "--show-confidence",
    "sheet": "--sheet",
    "format": "--format",
    "quality": "--quality",
}


def color(
    colorizer: Colorizer,
    items: Iterator[Item],
    inputs: Sequence[str],
    out: Path,
    chosen: dict[str, Any],
    typed: Sequence[str],
) -> list[str]:
    """Colour all items; returns a line for each that failed. `chosen`: all options, `typed`: which
    were given.
    """
    from gancolor.batch import dispatch, input_files
    from gancolor.batch.report import Report
    from gancolor.coloring.full_size import Look, check_able
    from gancolor.runtime import processes

    provenance = (
        f"colorized by gancolor {__version__}, model {colorizer.name}"
        if chosen["provenance"]
        else None
    )
    look = Look(
        size=chosen["size"],
        temperature=chosen["temperature"],
        upsample=chosen["upsample"],
        consensus=chosen["consensus"],
        saturation=chosen["saturation"],
        keep_color=chosen["keep_color"],
        variants=chosen["variants"],
        seed=chosen["seed"],
        confidence=chosen["show_confidence"],
    )
    check_able(colorizer.sight, temperature=look.temperature, variants=look.variants)
    settings = dispatch.BatchSettings(
        look=look,
        quality=chosen["quality"],
        format=chosen["format"],
        provenance=provenance,
        existing=(
            "skip" if chosen["skip_existing"] else "overwrite" if chosen["overwrite"] else "refuse"
        ),
        workers=chosen["workers"],
        skip_colored=chosen["skip_colored"],
        max_pixels=round(chosen["max_megapixels"] * 1e6),
        deadline=chosen["deadline"],
        limit=chosen["limit"],
        sheet=chosen["sheet"],
        keep_dates=chosen["keep_dates"],
    )
    films = _Films(colorizer, chosen, _named(typed, _NOT_FOR_FILMS), provenance)
    if chosen["dry_run"]:
        return show(colorizer, items, settings)
    leads = processes.current().leads
    shows = sys.stderr.isatty() and leads
    total = (
        input_files.count(inputs, out, chosen["exclude"])
        if processes.current().world == 1
        else None
    )
    if total is not None and chosen["limit"] is not None:
        total = min(total, chosen["limit"])
    with Report(out) as report, _bar(total, "file", shows) as bar, Lines("file", leads) as lines:
        teller = _Teller(bar, lines)
        try:
            summary = dispatch.run(
                colorizer,
                items,
                settings,
                report=report,
                progress=teller.tell,
                color_film=films.color,
            )
        except dispatch.StoppedBySignal:
            say_above(bar, f"{teller.ended} files were ended")
            raise
    if not leads:
        return []
    if not films.count and (idle := _named(typed, _FOR_FILMS)):
        say(
            f"{', '.join(idle)}: there was no film to use {'it' if len(idle) == 1 else 'them'} for",
            err=True,
        )
    total = summary.done + summary.skipped + summary.left + summary.failed
    if not total:
        raise DataError("the inputs must name files to colour, got an empty list")
    skipped = f", {summary.skipped} had a result already" if summary.skipped else ""
    left = f", {summary.left} left alone: in colour already" if summary.left else ""
    say(
        f"{summary.done} of {total} files coloured{skipped}{left}; {out / 'report.jsonl'} lists"
        " them"
    )
    more = summary.failed - len(summary.failures)
    failures = [record.error or record.source for record in summary.failures]
    return failures + ([f"and {more} more"] if more else [])


class _Teller:
    """Shows each file as it ends, above the progress bar, and counts."""

    def __init__(self, bar: tqdm[Any], lines: Lines) -> None:
        self.bar, self.lines, self.said, self.ended = bar, lines, set[str](), 0

    def tell(self, record: Record) -> None:
        """One line for each note that was not said of another file yet, as long as there are not
        too many.
        """
        self.bar.update()
        self.ended += 1
        self.lines.show("", self.ended, None if self.bar.total is None else int(self.bar.total))
        if record.error is not None and not self.bar.disable:  # else the list at the end is enough
            say_above(self.bar, f"failed: {record.error}")
        for note in record.notes:
            if note in self.said or len(self.said) > _MOST_NOTES:
                continue
            self.said.add(note)
            more = len(self.said) > _MOST_NOTES
            say_above(
                self.bar, "more notes are in report.jsonl" if more else f"{record.source}: {note}"
            )


class _Films:
    """Colours the films of a batch with one set of options, which is checked before anything is
    read.
    """

    def __init__(
        self, colorizer: Colorizer, chosen: dict[str, Any], idle: list[str], provenance: str | None
    ) -> None:
        from gancolor.video.encoding import Encoding
        from gancolor.video.film import FilmSettings

        self.colorizer, self.idle, self.count = colorizer, idle, 0
        self.skips_colored: bool = chosen["skip_colored"]
        given = {
            name: chosen[name] for name in ("strength", "key_interval") if chosen[name] is not None
        }
        self.settings = FilmSettings(
            size=chosen["size"],
            temperature=chosen["temperature"],
            saturation=chosen["saturation"],
            upsample=chosen["upsample"],
            encoding=Encoding(
                codec=chosen["codec"], quality=chosen["crf"], preset=chosen["encoder_preset"]
            ),
            start=chosen["start"],
            end=chosen["end"],
            resume=chosen["resume"],
            provenance=provenance,
            **given,
        )

    def color(self, item: Item) -> Record:
        """Colour one film, with a progress bar of its frames."""
        from gancolor.batch.report import Record
        from gancolor.batch.worker import LEFT_ALONE
        from gancolor.runtime import processes
        from gancolor.video.film import color_film, has_colors

        self.count += 1
        if self.skips_colored and has_colors(item.source):
            return Record(str(item.source), kind="film", status="left", notes=[LEFT_ALONE])
        leads = processes.current().leads
        shows = sys.stderr.isatty() and leads
        with (
            _bar(None, "frame", shows, shown(item.source.name, 60)) as bar,
            Lines("frame", leads) as lines,
        ):

            def see(done: int, total: int | None) -> None:
                lines.show(shown(item.source.name), done, total)
                bar.total = total
                bar.update(done - bar.n)

            result = color_film(
                self.colorizer, item.source, item.target, self.settings, progress=see
            )
        notes = [*result.notes, *result.damaged]
        if self.idle:
            notes.append(
                f"{', '.join(self.idle)} {'does' if len(self.idle) == 1 else 'do'} nothing for a"
                " film"
            )
        shots = f", {result.shots} shot{'s' * (result.shots != 1)}" if result.shots else ""
        frames = f"{result.frames} frame{'s' * (result.frames != 1)}"
        notes.append(f"{frames}{shots}, {result.frames / result.seconds:.1f} frames/s")
        return Record(
            source=str(item.source),
            targets=[str(item.target)],
            kind="film",
            width=result.width,
            height=result.height,
            seconds=result.seconds,
            notes=notes,
        )


def _named(typed: Sequence[str], options: dict[str, str]) -> list[str]:
    return [flag for name, flag in options.items() if name in typed]


def _bar(total: int | None, unit: str, shows: bool, title: str | None = None) -> tqdm[Any]:
    from tqdm import tqdm

    return tqdm(
        total=total,
        unit=unit,
        desc=title,
        disable=not shows,
        dynamic_ncols=True,
        leave=unit == "file",
    )
