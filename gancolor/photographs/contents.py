"""What a photograph's file holds beside its pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray


class Text(NamedTuple):
    """A text of a PNG file: its chunk's kind (tEXt, zTXt or iTXt) and data, whose keyword ends at the first NUL."""

    kind: bytes
    data: bytes

    @property
    def keyword(self) -> str:
        """What the text is called: Title, Author, ..."""
        return self.data.partition(b"\0")[0].decode("latin-1")


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What travels with a photograph unchanged.

    `exif`: an EXIF block without the leading 'Exif\\0\\0', its orientation reset to upright. `xmp`: an XMP packet.
    `dpi`: pixels per inch, horizontally and vertically. `iptc`: Photoshop's image resources ("8BIM" and so on, without
    JPEG's "Photoshop 3.0\\0"), among them the IPTC record as resource 1028, where scans have their captions. `comment`:
    the file's comment as it has it, mostly UTF-8 or Latin-1. `texts`: a PNG file's other texts.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    texts: tuple[Text, ...] = ()


@dataclass(kw_only=True)
class Photograph:
    """A picture file's content, upright and in sRGB.

    `pixels`: (H, W) gray or (H, W, 3) red, green, blue; uint8, uint16, or float32 in [0, 1], encoded as sRGB is.
    `alpha`: (H, W) of the same type, or None. `format`: a title of `kinds.KINDS` (JPEG, PNG, ...). `lossless`: a WebP
    file without loss. `damage`: what is broken in it although it could be read, or "". `notes`: what the user should
    know of this file, a sentence each ("the first of 3 pages"), the damage among them.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "PNG"
    lossless: bool = False
    damage: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]
