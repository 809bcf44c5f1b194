"""Photographs and films coloured from file to file, for gpu.py."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stand_ins
import torch
from gpu_report import TARGETS, Report, Rows

from gancolor import presets, tables
from gancolor.training.state import State


def save_model(folder: Path, size: int) -> Path:
    """A model of the preset `fast`, untrained: that changes no speed."""
    from gancolor.storage import checkpoint

    config = presets.build(
        "fast", image_size=size, backbone_weights="none", encoder_weights="none", precision="fp32"
    )
    path = folder / "fast.pt"
    checkpoint.save(path, State(config, torch.device("cpu")).colorizer_dict(), config)
    return path


def measure_photographs(report: Report) -> Rows:
    """`gancolor sample` on a folder of pictures, from file to file; its start is not counted."""
    from gancolor.data.still_life import composition
    from gancolor.images import arrays
    from gancolor.runtime.workers import usable_cores

    rows: Rows = []
    cores, sizes = usable_cores(), report.sizes
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, many = save_model(folder, sizes.view), folder / "many"
        many.mkdir()
        picture = arrays.resize(composition.paint(0, 0, (sizes.view, sizes.view)), sizes.picture)
        arrays.write_rgb(many / "0000.jpg", picture, quality=92)
        for index in range(1, sizes.pictures):
            (many / f"{index:04d}.jpg").write_bytes((many / "0000.jpg").read_bytes())
        workers = min(cores, 64)
        spent = [
            sample(report, [*many.iterdir()][:1], folder / "one", model, 0),
            sample(report, [many], folder / "all", model, workers),
        ]
        rate = (sizes.pictures - 1) / max(1e-9, spent[1] - spent[0])
        height, width = sizes.picture
        rows.append(
            {
                "megapixels": height * width / 1e6,
                "cores": cores,
                "pictures": sizes.pictures,
                "start, s": spent[0],
                "whole, s": spent[1],
                "photographs/s": rate,
            }
        )
    print(tables.markdown(rows, digits=2))
    print(f"target on an H100 with 16 cores, 2 megapixels: {TARGETS['photographs/s']:.0f}")
    return rows


def sample(report: Report, inputs: Sequence[Path], out: Path, model: Path, workers: int) -> float:
    command = [sys.executable, "-m", "gancolor", "sample", *map(str, inputs), "--out", str(out)]
    command += ["--run", str(model), "--device", str(report.device), "--workers", str(workers)]
    path = os.pathsep.join(filter(None, (str(stand_ins.REPOSITORY), os.environ.get("PYTHONPATH"))))
    start = time.perf_counter()
    limit = max(5.0, report.ends - time.monotonic())
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        timeout=limit,
        env={**os.environ, "PYTHONPATH": path},
    )
    return time.perf_counter() - start


def measure_films(report: Report) -> Rows:
    """A film of moving stripes, from file to file, in one process."""
    import av
    import numpy as np

    from gancolor.coloring.colorizer import Colorizer
    from gancolor.video.film import color_film
    from gancolor.video.film_settings import FilmSettings

    (height, width), frames = report.sizes.film, report.sizes.frames
    rows: Rows = []
    with tempfile.TemporaryDirectory() as scratch:
        film = Path(scratch) / "film.mkv"
        with av.open(str(film), "w") as container:
            stream: Any = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            down, along = np.mgrid[0:height, 0:width].astype(np.float32)
            for index in range(frames):
                shade = 110 + 60 * np.sin((along + 2 * index) / 23) * np.cos(down / 31)
                gray = np.repeat(shade.astype(np.uint8)[..., None], 3, axis=2)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(gray, format="rgb24")))
            container.mux(stream.encode(None))
        model = save_model(Path(scratch), report.sizes.view)
        colorizer = Colorizer.load(model, device=str(report.device))
        colorizer.predict(np.zeros((report.sizes.view, report.sizes.view, 3), np.uint8))
        start = time.perf_counter()
        result = color_film(
            colorizer, film, Path(scratch) / "new.mkv", FilmSettings(), progress=lambda *_: None
        )
        spent = time.perf_counter() - start
        rows.append(
            {
                "film": f"{width} x {height}",
                "frames": result.frames,
                "network": result.network_passes,
                "film frames/s": result.frames / spent,
                **{f"{name}, s": value for name, value in result.busy.items()},
            }
        )
    print(tables.markdown(rows, digits=2))
    print(f"target on an H100, 1920 x 1080: {TARGETS['film frames/s']:.0f} frames/s")
    return rows
