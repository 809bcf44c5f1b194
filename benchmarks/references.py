"""What references bring: colours of another picture, where it shows the same things.

    python benchmarks/references.py RUN --datasets SET... --count 8 --films FILM... [--confidence 0.4 0.5 0.6]

Photographs are held-out pictures, cut to their upper left part (85 % by 70 %), and frames of films.
Their references are the lower right part of the same picture, which overlaps; that part at 0.8 and
1.25 times its size; the frame half a second before, in its own colours, and coloured automatically
as `--consistent` does with the first of a series; another picture of the set; and one of another
set. Gray pictures are left out. CIEDE2000 is against the photograph's own colours; the share of
colours is the intersection of both pictures' histograms of a*b* (cells of 10 x 10 CIE units), from
0 to 1.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from numpy.typing import NDArray
from train_step import describe_machine

from gancolor import color, metrics, tables
from gancolor.coloring import references
from gancolor.coloring.colorizer import Colorizer
from gancolor.data.dataset import open_source
from gancolor.data.doctor.examination import is_gray
from gancolor.hub import choice
from gancolor.images import arrays
from gancolor.storage import checkpoint

Picture = NDArray[np.uint8]
_CELL, _CELLS = 10, 22  # CIE units of a histogram's cells, and cells each way
_SECONDS = 0.5  # between a frame and its reference
FRAME = "frame half a second before"


class Case(NamedTuple):
    """A photograph in colour, whose lightness is coloured, and its references by kind."""

    photograph: Picture
    others: dict[str, Picture]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--datasets", nargs="+", required=True)
    parser.add_argument("--datasets-root", type=Path)
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--count", type=int, default=8, help="of each set, and of each film")
    parser.add_argument("--films", type=Path, nargs="*", default=[])
    parser.add_argument("--confidence", type=float, nargs="*", default=[references.CONFIDENCE])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    colorizer = Colorizer.load(choice.find(options.run, checkpoint.runs_root(None)).path)
    print(f"{describe_machine()}\n{colorizer.name}\n", flush=True)
    found: dict[tuple[str, float], list[dict[str, float]]] = defaultdict(list)
    for case in [*of_sets(options), *of_films(options)]:
        measure(colorizer, case, options.confidence, found)
    rows = [
        {"reference": kind, "confidence": least}
        | {"photographs": len(each)}
        | {key: float(np.mean([one[key] for one in each])) for key in each[0]}
        | {"ratio": sum(one["with"] for one in each) / sum(one["without"] for one in each)}
        for (kind, least), each in sorted(found.items())
    ]
    print(tables.markdown(rows, digits=3))


def of_sets(options: Any) -> Iterator[Case]:
    """Parts of pictures; see above."""
    sets: list[list[Picture]] = []
    for name in options.datasets:
        source = open_source(name, options.split, datasets_root=options.datasets_root)
        count = min(options.count, len(source))
        sets.append([source.read(place * len(source) // count) for place in range(count)])
    for number, pictures in enumerate(sets):
        for place, picture in enumerate(pictures):
            height, width = picture.shape[:2]
            first = picture[: round(0.85 * height), : round(0.7 * width)]
            part = picture[round(0.15 * height) :, round(0.3 * width) :]
            others = {"overlapping part": part}
            for scale in (0.8, 1.25):
                size = (round(scale * part.shape[0]), round(scale * part.shape[1]))
                others[f"overlapping part, {scale:g} times the size"] = arrays.resize(part, size)
            others["another picture of the set"] = pictures[(place + 1) % len(pictures)]
            if len(sets) > 1:
                another = sets[(number + 1) % len(sets)]
                others["a picture of another set"] = another[place % len(another)]
            yield Case(np.ascontiguousarray(first), others)


def of_films(options: Any) -> Iterator[Case]:
    """Frames spread over the films, and the frames before them."""
    for film in options.films:
        with av.open(str(film)) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            step = round(_SECONDS * float(stream.average_rate or 25))
        for place in np.linspace(step, len(frames) - 1, options.count).round().astype(int).tolist():
            yield Case(frames[place], {FRAME: frames[place - step]})


def measure(
    colorizer: Colorizer,
    case: Case,
    confidences: list[float],
    found: dict[tuple[str, float], list[dict[str, float]]],
) -> None:
    """Add a case's figures to those of each kind of reference and each least confidence."""
    photograph = case.photograph
    plain = colorizer(photograph)
    without = error(plain, photograph)
    others = dict(case.others)
    if FRAME in others:
        others["that frame, coloured automatically"] = colorizer(others[FRAME])
    for kind, other in others.items():
        other = np.ascontiguousarray(other)
        if is_gray(photograph) or is_gray(other):  # some held-out pictures are, and frames
            continue
        for least in confidences:
            references.CONFIDENCE = least
            matches = colorizer.match(photograph, other)
            hints = [match.hint for match in matches]
            colored = colorizer(photograph, hints=hints) if hints else plain
            found[kind, least].append(
                {
                    "matches": len(matches),
                    "without": without,
                    "with": error(colored, photograph),
                    "share of colours without": alike(plain, other),
                    "share with": alike(colored, other),
                }
            )


def error(picture: Picture, truth: Picture) -> float:
    """CIEDE2000 of a picture."""
    one, other = (color.to_tensor(rgb).contiguous().float() / 255 for rgb in (picture, truth))
    return float(metrics.measure(one, other)["ciede2000"])


def alike(picture: Picture, other: Picture) -> float:
    """Intersection of two pictures' histograms of a*b*."""
    shares = []
    for rgb in (picture, other):
        ab = color.split(color.to_tensor(rgb))[1][0].flatten(1).numpy() * color.AB_SCALE
        reach = _CELL * _CELLS / 2
        histogram, _, _ = np.histogram2d(*ab, bins=_CELLS, range=[(-reach, reach)] * 2)
        shares.append(histogram / histogram.sum())
    return float(np.minimum(*shares).sum())


if __name__ == "__main__":
    main()
