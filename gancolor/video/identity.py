"""What a film is made of and how: a stopped one only goes on with the same."""

from __future__ import annotations

import dataclasses
import hashlib
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gancolor.colorizer import Colorizer

if TYPE_CHECKING:
    from gancolor.video.film import FilmSettings

_known: weakref.WeakKeyDictionary[Colorizer, str | None] = weakref.WeakKeyDictionary()  # a batch asks for each film


def describe(colorizer: Colorizer, source: Path, settings: FilmSettings, world: int) -> dict[str, Any]:
    """All that decides what the parts hold, as JSON; the keys are what a user calls it."""
    status = source.stat()
    own = {"resume", "provenance", "encoding", "start", "end"}
    making = {
        f"--{field.name.replace('_', '-')}": getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name not in own
    }
    return making | {
        "--from": settings.start,
        "--to": settings.end,
        "the encoding": dataclasses.asdict(settings.encoding),
        "the model": colorizer.name,
        "the model's weights": fingerprint(colorizer),
        "the film's size and date": [status.st_size, status.st_mtime_ns],
        "the number of processes": world,
    }


def fingerprint(colorizer: Colorizer) -> str | None:
    """16 hex digits that tell a generator's weights from others', None where there is no generator.

    Of the weights rounded to bfloat16, so that it is the same on every device, in float32 and in bfloat16.
    """
    generator = getattr(colorizer, "generator", None)
    if generator is None:
        return None
    if colorizer not in _known:
        digest = hashlib.sha256()
        for name, values in sorted(generator.state_dict().items()):
            digest.update(f"{name} {tuple(values.shape)}".encode())
            if values.is_floating_point():
                values = values.to(torch.bfloat16).contiguous().view(torch.int16)
            digest.update(values.cpu().contiguous().numpy().tobytes())
        _known[colorizer] = digest.hexdigest()[:16]
    return _known[colorizer]
