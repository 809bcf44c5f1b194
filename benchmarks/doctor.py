"""How much of what is planted among photographs `gancolor data prepare` finds, and what it finds
that is none.

    python benchmarks/doctor.py PICTURES [PICTURES ...] --count 200

PICTURES are folders of colour photographs without gray ones and without doubles. Each change is
made to evenly chosen pictures, written as JPEG at quality 92 where nothing else is said, and judged
with the default thresholds: by itself for what is gray or toned, beside its original for doubles.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gancolor import tables
from gancolor.data import folder
from gancolor.data.doctor import examination, judge, likeness
from gancolor.data.doctor.rules import Rules
from gancolor.images import arrays

Pixels = NDArray[Any]
SEPIA = np.array(((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument(
        "--count", type=int, default=200, help="pictures that each change is made to"
    )
    options = parser.parse_args()
    paths = [place / name for place in options.pictures for name in folder.find_pictures(place)]
    rules = Rules()
    reasons = [
        judge.judge(examination.examine(path.read_bytes(), path.name), path.name, rules, False)
        for path in paths
    ]
    wrong = {reason: reasons.count(reason) for reason in sorted(set(reasons) - {""})}
    print(f"{len(paths)} photographs as they are: {wrong or 'none rejected by itself'}\n")
    chosen = paths[:: max(1, len(paths) // options.count)]
    rows = [
        {
            "planted": name,
            "as": "gray or single-tone",
            "found, %": 100 * _colourless(chosen, change, rules),
        }
        for name, change in COLOURLESS.items()
    ]
    rows += [
        {
            "planted": name,
            "as": "near-duplicate",
            "found, %": 100 * found,
            "at least on one side, %": 100 * beside,
        }
        for name, change in DOUBLES.items()
        for found, beside in [_doubles(chosen, change, rules)]
    ]
    print(tables.markdown(rows, digits=1))


def _colourless(paths: list[Path], change: Callable[[Pixels], bytes], rules: Rules) -> float:
    found = 0
    for path in paths:
        findings = examination.examine(change(arrays.read_rgb(path)), "x.jpg")
        found += judge.judge(findings, "x.jpg", rules, False) in (
            "gray",
            "single-tone",
            "blank",
        )
    return found / len(paths)


def _doubles(
    paths: list[Path], change: Callable[[Pixels], bytes], rules: Rules
) -> tuple[float, float]:
    found = beside = 0
    for path in paths:
        one = examination.examine(path.read_bytes(), path.name)
        other = examination.examine(change(arrays.read_rgb(path)), "x.jpg")
        alike = 0.0
        for mirrored in (False, True):
            bits = (one.hash ^ other.hash ^ (examination.MIRROR if mirrored else 0)).bit_count()
            pair = [np.frombuffer(findings.signature, np.uint8)[None] for findings in (one, other)]
            if bits <= rules.near_distance:
                alike = max(alike, float(likeness.correlation(*pair, np.array([mirrored]))[0]))
        found += alike >= rules.near_likeness
        beside += alike >= rules.side_likeness
    return found / len(paths), beside / len(paths)


def _jpeg(rgb: Pixels, quality: int = 92) -> bytes:
    bgr = np.asarray(rgb).clip(0, 255).astype(np.uint8)[..., ::-1]
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _gray(rgb: Pixels) -> Pixels:
    return np.repeat((rgb @ (0.299, 0.587, 0.114))[..., None], 3, axis=2)


def _toned(rgb: Pixels, color: tuple[float, float, float]) -> Pixels:
    """From black over a colour to white."""
    gray = _gray(rgb)[..., 0]
    return np.stack([np.interp(gray, (0, 128, 255), (0, level, 255)) for level in color], axis=2)


def _grained(rgb: Pixels, sigma: float) -> Pixels:
    return rgb + np.random.default_rng(0).normal(0, sigma, rgb.shape)


def _stamped(rgb: Pixels) -> Pixels:
    """With an orange date in the corner: about 1 % of the picture."""
    height, width = rgb.shape[:2]
    rgb[-height // 10 - 4 : -4, -width // 10 - 4 : -4] = (240, 130, 30)
    return rgb


def _scaled(rgb: Pixels, factor: float) -> Pixels:
    return arrays.resize(rgb, (round(rgb.shape[0] * factor), round(rgb.shape[1] * factor)))


def _cropped(rgb: Pixels, share: float) -> Pixels:
    down, across = round(rgb.shape[0] * share), round(rgb.shape[1] * share)
    return rgb[down : rgb.shape[0] - down, across : rgb.shape[1] - across]


COLOURLESS: dict[str, Callable[[Pixels], bytes]] = {
    "gray": lambda rgb: _jpeg(_gray(rgb)),
    "gray, quality 30": lambda rgb: _jpeg(_gray(rgb), 30),
    "gray, coloured grain (sigma 8)": lambda rgb: _jpeg(_grained(_gray(rgb), 8)),
    "gray, yellowish scan": lambda rgb: _jpeg(_gray(rgb) * (1.0, 0.98, 0.93)),
    "gray, orange date": lambda rgb: _jpeg(_stamped(_gray(rgb))),
    "a tenth of the colour left": lambda rgb: _jpeg(0.1 * rgb + 0.9 * _gray(rgb)),
    "a fifth of the colour left": lambda rgb: _jpeg(0.2 * rgb + 0.8 * _gray(rgb)),
    "sepia": lambda rgb: _jpeg(_gray(rgb) @ SEPIA.T / SEPIA[0].sum()),
    "sepia, quality 40": lambda rgb: _jpeg(_gray(rgb) @ SEPIA.T / SEPIA[0].sum(), 40),
    "sepia, grain (sigma 10)": lambda rgb: _jpeg(
        _grained(_gray(rgb) @ SEPIA.T / SEPIA[0].sum(), 10)
    ),
    "cyanotype": lambda rgb: _jpeg(_toned(rgb, (40, 110, 170))),
    "one colour": lambda rgb: _jpeg(np.full_like(rgb, rgb.reshape(-1, 3).mean(0).astype(np.uint8))),
}
DOUBLES: dict[str, Callable[[Pixels], bytes]] = {
    "quality 75": lambda rgb: _jpeg(rgb, 75),
    "quality 30": lambda rgb: _jpeg(rgb, 30),
    "0.3 of the size": lambda rgb: _jpeg(_scaled(rgb, 0.3)),
    "twice the size": lambda rgb: _jpeg(_scaled(rgb, 2)),
    "10 % lighter": lambda rgb: _jpeg(rgb * 1.1),
    "10 % darker": lambda rgb: _jpeg(rgb * 0.9),
    "in black and white": lambda rgb: _jpeg(_gray(rgb)),
    "mirrored": lambda rgb: _jpeg(rgb[:, ::-1]),
    "mirrored, half the size": lambda rgb: _jpeg(_scaled(np.ascontiguousarray(rgb[:, ::-1]), 0.5)),
    "1 % cut off each side": lambda rgb: _jpeg(_cropped(rgb, 0.01)),
    "2 % cut off each side": lambda rgb: _jpeg(_cropped(rgb, 0.02)),
}


if __name__ == "__main__":
    main()
