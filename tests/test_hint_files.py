"""Hints in files: layers and their strokes, tables, JSON, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gancolor.coloring import hint_files
from gancolor.coloring.hint_files import MOST_POINTS
from gancolor.errors import GancolorError
from gancolor.hints import Hint

RED, BLUE, GREEN = (200, 60, 50), (40, 70, 190), (60, 140, 60)
PHOTOGRAPH = np.full((120, 160), 128, np.uint8)
SEEN = (60, 80)  # by the network, which so sees every second pixel


def layer(height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    """A transparent layer, blue, green, red, alpha as OpenCV writes them; white beneath."""
    empty = np.full((height, width, 4), 255, np.uint8)
    empty[..., 3] = 0
    return empty


def paint(
    picture: NDArray[np.uint8], places: list[tuple[int, int]], rgb: tuple[int, ...], wide: int
) -> None:
    """A smooth stroke over what is there, as an editor paints it."""
    share = np.zeros(picture.shape[:2], np.uint8)
    cv2.polylines(share, [np.array(places, np.int32)], False, 255, wide, cv2.LINE_AA)
    over = share[..., None] / 255
    under = picture[..., 3:] / 255
    alpha = over + under * (1 - over)
    mixed = (np.array(rgb[::-1]) * over + picture[..., :3] * under * (1 - over)) / np.maximum(
        alpha, 1e-6
    )
    picture[..., :3] = np.where(alpha > 0, np.rint(mixed), picture[..., :3])
    picture[..., 3] = np.rint(alpha[..., 0] * 255)


def read(path: Path, pixels: NDArray[Any] = PHOTOGRAPH) -> tuple[Hint, ...]:
    return hint_files.read(path, pixels, seen=SEEN).hints


def saved(path: Path, picture: NDArray[Any]) -> Path:
    assert cv2.imwrite(str(path), picture)
    return path


# --- layers ---


def test_a_dot_is_a_hint_at_its_pixel(tmp_path: Path) -> None:
    picture = layer()
    picture[30, 50] = (*BLUE[::-1], 255)
    (hint,) = read(saved(tmp_path / "dot.png", picture))
    assert hint == Hint(50, 30, BLUE, 0)


def test_a_stroke_is_a_few_points_inside_it_spread_over_its_length(tmp_path: Path) -> None:
    picture = layer()
    paint(picture, [(20, 60), (80, 40), (140, 60)], RED, 9)
    hints = read(saved(tmp_path / "stroke.png", picture))
    assert 5 <= len(hints) <= MOST_POINTS
    for hint in hints:
        assert np.abs(np.subtract(hint.rgb, RED)).max() <= 1
        x, y, reach = int(hint.x), int(hint.y), int(hint.radius)
        square = picture[y - reach : y + reach + 1, x - reach : x + reach + 1, 3]
        assert square.min() >= 128  # as large as the stroke allows, and no larger
    places = np.array([(hint.x, hint.y) for hint in hints])
    away = np.linalg.norm(places[:, None] - places, axis=2) + 1e3 * np.eye(len(places))
    assert away.min() >= 12 and np.ptp(places[:, 0]) > 100  # six of the network's pixels apart
    assert max(hint.radius for hint in hints) >= 2


def test_an_area_is_filled_with_points_of_the_largest_size(tmp_path: Path) -> None:
    picture = layer()
    picture[10:110, 10:150] = (*GREEN[::-1], 255)
    hints = read(saved(tmp_path / "area.png", picture))
    assert len(hints) == MOST_POINTS
    # four and a half of the network's pixels
    assert {hint.radius for hint in hints} <= set(range(9)) and hints[0].radius == 8
    places = np.array([(hint.x, hint.y) for hint in hints])
    assert (np.ptp(places, axis=0) > (120, 80)).all()


def test_points_are_where_it_is_lighter_and_darker_beneath(tmp_path: Path) -> None:
    picture = layer()
    picture[54:67, 74:87] = (*RED[::-1], 255)
    path = saved(tmp_path / "stroke.png", picture)
    uneven = PHOTOGRAPH.copy()
    uneven[:, 80:] = 30
    plain, more = read(path), read(path, uneven)
    assert len(more) > len(plain)
    assert {bool(hint.x >= 80) for hint in more} == {False, True}


def test_strokes_of_several_colours_and_no_points_of_their_smooth_edges(tmp_path: Path) -> None:
    picture = layer()
    paint(picture, [(20, 30), (140, 30)], RED, 15)
    paint(picture, [(20, 42), (140, 44)], BLUE, 15)  # over the edge of the other
    paint(picture, [(80, 20), (80, 100)], GREEN, 9)  # across both
    hints = read(saved(tmp_path / "three.png", picture))
    found = {
        min(
            (RED, BLUE, GREEN),
            key=lambda rgb: sum(abs(a - b) for a, b in zip(rgb, hint.rgb, strict=True)),
        )
        for hint in hints
    }
    assert found == {RED, BLUE, GREEN}
    for hint in hints:  # none of a mixture
        off = min(np.abs(np.subtract(hint.rgb, rgb)).max() for rgb in (RED, BLUE, GREEN))
        assert off <= 24, hint


def test_edges_that_are_mixed_with_black_say_nothing(tmp_path: Path) -> None:
    picture = np.zeros((120, 160, 4), np.uint8)
    cv2.line(picture, (20, 30), (130, 90), (*BLUE[::-1], 255), 8, cv2.LINE_AA)
    hints = read(saved(tmp_path / "stroke.png", picture))
    assert {hint.rgb for hint in hints} == {BLUE} and 3 <= len(hints) <= MOST_POINTS


def test_a_layer_of_the_same_shape_counts_at_its_places(tmp_path: Path) -> None:
    small, large = layer(60, 80), layer(480, 640)
    small[20, 30] = (*RED[::-1], 255)
    large[80:84, 120:124] = (*RED[::-1], 255)
    (hint,) = read(saved(tmp_path / "small.png", small))
    assert (hint.x, hint.y) == (60.5, 40.5)
    (hint,) = read(saved(tmp_path / "large.png", large))
    assert (hint.x, hint.y) == pytest.approx((29.9, 19.9), abs=0.1)
    rounded = layer(61, 80)  # 61.0 x 80 of 121.5 x 160
    rounded[20, 30] = (*RED[::-1], 255)
    assert len(read(saved(tmp_path / "rounded.png", rounded))) == 1


def test_a_large_layer_keeps_its_dots_and_thin_strokes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hint_files, "_LAYER_PIXELS", 40 * 30)  # blocks of 4 x 4
    picture = layer()
    picture[31, 53] = (*BLUE[::-1], 255)
    picture[90, 10:150] = (*RED[::-1], 255)
    hints = read(saved(tmp_path / "thin.png", picture))
    assert Hint(53, 31, BLUE, 0) in hints
    assert {hint.y for hint in hints if hint.rgb == RED} == {90} and len(hints) > 5


def test_other_layers_hold_hints_too(tmp_path: Path) -> None:
    picture = layer()
    picture[30:33, 50:53] = (*BLUE[::-1], 255)
    for name in ("a.webp", "a.tif"):
        (hint,) = read(saved(tmp_path / name, picture))
        assert (hint.x, hint.y, hint.radius) == (51, 31, 1)
    (hint,) = read(saved(tmp_path / "deep.png", picture.astype(np.uint16) * 257))
    assert hint.rgb == BLUE
    gray = np.zeros((120, 160, 4), np.uint8)
    gray[30, 50] = 255
    (hint,) = read(saved(tmp_path / "white.png", gray))
    assert hint.rgb == (255, 255, 255)  # without colour: that is known too


def test_the_largest_strokes_count_where_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hint_files, "MOST_STROKES", 3)
    picture = layer()
    for number in range(5):
        picture[20 * number : 20 * number + 1 + number, 10] = (*RED[::-1], 255)
    path = saved(tmp_path / "many.png", picture)
    found = hint_files.read(path, PHOTOGRAPH, seen=SEEN)
    assert found.notes == (
        "the layer of hints has more than 3 strokes: the 2 smallest were left out",
    )
    assert min(hint.y for hint in found.hints) >= 40


def test_many_strokes_have_fewer_points_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = layer()
    for row in range(5, 120, 10):
        picture[row : row + 3, 5:155] = (*RED[::-1], 255)
    path = saved(tmp_path / "many.png", picture)
    assert len(read(path)) > 60
    monkeypatch.setattr(hint_files, "MOST_OF_LAYER", 24)
    assert len(read(path)) == 24 and len({hint.y for hint in read(path)}) == 12


@pytest.mark.parametrize(
    ("shape", "alpha", "words"),
    [
        ((160, 120, 4), 0, "photograph's shape, which is 160x120 pixels upright, got 120x160"),
        ((120, 150, 4), 0, "got 150x120 in"),
        ((120, 160, 4), 0, "must be opaque where a colour is known, got .*transparent everywhere"),
        ((120, 160, 4), 255, "must be transparent where nothing is known, got .*opaque everywhere"),
        ((120, 160, 3), 0, "opaque everywhere; save the layer alone, with transparency"),
        ((120, 160), 0, "opaque everywhere"),
    ],
)
def test_a_layer_that_says_nothing_is_refused(
    tmp_path: Path, shape: tuple[int, ...], alpha: int, words: str
) -> None:
    path = saved(tmp_path / "layer.png", np.full(shape, alpha, np.uint8))
    with pytest.raises(GancolorError, match=words) as caught:
        read(path)
    assert "layer.png" in str(caught.value) and "\n" not in str(caught.value)


# --- tables ---


@pytest.mark.parametrize(
    "text",
    [
        "x,y,color,radius\n10,20,#c83c32,4\n159.5,119,#2846BE\n",
        "10,20,#c83c32,4\n\n 159.5 , 119 , #2846be ,\n".replace(" ,\n", " ,0\n"),
        '\ufeffX, Y, Color, Radius\r\n10,20,"#c83c32",4\r\n159.5,119,#2846be,0\r\n',
    ],
    ids=["header", "bare", "windows"],
)
def test_a_table_with_or_without_its_header(tmp_path: Path, text: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert read(path) == (Hint(10, 20, RED, 4), Hint(159.5, 119, BLUE, 0))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,y,color\n1,2,#102030\n1,two,#102030\n", "line 3 of .*points.csv must be x,y,#rrggbb"),
        ("1,2,#10203\n", "line 1 of .* got 1,2,#10203"),
        ("1,2,red\n", "line 1 of "),
        ("1,2\n", "line 1 of "),
        ("1,2,#102030,4,5\n", "line 1 of "),
        ("a,b,c\n1,2,#102030\n", "line 1 of .* got a,b,c"),
        ("1,2,#102030\nx,y,color\n", "line 2 of "),
        ("\n1,2,#102030\n160,2,#102030\n", "line 3 of .* must lie in the picture of 160x120"),
        ("1,-1,#102030\n", "line 1 of .* must lie in the picture"),
        ("1,2,#102030,-3\n", "line 1 of .* radius of 0 or more pixels, got -3"),
        ("1,nan,#102030\n", "line 1 of .* finite numbers"),
        ("x,y,color\n\n", "at least one point, got none in"),
        ("", "got none in"),
    ],
)
def test_a_wrong_line_of_a_table_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(GancolorError, match=words) as caught:
        read(path)
    assert "points.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    with pytest.raises(GancolorError, match=r"points.csv: No such file"):
        read(path)
    path.write_bytes("10,20,#c83c32\n".encode("utf-16"))
    with pytest.raises(GancolorError, match="text in UTF-8, got other bytes in .*points.csv"):
        read(path)


# --- JSON ---


def test_points_in_json(tmp_path: Path) -> None:
    path = tmp_path / "points.json"
    content = [
        {"x": 10, "y": 20, "color": "#c83c32", "radius": 4},
        {"x": 159.5, "y": 119, "color": "#2846be"},
    ]
    path.write_text(json.dumps(content))
    assert read(path) == (Hint(10, 20, RED, 4), Hint(159.5, 119, BLUE, 0))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[{", "points.json must be JSON like .*got something else"),
        ("[" * 100_000, "must be JSON"),
        ('{"x": 1}', "points.json must be a list like .*got a dict"),
        ("[]", "got none in"),
        ('[{"x": 1, "y": 2, "color": "#102030"}, {"x": 1, "y": 2}]', "hint 2 of .* must be like"),
        ('[{"x": 1, "y": 2, "color": "#102030", "size": 2}]', "hint 1 of "),
        ('[{"x": true, "y": 2, "color": "#102030"}]', "hint 1 of "),
        ('[{"x": "1", "y": 2, "color": "#102030"}]', "hint 1 of "),
        ('[{"x": 1, "y": 2, "color": 7}]', "hint 1 of "),
        ("[7]", "hint 1 of .* got 7"),
        (f'[{{"x": 1{"0" * 400}, "y": 2, "color": "#102030"}}]', "hint 1 of "),
        ('[{"x": 1, "y": 120, "color": "#102030"}]', "hint 1 of .* must lie in the picture"),
    ],
)
def test_wrong_json_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "points.json"
    path.write_text(text)
    with pytest.raises(GancolorError, match=words) as caught:
        read(path)
    assert "points.json" in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
