"""A photograph coloured at its full size and depth: it is looked at, the network is asked, its
answers are joined, and the result is painted.

The network is a function here, so that it may live in another process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor import hints as known_hints
from gancolor.color import AB_SCALE
from gancolor.coloring import mask_files, painting, spreading, views
from gancolor.coloring.settings import PhotographSettings
from gancolor.coloring.views import Draw, Sight, View
from gancolor.errors import ConfigError, DataError
from gancolor.hints import Hint
from gancolor.images.photograph import Photograph

PredictedColors = NDArray[np.float32]
"""ab (h, w, 2), or lightness and ab (h, w, 3), in [-1, 1], at the size at which a network saw."""

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

_VIEWS_FOR_CONFIDENCE = 8
_SPREAD_AT_HALF = 2.0  # of ab, in CIE units, where confidence is half: photographs' median
_EXTREME = 0.98  # of lightness: nearly black, or nearly white
_HAS_COLOR = 1.0  # mean CIE chroma from which a picture counts as having colours of its own


class Prediction(NamedTuple):
    """What a network says of a View: ab (h, w, 2), or lightness and ab (h, w, 3), and what the user
    should know.

    `confidence`: of a network that gives a distribution, float32 (h', w') in [0, 1]: 1 where it
    knows one colour only.
    """

    colors: PredictedColors
    notes: tuple[str, ...] = ()
    confidence: NDArray[np.float32] | None = None


class Variants:
    """The variants of a photograph, (H, W, 3) of its type: each is painted anew whenever it is
    asked for.

    So there is never more than one in memory, unless the caller keeps them; the photograph's pixels
    stay until `close`.
    """

    def __init__(self, pixels: NDArray[Any], colors: list[PredictedColors], **how: Any) -> None:
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
    all views agree, or None. `told`: uint8 (h, w, 3), the hints that the network was told, or None.
    `size`: height and width at which the network saw the first view.
    `chroma`: mean CIE chroma of the first picture. `notes`: what the user should know, a sentence
    each.
    """

    pictures: Variants
    confidence: NDArray[np.uint8] | None
    told: NDArray[np.uint8] | None
    size: tuple[int, int]
    chroma: float
    notes: list[str]


def color(
    photograph: Photograph,
    settings: PhotographSettings,
    sight: Sight,
    predict: Callable[[View], Prediction],
) -> Colored:
    """Colour a photograph with what `predict` says of views of it; deterministic.

    The first picture is the network's answer, or with `consensus` the median of its answers. The
    other variants are drawn from the network's distribution (see `sampling.draw`) by `seed` and
    their number alone: variant k does not depend on how many there are.

    Raises DataError when a prediction is not finite: nothing is ever handed back gray instead.
    ConfigError for hints outside the picture, and for hints, a temperature or variants that the
    network cannot give.
    """
    known_hints.check(settings.hints, *photograph.size)
    wanted = range(settings.variants) if settings.only is None else (settings.only,)
    check_able(
        sight, hints=settings.hints, temperature=settings.temperature, variants=wanted[-1] + 1
    )
    height, width = photograph.size
    mask = settings.mask
    if mask is not None:
        mask = mask_files.of_array(mask, height, width)
    notes: list[str] = []
    keep_color = settings.keep_color
    if keep_color and painting.own_chroma(photograph.pixels) < _HAS_COLOR:
        keep_color = 0.0  # a share of gray would only make the colours paler
        notes.append("the picture has no colours of its own: --keep-color left out")
    glances = _glances(photograph.pixels, settings, sight)
    drawn = [
        dataclasses.replace(glances[0], draw=Draw(settings.seed, number, settings.diversity))
        for number in wanted
        if number
    ]
    told = known_hints.show(glances[0].rgb, glances[0].hints) if settings.show_hints else None
    answers: list[Prediction] = []
    for view in [*glances, *drawn]:
        answers.append(ask(view, predict))
        notes += answers[-1].notes
        if not np.isfinite(answers[-1].colors).all():
            raise DataError(
                "the network's colours must be numbers, got others (not a number or infinite); "
                "use --precision fp32 or another checkpoint"
            )
    seen = answers[0].colors.shape[:2]  # more, that of the largest view, was no better
    aligned = [_resize(answer.colors, seen) for answer in answers]
    first = _median(aligned[: settings.consensus])
    confidence = None
    if settings.confidence:
        sure = answers[0].confidence
        small = _agreement(aligned[: len(glances)]) if sure is None else np.rint(255 * sure)
        confidence = _resize(small.astype(np.uint8), (height, width))
    pictures = Variants(
        photograph.pixels,
        [*([first] if 0 in wanted else []), *aligned[len(glances) :]],
        method=settings.upsample,
        saturation=settings.saturation,
        keep_color=keep_color,
        hints=settings.hints,
        mask=mask,
    )
    chroma = _chroma(photograph.pixels, first, settings.saturation, notes)
    return Colored(pictures, confidence, told, seen, chroma, list(dict.fromkeys(notes)))


