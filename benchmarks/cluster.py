"""What it costs to have photographs coloured on a Ray cluster instead of by the processes of one
machine: pictures a second, seconds a file beside the work, and memory.

    python benchmarks/cluster.py [--pictures 60] [--rounds 3]       about six minutes on two cores

A cluster of one node with all cores of this machine is begun once; the rounds of the two ways take
turns. `all` is from the command's beginning to the last file: on the cluster that includes an
actor that begins and loads the model. `between` is from the first file that ended to the last one:
what a long batch comes to. `memory` is the most that this process and all that it began held at
once (PSS), what Ray itself needs included.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train_step import describe_machine

from gancolor import tables
from gancolor.batch import dispatch
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.input_files import expand
from gancolor.batch.records import Record, Report
from gancolor.batch.station import Station
from gancolor.coloring.colorizer import Colorizer
from gancolor.data.still_life.composition import paint
from gancolor.hub import choice
from gancolor.images import arrays
from gancolor.runtime.cluster import Cluster
from gancolor.video.film_settings import FilmSettings

SIZE = (600, 800)  # pixels


_AT_ONCE = 0.05  # seconds between files that count as having ended together


def main() -> None:
    """Print a row for each way."""
    options = parse_options()
    model = choice.find(choice.GENERAL, Path())
    settings = BatchSettings(workers=1, existing="overwrite")
    rows: dict[str, list[tuple[float, float, float]]] = {"processes here": [], "Ray": []}
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder, "old")
        old.mkdir()
        for number in range(options.pictures):
            arrays.write_rgb(old / f"{number}.jpg", paint(1, number, SIZE))
        print(f"{describe_machine()}\n{options.pictures} photographs of {SIZE[1]}x{SIZE[0]}\n")
        begun = time.perf_counter()
        with Cluster() as cluster:
            print(f"Ray began in {time.perf_counter() - begun:.1f} s\n", flush=True)
            station = Station((model,), "cpu", "fp32", settings, FilmSettings())
            for number in range(options.rounds):
                for way, times in rows.items():
                    new = Path(folder, f"{way} {number}")
                    with Report(new) as report, watched() as memory:
                        clock = Clock()
                        items = expand([str(old)], new)
                        told: Any = {"report": report, "progress": clock.tell}
                        if way == "Ray":
                            dispatch.run_elsewhere(
                                lambda chunks: cluster.spread(station, chunks),
                                *(items, settings),
                                **told,
                            )
                        else:
                            colorizer = Colorizer.load(model.path, device="cpu", precision="fp32")
                            dispatch.run(colorizer, items, settings, **told)
                    times.append((*clock.seconds(), max(memory)))
                    print(way, *(f"{value:.2f}" for value in times[-1]), flush=True)
    print()
    print(tables.markdown([row(way, times) for way, times in rows.items()]))


def parse_options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def row(way: str, times: list[tuple[float, float, float]]) -> dict[str, object]:
    """The middle of the rounds."""
    whole, each, memory = (statistics.median(values) for values in zip(*times, strict=True))
    return {
        "way": way,
        "all (s)": round(whole, 1),
        "pictures/s": round(1 / each, 2),
        "ms a picture": round(1000 * each),
        "memory (MB)": round(memory),
    }


class Clock:
    """When files ended, from now on."""

    def __init__(self) -> None:
        self._begun, self._ends = time.perf_counter(), list[float]()

    def tell(self, record: Record) -> None:
        """A file has ended. RuntimeError if it failed."""
        if record.status != "done":
            raise RuntimeError(record.error)
        self._ends.append(time.perf_counter())

    def seconds(self) -> tuple[float, float]:
        """From the beginning to the last file, and for each file behind those that ended first: a
        cluster tells of several at once.
        """
        first, last = self._ends[0], self._ends[-1]
        later = sum(end - first > _AT_ONCE for end in self._ends)
        return last - self._begun, (last - first) / later


@contextlib.contextmanager
def watched() -> Iterator[list[float]]:
    """What this process and those that it began hold (MB), looked at twice a second."""
    found, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            found.append(sum(map(_held, _family())))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _family() -> list[int]:
    """This process and all that come from it."""
    import os

    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                words = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(words[1])
    family = {os.getpid()}
    while more := {each for each, parent in parents.items() if parent in family} - family:
        family |= more
    return sorted(family)


def _held(process: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1000
    return 0.0


if __name__ == "__main__":
    main()
