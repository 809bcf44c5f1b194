"""Colours a photograph at its full size and depth: looks at it, asks the network, joins the
answers, paints.

The network is a function here, so that it may live in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor import hints
from gancolor.color import AB_SCALE
from gancolor.coloring import painting, views
from gancolor.coloring.views import Sight, View
from gancolor.errors import ConfigError, DataError
from gancolor.hints import Hint
from gancolor.images.photograph import Photograph

Colors = NDArray[np.float32]

AUTO = 1.0
"""`--size auto` in training sizes."""

LEAST_CHROMA = 1.0
"""Mean CIE chroma below which a result is called hardly coloured."""

# Sizes (in sizes of the first), flips and tones of a consensus, in the order in which they help
# most.
_CONSENSUS = (
    (1.0, False, 1.0),
    (1.0, True, 1.0),
    (0.8, False, 1.0),
    (1.25, True, 1.0),
    (0.8, True, 1.0),
    (1.25, False, 1.0),
    (1.0, False, 0.8),
    (1.0, True, 1.25),
    (1.5, False, 1.0),
    (0.65, True, 1.0),
    (1.5, True, 1.0),
    (0.65, False, 1.0),
)
MOST_VIEWS = len(_CONSENSUS)
MOST_VARIANTS = 64
LEAST_TEMPERATURE = 0.01

_EXAGGERATION = (
    1.5  # of the way from the plain colours to a variant's: they differ too little to be seen else
)

_VIEWS_FOR_CONFIDENCE = 8
_SPREAD_AT_HALF = (
    2.0  # CIE units of ab at which confidence is half: about the median of photographs
)
_EXTREME = 0.98  # of lightness: nearly black, or nearly white
_HAS_COLOR = 1.0  # mean CIE chroma from which a picture counts as having colours of its own


@dataclass(frozen=True, kw_only=True)
class Look:
    """How to colour a photograph. ConfigError, naming the option, for what is out of bounds.

    `size`: shorter side at which the network sees it, None for auto. `hints`: known colours, in
    pixels of the picture. `temperature`: how vivid colours are taken from the network's
    distribution, None for its own. `upsample`: one of `upsampling.METHODS`. `consensus`: over how
    many views, of several sizes and flips, the median is taken. `saturation`: factor of the
    predicted ab. `keep_color`: share of the picture's own ab. `variants`: how many alternatives,
    drawn from `seed`; see `color`. `confidence`: make the map of how sure the network is, or, where
    it gives no distribution, of how much the views agree.
    """

    size: int | None = None
    hints: tuple[Hint, ...] = ()
    temperature: float | None = None
    upsample: str = "guided"
    consensus: int = 1
    saturation: float = 1.0
    keep_color: float = 0.0
    variants: int = 1
    seed: int = 0
    confidence: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 16:
            raise ConfigError(f"--size must be auto or at least 16 pixels, got {self.size}")
        if self.upsample not in painting.METHODS:
            raise ConfigError(
                f"--upsample must be one of {', '.join(painting.METHODS)}, got {self.upsample}"
            )
        for name, value, least, most in (
            (
                "temperature",
                1 if self.temperature is None else self.temperature,
                LEAST_TEMPERATURE,
                2,
            ),
            ("consensus", self.consensus, 1, MOST_VIEWS),
            ("saturation", self.saturation, 0, 4),
            ("keep-color", self.keep_color, 0, 1),
            ("variants", self.variants, 1, MOST_VARIANTS),
            ("seed", self.seed, 0, 2**32 - 1),
        ):
            if not least <= value <= most:  # also not-a-number
                raise ConfigError(f"--{name} must be from {least} to {most}, got {value}")


class Prediction(NamedTuple):
    """What a network says of a View: ab (h, w, 2), or lightness and ab (h, w, 3), and what the user
    should know.

    `confidence`: of a network that gives a distribution, float32 (h', w') in [0, 1]: 1 where it
    knows one colour only.
    """

    colors: Colors
    notes: tuple[str, ...] = ()
    confidence: NDArray[np.float32] | None = None


class Pictures:
    """The variants of a photograph, (H, W, 3) of its type: each is painted anew whenever it is
    asked for.

    So there is never more than one in memory, unless the caller keeps them; the photograph's pixels
    stay until `close`.
    """

    def __init__(self, pixels: NDArray[Any], colors: list[Colors], **how: Any) -> None:
        self._pixels, self._colors, self._how = pixels, colors, how

    def __len__(self) -> int:
        return len(self._colors)

    def __getitem__(self, number: int) -> NDArray[Any]:
        return painting.paint(self._pixels, self._colors[number], **self._how)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return map(self.__getitem__, range(len(self)))

    def close(self) -> None:
        """Let go of the photograph's pixels; there are no pictures any more."""
        self._pixels, self._colors = np.empty((0, 0)), []


