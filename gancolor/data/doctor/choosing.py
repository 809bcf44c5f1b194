"""Which of many are shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def spread_evenly(count: int, most: int) -> Sequence[int]:
    """At most `most` of the positions 0 to count - 1, evenly spread, each once."""
    return range(count) if count <= most else [round(place) for place in np.linspace(0, count - 1, most)]
