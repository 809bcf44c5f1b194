"""Lists of names on standard input: how they are encoded, what separates them, and how long one may be."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

LONGEST = 1 << 15
"""Characters of a name in a list: more than any system takes, so what is longer is no list."""

_BLOCK = 1 << 16  # bytes that are read at once
_MARKS = {  # the longer ones first: one begins with another
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


@dataclass(frozen=True)
class Unusable:
    """The rest of a list cannot be used, and why."""

    reason: str


def names(listing: BinaryIO, null: bool = False) -> Iterator[str | Unusable]:
    """The names in a list, as they come: one a line, or with `null` separated by NUL.

    A byte-order mark says how it is encoded; without one its bytes are the file system's. Names that are no text keep
    their bytes.
    """
    separator, rest = "\0" if null else "\n", ""
    try:
        for text in _texts(listing):
            if not null and "\0" in text:
                fix = "use --null for names that NUL separates, or write the list in UTF-8"
                yield Unusable(f"list must have a name a line, got a NUL; {fix}")
                return
            *whole, rest = (rest + text).split(separator)
            for name in whole:
                if len(name) <= LONGEST:
                    yield from _line(name, null)
            if max(map(len, (*whole, rest))) > LONGEST:
                yield Unusable(f"list must have names of at most {LONGEST} characters, got a longer one; is it a list?")
                return
    except UnicodeDecodeError as error:
        fix = "write the list in UTF-8"
        yield Unusable(f"list must be {error.encoding} as its first bytes say, got others ({error.reason}); {fix}")
        return
    yield from _line(rest, null)


def _line(name: str, null: bool) -> Iterator[str]:
    if not null:
        name = name.removesuffix("\r")
    if name:
        yield name


def _texts(listing: BinaryIO) -> Iterator[str]:
    """What is in a list, decoded, in pieces of any length; UnicodeDecodeError where a mark promised another thing."""
    read = listing.read1 if hasattr(listing, "read1") else listing.read
    head, more = b"", True
    while more and any(len(head) < len(mark) and mark.startswith(head) for mark in _MARKS):
        block = read(_BLOCK)
        head, more = head + block, bool(block)
    mark = next((mark for mark in _MARKS if head.startswith(mark)), b"")
    encoding = _MARKS.get(mark, sys.getfilesystemencoding())
    exact = encoding.startswith(("utf-16", "utf-32"))
    decoder = codecs.getincrementaldecoder(encoding)("strict" if exact else "surrogateescape")
    yield decoder.decode(head[len(mark) :])
    while more and (block := read(_BLOCK)):
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)
