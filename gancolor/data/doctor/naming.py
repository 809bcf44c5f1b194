"""Names of a set's pictures: whatever a source calls them, copies lie inside the set and training finds them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from gancolor.data.doctor import examining
from gancolor.data.doctor.journal import encoded
from gancolor.photographs import kinds

_JPEG = (".jpg", ".jpeg")  # of JPEG's suffixes, those that training takes
_LONGEST = 255  # bytes of a file's name
_RESERVED = '<>:"|?*'  # characters that Windows does not allow


def copy_name(label: str, name: str, kind: str, resized: bool) -> str:
    """Where the copy of a picture goes, relative to the set: always inside it, and found by training.

    `label/name` without hidden parts and `..`, in UTF-8. The suffix stays if it is right, else the right one is
    appended: .jpg for a resized copy, that of `kind` otherwise. A folder never has the name of a picture (`a.jpg/b.jpg`
    becomes `a.jpg_/b.jpg`), so that no copy is where another one needs a folder.
    """
    parts = [_safe(part) for part in f"{label}/{name}".replace("\\", "/").split("/") if part not in ("", ".")]
    suffix = os.path.splitext(parts[-1])[1].lower()
    if suffix not in (_JPEG if resized else kinds.SUFFIXES):
        parts[-1] += ".jpg" if resized else examining.SUFFIXES[kind][0]
    folders = [f"{part}_" if os.path.splitext(part)[1].lower() in kinds.SUFFIXES else part for part in parts[:-1]]
    return "/".join(_fit(part) for part in (*folders, parts[-1]))


def other_name(copy: str, id: int) -> str:
    """Where the copy of the picture `id` goes if another picture has the name `copy`."""
    folder, slash, name = copy.rpartition("/")
    stem, suffix = os.path.splitext(name)
    return folder + slash + _fit(f"{stem}~{id}{suffix}")


def addresses(folder: Path) -> Callable[[bytes, str, bytes, bytes | None], bytes]:
    """What a picture's path in the manifest of the set in `folder` is, as a function for SQL.

    It takes the path and kind of the picture's source, its name, and its copy or NULL. All are bytes, for functions get
    no text that is not UTF-8.
    """
    inside = os.path.join(os.path.abspath(folder), "")

    def address(source: bytes, kind: str, name: bytes, copy: bytes | None) -> bytes:
        if copy is not None:
            return copy
        path = os.path.abspath(_decoded(source))
        if kind in ("folder", "manifest"):
            root = os.path.dirname(path) if kind == "manifest" else path
            path = os.path.normpath(os.path.join(root, _decoded(name)))
        else:
            path = f"{path}/{_decoded(name)}"
        return encoded(path[len(inside) :].replace(os.sep, "/") if path.startswith(inside) else path)

    return address


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


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
