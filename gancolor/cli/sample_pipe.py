"""`gancolor sample - --raw`: a film from standard input to standard output; all that is said goes to
standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from gancolor import fields
from gancolor.cli.options import chosen_of, refuse_torchrun, say
from gancolor.cli.progress import ProgressDisplay
from gancolor.coloring.settings import ColoringSettings
from gancolor.errors import ConfigError
from gancolor.runtime.stderr import stdout_kept
from gancolor.video.film_settings import FilmSettings, PipeSettings
from gancolor.video.pipe import PipeReader, PipeWriter, written_format

if TYPE_CHECKING:
    from gancolor.coloring.colorizer import Colorizer

_MODEL = ("inputs", "runs", "runs_root", "device", "precision")
_OF_FILMS = ("strength", "key_interval")


class Pipe(NamedTuple):
    """The ends of a pipe: frames in, frames out."""

    reader: PipeReader
    writer: PipeWriter


def check(inputs: tuple[str, ...], typed: Mapping[str, str], chosen: Mapping[str, Any]) -> None:
    """ConfigError for options that do nothing for a pipe; `typed`: flags by their parameters."""
    settings = PipeSettings(**chosen_of(PipeSettings, chosen))
    if settings.raw is None:
        return
    if inputs != ("-",):
        raise ConfigError(
            f"--raw must be used with - alone as INPUT, got {' '.join(inputs) or 'none'}; it reads"
            " standard input"
        )
    known = (*_MODEL, *_OF_FILMS, *_parameters(ColoringSettings), *_parameters(PipeSettings))
    for name, flag in typed.items():
        if name == "out":
            raise ConfigError("--out must be left out with --raw, which writes to standard output")
        if name not in known:
            raise ConfigError(
                f"{flag} must be left out with --raw, got both; it does nothing there"
            )
    refuse_torchrun("gancolor sample --raw")


@contextmanager
def opened(chosen: Mapping[str, Any]) -> Iterator[Pipe]:
    """Standard input and output as a pipe; what is printed in here goes to standard error.

    Waits for a Y4M header. ConfigError where a terminal is at an end.
    """
    settings = PipeSettings(**chosen_of(PipeSettings, chosen))
    for stream, name, way in (
        (sys.stdin, "input", "give it frames: ffmpeg ... |"),
        (sys.stdout, "output", "give it a reader or a file: | ffmpeg ..."),
    ):
        if stream is None:
            raise ConfigError(
                f"standard {name} must be a pipe or a file with --raw, got none; {way}"
            )
        if stream.isatty():
            raise ConfigError(
                f"standard {name} must be a pipe or a file with --raw, got a terminal; {way}"
            )
    with stdout_kept() as output:
        reader = PipeReader(0, settings)
        writer = PipeWriter(output, written_format(reader.format, settings))
        say(f"{reader.format.words()} in, {writer.format.words()} out", err=True)
        yield Pipe(reader, writer)


def color(colorizer: Colorizer, pipe: Pipe, chosen: Mapping[str, Any]) -> None:
    """Colour what comes, until it ends. Raises what `streaming.color_stream` does."""
    from gancolor.runtime.signals import Stopper
    from gancolor.video import streaming

    names = (*fields.declared(ColoringSettings), *_OF_FILMS)
    settings = FilmSettings(
        **{k: v for k, v in chosen_of(FilmSettings, chosen).items() if k in names}
    )
    with (
        Stopper("the pipe ends here").listening() as stopper,
        ProgressDisplay("frame") as progress,
        stopper.open(),
    ):
        result = streaming.color_stream(
            colorizer,
            pipe.reader,
            pipe.writer,
            settings,
            progress=lambda done, total: progress.show("", done, total),
        )
    for note in result.notes:
        say(note, err=True)
    shots = f", {result.shots} shot{'s' * (result.shots != 1)}" if result.shots else ""
    speed = result.frames / max(result.seconds, 1e-9)
    frames = f"{result.frames} frame{'s' * (result.frames != 1)} coloured"
    say(f"{frames}{shots}, {speed:.1f} frames/s", err=True)


def _parameters(owner: type) -> list[str]:
    """The parameters of the options of a dataclass's settings."""
    return [fields.flag_of(owner, name)[2:].replace("-", "_") for name in fields.declared(owner)]
