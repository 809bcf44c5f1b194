"""`gancolor sample` on files: what becomes of each, shown as it goes, or only what would be done."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancolor import __version__, fields
from gancolor.batch.batch_settings import BatchSettings
from gancolor.cli.options import chosen_of, leads, say
from gancolor.cli.progress import ProgressDisplay, duration
from gancolor.coloring.settings import ColoringSettings, PhotographSettings
from gancolor.errors import ConfigError, DataError, GancolorError, shown
from gancolor.video.film_settings import EncoderSettings, FilmSettings

if TYPE_CHECKING:
    from gancolor.batch.input_files import Item
    from gancolor.batch.mirror import Mirror
    from gancolor.batch.records import Record, Summary
    from gancolor.batch.station import Station
    from gancolor.coloring.colorizer import Colorizer
    from gancolor.hub.choice import Choice
    from gancolor.runtime.cluster import Cluster
    from gancolor.runtime.files import Progress

_SAMPLES = 3  # pictures that are coloured to see how long it takes
_MOST_NOTES = 40  # shown; the report has them all


def _flags(*owners: type, but: type | None = None) -> tuple[str, ...]:
    """The options of the settings of some dataclasses, without those of another."""
    known = [] if but is None else _flags(but)
    flags = [fields.flag_of(owner, name) for owner in owners for name in fields.declared(owner)]
    return tuple(flag for flag in flags if flag not in known)


_FOR_FILMS = _flags(FilmSettings, EncoderSettings, but=ColoringSettings)
_FOR_PHOTOGRAPHS = (
    *_flags(PhotographSettings, but=ColoringSettings),
    *("--show-matches", "--consistent", "--sheet", "--format", "--quality"),
)


def color(
    colorizer: Colorizer,
    items: Iterator[Item],
    inputs: Sequence[str],
    out: Path,
    chosen: dict[str, Any],
    typed: Collection[str],
    mirror: Mirror | None,
    models: Sequence[Choice],
) -> list[str]:
    """Colour all items; returns a line for each that failed.

    `chosen`: all options by their parameters. `typed`: the flags that were given. `mirror`: where
    files lie that come from addresses or go to one. `models`: what the colorizer is made of.
    """
    from gancolor.batch import dispatch, input_files
    from gancolor.batch.films import Films
    from gancolor.batch.records import Report
    from gancolor.batch.sent_report import SentReport
    from gancolor.batch.station import Station
    from gancolor.runtime import processes
    from gancolor.runtime.signals import StoppedBySignal

    settings, of_films = _settings(colorizer, chosen, mirror)
    if chosen["dry_run"]:
        return _preview(colorizer, items, settings, of_films.keys)
    total = None
    if processes.current().world == 1 and mirror is None:
        total = input_files.count(inputs, out, chosen["exclude"])
    if total is not None and settings.limit is not None:
        total = min(total, settings.limit)
    idle = [flag for flag in _FOR_PHOTOGRAPHS if flag in typed]
    team = Films(colorizer, of_films, _shown_film, settings.skip_colored, idle, mirror)
    with (
        _cluster(chosen["ray"], inputs, out, settings, of_films.keys, models) as cluster,
        Report(out) if mirror is None else SentReport(out, mirror) as report,
        ProgressDisplay("file", speaks=leads(), stays=True) as progress,
    ):
        teller = _Teller(progress, total, mirror)
        told: dict[str, Any] = {"report": report, "progress": teller.tell}
        try:
            if cluster is None:
                summary = dispatch.run(colorizer, items, settings, team=team, **told)
            else:
                station = Station(
                    tuple(models),
                    *(chosen["device"], chosen["precision"], settings, of_films),
                    tuple(idle),
                )
                summary = _run_on(cluster, station, items, told)
        except StoppedBySignal:
            progress.say(f"{teller.ended} files were ended")
            raise
    if mirror is not None:
        mirror.sweep(whole=leads() and not summary.failed)
    if not leads():
        return []
    if not teller.films and (idle := [flag for flag in _FOR_FILMS if flag in typed]):
        them = "it" if len(idle) == 1 else "them"
        say(f"{', '.join(idle)}: there was no film to use {them} for", err=True)
    return _say_end(summary, out, mirror)


def _settings(
    colorizer: Colorizer, chosen: dict[str, Any], mirror: Mirror | None
) -> tuple[BatchSettings, FilmSettings]:
    """What the options say. ConfigError for what the model cannot do."""
    from gancolor.coloring import references
    from gancolor.coloring.full_size import check_able
    from gancolor.video.encoding import Encoding

    provenance = _provenance(colorizer, chosen)
    coloring = PhotographSettings(**chosen_of(PhotographSettings, chosen))
    check_able(colorizer.sight, temperature=coloring.temperature, variants=coloring.variants)
    if chosen["hints"] is not None and not colorizer.sight.hints:
        raise ConfigError(
            f"--hints must be left out with a model that takes none, got {colorizer.name}; use a run"
            " trained with --hints"
        )
    settings = BatchSettings(
        **chosen_of(BatchSettings, chosen),
        coloring=coloring,
        existing=(
            "skip" if chosen["skip_existing"] else "overwrite" if chosen["overwrite"] else "refuse"
        ),
        provenance=provenance,
        mirror=mirror,
    )
    if settings.refers:
        references.check_able(
            colorizer.sight, "--reference" if settings.reference else "--consistent"
        )
    of_films = FilmSettings(
        **chosen_of(FilmSettings, chosen),
        encoding=Encoding(**chosen_of(EncoderSettings, chosen)),
        provenance=provenance,
    )
    return settings, of_films


@contextlib.contextmanager
def _shown_film(item: Item) -> Iterator[Progress]:
    """A line that tells how far a film has come."""
    name = shown(item.source.name, 60)
    with ProgressDisplay("frame", speaks=leads()) as progress:
        yield lambda done, frames: progress.show(name, done, frames)


def _run_on(
    cluster: Cluster, station: Station, items: Iterator[Item], told: dict[str, Any]
) -> Summary:
    """Colour all items on a Ray cluster."""
    from gancolor.batch import dispatch

    gpus = int(station.device != "cpu" and cluster.has_gpus())
    return dispatch.run_elsewhere(
        lambda chunks: cluster.spread(station, chunks, gpus=gpus),
        items,
        station.settings,
        # Shots that are finished stay, for other key frames.
        resume=station.films.resume or station.films.keys is not None,
        room=lambda: cluster.room(gpus),
        **told,
    )


def _say_end(summary: Summary, out: Path, mirror: Mirror | None) -> list[str]:
    """Say what became of the files; returns a line for each that failed. DataError if there was none."""
    total = summary.done + summary.skipped + summary.left + summary.failed
    if not total:
        raise DataError("the inputs must name files to colour, got an empty list")
    skipped = f", {summary.skipped} had a result already" if summary.skipped else ""
    left = f", {summary.left} left alone: in colour already" if summary.left else ""
    listing = str(out / "report.jsonl")
    failures = [record.error or record.source for record in summary.failures]
    if mirror is not None:
        listing, *failures = map(mirror.told, [listing, *failures])
    say(f"{summary.done} of {total} files coloured{skipped}{left}; {listing} lists them")
    more = summary.failed - len(summary.failures)
    return failures + ([f"and {more} more"] if more else [])


@contextlib.contextmanager
def _cluster(
    address: str | None,
    inputs: Sequence[str],
    out: Path,
    settings: BatchSettings,
    keys: Path | None,
    models: Sequence[Choice],
) -> Iterator[Cluster | None]:
    """The Ray cluster at an address, all of whose machines see the files; None for no address."""
    if address is None:
        yield None
        return
    from gancolor.hub import choice
    from gancolor.runtime.cluster import Cluster

    seen = [("INPUT", Path(name)) for name in inputs if os.path.lexists(name)]
    seen += settings.partners.items()
    seen += (("--reference", path) for path in settings.reference)
    seen += [("--keys", keys)] if keys is not None else []
    seen += (("--run", model.path) for model in models if model.name != choice.GENERAL)
    with Cluster(address) as cluster:
        sent = settings.mirror is not None and settings.mirror.out is not None
        cluster.check(seen, None if sent else out)
        yield cluster


def export_keys(colorizer: Colorizer, film: Path, chosen: dict[str, Any]) -> None:
    """Write a film's key frames as the options `chosen` say, and say what was written."""
    from gancolor.video import key_export

    folder: Path = chosen["export_keys"]
    settings = FilmSettings(
        **chosen_of(FilmSettings, chosen), provenance=_provenance(colorizer, chosen)
    )
    name = shown(film.name, 60)
    with ProgressDisplay("frame") as progress:
        made = key_export.export_keys(
            colorizer,
            film,
            folder,
            settings,
            progress=lambda done, frames: progress.show(name, done, frames),
        )
    for note in [*made.notes, *made.damaged]:
        say(f"{shown(film)}: {note}", err=True)
    shots = f" in {made.shots} shot{'s' * (made.shots != 1)}" if made.shots else ""
    say(
        f"{made.keys} key frames of {made.frames} frames{shots} written to {shown(folder)}"
        f" ({made.bytes / 1e6:,.1f} MB)"
    )


