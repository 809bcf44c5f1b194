"""Results that a visitor of the page saves: photographs at their full size, in their own format and
depth, by the code of `gancolor sample`; and files that its options read.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import ConfigError
from gancolor.images import arrays, reader, writer
from gancolor.images.photograph import Photograph
from gancolor.images.pixels import convert
from gancolor.server import editing, picture_tasks
from gancolor.server.editing import Edit
from gancolor.server.line import Ticket
from gancolor.server.picture_tasks import ColoredFile
from gancolor.server.sessions import OpenPicture
from gancolor.server.uploads import Upload
from gancolor.server.wording import say

MOST_SHOWN = 24_000_000
"""Pixels of a photograph that is shown at its full size in the browser."""


def color(
    colorizer: Colorizer, picture: OpenPicture, max_pixels: int, ticket: Ticket
) -> ColoredFile:
    """Colour a photograph as its visitor has told. Problem for what cannot be done; the file lies in
    the ticket's folder.
    """
    edit = picture.history.present
    options: dict[str, Any] = {"saturation": edit.saturation}
    if edit.hints:
        options["hints"] = json.loads(editing.text_of(edit.hints))
    files = {
        "picture": [picture.path],
        "reference": [path for path, _ in picture.references],
    }
    if edit.region is not None or edit.sweeps:
        width, height, _ = reader.probe(picture.path)
        files["mask"] = [save_mask(edit, height, width, ticket.folder / "mask.png")]
    return picture_tasks.color(
        colorizer, Upload(files=files), options, max_pixels, ticket, only=edit.variant
    )


def save(
    colorizer: Colorizer, picture: OpenPicture, folder: Path, max_pixels: int, ticket: Ticket
) -> tuple[Path, list[str]]:
    """Colour a photograph into a folder, as NAME-colored; returns the file, and notes."""
    done = color(colorizer, picture, max_pixels, ticket)
    target = folder / f"{Path(picture.name).stem}-colored{done.path.suffix}"
    shutil.move(done.path, target)
    return target, done.notes


def save_hints(edit: Edit, path: Path) -> Path:
    """Write the hints as `--hints` reads them. ConfigError when there are none."""
    if not edit.hints:
        raise ConfigError(say("no_hints"))
    path.write_text(editing.text_of(edit.hints), encoding="utf-8")
    return path


def save_mask(edit: Edit, height: int, width: int, path: Path) -> Path:
    """Write where to colour as `--mask` reads it. ConfigError when it is everywhere."""
    if (mask := edit.mask(height, width)) is None:
        raise ConfigError(say("no_region"))
    whole = np.repeat(mask[..., None], 3, 2)
    writer.write(path, whole, Photograph(pixels=np.empty((0, 0))), format="png")
    return path


def pack(files: Sequence[Path], path: Path) -> Path:
    """Put files into a ZIP archive, those of one name with numbers."""
    names: dict[str, int] = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            names[file.name] = number = names.get(file.name, 0) + 1
            archive.write(file, file.name if number == 1 else f"{file.stem}-{number}{file.suffix}")
    return path


def check_showable(picture: OpenPicture) -> None:
    """ConfigError for a photograph that is larger than a browser should hold."""
    width, height, _ = reader.probe(picture.path)
    if width * height > MOST_SHOWN:
        most = f"{MOST_SHOWN / 1e6:g}"
        raise ConfigError(say("large_picture", most=most, width=width, height=height))


def shown_at_full_size(
    colorizer: Colorizer, picture: OpenPicture, max_pixels: int, ticket: Ticket
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.uint8]]]:
    """The photograph and its result at full size, uint8 (H, W, 3)."""
    done = color(colorizer, picture, max_pixels, ticket)
    before = convert(reader.read(picture.path, max_pixels=max_pixels).pixels, np.uint8)
    if before.ndim == 2:
        before = np.repeat(before[..., None], 3, 2)
    return before, arrays.read_rgb(done.path)
