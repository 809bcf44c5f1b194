"""Keep C libraries silent: libtiff and libpng write to the process's stderr, whatever Python's own is."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()


@contextmanager
def stderr_closed() -> Iterator[None]:
    """Send what is written to stderr to nowhere, in all threads: for short calls whose error is raised anyway."""
    with _lock:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            kept = os.dup(2)
        except (OSError, ValueError):  # there is no stderr
            yield
            return
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
