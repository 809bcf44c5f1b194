"""Why a picture is rejected: the reasons in words, and the thresholds that a user may change."""

from __future__ import annotations

from dataclasses import dataclass

from gancolor import fields
from gancolor.errors import ConfigError
from gancolor.fields import setting

REASONS = {
    "broken": "cannot be read: empty, cut off, damaged, or no picture",
    "extension": "holds another format than its name says, or has no picture's name",
    "small": "its shorter side is too short",
    "shape": "too long and narrow, or too tall",
    "blank": "nothing but black, white or one other colour",
    "gray": "black and white, or nearly",
    "single-tone": "one tone such as sepia: its colours follow from its lightness",
    "duplicate": "the same file as another",
    "near-duplicate": "the same picture as another: resized, compressed again, or mirrored",
}
"""Why a picture is rejected; the first that fits is the one that is given."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Thresholds. ConfigError where two of them contradict each other."""

    min_size: int = setting(64, "Shortest side in pixels that a picture may have.", minimum=1)
    max_aspect: float = setting(
        4.0, "Largest ratio of a picture's longer to its shorter side.", minimum=1
    )
    blank_contrast: float = setting(
        8.0,
        "Blank: L* of the lightest and darkest hundredth of the pixels lie no further apart.",
        minimum=0,
        maximum=100,
    )
    gray_chroma: float = setting(4.0, "Gray: mean CIE chroma below this.", minimum=0)
    gray_colorfulness: float = setting(
        6.0, "Gray, too: colorfulness (Hasler and Süsstrunk) below this.", minimum=0
    )
    single_tone_spread: float = setting(
        1.35,
        "Single tone: deviation of a*b* from what lightness and one hue explain below this.",
        minimum=0,
    )
    single_tone_share: float = setting(
        0.12, "Single tone: and that deviation below this share of the mean CIE chroma.", minimum=0
    )
    near_distance: int = setting(
        6,
        "Near-duplicate: perceptual hashes (64 bits) differ in at most so many bits.",
        minimum=0,
        maximum=7,
    )
    near_likeness: float = setting(
        0.997,
        "Near-duplicate: and small gray copies correlate at least so much.",
        minimum=0,
        maximum=1,
    )
    side_likeness: float = setting(
        0.97,
        "Kept, but in one split, as the bursts of a camera are: they correlate at least so much.",
        minimum=0,
        maximum=1,
    )
    keep: frozenset[str] = frozenset()  # reasons that do not reject

    def __post_init__(self) -> None:
        fields.check(self)
        if unknown := sorted(self.keep - (set(REASONS) - {"broken"})):
            raise ConfigError(
                f"reasons to keep must be of {', '.join(REASONS)} but broken, got"
                f" {', '.join(unknown)}"
            )

    def is_gray(self, chroma: float, colorfulness: float) -> bool:
        """Whether a picture of that mean CIE chroma and colorfulness (`examination.measure`) is black
        and white.
        """
        return chroma < self.gray_chroma or colorfulness < self.gray_colorfulness

    def is_single_tone(self, chroma: float, spread: float) -> bool:
        """Whether its colours follow from its lightness, as those of a sepia print do."""
        return spread < min(self.single_tone_spread, self.single_tone_share * chroma)

    def conditions(self) -> dict[str, str]:
        """When a picture is rejected, by reason, with the thresholds."""
        return {
            "broken": "it cannot be read",
            "extension": "its format is not that of its name, or its name is none of a picture",
            "small": f"shorter side < {self.min_size}",
            "shape": f"longer side > {self.max_aspect:g} x the shorter",
            "blank": f"range of L* and spread of a*b* < {self.blank_contrast:g}",
            "gray": f"chroma < {self.gray_chroma:g} or colorfulness < {self.gray_colorfulness:g}",
            "single-tone": (
                f"spread of a*b* < {self.single_tone_spread:g} and < {self.single_tone_share:g} x"
                " chroma"
            ),
            "duplicate": "same bytes as another",
            "near-duplicate": (
                f"<= {self.near_distance} of 64 bits differ and likeness >= {self.near_likeness:g}"
            ),
        }