def _provenance(colorizer: Colorizer, chosen: dict[str, Any]) -> str | None:
    """The note that goes into each file's metadata."""
    if not chosen["provenance"]:
        return None
    return f"colorized by gancolor {__version__}, model {colorizer.name}"


class _Teller:
    """Shows each file as it ends, and counts."""

    def __init__(self, progress: ProgressDisplay, total: int | None, mirror: Mirror | None) -> None:
        self.progress, self.total, self.mirror = progress, total, mirror
        self.said, self.ended, self.films = set[str](), 0, 0
        progress.show("", 0, total)

    def tell(self, record: Record) -> None:
        """One line for each note that was not said of another file yet, as long as there are not
        too many.
        """
        record = record if self.mirror is None else self.mirror.renamed(record)
        self.ended += 1
        self.films += record.kind == "film" and record.status != "skipped"
        self.progress.show("", self.ended, self.total)
        if record.error is not None and self.progress.has_bar:  # else the list at the end will do
            self.progress.say(f"failed: {record.error}")
        for note in record.notes:
            if note in self.said or len(self.said) > _MOST_NOTES:
                continue
            self.said.add(note)
            more = len(self.said) > _MOST_NOTES
            self.progress.say(
                "more notes are in report.jsonl" if more else f"{record.source}: {note}"
            )


