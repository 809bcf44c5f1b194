"""How photographs and films are coloured: each setting is declared once, with its help and bounds.

Nothing heavy is imported here, so that the command line can show its options at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gancolor import fields
from gancolor.fields import setting

if TYPE_CHECKING:
    from gancolor.coloring.mask_files import Mask
    from gancolor.hints import Hint

METHODS = ("guided", "bilinear")
"""How colours can be brought to full size."""

MOST_VIEWS = 12
"""Of how many views a consensus is the median at most."""


@dataclass(frozen=True, kw_only=True)
class ColoringSettings:
    """What holds for photographs and films. ConfigError, naming the option, for what is out of
    bounds.
    """

    size: int | None = setting(
        None,
        "Shorter side at which the network sees a picture (auto: decided by its training size).",
        minimum=16,
    )
    upsample: str = setting(
        "guided",
        "How colours are brought to full size: along the picture's edges, or not.",
        choices=METHODS,
    )
    temperature: float | None = setting(
        None,
        "How colours are taken from a network's distribution (--head bins): near 0 the"
        " likeliest, 1 its mean (default: as it was trained).",
        minimum=0.01,
        maximum=2,
    )
    saturation: float = setting(1.0, "Factor of the colours.", minimum=0, maximum=4)

    def __post_init__(self) -> None:
        fields.check(self)


@dataclass(frozen=True, kw_only=True)
class PhotographSettings(ColoringSettings):
    """How a photograph is coloured.

    `hints`: known colours, in pixels of the photograph. `mask`: where it is coloured, (H, W), None
    for everywhere (see `mask_files.of_array`); elsewhere it stays to the bit. `only`: the number of
    the variant that is made alone, from 0 for the likely one; None for all `variants`.
    """

    keep_color: float = setting(
        0.0, "Share of a picture's own colours in the result.", minimum=0, maximum=1
    )
    consensus: int = setting(
        1,
        "Median of that many views, of several sizes and mirrored.",
        minimum=1,
        maximum=MOST_VIEWS,
    )
    variants: int = setting(
        1,
        "Alternatives to write, beside the first as NAME-2, NAME-3 and so on.",
        minimum=1,
        maximum=64,
    )
    diversity: float = setting(
        0.6,
        "How far --variants differ: near 0 hardly, 1 draws from the network's distribution as it"
        " is, 2 likes rare colours too.",
        minimum=0,
        maximum=2,
    )
    seed: int = setting(
        0, "The seed of the variants: another seed, other colours.", minimum=0, maximum=2**32 - 1
    )
    confidence: bool = setting(
        False,
        "Write NAME-confidence.png too: bright where the colours are sure.",
        flag="--show-confidence",
    )
    show_hints: bool = setting(
        False, "Write NAME-hints.png too: the gray view with the colours that the network was told."
    )
    hints: tuple[Hint, ...] = ()
    only: int | None = None
    mask: Mask | None = field(default=None, compare=False, repr=False)
