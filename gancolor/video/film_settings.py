"""How films are coloured and encoded: each setting is declared once, with its help and bounds.

Nothing heavy is imported here, so that the command line can show its options at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gancolor.coloring.settings import ColoringSettings
from gancolor.errors import ConfigError
from gancolor.fields import setting

if TYPE_CHECKING:
    from gancolor.video.encoding import Encoding


@dataclass(frozen=True)
class EncoderSettings:
    """What can be chosen of a film's encoder; see `encoding.Encoding`."""

    codec: str = setting("auto", "Of a film's pictures: auto, libx264, ffv1, ...")
    quality: int | None = setting(
        None,
        "Of a film: the encoder's quality, lower is better.",
        minimum=0,
        maximum=63,
        flag="--crf",
    )
    preset: str | None = setting(
        None,
        "Of a film: the encoder's own speed preset, for example fast or slow.",
        flag="--encoder-preset",
    )


@dataclass(frozen=True, kw_only=True)
class FilmSettings(ColoringSettings):
    """How a film is coloured. ConfigError, naming the option, for what is out of bounds.

    `strength` and `key_interval`: see `propagation.Stabilizer`. `start`, `end`: the part of the
    film to take, in seconds. `resume`: go on behind the whole parts that a stopped run left.
    `encoding`: None is chosen by the file.
    `provenance`: a sentence for the film's metadata.
    """

    strength: float = setting(
        0.8,
        "Of a film: how much colour is carried along the motion (0: frame by frame).",
        minimum=0,
        maximum=1,
    )
    key_interval: int = setting(
        6, "Of a film: the network sees every N-th frame, and each shot's first.", minimum=1
    )
    start: float | None = setting(
        None, "Of a film: begin here, for example 90 or 1:30.", minimum=0, flag="--from"
    )
    end: float | None = setting(None, "Of a film: end here.", minimum=0, flag="--to")
    resume: bool = setting(False, "Of a film: go on where a stopped run of the same command ended.")
    encoding: Encoding | None = None
    provenance: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end is not None and not self.end > (self.start or 0):
            raise ConfigError(f"--to must be behind --from ({self.start or 0:g} s), got {self.end}")
