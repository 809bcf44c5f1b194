"""Where the copies of pictures go in a set's folder: names that every file system takes."""

from __future__ import annotations

import hashlib
import os

from gancolor.images import formats
from gancolor.runtime.files import LONGEST_NAME

_JPEG = (".jpg", ".jpeg")  # of JPEG's suffixes, those that training takes
_RESERVED = '<>:"|?*'  # characters that Windows does not allow in a name


def copy_name(label: str, name: str, kind: str, resized: bool) -> str:
    """Where the copy of a picture goes, relative to the set: always inside it, and found by
    training.

    `label/name` without hidden parts and `..`, in UTF-8. The suffix stays if it is right, else the
    right one is appended: .jpg for a resized copy, that of `kind` otherwise. A folder never has the
    name of a picture (`a.jpg/b.jpg` becomes `a.jpg_/b.jpg`), so that no copy is where another one
    needs a folder.
    """
    parts = [
        _safe(part)
        for part in f"{label}/{name}".replace("\\", "/").split("/")
        if part not in ("", ".")
    ]
    if formats.suffix_of(parts[-1]) not in (_JPEG if resized else formats.SUFFIXES):
        parts[-1] += ".jpg" if resized else formats.KINDS[kind].suffixes[0]
    folders = [
        f"{part}_" if formats.suffix_of(part) in formats.SUFFIXES else part for part in parts[:-1]
    ]
    return "/".join(_fit(part) for part in (*folders, parts[-1]))


def other_name(copy: str, id: int) -> str:
    """Where the copy of the picture `id` goes if another picture has the name `copy`."""
    folder, slash, name = copy.rpartition("/")
    stem, suffix = os.path.splitext(name)
    return folder + slash + _fit(f"{stem}~{id}{suffix}")


def _safe(part: str) -> str:
    text = (
        part.encode("utf-8", "surrogateescape")
        .decode("utf-8", "backslashreplace")
        .replace("\\x", "%")
    )
    if os.name == "nt":
        text = "".join(
            "_" if character in _RESERVED or ord(character) < 32 else character
            for character in text
        )
    return f"_{text}" if text.startswith(".") else text


def _fit(part: str) -> str:
    """A name that file systems take: what is too long ends in a hash of the whole."""
    if len(part.encode()) <= LONGEST_NAME:
        return part
    stem, suffix = os.path.splitext(part)
    mark = f"~{hashlib.sha256(part.encode()).hexdigest()[:12]}{suffix}"
    return stem.encode()[: LONGEST_NAME - len(mark.encode())].decode("utf-8", "ignore") + mark
