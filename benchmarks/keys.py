"""Films with key frames of one's own: how near the finished films come to the truth with one true
frame a shot as a key frame, against the automatic ones, and how steady their colours are.

    python benchmarks/keys.py RUN FILM... [--seconds 4]        some minutes a film on two cores

The films are in colour; their luma is coloured. `CIEDE2000` is against the film's own colours and
`warping` and `still` are as in `film.py`, all at the network's size and of the finished files; so
the row `the film itself` is what the encoder alone costs. `redo` is the time to make the film again
with one key frame changed, as a share of the whole film's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from bisect import bisect_right
from pathlib import Path
from typing import Any

import flicker
import numpy as np
import torch
from film import look, read, to_ab
from train_step import describe_machine

from gancolor import tables
from gancolor.coloring.colorizer import Colorizer
from gancolor.images import arrays
from gancolor.video.decoding import FilmReader
from gancolor.video.film import color_film
from gancolor.video.film_settings import FilmSettings
from gancolor.video.frame_colors import small_gray
from gancolor.video.key_frames import name_of
from gancolor.video.shots import Shots, find_shots

WHERE = {"first": 0.0, "middle": 0.5}


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    colorizer = Colorizer.load(options.run)
    print(f"{describe_machine()}\n{colorizer.name} at {colorizer.sight.size} px\n")
    for film in options.films:
        shots = find(film, colorizer.sight.size, options.seconds)
        print(f"{film.name}: {len(shots.times)} frames, {len(shots.begins)} shots\n")
        print(tables.markdown(measure(colorizer, film, shots, options), digits=2), flush=True)
        print()


def parse_options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="run directory, checkpoint or general")
    parser.add_argument("films", type=Path, nargs="+", metavar="FILM")
    parser.add_argument("--seconds", type=float, help="of each film (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    return parser.parse_args()


def find(film: Path, size: int, seconds: float | None) -> Shots:
    with FilmReader(film, end=seconds) as reader:
        return find_shots((x.pts, small_gray(x.luma, size, reader.info)) for x in reader)


def measure(colorizer: Colorizer, film: Path, shots: Shots, options: Any) -> list[dict[str, Any]]:
    size, end = colorizer.sight.size, options.seconds
    truth = look(film, size, end)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def make(way: str, keys: Path | None) -> float:
            start, target = time.perf_counter(), folder / f"{way}.mkv"
            color_film(
                colorizer,
                film,
                target,
                FilmSettings(end=end, keys=keys),
                progress=lambda done, total: None,
            )
            return time.perf_counter() - start

        def judge(way: str, path: Path, **more: Any) -> None:
            colors = [to_ab(frame) for frame in read(path, size, end)]
            error = flicker.color_error(truth.frames, colors)
            rows.append(
                {"colours": way, "CIEDE2000": error}
                | {"share": error / rows[0]["CIEDE2000"] if rows else 1.0}
                | {"warping": flicker.warping_error(colors, truth.motions)}
                | {"still": flicker.still_variance(colors, truth.motions)}
                | more
            )

        seconds = make("automatic", None)
        judge("automatic", folder / "automatic.mkv", s=seconds)
        for where, share in WHERE.items():
            keys = folder / where
            export(film, shots, share, keys, end)
            seconds = make(where, keys)
            judge(f"with the {where} frame of each shot", folder / f"{where}.mkv", s=seconds)
            changed = sorted(keys.iterdir())[-1]
            arrays.write_rgb(changed, np.ascontiguousarray(arrays.read_rgb(changed)[..., ::-1]))
            rows[-1]["redo"] = make(where, keys) / seconds
        judge("the film itself", film)
    return rows


def export(film: Path, shots: Shots, share: float, keys: Path, end: float | None) -> None:
    """Write the film's own frame at that share of each shot as a key frame."""
    keys.mkdir()
    places = [bisect_right(shots.times, begin) - 1 for begin in shots.begins]
    wanted = {
        shots.times[first + int(share * (last - first))]
        for first, last in zip(places, [*places[1:], len(shots.times)], strict=True)
    }
    with FilmReader(film, end=end, chroma=True) as reader:
        info = reader.info
        times = [frame.pts for frame in reader if frame.pts in wanted]
    import av

    with av.open(str(film)) as container:
        for frame in container.decode(video=0):
            if frame.pts in times:
                name = name_of(frame.pts * info.time_base - info.origin, None, None)
                arrays.write_rgb(keys / f"{name}.png", frame.to_ndarray(format="rgb24"))


if __name__ == "__main__":
    main()
