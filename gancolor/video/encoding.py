"""How a film is encoded: codecs, their quality and effort, and which file holds which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2

from gancolor.errors import ConfigError

X26_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
NUMBERS = {"libsvtav1": 13, "libvpx-vp9": 8}  # presets are whole numbers from 0 (slow) to this
AVX2, AVX_512F = 11, 13  # OpenCV's numbers of what a processor can do


@dataclass(frozen=True)
class Codec:
    """`quality`: the default, visually lossless, out of 0..`worst` (0 is best); None where there is nothing to choose.
    `preset`: the default effort.
    """

    quality: int | None
    worst: int
    preset: str | None


CODECS = {
    "libx264": Codec(17, 51, "faster"),
    "libx265": Codec(18, 51, "fast"),
    "libsvtav1": Codec(20, 63, "7"),
    "libvpx-vp9": Codec(18, 63, "5"),
    "ffv1": Codec(None, 0, None),
    "prores_ks": Codec(None, 0, None),
}
CONTAINERS = {
    ".mp4": ("libx264", "libx265", "libsvtav1", "libvpx-vp9"),
    ".m4v": ("libx264", "libx265"),
    ".mov": ("libx264", "libx265", "prores_ks"),
    ".mkv": ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1", "prores_ks"),
    ".avi": ("libx264", "ffv1"),
    ".webm": ("libvpx-vp9", "libsvtav1"),
}
"""Suffixes of the films that can be written, with their codecs, what "auto" takes first."""


@dataclass(frozen=True)
class Encoding:
    """Settings of the encoder. ConfigError if a value is unknown to the codec.

    `codec`: a name of CODECS, or auto: by the file (see CONTAINERS). `quality`: the codec's constant rate factor, lower
    is better; None is visually lossless. `preset`: effort, of libx264 and libx265 a word from ultrafast to veryslow, of
    libsvtav1 and libvpx-vp9 a number; None is the default. `reordered`: frames may be stored out of order, which is
    smaller (`resolved` turns it off for AVI, which has no times for it).
    """

    codec: str = "auto"
    quality: int | None = None
    preset: str | None = None
    reordered: bool = True

    def __post_init__(self) -> None:
        if self.codec == "auto":
            return
        if self.codec not in CODECS:
            raise ConfigError(f"codec must be one of auto {' '.join(CODECS)}, got {self.codec}")
        codec = CODECS[self.codec]
        if self.quality is not None:
            if codec.quality is None:
                raise ConfigError(f"quality of {self.codec} cannot be chosen, got {self.quality}; leave it out")
            if not 0 <= self.quality <= codec.worst:
                raise ConfigError(
                    f"quality of {self.codec} must be 0 (best) to {codec.worst}, got {self.quality}; "
                    f"{codec.quality} is visually lossless"
                )
        if self.preset is not None:
            self._check_preset(codec)

    def _check_preset(self, codec: Codec) -> None:
        if codec.preset is None:
            raise ConfigError(f"preset of {self.codec} cannot be chosen, got {self.preset}; leave it out")
        most = NUMBERS.get(self.codec)
        known = [str(number) for number in range(most + 1)] if most is not None else list(X26_PRESETS)
        if self.preset not in known:
            raise ConfigError(f"preset of {self.codec} must be one of {' '.join(known)}, got {self.preset}")

    @property
    def complete(self) -> bool:
        """Whether everything is chosen, as `resolved` does it."""
        codec = CODECS.get(self.codec)
        return codec is not None and all(
            (chosen is None) == (default is None)
            for chosen, default in ((self.quality, codec.quality), (self.preset, codec.preset))
        )

    def resolved(self, target: str | Path) -> Encoding:
        """Return the settings for a file, its codec chosen if it was auto, everything filled in.

        ConfigError if the suffix is unknown or its files do not hold the codec.
        """
        suffix = Path(target).suffix.lower()
        if suffix not in CONTAINERS:
            raise ConfigError(
                f"suffix of a film must be one of {' '.join(CONTAINERS)}, got {suffix or Path(target).name}; "
                "rename the output"
            )
        held = CONTAINERS[suffix]
        name = held[0] if self.codec == "auto" else self.codec
        if name not in held:
            raise ConfigError(f"codec of a {suffix} file must be one of auto {' '.join(held)}, got {name}")
        codec = CODECS[name]
        chosen = replace(self, codec=name)  # checks quality and preset against it
        quality = codec.quality if self.quality is None else self.quality
        return replace(
            chosen, quality=quality, preset=self.preset or codec.preset, reordered=self.reordered and suffix != ".avi"
        )

    def options(self) -> dict[str, str]:
        """Return the codec's options as FFmpeg names them; `resolved` must have chosen the codec."""
        crf = {} if self.quality is None else {"crf": str(self.quality)}
        frames = {} if self.reordered else {"bf": "0"}
        preset = self.preset or ""
        if self.codec == "libx264":
            return crf | frames | {"preset": preset} | _repeatable()
        if self.codec == "libx265":
            return crf | frames | {"preset": preset, "x265-params": "log-level=none"}
        if self.codec == "libsvtav1":
            return crf | {"preset": preset}
        if self.codec == "libvpx-vp9":
            return crf | {"b": "0", "deadline": "good", "cpu-used": preset, "row-mt": "1"}
        if self.codec == "ffv1":
            return {"level": "3", "slicecrc": "1", "g": "1"}
        return {"profile": "3", "vendor": "apl0"}


def timed(width: int, height: int, rate: Fraction) -> dict[str, str]:
    """Return options by which libx264 writes each frame's time into its stream too (HRD), for AVI, which holds none.

    Without, FFmpeg may guess for H.264 in an AVI that frames are shown one later than they are decoded. They need a
    bound on the bit rate: 2 bits a pixel, 1 for large films, several times what visually lossless films take.
    """
    pixels = round(width * height * rate)
    # 60 million bits a second is what most players' H.264 ends at (level 4.1).
    most = str(min(240_000_000, max(10_000_000, pixels, min(2 * pixels, 60_000_000))))
    return {"nal-hrd": "vbr", "maxrate": most, "bufsize": most}


def _repeatable() -> dict[str, str]:
    """Return options by which libx264 gives the same stream each time: its code for AVX-512 does not.

    Measured on a film of 432x320: 8 encodings gave 5 streams, up to 24 levels apart; without it 10 gave one, as fast.
    """
    both = all(cv2.checkHardwareSupport(feature) for feature in (AVX2, AVX_512F))
    return {"x264-params": "asm=avx2,fma3,bmi2"} if both else {}


def film_suffix(source: str | Path) -> str:
    """Return the suffix of the output for a film: its own as it is spelt if such files can be written, else .mkv."""
    suffix = Path(source).suffix
    return suffix if suffix.lower() in CONTAINERS else ".mkv"
