"""Masks: read from files, and what lies outside stays to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import small_models
import torch
from numpy.typing import NDArray

from gancolor import color
from gancolor.coloring import colorizer as colorizers
from gancolor.coloring import mask_files, painting
from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import ConfigError, DataError, GancolorError
from gancolor.hints import Hint

SHARES = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1))


def saved(path: Path, picture: NDArray[Any]) -> Path:
    assert cv2.imwrite(str(path), picture)
    return path


@pytest.mark.parametrize(
    "picture",
    [
        SHARES,
        np.repeat(SHARES[..., None], 3, 2),
        np.dstack([np.full((30, 40, 3), 7, np.uint8), SHARES]),
        np.dstack([np.repeat(SHARES[..., None], 3, 2), np.full((30, 40), 255, np.uint8)]),
        SHARES.astype(np.uint16) * 257,
    ],
    ids=["gray", "rgb", "transparent", "opaque", "deep"],
)
def test_a_mask_is_gray_or_transparent(tmp_path: Path, picture: NDArray[Any]) -> None:
    mask = mask_files.read(saved(tmp_path / "mask.png", picture), 30, 40)
    assert mask.dtype == np.uint8 and np.array_equal(mask, SHARES)


def test_a_mask_from_a_jpeg_is_gray_and_the_least_share_is_one(tmp_path: Path) -> None:
    gray = np.repeat(cv2.GaussianBlur(SHARES, (5, 5), 0)[..., None], 3, 2)
    assert mask_files.read(saved(tmp_path / "mask.jpg", gray), 30, 40).max() > 240
    faint = np.zeros((30, 40), np.uint16)
    faint[3, 4] = 9
    mask = mask_files.read(saved(tmp_path / "mask.png", faint), 30, 40)
    assert mask[3, 4] == 1 and mask.sum() == 1


def test_a_mask_of_another_size_is_brought_to_the_photographs(tmp_path: Path) -> None:
    large = np.zeros((60, 80), np.uint8)
    large[20:40, 30:51] = 255
    mask = mask_files.read(saved(tmp_path / "mask.png", large), 30, 40)
    assert mask.shape == (30, 40) and mask[10:20, 15:25].min() == 255
    assert (mask[10:20, 25] == 128).all() and mask.sum() == 10 * (10 * 255 + 128)
    small = np.zeros((3, 4), np.uint8)
    small[:, 2:] = 255
    mask = mask_files.read(saved(tmp_path / "mask.png", small), 30, 40)
    assert mask.shape == (30, 40) and mask[:, :15].max() == 0 and mask[:, 25:].min() == 255
    mask_files.check(tmp_path / "mask.png", 31, 40)  # a pixel is lost to rounding


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (SHARES[:, :38], "photograph's shape, which is 40x30 pixels upright, got 38x30 in"),
        (np.full((40, 30), 255, np.uint8), "got 30x40"),
        (np.full((200, 264), 255, np.uint8), "got 264x200"),
        (np.zeros((30, 40), np.uint8), "black or transparent everywhere"),
        (np.zeros((30, 40, 4), np.uint8), "black or transparent everywhere"),
        (np.full((30, 40, 3), (0, 0, 255), np.uint8), "must be gray or transparent, got colours"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(
    tmp_path: Path, picture: NDArray[Any], words: str
) -> None:
    path = saved(tmp_path / "mask.png", picture)
    with pytest.raises(DataError, match=words) as caught:
        mask_files.read(path, 30, 40)
    assert "mask.png" in str(caught.value) and "\n" not in str(caught.value)


def test_masks_as_arrays() -> None:
    for values in (SHARES > 0, SHARES, SHARES / 255):
        mask = mask_files.of_array(values, 30, 40)
        assert mask.dtype == np.uint8 and np.array_equal(mask > 0, SHARES > 0)
    for values, words in (
        (SHARES[:3], r"size \(30, 40\), got \(3, 40\)"),
        (SHARES / 100, r"float mask must lie in \[0, 1\], got \[0, 2.55\]"),
        (SHARES.astype(np.int64), "got int64"),
        (SHARES * 0, "above 0 where the picture is to be coloured"),
        ("mask", "got str"),
    ):
        with pytest.raises(ConfigError, match=words):
            mask_files.of_array(values, 30, 40)  # type: ignore[arg-type]


def test_a_colorizer_takes_hints_and_masks_as_files_and_as_arrays(tmp_path: Path) -> None:
    made = small_models.content(hints=0.5)
    colorizer = Colorizer(colorizers.rebuild(made, tmp_path), made, device="cpu", precision="fp32")
    picture = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    path = saved(tmp_path / "mask.png", SHARES)
    colored = colorizer(picture, mask=path)
    assert np.array_equal(colored, colorizer(picture, mask=SHARES))
    assert np.array_equal(colored[SHARES == 0], picture[SHARES == 0])
    assert (colored != picture)[SHARES > 200].any()
    table = tmp_path / "points.csv"
    table.write_text("30,15,#2846be,2")
    told = colorizer(picture, hints=table)
    assert np.array_equal(told, colorizer(picture, hints=[Hint(30, 15, (40, 70, 190), 2)]))
    assert not np.array_equal(told, colorizer(picture))
    with pytest.raises(GancolorError, match=r"line 1 of .*points.csv must lie in the picture"):
        colorizer(picture[:, :20], hints=str(table))
    for mask, words in ((SHARES[1:], "got \\(29, 40\\)"), (tmp_path / "no.png", "no.png")):
        with pytest.raises(GancolorError, match=words):
            colorizer(picture, mask=mask)


# --- painting within a mask ---


def lab(rgb: NDArray[Any]) -> NDArray[np.float32]:
    white = {"uint8": 255, "uint16": 65535, "float32": 1}[rgb.dtype.name]
    tensor = torch.from_numpy((rgb.astype(np.float32) / white).transpose(2, 0, 1).copy())[None]
    values: NDArray[np.float32] = color.rgb_to_lab(tensor)[0].permute(1, 2, 0).numpy()
    return values


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("gray", [True, False], ids=["gray", "rgb"])
@pytest.mark.parametrize("channels", [2, 3], ids=["ab", "edges"])
def test_what_lies_outside_stays_to_the_bit(dtype: str, gray: bool, channels: int) -> None:
    values = np.random.default_rng(1).uniform(0.2, 0.8, (30, 40) if gray else (30, 40, 3))
    white = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    pixels = (values * white).astype(dtype)
    colors = np.full((6, 8, channels), 0.1, np.float32)
    painted = painting.paint(pixels, colors, mask=SHARES)
    whole = painting.paint(pixels, colors)
    own = np.repeat(pixels[..., None], 3, 2) if gray else pixels
    outside = SHARES == 0
    assert outside.any() and painted.dtype == pixels.dtype
    assert np.array_equal(painted[outside], own[outside])
    inside = SHARES == 255
    assert np.array_equal(painted[inside], whole[inside])
    between = ~outside & ~inside
    expected = lab(own) + SHARES[..., None] / 255 * (lab(whole) - lab(own))
    assert np.abs(lab(painted) - expected)[between].mean() < (0.5 if dtype == "uint8" else 0.2)


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    colors = np.full((6, 8, 2), 0.1, np.float32)
    whole = painting.paint(pixels, colors, mask=SHARES)
    monkeypatch.setattr(painting, "STRIP", 7 * 40)
    assert np.array_equal(painting.paint(pixels, colors, mask=SHARES), whole)
