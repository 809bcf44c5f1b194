"""Colouring photographs at full size: exact lightness at every depth, consensus, variants,
confidence, memory.
"""

from __future__ import annotations

import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gancolor import color as colors_of
from gancolor.coloring import full_size, painting
from gancolor.coloring.full_size import Prediction, color
from gancolor.coloring.settings import MOST_VIEWS, PhotographSettings
from gancolor.coloring.views import Draw, Sight, View
from gancolor.errors import ConfigError, DataError
from gancolor.hints import Hint
from gancolor.images.photograph import Photograph

SIGHT = Sight(size=32)
WHITE = {"uint8": 255, "uint16": 65535, "float32": 1}


def flat(a: float = 0.2, b: float = -0.1) -> Any:
    """A network that says one colour of everything."""

    def predict(view: View) -> Prediction:
        return Prediction(np.full((*view.rgb.shape[:2], 2), (a, b), np.float32))

    return predict


def picture(dtype: str, *shape: int) -> NDArray[Any]:
    values = np.random.default_rng(4).random(shape)
    return (values * WHITE[dtype] + (0.5 if dtype != "float32" else 0)).astype(dtype)


def lab(pixels: NDArray[Any]) -> NDArray[np.float64]:
    values = pixels.astype(np.float64) / WHITE[pixels.dtype.name]
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    tensor = torch.from_numpy(values.transpose(2, 0, 1).copy())[None]
    result: NDArray[np.float64] = colors_of.rgb_to_lab(tensor)[0].permute(1, 2, 0).numpy()
    return result


# --- settings ---


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"size": 15}, "--size must be at least 16, got 15"),
        ({"upsample": "nearest"}, "--upsample must be one of guided, bilinear, got nearest"),
        ({"consensus": 0}, "--consensus must be at least 1, got 0"),
        ({"consensus": 13}, "--consensus .* got 13"),
        ({"saturation": -0.1}, "--saturation must be at least 0, got -0.1"),
        ({"saturation": 4.1}, "--saturation .* got 4.1"),
        ({"saturation": float("nan")}, "--saturation .* got nan"),
        ({"keep_color": 1.1}, "--keep-color must be at most 1, got 1.1"),
        ({"variants": 0}, "--variants must be at least 1, got 0"),
        ({"diversity": -0.1}, "--diversity must be at least 0, got -0.1"),
        ({"diversity": 2.1}, "--diversity must be at most 2, got 2.1"),
        ({"diversity": float("nan")}, "--diversity must be"),
        ({"seed": -1}, "--seed must be at least 0, got -1"),
        ({"temperature": 0.009}, "--temperature must be at least 0.01, got 0.009"),
        ({"temperature": 0.0}, "--temperature .* got 0"),
        ({"temperature": -1.0}, "--temperature .* got -1"),
        ({"temperature": 2.1}, "--temperature must be at most 2, got 2.1"),
        ({"temperature": float("nan")}, "--temperature .* got nan"),
    ],
)
def test_settings_out_of_bounds_name_their_option(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        PhotographSettings(**setting)
    assert "\n" not in str(caught.value)


# --- size, depth, lightness ---


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    "shape", [(40, 61), (40, 61, 3), (1, 1), (1, 1, 3), (1, 300), (300, 1, 3)], ids=str
)
def test_size_and_depth_stay_and_lightness_to_the_accuracy_of_the_type(
    dtype: str, shape: tuple[int, ...]
) -> None:
    pixels = picture(dtype, *shape)
    before = pixels.copy()
    colored = color(Photograph(pixels=pixels), PhotographSettings(), SIGHT, flat())
    (result,) = colored.pictures
    assert result.shape == (*shape[:2], 3) and result.dtype == pixels.dtype
    assert np.array_equal(pixels, before)
    error = np.abs(lab(result)[..., 0] - lab(pixels)[..., 0]).max()
    # L*; 16 bits are 1.5e-3 of it near black
    assert error < {"uint8": 0.3, "uint16": 2e-3, "float32": 1e-3}[dtype]
    assert colored.confidence is None and colored.notes == []


