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

    min_size: int = setting(
        64, "Reject as small: the shorter side has fewer pixels than this.", minimum=1
    )
    max_aspect: float = setting(
        4.0,
        "Reject for its shape: the longer side is more than this many times the shorter.",
        minimum=1,
    )
    blank_contrast: float = setting(
        8.0,
        "Reject as blank: L* of the lightest and of the darkest hundredth of the pixels differ"
        " by less than this, and so do the colours a*b*.",
        minimum=0,
        maximum=100,
    )
    gray_chroma: float = setting(
        4.0, "Reject as gray: the mean CIE chroma is below this.", minimum=0
    )
    gray_colorfulness: float = setting(
        6.0, "Reject as gray: the colorfulness (Hasler and Süsstrunk) is below this.", minimum=0
    )
    single_tone_spread: float = setting(
        1.35,
        "Reject as one tone, such as sepia: the colours a*b* deviate by less than this from"
        " those that lightness and a single hue explain ...",
        minimum=0,
    )
    single_tone_share: float = setting(
        0.12, "... and by less than this share of the mean CIE chroma.", minimum=0
    )
    near_distance: int = setting(
        6,
        "Reject as near-duplicate: the perceptual hashes (64 bits) of two pictures differ in at"
        " most this many bits ...",
        minimum=0,
        maximum=7,
    )
    near_likeness: float = setting(
        0.997,
        "... and their small gray copies correlate at least this much.",
        minimum=0,
        maximum=1,
    )
    side_likeness: float = setting(
        0.97,
        "Keep both, but in the same split, as pictures of a burst should be: the small gray"
        " copies correlate at least this much.",
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
            "extension": "its format is not what its name says, or its name is not a picture's",
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
