"""Key frames as files in a folder: each a picture of the film's size that is named by its time, in
seconds from the film's beginning.

`000012.480.png` is the frame at 12.48 seconds. A name means the frame whose time, rounded to as
many digits, is the name, so it may have any number of digits that leaves one frame.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path

import cv2
import numpy as np
import torch

from gancolor import color
from gancolor.coloring.painting import own_chroma
from gancolor.errors import DataError, shown
from gancolor.images import formats, reader
from gancolor.images.pixels import convert
from gancolor.video.flow import FloatMap, correlation
from gancolor.video.frame_colors import luma_of_rgb
from gancolor.video.planes import Plane
from gancolor.video.probe import FilmInfo
from gancolor.video.tracking import KnownFrame

_LEAST_DIGITS, _MOST_DIGITS = 3, 9
_NAME = re.compile(r"(-?[0-9]{1,9})(?:\.([0-9]{1,9}))?")
_GRAY = 0.5  # mean CIE chroma below which a key frame without transparent pixels counts as gray
# How much of a frame's structure its key frame must have: frames of other scenes reach 0.13, true ones
# 0.99; what is painted over without shading lowers it.
_ALIKE = 0.25
_SEEN = 1 / 510  # alpha from which a pixel is not wholly transparent


@dataclass(frozen=True)
class KeyFile:
    """A file of a key frame: its `time`, in seconds from the film's beginning, is rounded to so many
    `digits`.
    """

    path: Path
    time: Fraction
    digits: int

    def means(self, time: Fraction) -> bool:
        """Whether this is the name of a frame at that time."""
        return bool(abs(time - self.time) * 10**self.digits * 2 <= 1)


def is_name(stem: str) -> bool:
    """Whether a file's name, without its suffix, is that of a key frame."""
    return _NAME.fullmatch(stem) is not None


def name_of(time: Fraction, before: Fraction | None, after: Fraction | None) -> str:
    """The name, without a suffix, of a frame at that time, in seconds from the film's beginning.

    Names sort as times do. There are three digits behind the point, or as many as it takes to tell
    the frame from its neighbours, those `before` and `after` it.
    """
    for digits in range(_LEAST_DIGITS, _MOST_DIGITS + 1):
        whole = floor(time * 10**digits + Fraction(1, 2))
        name = f"{whole // 10**digits:06d}.{whole % 10**digits:0{digits}d}"
        file = KeyFile(Path(name), Fraction(whole, 10**digits), digits)
        if not any(other is not None and file.means(other) for other in (before, after)):
            break
    return name