@dataclass
class Colored:
    """A coloured photograph.

    `pictures`: the variants, painted when they are asked for. `confidence`: uint8 (H, W), 255 where
    all views agree, or None. `size`: height and width at which the network saw the first view.
    `chroma`: mean CIE chroma of the first picture. `notes`: what the user should know, a sentence
    each.
    """

    pictures: Pictures
    confidence: NDArray[np.uint8] | None
    size: tuple[int, int]
    chroma: float
    notes: list[str]


class _Glance(NamedTuple):
    """How to look once."""

    size: int
    flip: bool = False
    tone: float = 1.0
    variant: int | None = None


def color(
    photograph: Photograph, look: Look, sight: Sight, predict: Callable[[View], Prediction]
) -> Colored:
    """Colour a photograph with what `predict` says of views of it; deterministic.

    The first picture is the network's answer, or with `consensus` the median of its answers. The
    other variants come from `seed`, and variant k does not depend on how many there are. A network
    that gives a distribution of colours is asked for another draw from it. Others draw nothing at
    random: they are asked about the picture in another size, tone and direction, with noise on
    their features, and the answer's way from the first picture is gone half as far again.

    Raises DataError when a prediction is not finite: nothing is ever handed back gray instead.
    ConfigError for hints outside the picture, and for hints or a temperature that the network
    cannot follow.
    """
    hints.check(look.hints, *photograph.size)
    check_able(sight, hints=look.hints, temperature=look.temperature, variants=look.variants)
    artist = _Artist(photograph, look, sight, predict)
    height, width = photograph.size
    answers = artist.ask(_first_glances(artist.size, look, sight))
    size = answers[0].colors.shape[:2]  # more, that of the largest view, was no better
    aligned = [_resize(answer.colors, size) for answer in answers]
    first = _median(aligned[: look.consensus])
    confidence = None
    if look.confidence:
        sure = answers[0].confidence
        small = _agreement(aligned) if sure is None else np.rint(255 * sure).astype(np.uint8)
        confidence = _resize(small, (height, width))
    colors = [first]
    for number in range(1, look.variants):
        (answer,) = artist.ask([_variant(artist.size, look.seed, number, sight)])
        other = _resize(answer.colors, size)
        colors.append(other if sight.distribution else _exaggerate(first, other))
    if look.variants > 1 and not sight.distribution:
        artist.notes.append(
            "variants 2 and up are perturbed at test time (size, tone, mirror image, noise on"
            " features): the network itself draws nothing at random"
        )
    pictures = artist.pictures(colors)
    return Colored(
        pictures, confidence, size, artist.chroma(first), list(dict.fromkeys(artist.notes))
    )


def check_able(
    sight: Sight, *, hints: Sequence[Hint] = (), temperature: float | None = None, variants: int = 1
) -> None:
    """Raise ConfigError unless a network can follow these wishes."""
    if hints and not sight.hints:
        raise ConfigError(
            f"hints must be left out with a network that takes none, got {len(hints)}; use a run"
            " trained with --hints"
        )
    if temperature is not None and not sight.distribution:
        raise ConfigError(
            "--temperature must be left out with a network that gives no distribution of colours,"
            f" got {temperature:g}; use a run trained with --head bins, or --saturation"
        )
    if variants > 1 and not sight.alternatives:
        raise ConfigError(
            "--variants must be 1 with an ONNX model that gives no distribution of colours, got"
            f" {variants}; use the run itself"
        )


def auto_size(sight: Sight) -> int:
    """The shorter side that `--size auto` stands for."""
    return max(16, round(sight.size * AUTO))


