"""Journals of the doctor with pictures that nobody has to draw."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from gancolor.data.doctor import examination
from gancolor.data.doctor.journal import Journal, encoded

_GOOD = {
    "kind": "jpeg", "width": 100, "height": 80, "colorfulness": 40.0, "chroma": 30.0, "spread": 20.0, "contrast": 90.0,
    "problem": "", "given": "", "size": 1, "stamp": 1, "generation": 1, "examined": 1,
}  # fmt: skip


def add(journal: Journal, name: str, *, source: int = 1, like: str = "", **findings: Any) -> int:
    """Add a picture to the journal and return its id.

    `like`: what it looks like: equal words, equal hash and signature. `findings`: columns to set.
    """
    look = np.random.default_rng(list((like or name).encode("utf-8", "surrogateescape")))
    row = _GOOD | {
        "sha256": hashlib.sha256(encoded(name)).digest(),
        "hash": int(look.integers(2**64, dtype=np.uint64)),
        "signature": look.integers(256, size=256, dtype=np.uint8).tobytes(),
        **findings,
    }
    row["hash"] = examination.to_signed(row["hash"])
    marks = ", ".join("?" * len(row))
    with journal.connection:
        cursor = journal.connection.execute(
            f"INSERT INTO pictures (source, name, {', '.join(row)}) VALUES (?, CAST(? AS TEXT),"
            f" {marks})",
            (source, encoded(name), *row.values()),
        )
    return int(cursor.lastrowid or 0)


def blended(first: str, second: str, share: float) -> bytes:
    """Signature between those of two looks: `share` of the second."""
    looks = [np.random.default_rng(list(look.encode())) for look in (first, second)]
    one, other = (_signature(look) for look in looks)
    return np.rint(one * (1 - share) + other * share).astype(np.uint8).tobytes()


def _signature(look: np.random.Generator) -> Any:
    look.integers(2**64, dtype=np.uint64)  # the hash comes first
    return look.integers(256, size=256, dtype=np.uint8).astype(np.float64)