def key_files(folder: Path) -> tuple[list[KeyFile], list[str]]:
    """The key frames in a folder, by time, and notes on what else is there.

    Pictures are recognised by their suffixes. DataError if there is no such folder or no picture in
    it, or if a picture's name is no time.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.is_dir())
    except OSError as error:
        raise DataError(
            f"--keys must be a folder of key frames, got {shown(folder)}: {error.strerror or error}"
        ) from error
    names = [name for name in names if not name.startswith(".") and not formats.is_litter(name)]
    pictures = [
        name for name in names if (kind := formats.by_suffix(name)) is not None and kind.readable
    ]
    found = []
    for name in pictures:
        match = _NAME.fullmatch(Path(name).stem)
        if match is None:
            raise DataError(
                "key frames must be named by their time in seconds, such as 000012.480.png, got"
                f" {shown(folder / name)}; rename it or take it away"
            )
        digits = match[2] or ""
        time = Fraction(match[1] + "." + (digits or "0"))
        found.append(KeyFile(folder / name, time, len(digits)))
    if not found:
        raise DataError(
            f"--keys must hold pictures named by their time, got none in {shown(folder)}; make some"
            " with --export-keys"
        )
    others: dict[str, int] = {}
    for suffix in (formats.suffix_of(name) for name in names if name not in pictures):
        others[suffix] = others.get(suffix, 0) + 1
    notes = [f"passed over in {shown(folder)}: {formats.passed_over(others)}"] if others else []
    return sorted(found, key=lambda file: file.time), notes


def check_file(file: KeyFile, info: FilmInfo) -> None:
    """Raise a DataError unless a key frame's size is the film's, and its time inside the film."""
    width, height, _ = reader.probe(file.path)
    if (width, height) != (info.width, info.height):
        raise DataError(
            f"key frame must be of the film's size {info.width}x{info.height}, got {width}x{height}"
            f" in {shown(file.path)}"
        )
    first = info.start_pts * info.time_base - info.origin
    late = info.duration is not None and file.time > first + Fraction(info.duration) + 1
    if file.time < first - 1 or late:
        ends = "" if info.duration is None else f", which lasts {info.duration:.3f} seconds"
        raise DataError(
            f"key frame must lie inside the film{ends}, got {shown(file.path)}; take it away"
        )


def matched(
    files: Sequence[KeyFile], times: Sequence[int], info: FilmInfo, *, part: bool
) -> dict[int, KeyFile]:
    """The key frames by the times (pts) of their frames; `times` are those of all frames, growing.

    `part`: the frames are a part of the film, and key frames outside it are left out. DataError if
    no frame has such a time, or several have, or two files mean one frame.
    """
    exact = [time * info.time_base - info.origin for time in times]
    found: dict[int, KeyFile] = {}
    for file in files:
        place = bisect_left(exact, file.time)
        if part and exact and not exact[0] - 1 <= file.time <= exact[-1] + 1:
            continue
        near = range(max(0, place - 1), min(len(exact), place + 1))
        inside = _meant(file, exact, place)
        if len(inside) > 1:
            names = [name_of(exact[at], *_neighbours(exact, at)) for at in inside[:2]]
            raise DataError(
                f"key frame's name must mean one frame, got {shown(file.path)} for"
                f" {len(inside)} from {names[0]} on; write more digits, such as {names[1]}"
            )
        if not inside:
            if part and place in (0, len(exact)):
                continue
            at = min(near, key=lambda at: abs(exact[at] - file.time))
            raise DataError(
                f"key frame must be named by a frame's time, got {shown(file.path)}; the nearest"
                f" frame is {name_of(exact[at], *_neighbours(exact, at))}"
            )
        pts = times[inside[0]]
        if pts in found:
            raise DataError(
                f"a frame must have one key frame, got {shown(found[pts].path)} and"
                f" {shown(file.path)}; take one away"
            )
        found[pts] = file
    return found


def digest(file: KeyFile) -> str:
    """A hash of a key frame's file. DataError if it cannot be read."""
    try:
        return hashlib.sha256(file.path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(
            f"key frame must be readable, got {shown(file.path)}: {error.strerror or error}"
        ) from error


def known_frame(file: KeyFile, pts: int, gray: Plane, saturation: float) -> KnownFrame:
    """Read a key frame for the frame at `pts`, of which the network sees `gray` (h, w).

    Only hue and strength of the colours count; the lightness is the film's own. `saturation`: the
    factor by which small colours are multiplied before they are shown, and these are divided here.
    DataError if it cannot be read, is wholly transparent, gray without transparent pixels, or shows
    something else than the frame.
    """
    photograph = reader.read(file.path)
    pixels: FloatMap = np.nan_to_num(convert(photograph.pixels, np.float32)).clip(0, 1)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    alpha: FloatMap = np.ones(pixels.shape[:2], np.float32)
    if photograph.alpha is not None:
        alpha = np.nan_to_num(convert(photograph.alpha, np.float32)).clip(0, 1)
    if float(alpha.max()) < _SEEN:
        raise DataError(
            f"key frame must have opaque pixels, got none in {shown(file.path)}; delete it"
        )
    if float(alpha.min()) > 1 - _SEEN and own_chroma(pixels) < _GRAY:
        raise DataError(
            f"key frame must have colours, got a gray picture in {shown(file.path)}; delete it, or"
            " leave what is to be gray opaque and the rest transparent"
        )
    half_alpha = _halved(alpha)
    half_rgb = _halved(np.asarray(pixels * alpha[..., None], np.float32))
    half_rgb /= np.maximum(half_alpha, 1e-6)[..., None]
    _check_scene(file, half_rgb, half_alpha, gray)
    rgb = torch.from_numpy(np.ascontiguousarray(half_rgb.clip(0, 1))).permute(2, 0, 1)[None]
    with torch.inference_mode():
        ab = color.split(rgb)[1][0].permute(1, 2, 0).numpy()  # (H / 2, W / 2, 2)
    half_colors = np.ascontiguousarray(ab * half_alpha[..., None], np.float32)
    size = (gray.shape[1], gray.shape[0])
    small = np.asarray(cv2.resize(half_colors, size, interpolation=cv2.INTER_AREA), np.float32)
    cover = np.asarray(cv2.resize(half_alpha, size, interpolation=cv2.INTER_AREA), np.float32)
    small = small / np.float32(saturation) if saturation > 0 else np.zeros_like(small)
    return KnownFrame(
        pts, gray, small.reshape(*gray.shape, 2), cover.reshape(gray.shape), half_colors, half_alpha
    )


def _check_scene(file: KeyFile, rgb: FloatMap, alpha: FloatMap, gray: Plane) -> None:
    """Raise a DataError unless the opaque pixels of a key frame (h, w, 3) show what the frame does."""
    size = (gray.shape[1], gray.shape[0])
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).reshape(*gray.shape, 3)
    cover = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA).reshape(gray.shape)
    own = luma_of_rgb(np.asarray(np.rint(small.clip(0, 1) * 255), np.uint8))
    mixed = np.asarray(np.rint(gray + cover * (own.astype(np.float32) - gray)), np.uint8)
    alike = correlation(mixed, gray)
    if alike is not None and alike < _ALIKE:
        raise DataError(
            f"key frame must show the film's frame at its time, got another picture in"
            f" {shown(file.path)} (alike {alike:.2f} of 1, at least {_ALIKE:g}); is it of another"
            " film or time?"
        )


def _halved(values: FloatMap) -> FloatMap:
    """Values (H, W) or (H, W, C) averaged to (ceil(H / 2), ceil(W / 2))."""
    height, width = values.shape[:2]
    margins = [(0, height % 2), (0, width % 2), *[(0, 0)] * (values.ndim - 2)]
    even = np.pad(values, margins, mode="edge") if height % 2 or width % 2 else values
    size = ((width + 1) // 2, (height + 1) // 2)
    halved = cv2.resize(np.asarray(even, np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(halved, np.float32).reshape(size[1], size[0], *values.shape[2:])


def _meant(file: KeyFile, times: Sequence[Fraction], place: int) -> list[int]:
    """The places of the frames that a name means; the frame at exactly this time alone."""
    if place < len(times) and times[place] == file.time:
        return [place]
    first = place
    while first > 0 and file.means(times[first - 1]):
        first -= 1
    last = place
    while last < len(times) and file.means(times[last]):
        last += 1
    return list(range(first, last))


def _neighbours(times: Sequence[Fraction], at: int) -> tuple[Fraction | None, Fraction | None]:
    return times[at - 1] if at else None, times[at + 1] if at + 1 < len(times) else None