def test_sixteen_bits_are_more_than_eight() -> None:
    ramp = np.linspace(20_000, 40_000, 4000).astype(np.uint16).reshape(40, 100)
    (result,) = color(Photograph(pixels=ramp), PhotographSettings(), SIGHT, flat()).pictures
    assert len(np.unique(result[..., 1])) > 3500


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_colours_are_the_predicted_ones(dtype: str) -> None:
    gray = np.full((50, 60), WHITE[dtype] * 0.5, dtype)
    (result,) = color(
        Photograph(pixels=gray), PhotographSettings(), SIGHT, flat(0.1, -0.2)
    ).pictures
    assert np.abs(lab(result)[..., 1:] - (11, -22)).max() < (0.5 if dtype == "uint8" else 0.01)


def test_what_srgb_cannot_hold_is_paler_not_lighter() -> None:
    gray = picture("uint16", 30, 40)
    (result,) = color(
        Photograph(pixels=gray), PhotographSettings(saturation=4), SIGHT, flat(0.5, 0.5)
    ).pictures
    assert np.abs(lab(result)[..., 0] - lab(gray)[..., 0]).max() < 2e-3


def test_black_white_and_not_a_number() -> None:
    pixels = np.array([[0.0, 1.0, np.nan, 2.0, -1.0]], np.float32)
    (result,) = color(Photograph(pixels=pixels), PhotographSettings(), SIGHT, flat()).pictures
    assert np.abs(result - np.array([0, 1, 0, 1, 0])[None, :, None]).max() < 2e-3


@pytest.mark.parametrize("method", ["guided", "bilinear"])
def test_strips_do_not_show(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, small = (
        picture("uint16", 97, 83, 3),
        np.random.default_rng(1).normal(0, 0.1, (20, 17, 2)),
    )
    whole = painting.paint(pixels, small.astype(np.float32), method=method)
    monkeypatch.setattr(painting, "STRIP", 83 * 7)
    parts = painting.paint(pixels, small.astype(np.float32), method=method)
    assert np.abs(parts.astype(int) - whole).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "gray"), [("uint8", True), ("uint16", False)])
