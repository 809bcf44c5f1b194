"""Still lifes painted once for all processes of a test session: trainings show the same first
pictures again and again.
"""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gancolor.images.arrays import Picture

FOLDER = "GANCOLOR_TEST_PAINTINGS"
"""The variable that holds the folder of the session's still lifes; without it a process keeps its
own.
"""


def keep_paintings(patch: pytest.MonkeyPatch | None = None) -> None:
    """Let `composition.paint` look for a picture that was painted before, until `patch` undoes it."""
    import numpy as np

    from gancolor.data.still_life import composition

    whole = composition.paint

    @functools.lru_cache(4096)
    def kept(seed: int, index: int, size: int | tuple[int, int]) -> Picture:
        if not (folder := os.environ.get(FOLDER)):
            return whole(seed, index, size)
        path = Path(folder, f"{seed}, {index}, {size}.npy")
        with contextlib.suppress(OSError):
            return np.load(path)
        picture = whole(seed, index, size)
        with contextlib.suppress(OSError):  # a test may have filled the disk
            own = path.with_suffix(f".{os.getpid()}.npy")
            np.save(own, picture)
            own.replace(path)
        return picture

    patch = patch or pytest.MonkeyPatch()
    patch.setattr(composition, "paint", lambda *which: kept(*which).copy())