def ask(view: View, predict: Callable[[View], Prediction]) -> Prediction:
    """What a network says of a view; of one with hints, as far as they reach without crossing strong
    edges, and beyond what it says without them.
    """
    told = predict(view)
    if view.hints is None:
        return told
    plain = predict(dataclasses.replace(view, hints=None))
    size = told.colors.shape[:2]  # smaller than the view where memory ran out
    colors = spreading.confine(
        told.colors,
        _resize(plain.colors, size),
        painting.guide_of(view.rgb, size),
        _resize(view.hints, size),
    )
    return told._replace(colors=colors, notes=tuple(dict.fromkeys(told.notes + plain.notes)))


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
    if variants > 1 and not sight.variants:
        lacks = "takes no hints" if sight.distribution else "gives no distribution of colours"
        raise ConfigError(
            f"--variants must be 1 with a network that {lacks}, got {variants}; use general, or a"
            " run trained with --head bins and --hints"
        )


def auto_size(sight: Sight) -> int:
    """The shorter side that `--size auto` stands for."""
    return max(16, round(sight.size * AUTO))


def _chroma(
    pixels: NDArray[Any], colors: PredictedColors, saturation: float, notes: list[str]
) -> float:
    """Mean chroma with the saturation that is asked for; adds a note where the network hardly
    colours.
    """
    guide = painting.samples_of(pixels, colors.shape[:2])
    if (plain := painting.mean_chroma(colors, guide)) < LEAST_CHROMA:
        extreme = bool((np.abs(guide) > _EXTREME).mean() > 0.9)
        fix = (
            "black and white pixels hold no colour, scan in grays"
            if extreme
            else "try another --size or run"
        )
        notes.append(f"hardly coloured: mean chroma {plain:.2f}, less than {LEAST_CHROMA:g}; {fix}")
    if saturation == 1:
        return plain
    bold = colors.copy()
    bold[..., -2:] *= saturation
    return painting.mean_chroma(bold, guide)


def _glances(pixels: NDArray[Any], settings: PhotographSettings, sight: Sight) -> list[View]:
    """The views for the first picture and, where a network gives no distribution, for the
    confidence.
    """
    side = settings.size or auto_size(sight)
    count = max(
        settings.consensus,
        _VIEWS_FOR_CONFIDENCE if settings.confidence and not sight.distribution else 1,
    )
    return [
        views.look(
            sight,
            pixels,
            max(16, round(side * scale)),
            flip=flip,
            tone=tone,
            temperature=settings.temperature,
            hints=settings.hints,
        )
        for scale, flip, tone in _CONSENSUS[:count]
    ]


def _median(answers: Sequence[PredictedColors]) -> PredictedColors:
    return (
        answers[0] if len(answers) == 1 else np.median(np.stack(answers), axis=0).astype(np.float32)
    )


def _agreement(answers: Sequence[PredictedColors]) -> NDArray[np.uint8]:
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