def test_memory_beside_the_pictures_does_not_grow(
    dtype: str, gray: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(painting, "STRIP", 1 << 14)
    pixels = picture(dtype, 1500, *((1000,) if gray else (1000, 3)))
    tracemalloc.start()  # NumPy's share: a copy of the picture would show
    try:
        (result,) = color(Photograph(pixels=pixels), PhotographSettings(), SIGHT, flat()).pictures
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - result.nbytes < 0.25 * pixels.nbytes + 1_500_000


# --- what the network is asked ---


class Recorder:
    """A network that notes what it sees and says the colours of a ramp, from left to right as it
    sees it.
    """

    def __init__(self) -> None:
        self.views: list[View] = []

    def __call__(self, view: View) -> Prediction:
        self.views.append(view)
        ab = np.zeros((*view.rgb.shape[:2], 2), np.float32)
        ab[..., 0] = 0.1 + 0.01 * len(self.views)
        return Prediction(ab, (f"note {len(self.views) % 2}",))

    @property
    def sizes(self) -> list[int]:
        return [min(view.rgb.shape[:2]) for view in self.views]


def test_auto_is_the_training_size_and_a_size_is_that_size() -> None:
    photograph = Photograph(pixels=picture("uint8", 100, 150))
    network = Recorder()
    colored = color(photograph, PhotographSettings(), SIGHT, network)
    assert network.sizes == [full_size.auto_size(SIGHT)] == [32] and colored.size == (32, 48)
    assert color(photograph, PhotographSettings(size=64), SIGHT, network).size == (64, 96)
    assert not network.views[0].flip and network.views[0].draw is None
    assert network.views[0].temperature is None and network.views[0].hints is None


def test_consensus_is_the_median_over_sizes_and_flips() -> None:
    photograph = Photograph(pixels=np.full((100, 150), 128, np.uint8))
    network = Recorder()
    colored = color(photograph, PhotographSettings(consensus=5), SIGHT, network)
    assert len(network.views) == 5 and len(set(network.sizes)) == 3
    assert [view.flip for view in network.views] == [False, True, False, True, True]
    assert colored.size == (32, 48)
    # the third of five
    assert lab(colored.pictures[0])[..., 1].mean() == pytest.approx(110 * 0.13, abs=0.4)
    assert colored.notes == ["note 1", "note 0"]  # each once
    every = Recorder()
    color(photograph, PhotographSettings(consensus=MOST_VIEWS), SIGHT, every)
    # all different
    assert len({(v.flip, v.rgb.shape, v.rgb.tobytes()) for v in every.views}) == MOST_VIEWS


# --- a network that gives a distribution of colours ---

BINS = Sight(size=32, distribution=True, hints=True)


class Drawing:
    """A network whose variants are other colours, seeded, and which notes what it is asked."""

    def __init__(self) -> None:
        self.views: list[View] = []

    def __call__(self, view: View) -> Prediction:
        self.views.append(view)
        drawn = (
            np.zeros(2)
            if view.draw is None
            else np.random.default_rng(view.draw[:2]).uniform(-0.2, 0.2, 2)
        )
        sure = np.zeros(view.rgb.shape[:2], np.float32)
        sure[:, : sure.shape[1] // 2] = 0.75
        return Prediction(
            np.full((*view.rgb.shape[:2], 2), (0.1, 0.0) + drawn, np.float32), (), sure
        )


def test_variants_of_a_distribution_are_draws_of_the_same_view_as_they_are() -> None:
    photograph = Photograph(pixels=np.full((64, 96), 32768, np.uint16))

    def painted(variants: int, seed: int = 0, **look: Any) -> tuple[list[NDArray[Any]], Drawing]:
        network = Drawing()
        colored = color(
            photograph, PhotographSettings(variants=variants, seed=seed, **look), BINS, network
        )
        assert colored.notes == []
        return list(colored.pictures), network

    four, network = painted(4)
    draws = [None, *(Draw(0, number, PhotographSettings.diversity) for number in (1, 2, 3))]
    assert [view.draw for view in network.views] == draws
    assert all(
        np.array_equal(view.rgb, network.views[0].rgb) and not view.flip for view in network.views
    )
    # a draw is shown as it is drawn
    for view, picture in zip(network.views, four, strict=True):
        expected = Drawing()(view).colors[0, 0] * 110
        assert np.abs(lab(picture)[..., 1:] - expected).max() < 0.1
    assert len({picture.tobytes() for picture in four}) == 4
    for fewer in (1, 2, 3):  # variant k does not depend on how many there are
        assert all(
            np.array_equal(a, b) for a, b in zip(painted(fewer)[0], four[:fewer], strict=True)
        )
    again, other = painted(4)[0], painted(4, seed=1)[0]
    assert all(np.array_equal(a, b) for a, b in zip(again, four, strict=True))
    assert np.array_equal(other[0], four[0]) and not np.array_equal(other[1], four[1])
    _, network = painted(2, 5, diversity=0.25)
    assert network.views[1].draw == Draw(5, 1, 0.25)
    agreed, network = painted(2, consensus=3)  # beside a median too
    assert np.array_equal(agreed[1], four[1]) and len(network.views) == 4


def test_the_temperature_and_the_hints_reach_every_view() -> None:
    photograph = Photograph(pixels=np.full((64, 96), 128, np.uint8))
    network = Drawing()
    look = PhotographSettings(
        temperature=0.7, hints=(Hint(90, 8, (220, 60, 60)),), consensus=3, variants=2
    )
    color(photograph, look, BINS, network)
    assert [view.temperature for view in network.views] == [0.7] * 8
    assert [view.hints is None for view in network.views] == [False, True] * 4  # with and without
    for view in network.views[::2]:  # upright, whatever is mirrored: the network's business
        assert view.hints is not None and view.hints.shape[:2] == view.rgb.shape[:2]
        (row,), (column,) = np.nonzero(view.hints[..., 2])
        assert row / view.hints.shape[0] < 0.2 and column / view.hints.shape[1] > 0.85
    assert {view.flip for view in network.views} == {False, True}


def test_confidence_is_what_the_distribution_says_and_costs_no_further_view() -> None:
    photograph = Photograph(pixels=np.full((64, 96), 128, np.uint8))
    network = Drawing()
    colored = color(photograph, PhotographSettings(confidence=True), BINS, network)
    assert len(network.views) == 1 and colored.confidence is not None
    assert colored.confidence.shape == (64, 96) and colored.confidence.dtype == np.uint8
    assert (colored.confidence[:, :46] == 191).all() and (colored.confidence[:, 50:] == 0).all()
    assert color(photograph, PhotographSettings(), BINS, network).confidence is None


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (
            PhotographSettings(temperature=0.5),
            "--temperature must be left out with a network that gives no distribution .* got 0.5",
        ),
        (
            PhotographSettings(hints=(Hint(3, 3, (9, 9, 9)),)),
            "hints must be left out with a network that takes none, got 1",
        ),
        (
            PhotographSettings(variants=3),
            "--variants must be 1 with a network that gives no distribution of colours, got 3; use",
        ),
    ],
    ids=["temperature", "hints", "variants"],
)
def test_what_a_network_cannot_follow_is_refused_before_it_is_asked(
    look: PhotographSettings, words: str
) -> None:
    network = Drawing()
    with pytest.raises(ConfigError, match=words) as caught:
        color(Photograph(pixels=picture("uint8", 40, 40)), look, SIGHT, network)
    assert "\n" not in str(caught.value) and not network.views


