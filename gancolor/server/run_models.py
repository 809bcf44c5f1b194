"""The models that a picture is compared with: the server's own, and at most one more at a time."""

from __future__ import annotations

from pathlib import Path

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import DataError
from gancolor.hub import choice
from gancolor.images import arrays, reader
from gancolor.images.arrays import Picture
from gancolor.server.run_list import RunList

_SIDE = 1024
"""Pixels of the longer side of what is compared, at most."""


class RunModels:
    """Colours a picture with models by their names, all on the device of the server's own, and in the
    `precision` that was asked for it. Everything but `names` runs on the thread that owns the network.
    """

    def __init__(self, own: Colorizer, runs: RunList, precision: str = "auto") -> None:
        self._own, self._runs, self._precision = own, runs, precision
        self._kept: tuple[str, Colorizer] | None = None

    @property
    def own(self) -> str:
        """What the server's own model is called here."""
        return f"this server's: {self._own.name}"

    def names(self) -> list[str]:
        """The models, the server's own first."""
        return [self.own, choice.GENERAL, *self._runs.trained()]

    def compare(self, picture: Path, names: tuple[str, str], max_pixels: int) -> list[Picture]:
        """A picture, not larger than a screen, as two models colour it, uint8 (H, W, 3).

        DataError for a name that is not listed, and for what is no picture or a larger one.
        """
        reader.probe(picture, max_pixels=max_pixels)
        rgb = arrays.read_rgb(picture)
        scale = min(1.0, _SIDE / max(rgb.shape[:2]))
        height, width = (max(1, round(length * scale)) for length in rgb.shape[:2])
        rgb = arrays.resize(rgb, (height, width))
        made: dict[str, Picture] = {}
        # What is loaded comes first, so that only what is not is loaded.
        for name in sorted(names, key=lambda name: name != (self._kept or ("",))[0]):
            if name not in made:
                made[name] = self._model(name)(rgb)
        return [made[name] for name in names]

    def _model(self, name: str) -> Colorizer:
        if name == self.own:
            return self._own
        if self._kept is not None and self._kept[0] == name:
            return self._kept[1]
        if name not in self.names():
            raise DataError("a model must be one that is listed, got another")
        self._kept = None  # its memory is free before another is loaded
        path = choice.find(name, Path()).path if name == choice.GENERAL else self._runs.find(name)
        device = str(self._own.device)
        loaded = Colorizer.load(path, device=device, precision=self._precision)
        self._kept = (name, loaded)
        return loaded
