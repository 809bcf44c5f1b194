"""How films are coloured and encoded: each setting is declared once, with its help and bounds.

Nothing heavy is imported here, so that the command line can show its options at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gancolor import fields
from gancolor.coloring.settings import ColoringSettings
from gancolor.errors import ConfigError, shown
from gancolor.fields import setting

if TYPE_CHECKING:
    from gancolor.video.encoding import Encoding

RAW_PIXELS = {
    "gray": ("gray", 8),
    "gray10le": ("gray", 10),
    "gray12le": ("gray", 12),
    "gray16le": ("gray", 16),
    "yuv420p": ("420", 8),
    "yuv420p10le": ("420", 10),
    "yuv420p12le": ("420", 12),
    "yuv420p16le": ("420", 16),
    "rgb24": ("rgb", 8),
}
"""FFmpeg's names of the pixels that raw frames may have: how they are laid out, and their bits."""

_MOST_SIDE = 32767  # pixels: OpenCV's bound
_MOST_RATE = 1000  # frames a second


@dataclass(frozen=True)
class EncoderSettings:
    """What can be chosen of a film's encoder; see `encoding.Encoding`."""

    codec: str = setting("auto", "How the frames are encoded: auto, libx264, ffv1, ...")
    quality: int | None = setting(
        None,
        "The encoder's quality, lower is better.",
        minimum=0,
        maximum=63,
        flag="--crf",
    )
    preset: str | None = setting(
        None,
        "The encoder's own speed preset, for example fast or slow.",
        flag="--encoder-preset",
    )


@dataclass(frozen=True, kw_only=True)
class FilmSettings(ColoringSettings):
    """How a film is coloured. ConfigError, naming the option, for what is out of bounds.

    `strength` and `key_interval`: see `propagation.Stabilizer`. `start`, `end`: the part of the
    film to take, in seconds. `keys`: see `key_frames`. `resume`: go on behind the whole parts that
    a stopped run left; with `keys` that is done anyway.
    `by_shots`: make shots by themselves, as with `keys`, which may follow: what is made stays for
    them. `encoding`: None is chosen by the file.
    `provenance`: a sentence for the film's metadata.
    """

    strength: float = setting(
        0.8,
        "How much colour is carried along the motion (0: frame by frame).",
        minimum=0,
        maximum=1,
    )
    key_interval: int = setting(
        6, "The network sees every N-th frame, and the first of each shot.", minimum=1
    )
    start: float | None = setting(
        None, "Begin here, for example 90 or 1:30.", minimum=0, flag="--from"
    )
    end: float | None = setting(None, "End here.", minimum=0, flag="--to")
    keys: Path | None = setting(
        None,
        "Folder of frames with your own colours (see --export-keys), which are carried"
        " through their shots. What was made before stays where these did not change.",
    )
    resume: bool = setting(False, "Go on where a stopped run of the same command ended.")
    by_shots: bool = False
    encoding: Encoding | None = None
    provenance: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keys is not None and self.strength == 0:
            raise ConfigError(
                "--strength must be above 0 with --keys, whose colours are carried, got 0"
            )
        if self.end is not None and not self.end > (self.start or 0):
            raise ConfigError(f"--to must be behind --from ({self.start or 0:g} s), got {self.end}")


class RawSize(NamedTuple):
    """What `--raw WxH@RATE` says of raw frames: their size, and how many come a second."""

    width: int
    height: int
    rate: Fraction | None


@dataclass(frozen=True)
class PipeSettings:
    """How a film comes on standard input and goes to standard output. ConfigError, naming the
    option, for what cannot be.
    """

    raw: str | None = setting(
        None,
        "Read a film's frames from standard input (- as INPUT) and write the coloured ones to"
        " standard output: y4m, or raw frames of a size and rate, such as 640x480@25.",
    )
    raw_pixels: str | None = setting(
        None,
        "Pixels of the raw frames that come in, as FFmpeg's -pix_fmt calls them (default: gray).",
        choices=tuple(RAW_PIXELS),
    )
    raw_out: str | None = setting(
        None,
        "Frames that go out: y4m, or without a header planar yuv (yuv420p, yuv420p10le, ...) or"
        " packed rgb (rgb24, rgb48le of more than 8 bits) (default: as they came, and rgb for"
        " gray).",
        choices=("y4m", "yuv", "rgb"),
    )
    raw_range: str | None = setting(
        None,
        "Where black and white lie in luma that does not say it: at 16 and 235 or at 0 and 255, in"
        " 8 bits (default: full for gray, else limited).",
        choices=("limited", "full"),
    )

    def __post_init__(self) -> None:
        fields.check(self)
        if self.raw is None:
            for name in ("raw_pixels", "raw_out", "raw_range"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{fields.flag_of(PipeSettings, name)} must be used with --raw, got none;"
                        " add --raw y4m or --raw 640x480@25"
                    )
            return
        size = self.size
        if size is None and self.raw_pixels is not None:
            raise ConfigError(
                f"--raw-pixels must be left out with --raw y4m, got {self.raw_pixels}; Y4M says it"
                " in its header"
            )
        if size is not None and size.rate is None and self.raw_out == "y4m":
            raise ConfigError(
                f"--raw must say the rate for --raw-out y4m, got {self.raw}; for example"
                f" {self.raw}@25"
            )
        if self.raw_range is not None and self.raw_pixels == "rgb24":
            raise ConfigError(
                f"--raw-range must be left out with --raw-pixels rgb24, got {self.raw_range}; RGB"
                " is always full"
            )

    @property
    def size(self) -> RawSize | None:
        """What `raw` says of raw frames; None for Y4M. ConfigError for other words."""
        if self.raw is None or self.raw == "y4m":
            return None
        found = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})(?:@([0-9./:]{1,30}))?", self.raw)
        width, height = (int(found[1]), int(found[2])) if found else (0, 0)
        if found is None or not (0 < width <= _MOST_SIDE and 0 < height <= _MOST_SIDE):
            raise ConfigError(
                "--raw must be y4m, or the size of raw frames with sides of 1 to"
                f" {_MOST_SIDE} pixels and their rate, such as 640x480@25, got {shown(self.raw)}"
            )
        return RawSize(width, height, None if found[3] is None else _rate(found[3]))


def _rate(words: str) -> Fraction:
    """Frames a second, as 25, 23.976, 30000/1001 or 30000:1001. ConfigError for others."""
    try:
        rate = Fraction(words.replace(":", "/"))
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= _MOST_RATE:
        raise ConfigError(
            f"--raw must have a rate above 0 and at most {_MOST_RATE}, such as 25 or 30000/1001, got"
            f" {shown(words)}"
        )
    return rate
