"""How long the page takes after a click, and what `gancolor serve` costs with it and without.

python benchmarks/studio.py [PHOTOGRAPH]

A photograph (default: a generated one) is enlarged to 12 megapixels and dropped; then colours are
asked for and given at places of it, as a visitor does. Times are of the server, without the browser.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gancolor.coloring.colorizer import Colorizer
from gancolor.data.still_life import composition
from gancolor.images import arrays
from gancolor.server.film_jobs import FilmJobs
from gancolor.server.line import RequestLine
from gancolor.server.photograph_actions import PhotographActions, Visit
from gancolor.server.server_settings import ServerSettings
from gancolor.server.studio import Studio

PIXELS = 12_000_000
CLICKS = 15
STARTS = 3
PORT = 8137


def main() -> None:
    """Measure, and print one line for each figure."""
    with tempfile.TemporaryDirectory() as name:
        tempfile.tempdir = name
        measure_clicks(enlarged(Path(name)), Path(name))
    for flags in ([], ["--api-only"]):
        measure_start(flags)


def enlarged(folder: Path) -> Path:
    """A gray photograph of 12 megapixels."""
    rgb = arrays.read_rgb(sys.argv[1]) if len(sys.argv) > 1 else composition.paint(0, 0, 512)
    scale = (PIXELS / (rgb.shape[0] * rgb.shape[1])) ** 0.5
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    large = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    path = folder / "large.jpg"
    cv2.imwrite(str(path), large)
    print(f"photograph: {large.shape[1]}x{large.shape[0]} pixels")
    return path


def measure_clicks(path: Path, folder: Path) -> None:
    """What a visitor waits for."""
    settings = ServerSettings()
    line = RequestLine(settings.concurrency, settings.max_films)
    line.open()
    films = FilmJobs(settings, line)
    studio = Studio(Colorizer.load("general"), settings, line, films, folder)
    studio.folder.mkdir()
    actions = PhotographActions(studio)
    session = actions.sessions.find("visitor", studio.folder)

    def do(action: str, *values: Any, **said: Any) -> None:
        asyncio.run(getattr(actions, action)(Visit(session, said), *values))

    height, width = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).shape
    places = np.random.default_rng(0).random((CLICKS + 1, 2)) * (width - 1, height - 1)
    tell("dropped, decoded and coloured", [seconds(lambda: do("take_files", [str(path)]))])
    looks, colors, undone = [], [], []
    for number, (x, y) in enumerate(places.tolist()):
        looks.append(seconds(lambda: do("press", x=x, y=y)))  # noqa: B023  # called at once
        colors.append(seconds(lambda: do("choose_color", number=0)))
        if number % 3 == 2:
            undone.append(seconds(lambda: do("go_back")))
    tell("colours of a place", looks[1:])
    tell("coloured anew after a colour is chosen", colors[1:])
    tell("coloured anew after an undo", undone)
    tell("coloured at full size and written", [seconds(lambda: do("save_one")) for _ in range(3)])
    line.close()


def measure_start(flags: list[str]) -> None:
    """How long the server takes until it answers, and its memory then."""
    times, memory = [], []
    for _ in range(STARTS):
        start = time.perf_counter()
        command = [sys.executable, "-m", "gancolor", "serve", "--run", "general"]
        server = subprocess.Popen(
            [*command, "--port", str(PORT), *flags], stdout=subprocess.DEVNULL
        )
        while not answers(f"http://127.0.0.1:{PORT}/healthz"):
            time.sleep(0.05)
        times.append(time.perf_counter() - start)
        status = Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8")
        (kilobytes,) = (row.split()[1] for row in status.splitlines() if row.startswith("VmRSS"))
        memory.append(int(kilobytes) / 1024)
        server.terminate()
        server.wait()
    words = " ".join(["serve", *flags])
    print(
        f"{words}: answers after {min(times):.1f} s at least, median {statistics.median(times):.1f} s"
    )
    print(
        f"{words}: memory {min(memory):.0f} MiB at least, median {statistics.median(memory):.0f} MiB"
    )


def answers(address: str) -> bool:
    """Whether a server answers there."""
    try:
        with urllib.request.urlopen(address, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    """How long it takes, and how much of it all cores together compute."""
    start, computed = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - computed


def tell(what: str, times: list[tuple[float, float]]) -> None:
    """Print the least and the median, and the least that was computed."""
    waits, computed = zip(*times, strict=True)
    print(
        f"{what}: least {min(waits):.2f} s, median {statistics.median(waits):.2f} s; computed"
        f" {min(computed):.2f} s at least, median {statistics.median(computed):.2f} s"
        f" ({len(times)} times)",
        flush=True,
    )


if __name__ == "__main__":
    main()