def test_wrong_hints_are_refused_before_the_network_is_asked() -> None:
    network = Drawing()
    for hint in (Hint(40, 5, (9, 9, 9)), Hint(5, float("nan"), (9, 9, 9)), Hint(5, 5, (9, 9, 300))):
        with pytest.raises(ConfigError, match="hint 1 must"):
            color(
                Photograph(pixels=picture("uint8", 40, 40)),
                PhotographSettings(hints=(hint,)),
                BINS,
                network,
            )
    with pytest.raises(ConfigError, match="hints must be at most 10000, got 1000000"):
        color(
            Photograph(pixels=picture("uint8", 40, 40)),
            PhotographSettings(hints=(hint,) * 1_000_000),
            BINS,
            network,
        )
    assert not network.views


# --- variants are painted when they are asked for ---


def test_variants_are_painted_one_at_a_time() -> None:
    pixels = picture("uint16", 500, 600)
    tracemalloc.start()
    try:
        colored = color(Photograph(pixels=pixels), PhotographSettings(variants=6), BINS, flat())
        tracemalloc.reset_peak()
        shapes = [result.shape for result in colored.pictures]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert shapes == [(500, 600, 3)] * 6
    # two results, for one is held by the loop, and what painting takes
    assert peak < 4 * 3 * pixels.nbytes


def test_closed_pictures_hold_nothing() -> None:
    photograph = Photograph(pixels=picture("uint8", 40, 50))
    colored, held = (
        color(photograph, PhotographSettings(variants=2), BINS, flat()),
        weakref.ref(photograph.pixels),
    )
    photograph.pixels = np.empty((0, 0), np.uint8)
    assert held() is not None and np.array_equal(colored.pictures[-1], colored.pictures[1])
    colored.pictures.close()
    assert held() is None and list(colored.pictures) == []


# --- colours of the input, saturation ---


def test_keep_color_blends_the_pictures_own_colours() -> None:
    pixels = np.broadcast_to(np.array([150, 110, 90], np.uint8), (40, 50, 3))
    own = lab(pixels)[0, 0, 1:]
    for share in (0.0, 0.25, 1.0):
        (result,) = color(
            Photograph(pixels=pixels), PhotographSettings(keep_color=share), SIGHT, flat(0.0, -0.1)
        ).pictures
        expected = share * own + (1 - share) * np.array([0, -11])
        assert np.abs(lab(result)[..., 1:] - expected).max() < 0.5
    assert np.array_equal(result, pixels)


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)], ids=["gray", "gray as rgb"])
def test_keep_color_of_a_gray_picture_does_not_make_it_paler(shape: tuple[int, ...]) -> None:
    photograph = Photograph(pixels=np.full(shape, 128, np.uint8))
    plain = color(photograph, PhotographSettings(), SIGHT, flat())
    kept = color(photograph, PhotographSettings(keep_color=0.8), SIGHT, flat())
    assert np.array_equal(kept.pictures[0], plain.pictures[0])
    assert plain.notes == [] and "no colours of its own" in kept.notes[0]


