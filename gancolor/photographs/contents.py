"""What a photograph's file holds beside its pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What travels with a photograph unchanged.

    `exif`: an EXIF block without the leading 'Exif\\0\\0', its orientation reset to upright. `xmp`: an XMP packet.
    `dpi`: pixels per inch, horizontally and vertically. `iptc`: Photoshop's image resources ("8BIM" and so on, without
    JPEG's "Photoshop 3.0\\0"), among them the IPTC record as resource 1028, where scans have their captions. `comment`:
    the file's comment as it has it, mostly UTF-8 or Latin-1.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    iptc: bytes | None = None
    comment: bytes | None = None


@dataclass(kw_only=True)
class Photograph:
    """A picture file's content, upright and in sRGB.

    `pixels`: (H, W) gray or (H, W, 3) red, green, blue; uint8, uint16, or float32 in [0, 1], encoded as sRGB is.
    `alpha`: (H, W) of the same type, or None. `format`: JPEG, PNG, TIFF, WEBP, BMP, GIF, HEIC or AVIF.
    `notes`: what the user should know of this file, a sentence each ("the first of 3 pages").
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "PNG"
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]
