"""Colours of other pictures: what matches, what does not, and what becomes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from panning import scene as panorama

from gancolor import color, metrics, models, presets
from gancolor.coloring import references
from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.references import Exemplar, Match
from gancolor.coloring.views import Sight
from gancolor.errors import ConfigError, DataError
from gancolor.hints import Hint
from gancolor.models.backbones import ENCODERS

Array = NDArray[np.uint8]

DOWN, RIGHT = 24, 64  # pixels between two crops of one picture


def scene(seed: int, height: int = 192, width: int = 256) -> Array:
    """A picture with structure of all sizes in patches of colour, uint8 (height, width, 3)."""
    structure, ab = panorama(seed, width, height)
    lightness = torch.from_numpy(structure)[None, None] / 127.5 - 1
    rgb = color.merge_in_gamut(0.6 * lightness, torch.from_numpy(1.5 * ab).permute(2, 0, 1)[None])
    return (rgb[0].permute(1, 2, 0) * 255).round().byte().numpy()


def gray(rgb: Array) -> Array:
    """The picture's lightness alone."""
    lightness, _ = color.split(color.to_tensor(rgb))
    values = color.gray(lightness)[0, 0].mul(255).round().byte().numpy()
    return np.repeat(values[..., None], 3, axis=2)


def untrained(**changes: Any) -> Colorizer:
    """A network as it begins, with random features."""
    settings = {"image_size": 64, "width": 4, "frozen_blocks": 5, "backbone_weights": "none"}
    config = presets.build("gan", **settings | {"device": "cpu"} | changes)
    torch.manual_seed(0)
    backbone = ENCODERS[config.backbone].load("none")
    generator = models.build_generator(config, backbone)
    return Colorizer(generator, {"config": config}, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    """The model in the package: its features know what they see."""
    return Colorizer.load("general", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def crops() -> tuple[Array, Array]:
    """Two parts of one picture, of which most is in both."""
    whole = scene(1, 192 + DOWN, 256 + RIGHT)
    return whole[:192, :256].copy(), whole[DOWN:, RIGHT:].copy()


@pytest.fixture(scope="module")
def matches(colorizer: Colorizer, crops: tuple[Array, Array]) -> list[Match]:
    return colorizer.match(gray(crops[0]), crops[1])


def misses(picture: Array, hints: list[Hint], truth: Array) -> NDArray[np.float32]:
    """CIEDE2000 between two pictures at the hints."""
    first, second = (
        color.rgb_to_lab(color.to_tensor(rgb).contiguous().float() / 255)
        for rgb in (picture, truth)
    )
    rows, columns = (
        np.array([round(v) for v in each])
        for each in zip(*[(h.y, h.x) for h in hints], strict=True)
    )
    found: NDArray[np.float32] = metrics.ciede2000(first, second)[0][rows, columns].numpy()
    return found


def test_the_same_things_match(matches: list[Match], crops: tuple[Array, Array]) -> None:
    height, width = crops[1].shape[:2]
    away = [
        np.hypot(m.hint.x - RIGHT - (m.x * width - 0.5), m.hint.y - DOWN - (m.y * height - 0.5))
        for m in matches
    ]
    assert 12 <= len(matches) <= references.MOST
    assert np.mean(np.array(away) < 8) > 0.9
    assert [m.confidence for m in matches] == sorted((m.confidence for m in matches), reverse=True)
    assert min(m.confidence for m in matches) >= references.CONFIDENCE - 0.1
    places = np.array([(m.hint.x, m.hint.y) for m in matches])
    apart = np.abs(places[:, None] - places[None]).max(2) + 1000 * np.eye(len(places))
    assert apart.min() >= 2.5 * references.STRIDE * 192 / 222  # of a view of about 256 x 256


def test_matches_have_the_colours_of_the_reference(
    matches: list[Match], crops: tuple[Array, Array]
) -> None:
    colors = crops[0].copy()
    for match in matches:
        colors[round(match.hint.y), round(match.hint.x)] = np.round(match.hint.rgb)
    assert np.median(misses(colors, [match.hint for match in matches], crops[0])) < 5


def test_even_things_take_a_colour_widely_and_no_further_than_their_edge(
    colorizer: Colorizer,
) -> None:
    structure = scene(2, 192, 256).astype(np.float32).mean(2) / 8
    tones = np.where(np.arange(256) < 120, 60, 190) + structure
    picture = np.stack([tones, tones * 0.9, tones * 0.8], 2).clip(0, 255).astype(np.uint8)
    hints = [match.hint for match in colorizer.match(picture, picture)]
    assert max(hint.radius for hint in hints) > 6
    assert all(abs(hint.x - 119.5) > hint.radius - 3 for hint in hints)


@pytest.mark.slow
def test_a_picture_takes_the_colours_of_its_reference(
    colorizer: Colorizer, matches: list[Match], crops: tuple[Array, Array]
) -> None:
    picture = gray(crops[0])
    colored = colorizer(picture, reference=crops[1])
    hints = [match.hint for match in matches]
    assert np.array_equal(colored, colorizer(picture, hints=hints))
    plain = colorizer(picture)
    assert (
        np.median(misses(colored, hints, crops[0])) < 6 < np.median(misses(plain, hints, crops[0]))
    )
    assert np.array_equal(colorizer(picture, reference=[]), plain)


def test_only_the_lightness_of_the_photograph_counts(
    colorizer: Colorizer, matches: list[Match], crops: tuple[Array, Array]
) -> None:
    lightness, _ = color.split(color.to_tensor(crops[0]))
    toned = color.merge(lightness, torch.tensor((0.1, 0.1)).view(1, 2, 1, 1).expand(1, 2, 192, 256))
    other = (toned[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    found = colorizer.match(other, crops[1])
    assert abs(len(found) - len(colorizer.match(crops[0], crops[1]))) <= 4


def test_another_scene_hardly_matches(
    colorizer: Colorizer, matches: list[Match], crops: tuple[Array, Array]
) -> None:
    assert max(len(colorizer.match(crops[0], scene(seed))) for seed in (5, 6)) < len(matches) / 4


def test_of_several_references_the_surest_counts(
    colorizer: Colorizer, matches: list[Match], crops: tuple[Array, Array]
) -> None:
    found = colorizer.match(crops[0], [scene(5), crops[1], crops[0]])
    assert len(found) > len(matches) and {match.reference for match in found} == {2}
    assert all(abs(match.hint.x - (match.x * 256 - 0.5)) < 1 for match in found)


@pytest.mark.slow
def test_the_users_hints_win(
    colorizer: Colorizer, matches: list[Match], crops: tuple[Array, Array]
) -> None:
    first = matches[0].hint
    own = Hint(first.x + 5, first.y - 3, (250, 40, 200), 4)
    found = colorizer.match(gray(crops[0]), crops[1], hints=[own])
    assert found and len(found) < len(matches) + 3
    near = min(max(abs(m.hint.x - own.x), abs(m.hint.y - own.y)) for m in found)
    assert near > 2 * references.STRIDE + own.radius
    colored = colorizer(gray(crops[0]), reference=crops[1], hints=[own])
    alone = colorizer(gray(crops[0]), hints=[own])
    y, x = round(own.y), round(own.x)
    assert np.abs(colored[y, x].astype(int) - alone[y, x]).max() <= 2


@pytest.mark.parametrize("shape", [(5, 300), (9, 9), (1, 1), (350, 45)])
def test_any_shape_is_compared(colorizer: Colorizer, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    found = colorizer.match(picture, picture)
    assert all(
        -0.5 <= m.hint.x <= shape[1] - 0.5 and -0.5 <= m.hint.y <= shape[0] - 0.5 for m in found
    )
    assert colorizer(picture, reference=picture).shape == picture.shape


@pytest.mark.parametrize(
    "changes",
    [{"frozen_blocks": 1, "levels": 2}, {"frozen_blocks": 3}, {"backbone": "efficientnet-lite0"}],
)
def test_any_backbone_is_compared_by(changes: dict[str, Any], crops: tuple[Array, Array]) -> None:
    other = untrained(**changes)
    own = references.describe(crops[0], "own", other.describe_view)
    features = own.features
    assert features.fine.shape[:2] == features.coarse.shape[:2]
    assert features.fine.shape[:2] == (len(features.rows), len(features.columns))
    assert 20 < len(features.rows) < 40 and np.all(np.diff(features.rows) > 0)
    found = references.match(own, [own])
    assert found and all(abs(match.hint.x - (match.x * 256 - 0.5)) < 1e-3 for match in found)


def test_the_mean_of_networks_compares_by_the_first(
    colorizer: Colorizer, crops: tuple[Array, Array]
) -> None:
    both = Colorizer.mean([colorizer, colorizer])
    assert both.sight.features and both.match(*crops) == colorizer.match(*crops)


def test_references_that_cannot_be_are_refused_in_one_line(
    colorizer: Colorizer, crops: tuple[Array, Array], tmp_path: Any
) -> None:
    with pytest.raises(
        DataError, match="a reference must be a picture in colour, got an array in gray"
    ):
        colorizer(crops[0], reference=gray(crops[1]))
    with pytest.raises(DataError, match=r"nothing\.png"):
        colorizer(crops[0], reference=str(tmp_path / "nothing.png"))
    for sight, words in (
        (Sight(32, features=True), "a network that takes no hints; use a run trained with --hints"),
        (Sight(32, hints=True), "an ONNX model, whose features cannot be read; use the run itself"),
    ):
        with pytest.raises(ConfigError, match=f"^a reference must be left out with {words}"):
            references.check_able(sight)
    with pytest.raises(ConfigError, match="takes no hints"):
        untrained(hints=0)(crops[0], reference=crops[1])


def test_matches_are_shown(colorizer: Colorizer, crops: tuple[Array, Array]) -> None:
    one, other = (
        references.describe(crop, name, colorizer.describe_view)
        for crop, name in zip(crops, ("one", "other"), strict=True)
    )
    found = references.match(one, [other])
    shown, bare = references.show(one, [other], found), references.show(one, [other], [])
    assert isinstance(one, Exemplar) and shown.shape == bare.shape and shown.shape[1] > 2 * 400
    for half in (shown[:, : shown.shape[1] // 2], shown[:, shown.shape[1] // 2 :]):
        assert np.ptp(half.astype(int), axis=2).max() > 30  # dots in colour, also over the gray
    left = bare[:, : bare.shape[1] // 2].astype(int)
    assert np.ptp(left, axis=2).max() == 0
    assert (shown != bare).any(2).mean() > 0.001 * len(found)