def _preview(
    colorizer: Colorizer, items: Iterator[Item], settings: BatchSettings, keys: Path | None
) -> list[str]:
    """Print what would become of each file; returns a line for each that would fail. Nothing is
    kept, and nothing fetched. `keys`: the folder of a film's key frames.
    """
    from gancolor.batch import dispatch, exemplars, worker
    from gancolor.images import reader

    told: list[Record] = []
    samples: list[Item] = []
    rng = random.Random(0)
    pictures, films, unseen, pixels = 0, 0, 0, 0.0

    def say_line(text: str) -> None:
        say(text if settings.mirror is None else settings.mirror.told(text))

    for item in dispatch.preview(items, settings, told.append):
        targets = ", ".join(shown(target) for target in worker.targets(item, settings))
        if item.origin is not None and not item.film:
            unseen += 1
            say_line(f"{shown(item.source)} -> {targets}")
            continue
        if item.film:
            try:
                _check_keys(keys, item)
            except GancolorError as error:
                told.append(dispatch.failed(item, str(error)))
                continue
            films += 1
            say_line(f"{shown(item.source)} -> {targets} (a film)")
            continue
        try:
            width, height, _ = reader.probe(item.source, max_pixels=settings.max_pixels)
            found = worker.check_partners(item, settings)
            colors = exemplars.files(item, settings)
        except (ConfigError, DataError) as error:
            told.append(dispatch.failed(item, str(error)))
            continue
        pictures, pixels = pictures + 1, pixels + width * height / 1e6
        beside = "".join(
            f", {flag[2:]} {'none' if path is None else shown(path)}"
            for flag, path in found.items()
        )
        if settings.reference:
            beside += f", reference {', '.join(map(shown, colors)) or 'none'}"
        elif item.series and item.series[0].source != item.source:
            beside += f", like {shown(item.series[0].source)}"
        say_line(f"{shown(item.source)} -> {targets} ({width}x{height}{beside})")
        place = len(samples) if len(samples) < _SAMPLES else rng.randrange(pictures)
        if place < _SAMPLES:
            samples[place : place + 1] = [item]
    failures = [record.error or record.source for record in told if record.status == "failed"]
    if settings.mirror is not None:
        failures = list(map(settings.mirror.told, failures))
    skipped = sum(record.status == "skipped" for record in told)
    parts = [
        f"{pictures:,} picture{'s' * (pictures != 1)} ({pixels:,.1f} megapixels) would be coloured"
    ]
    parts += [f"{unseen:,} at addresses, which were not looked into"] if unseen else []
    parts += [f"{films:,} film{'s' * (films != 1)}"] if films else []
    parts += [f"{skipped:,} have a result already"] if skipped else []
    parts += [f"{len(failures):,} would fail"] if failures else []
    say(", ".join(parts) + _estimate(colorizer, samples, settings, pixels, films > 0))
    return failures


def _check_keys(keys: Path | None, film: Item) -> None:
    """Raise what is wrong with the key frames of a film, as far as it is seen at a glance."""
    if keys is not None:
        from gancolor.video import key_frames
        from gancolor.video.probe import probe

        info = probe(film.source)
        for file in key_frames.key_files(keys)[0]:
            key_frames.check_file(file, info)


def _estimate(
    colorizer: Colorizer, samples: list[Item], settings: BatchSettings, pixels: float, films: bool
) -> str:
    """How long all pictures would take, by colouring a few of them into a folder that is removed."""
    from gancolor.batch import dispatch
    from gancolor.batch.records import Report

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
