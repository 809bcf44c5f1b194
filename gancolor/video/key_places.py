"""Which frames of a film are worth a key frame of the user's own: some of each shot."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from typing import NamedTuple

from gancolor.video.key_frames import name_of
from gancolor.video.probe import FilmInfo
from gancolor.video.shots import Shots

_SECONDS = 8.0  # of a shot that one key frame stands for, where there is room


class KeyPlace(NamedTuple):
    """A frame: its time `pts`, what its key frame's file is called (see `key_frames`), and its
    shot's number from 0.
    """

    pts: int
    name: str
    shot: int


def choose_places(shots: Shots, info: FilmInfo, *, most: int) -> list[KeyPlace]:
    """At most so many frames, in order: at least the middle one of each shot, or of the longest
    shots where there are too many.
    """
    spans = [
        (bisect_left(shots.times, begin), count, number)
        for number, (begin, _, count) in enumerate(shots.spans())
    ]
    if len(spans) > most:
        spans = sorted(sorted(spans, key=lambda span: -span[1])[:most])
    frames = _SECONDS * float(info.rate or 25)
    while sum(_many(count, frames) for _, count, _ in spans) > most:
        frames *= 1.5
    return [
        place_at(shots, info, first + (2 * part + 1) * count // (2 * many))
        for first, count, _ in spans
        for many in [_many(count, frames)]
        for part in range(many)
    ]


def place_at(shots: Shots, info: FilmInfo, index: int) -> KeyPlace:
    """The frame of that number, from 0; the last one for a larger number."""
    index = min(max(0, index), len(shots.times) - 1)
    near = [
        _seconds(shots.times[at], info) if 0 <= at < len(shots.times) else None
        for at in (index - 1, index, index + 1)
    ]
    assert near[1] is not None
    pts = shots.times[index]
    shot = sum(begin <= pts for begin in shots.begins) - 1
    return KeyPlace(pts, name_of(near[1], near[0], near[2]), shot)


def place_near(shots: Shots, info: FilmInfo, seconds: float) -> KeyPlace:
    """The frame that is shown at that time, in seconds from the film's beginning; the first or the
    last one for a time outside.
    """
    time = Fraction(seconds).limit_denominator(1_000_000)
    times = [_seconds(pts, info) for pts in shots.times]
    index = bisect_left(times, time)
    if index == len(times) or times[index] > time:
        index -= 1
    return place_at(shots, info, index)


def _seconds(pts: int, info: FilmInfo) -> Fraction:
    return pts * info.time_base - info.origin


def _many(count: int, frames: float) -> int:
    return max(1, round(count / frames))
