"""A film made small for a browser: H.264 of 8 bits in an MP4, without sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gancolor.runtime.files import written
from gancolor.video.opening import address, film_stream, load_av, opened, reason_of, unwritable

_OPTIONS = {"preset": "veryfast", "crf": "23"}


def write_excerpt(source: Path, target: Path, *, side: int) -> None:
    """Write the film `source`, of upright frames, as an MP4 whose shorter side has at most `side`
    pixels; pixels become square. DataError when it cannot be read or written.
    """
    av = load_av()
    try:
        with opened(source) as container, written(target) as file:
            stream = film_stream(container, source)
            with av.open(
                address(Path(file.name)),
                "w",
                format="mp4",
                container_options={"movflags": "+faststart"},
            ) as output:
                # The rate only bounds what the encoder may spend: frames keep their times.
                made: Any = output.add_stream("libx264", rate=25, options=_OPTIONS)
                made.width, made.height = _size(stream, side)
                made.pix_fmt = "yuv420p"
                made.time_base = made.codec_context.time_base = stream.time_base
                for frame in container.decode(stream):
                    small = frame.reformat(width=made.width, height=made.height, format="yuv420p")
                    small.pts, small.time_base = frame.pts, stream.time_base
                    small.pict_type = 0  # chosen anew
                    output.mux(made.encode(small))
                output.mux(made.encode(None))
    except (OSError, av.error.FFmpegError) as error:
        raise unwritable(target, reason_of(error)) from error


def _size(stream: Any, side: int) -> tuple[int, int]:
    """Width and height, both even, of a stream's frames with square pixels."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1
    width, height = stream.codec_context.width * aspect, stream.codec_context.height
    scale = min(1, side / min(width, height)) / 2
    return max(2, 2 * round(width * scale)), max(2, 2 * round(height * scale))