class _Artist:
    """One photograph, one way to look, and the notes that come up."""

    def __init__(
        self,
        photograph: Photograph,
        look: Look,
        sight: Sight,
        predict: Callable[[View], Prediction],
    ) -> None:
        self.pixels, self.look, self.sight, self.predict = photograph.pixels, look, sight, predict
        self.size = auto_size(sight) if look.size is None else look.size
        self.notes: list[str] = []
        self.keep_color = look.keep_color
        if self.keep_color and painting.own_chroma(self.pixels) < _HAS_COLOR:
            self.keep_color = 0.0  # a share of gray would only make the colours paler
            self.notes.append("the picture has no colours of its own: --keep-color left out")

    def ask(self, glances: Sequence[_Glance]) -> list[Prediction]:
        """The network's answers; DataError when one is not finite."""
        answers = []
        for size, flip, tone, variant in glances:
            view = views.look(
                self.sight,
                self.pixels,
                size,
                flip=flip,
                tone=tone,
                temperature=self.look.temperature,
                variant=variant,
                hints=self.look.hints,
            )
            prediction = self.predict(view)
            self.notes += prediction.notes
            if not np.isfinite(prediction.colors).all():
                raise DataError(
                    "the network's colours must be numbers, got others (not a number or infinite); "
                    "use --precision fp32 or another checkpoint"
                )
            answers.append(prediction)
        return answers

    def pictures(self, colors: list[Colors]) -> Pictures:
        return Pictures(
            self.pixels,
            colors,
            method=self.look.upsample,
            saturation=self.look.saturation,
            keep_color=self.keep_color,
            hints=self.look.hints,
        )

    def chroma(self, colors: Colors) -> float:
        """Mean chroma with the saturation that is asked for; a note where the network hardly
        colours.
        """
        guide = painting.samples_of(self.pixels, colors.shape[:2])
        if (plain := painting.mean_chroma(colors, guide)) < LEAST_CHROMA:
            extreme = bool((np.abs(guide) > _EXTREME).mean() > 0.9)
            fix = (
                "black and white pixels hold no colour, scan in grays"
                if extreme
                else "try another --size or run"
            )
            self.notes.append(
                f"hardly coloured: mean chroma {plain:.2f}, less than {LEAST_CHROMA:g}; {fix}"
            )
        if self.look.saturation == 1:
            return plain
        bold = colors.copy()
        bold[..., -2:] *= self.look.saturation
        return painting.mean_chroma(bold, guide)


def _first_glances(size: int, look: Look, sight: Sight) -> list[_Glance]:
    """The views behind the first picture and, of a network that gives no distribution, the
    confidence.
    """
    count = max(
        look.consensus, _VIEWS_FOR_CONFIDENCE if look.confidence and not sight.distribution else 1
    )
    return [
        _Glance(max(16, round(size * scale)), flip, tone)
        for scale, flip, tone in _CONSENSUS[:count]
    ]


def _variant(size: int, seed: int, number: int, sight: Sight) -> _Glance:
    """How to look at a picture for its variant `number`, from 1."""
    rng = np.random.default_rng([seed, number])
    if sight.distribution:
        return _Glance(size, variant=int(rng.integers(2**31)))
    scale, tone = np.exp(rng.uniform(-0.4, 0.4)), np.exp(rng.uniform(-0.4, 0.4))
    return _Glance(
        max(16, round(size * float(scale))),
        bool(rng.random() < 0.5),
        float(tone),
        int(rng.integers(2**31)),
    )


def _exaggerate(plain: Colors, other: Colors) -> Colors:
    """Colours that lie `_EXAGGERATION` times as far from the plain ones as the other ones do."""
    result = other.copy()
    result[..., -2:] = plain[..., -2:] + _EXAGGERATION * (other[..., -2:] - plain[..., -2:])
    return result


def _median(answers: Sequence[Colors]) -> Colors:
    return (
        answers[0] if len(answers) == 1 else np.median(np.stack(answers), axis=0).astype(np.float32)
    )


def _agreement(answers: Sequence[Colors]) -> NDArray[np.uint8]:
    """How much the answers agree, uint8 (h, w): 255 where they are equal, half at a spread of
    `_SPREAD_AT_HALF`.
    """
    ab = np.stack(answers)[..., -2:] * AB_SCALE
    spread = np.linalg.norm(ab - np.median(ab, axis=0), axis=-1).mean(axis=0)
    agreement: NDArray[np.uint8] = np.rint(255 * 0.5 ** (spread / _SPREAD_AT_HALF)).astype(np.uint8)
    return agreement


def _resize(maps: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    if maps.shape[:2] == size:
        return maps
    return np.asarray(cv2.resize(maps, size[::-1], interpolation=cv2.INTER_LINEAR), maps.dtype)
