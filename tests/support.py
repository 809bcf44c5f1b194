"""What several test modules ask and start alike."""

from __future__ import annotations

import sys

import pytest

from gancolor.errors import GancolorError
from gancolor.hub import retrieval

TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run"),
    *("--standalone", "--nproc-per-node", "2"),
]
"""The beginning of a command that runs as two processes of one job."""


def refused_fetch(kind: type[GancolorError], name: str, *words: str) -> str:
    """Fetch a model, and assert one line with these words; returns it."""
    with pytest.raises(kind) as caught:
        retrieval.fetch(name)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message
