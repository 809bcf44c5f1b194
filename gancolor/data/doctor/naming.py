"""Names of copies in a set: whatever a source calls its pictures, they lie inside the set and training finds them."""

from __future__ import annotations

import hashlib
import os

from gancolor import images
from gancolor.data.doctor import examining

_JPEG = (".jpg", ".jpeg")  # of JPEG's suffixes, those that training takes
_LONGEST = 255  # bytes of a file's name
_RESERVED = '<>:"|?*'  # characters that Windows does not allow


def copy_name(label: str, name: str, kind: str, resized: bool) -> str:
    """Where the copy of a picture goes, relative to the set: always inside it, and found by training.

    `label/name` without hidden parts and `..`, in UTF-8. The suffix stays if it is right, else the right one is
    appended: .jpg for a resized copy, that of `kind` otherwise.
    """
    parts = [_safe(part) for part in f"{label}/{name}".replace("\\", "/").split("/") if part not in ("", ".")]
    suffix = os.path.splitext(parts[-1])[1].lower()
    if suffix not in (_JPEG if resized else images.SUFFIXES):
        parts[-1] += ".jpg" if resized else examining.SUFFIXES[kind][0]
    return "/".join(_fit(part) for part in parts)


def _safe(part: str) -> str:
    text = part.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\\x", "%")
    if os.name == "nt":
        text = "".join("_" if character in _RESERVED or ord(character) < 32 else character for character in text)
    return f"_{text}" if text.startswith(".") else text


def _fit(part: str) -> str:
    """A name that file systems take: what is too long ends in a hash of the whole."""
    if len(part.encode()) <= _LONGEST:
        return part
    stem, suffix = os.path.splitext(part)
    mark = f"~{hashlib.sha256(part.encode()).hexdigest()[:12]}{suffix}"
    return stem.encode()[: _LONGEST - len(mark.encode())].decode("utf-8", "ignore") + mark
