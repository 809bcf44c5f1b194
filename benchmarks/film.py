"""Films: frames a second, and how steady and how right the colours of the finished films are.

    python benchmarks/film.py RUN FILM... [--seconds 4] [--rounds 3]        some minutes a film

Each film's luma is coloured frame by frame (the network on every frame, nothing carried), with
colours carried but the network on every frame, and as `gancolor sample` does by default. At the
network's size are measured `warping`, the change of ab along the motion of the gray film, and
`still`, the variance of ab where nothing moves, both in CIE units, and `CIEDE2000` against the
film's own colours, where it has any. `file` is warping in the finished file, read back: there 8
bits, the encoder and the film's own grain come on top. `frames/s` is from file to file, the median
of rounds in which the ways take turns; `network` is the share of frames that it saw.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import flicker
import numpy as np
import torch
from numpy.typing import NDArray
from train_step import describe_machine

from gancolor import color, tables
from gancolor.coloring import views
from gancolor.coloring.colorizer import Colorizer
from gancolor.video.film import FilmResult, color_film
from gancolor.video.film_settings import FilmSettings
from gancolor.video.propagation import Stabilizer

Frames = list[NDArray[np.uint8]]
Colors = list[NDArray[np.float32]]
WAYS = {
    "frame by frame": {"strength": 0.0},
    "carried, every frame": {"key_interval": 1},
    f"carried, every {FilmSettings.key_interval}th (default)": {},
}
_HAS_COLOR = 1.0  # mean CIE chroma


class Truth(NamedTuple):
    """A film as it is, small: its frames, their gray, the motion in it, and whether it has colours."""

    frames: Frames
    grays: Frames
    motions: list[Any]
    colored: bool


def main() -> None:
    options = parse_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    colorizer = Colorizer.load(options.run)
    print(
        f"{describe_machine()}\n{colorizer.name} at {colorizer.sight.size} px, strength"
        f" {FilmSettings.strength:g}\n"
    )
    for film in options.films:
        rows, result = measure(colorizer, film, options)
        print(
            f"{film.name}: {result.frames} frames of {result.width} x {result.height},"
            f" {result.shots} shots\n"
        )
        print(tables.markdown(rows, digits=2), end="\n\n", flush=True)


def parse_options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run directory or checkpoint")
    parser.add_argument("films", type=Path, nargs="+", metavar="FILM")
    parser.add_argument("--seconds", type=float, help="of each film (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is timed")
    parser.add_argument(
        "--threads", type=int, default=0, help="torch's threads (default: as torch chooses)"
    )
    return parser.parse_args()


def measure(
    colorizer: Colorizer, film: Path, options: Any
) -> tuple[list[dict[str, Any]], FilmResult]:
    truth = look(film, colorizer.sight.size, options.seconds)
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    results: dict[str, FilmResult] = {}
    with tempfile.TemporaryDirectory() as scratch:
        targets = {way: Path(scratch, f"{number}.mp4") for number, way in enumerate(WAYS)}
        for _ in range(options.rounds):
            for way, given in WAYS.items():
                settings = FilmSettings(end=options.seconds, **given)
                result = color_film(
                    colorizer, film, targets[way], settings, progress=lambda done, total: None
                )
                speeds[way].append(result.frames / result.seconds)
                results[way] = result
        rows = [
            {"colours": way}
            | judge(truth, stabilize(colorizer, truth, WAYS[way]))
            | {
                "file": flicker.warping_error(
                    [to_ab(frame) for frame in read(target, colorizer.sight.size)], truth.motions
                ),
                "network": results[way].network_passes / results[way].frames,
                "frames/s": statistics.median(speeds[way]),
                "x": statistics.median(speeds[way]) / statistics.median(speeds["frame by frame"]),
            }
            for way, target in targets.items()
        ]
    return rows, results[f"carried, every {FilmSettings.key_interval}th (default)"]


def look(film: Path, size: int, seconds: float | None) -> Truth:
    frames = read(film, size, seconds)
    grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    chroma = np.mean(
        [np.linalg.norm(to_ab(frame) * color.AB_SCALE, axis=2).mean() for frame in frames]
    )
    return Truth(frames, grays, flicker.film_motion(grays), bool(chroma >= _HAS_COLOR))


def read(film: Path, size: int, seconds: float | None = None) -> Frames:
    """The frames in RGB, shrunk to what the network sees."""
    frames: Frames = []
    with av.open(str(film)) as container:
        start = None
        for frame in container.decode(video=0):
            start = frame.time if start is None else start
            if seconds is not None and frame.time - start >= seconds:
                break
            rgb = frame.to_ndarray(format="rgb24")
            frames.append(views.shrink(rgb, *views.fit(rgb.shape[0], rgb.shape[1], size)))
    return frames


def stabilize(colorizer: Colorizer, truth: Truth, given: dict[str, Any]) -> Colors:
    """The colours before they are painted and encoded, ab (h, w, 2) of each frame."""
    given = {"strength": FilmSettings.strength, "key_interval": FilmSettings.key_interval} | given
    stabilizer = Stabilizer(
        lambda gray: (
            colorizer.predict_view(views.look(colorizer.sight, gray, max(gray.shape))).colors
        ),
        **given,
    )
    done = [
        colors for index, gray in enumerate(truth.grays) for colors in stabilizer.feed(index, gray)
    ]
    return [colors.ab for colors in [*done, *stabilizer.flush()]]


def judge(truth: Truth, colors: Colors) -> dict[str, Any]:
    return {
        "warping": flicker.warping_error(colors, truth.motions),
        "still": flicker.still_variance(colors, truth.motions),
        "CIEDE2000": flicker.color_error(truth.frames, colors) if truth.colored else None,
    }


def to_ab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    ab = color.split(torch.from_numpy(rgb).permute(2, 0, 1)[None])[1]
    return np.ascontiguousarray(ab[0].permute(1, 2, 0).numpy())


if __name__ == "__main__":
    main()
