"""How many files are coloured: each setting is declared once, with its help and bounds.

Nothing heavy is imported here, so that the command line can show its options at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gancolor import fields
from gancolor.coloring.settings import PhotographSettings
from gancolor.fields import setting
from gancolor.runtime.workers import DEADLINE

if TYPE_CHECKING:
    from gancolor.batch.mirror import Mirror

Existing = Literal["refuse", "skip", "overwrite"]
"""What becomes of a file whose result exists."""

FEW = 4
"""So many pictures are coloured sooner than a process is started for them."""


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How a batch is coloured. ConfigError, naming the option, for what is out of bounds.

    `coloring`: of each photograph. `format`: a key of `images.writer.FORMATS`, None keeps each
    file's own. `workers`: processes that read and write, 0 for none, None to decide by the cores.
    `deadline`: seconds for a file, beside those for its size (see `runtime.workers.allowed`), after
    which a process that says nothing is given up with it. `limit` does not count files that have a
    result. `existing`: what becomes of a file whose result exists. `provenance`: the note that goes
    into each file's metadata, None for none. `mirror`: where files lie that come from addresses or
    go to one, None where none does.
    """

    hints: Path | None = setting(
        None,
        "Colours that are known: a layer that is opaque where they are, or .csv or .json with"
        " x,y,#rrggbb[,radius]; or a folder of such files named like the photographs.",
    )
    mask: Path | None = setting(
        None,
        "Colour only where this picture of the photograph's shape is white, or opaque; or a folder"
        " of such pictures named like the photographs.",
    )
    reference: tuple[Path, ...] = setting(
        (),
        "Take colours from this picture where it shows the same things; or from the pictures in"
        " a folder that are named like the photographs.",
    )
    show_matches: bool = setting(
        False,
        "Write NAME-matches.png too: photograph and references side by side, with the places that"
        " show the same.",
    )
    consistent: bool = setting(
        False,
        "Colour all photographs of a folder like its first one, or like a gray --reference, which"
        " then is coloured first.",
    )
    sheet: bool = setting(
        False, "Write NAME-sheet.png too: the gray picture and all --variants side by side."
    )
    format: str | None = setting(
        None,
        "The format of the pictures that are written (default: as they came).",
        choices=("jpeg", "png", "tiff", "webp", "bmp"),
    )
    quality: int = setting(95, "The quality of JPEG and WebP files.", minimum=1, maximum=100)
    limit: int | None = setting(
        None, "Colour at most N files; with --skip-existing the next N.", minimum=1
    )
    keep_dates: bool = setting(False, "Give the results the file dates of what they were made of.")
    skip_colored: bool = setting(
        False, "Leave pictures and films alone that are in colour already."
    )
    max_megapixels: float = setting(500.0, "Refuse larger pictures.", above=0)
    workers: int | None = setting(
        None,
        "Processes that read, paint and write (default: one per core beside a GPU, at most"
        " 16, else one per 4 cores, at most 4).",
        minimum=0,
    )
    deadline: float = setting(
        DEADLINE,
        "Seconds, and one more for each megabyte of the file, after which a picture is given up.",
        above=0,
    )
    coloring: PhotographSettings = field(default_factory=PhotographSettings)
    existing: Existing = "refuse"
    provenance: str | None = None
    mirror: Mirror | None = None

    def __post_init__(self) -> None:
        fields.check(self)

    @property
    def partners(self) -> dict[str, Path]:
        """The files or folders that go with photographs, by their options."""
        given = {"--hints": self.hints, "--mask": self.mask}
        return {flag: path for flag, path in given.items() if path is not None}

    @property
    def refers(self) -> bool:
        """Whether photographs get colours of other pictures."""
        return bool(self.reference) or self.consistent

    @property
    def max_pixels(self) -> int:
        """Photographs with more pixels are refused."""
        return round(self.max_megapixels * 1e6)