def test_saturation_scales_chroma() -> None:
    photograph = Photograph(pixels=np.full((40, 50), 32768, np.uint16))
    for factor in (0.0, 0.5, 1.0, 2.0):
        colored = color(photograph, PhotographSettings(saturation=factor), SIGHT, flat(0.1, 0.0))
        assert colored.chroma == pytest.approx(11 * factor, abs=0.02)
        assert np.linalg.norm(lab(colored.pictures[0])[..., 1:], axis=-1).mean() == pytest.approx(
            11 * factor, abs=0.05
        )
        assert colored.notes == []  # asked for: nothing to warn of


# --- what must not pass ---


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_an_error_not_a_gray_picture(value: float) -> None:
    def predict(view: View) -> Prediction:
        ab = np.zeros((*view.rgb.shape[:2], 2), np.float32)
        ab[0, 0, 0] = value
        return Prediction(ab)

    with pytest.raises(DataError, match="colours must be numbers"):
        color(Photograph(pixels=picture("uint8", 40, 40)), PhotographSettings(), SIGHT, predict)


def test_a_result_that_is_hardly_coloured_says_so() -> None:
    photograph = Photograph(pixels=np.full((40, 50), 128, np.uint8))
    colored = color(photograph, PhotographSettings(), SIGHT, flat(0.005, 0.0))
    assert colored.chroma == pytest.approx(0.55, abs=0.01)
    assert colored.notes == [
        "hardly coloured: mean chroma 0.55, less than 1; try another --size or run"
    ]


def test_black_and_white_pixels_hold_no_colour_and_that_is_said() -> None:
    dots = np.where(np.indices((60, 80)).sum(0) % 2, 255, 0).astype(np.uint8)
    colored = color(Photograph(pixels=dots), PhotographSettings(), Sight(16), flat(0.3, 0.2))
    assert np.array_equal(colored.pictures[0], np.repeat(dots[..., None], 3, 2))
    assert colored.chroma < 0.1
    assert [
        "black and white pixels hold no colour, scan in grays" in note for note in colored.notes
    ] == [True]


def test_colours_smaller_than_the_view_are_enlarged() -> None:
    def predict(view: View) -> Prediction:
        small = max(1, view.rgb.shape[0] // 2), max(1, view.rgb.shape[1] // 2)
        return Prediction(np.full((*small, 2), (0.2, 0.1), np.float32), ("smaller",))

    colored = color(
        Photograph(pixels=np.full((90, 70), 128, np.uint8)),
        PhotographSettings(consensus=3),
        SIGHT,
        predict,
    )
    assert colored.pictures[0].shape == (90, 70, 3) and colored.notes == ["smaller"]
    assert np.abs(lab(colored.pictures[0])[..., 1:] - (22, 11)).max() < 0.5


def test_a_network_for_edges_makes_the_lightness_too() -> None:
    def predict(view: View) -> Prediction:
        return Prediction(np.full((*view.rgb.shape[:2], 3), (0.2, 0.1, 0.0), np.float32))

    colored = color(
        Photograph(pixels=picture("uint16", 50, 60)),
        PhotographSettings(),
        Sight(32, "edges"),
        predict,
    )
    assert colored.pictures[0].dtype == np.uint16
    assert np.abs(lab(colored.pictures[0]) - (60, 11, 0)).max() < 0.01


# --- confidence ---


def test_confidence_is_lower_where_the_views_disagree() -> None:
    asked = 0

    def predict(view: View) -> Prediction:
        nonlocal asked
        asked += 1
        ab = np.full((*view.rgb.shape[:2], 2), 0.1, np.float32)
        # the right half is something else each time
        ab[:, view.rgb.shape[1] // 2 :, 0] = 0.3 * (asked % 3 - 1)
        return Prediction(ab)

    photograph = Photograph(pixels=np.full((60, 80), 128, np.uint8))
    colored = color(photograph, PhotographSettings(confidence=True), SIGHT, predict)
    assert asked > 1 and colored.confidence is not None
    assert colored.confidence.shape == (60, 80) and colored.confidence.dtype == np.uint8
    assert colored.confidence[:, :30].min() == 255 and colored.confidence[:, 50:].max() < 100
    asked = 0  # the picture is the same with and without
    assert np.array_equal(
        color(photograph, PhotographSettings(), SIGHT, predict).pictures[0], colored.pictures[0]
    )
