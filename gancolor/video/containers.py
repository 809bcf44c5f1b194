"""The containers that films are written to, and the way round by which Matroska gets the sound of Windows."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancolor.video.opening import address, load_av

if TYPE_CHECKING:
    from av.container import OutputContainer

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi", ".webm": "webm"}
REPEATABLE = "+bitexact"  # no random numbers and no version of FFmpeg in the file

_KEPT: dict[str, Any] = {"metadata_errors": "surrogateescape"}


@contextmanager
def open_output(path: Path, kind: str, options: Mapping[str, str], *, teed: bool) -> Iterator[OutputContainer]:
    """Open a container of this `kind` to write, with the muxer's `options`; `teed`: through FFmpeg's `tee`."""
    av, options = load_av(), {"fflags": REPEATABLE, **options}
    if teed:
        said = ":".join(f"{key}={value}" for key, value in options.items())
        output = av.open(_tee_address(kind, address(path), said), "w", format="tee", **_KEPT)
    else:
        output = av.open(address(path), "w", format=kind, container_options=dict(options), **_KEPT)
    try:
        yield output
    finally:
        _close_quietly(output)


@contextmanager
def trial(kind: str, *, teed: bool = False) -> Iterator[OutputContainer]:
    """A container that is written to nowhere."""
    av = load_av()
    if teed:
        output = av.open(_tee_address(kind, address(Path(os.devnull)), f"fflags={REPEATABLE}"), "w", format="tee")
    else:
        output = av.open(io.BytesIO(), "w", format=kind, **_KEPT)
    try:
        yield output
    finally:
        _close_quietly(output)


def _tee_address(kind: str, path: str, options: str) -> str:
    """Return the name under which FFmpeg's `tee` writes one file."""
    escaped = "".join(f"\\{letter}" if letter in "\\'|[] \t" else letter for letter in path)
    return f"[f={kind}:{options}]{escaped}"


def _close_quietly(output: OutputContainer) -> None:
    with suppress(Exception):
        output.close()
