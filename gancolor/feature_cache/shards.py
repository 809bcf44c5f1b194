"""Shard files: their checksums, their lock, and how a damaged one is mended."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gancolor.texts import json_of

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SUFFIX = ".features"
BLOCK = 1 << 22  # bytes read at once

_SET_ASIDE = ".damaged"
_IDLE = 600.0  # seconds since the last write after which nobody writes, where files cannot be locked
_NEAR = 4  # bytes in which a damaged header may differ from the right one


def checksums(records: NDArray[Any]) -> NDArray[np.uint32]:
    """Return the CRC-32 of each record's key and scores."""
    size = records.dtype.itemsize
    view = memoryview(records.tobytes())
    sums = (zlib.crc32(view[start : start + size - 4]) for start in range(0, len(view), size))
    return np.fromiter(sums, np.uint32, len(records))


def lock(file: IO[bytes], *, wait: bool) -> bool:
    """Lock an open shard until it is closed; say whether this process may change it.

    Where nothing can be locked, one that waits may, and another only when the file was not written for ten minutes.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:  # some network disks
            pass
    return wait or time.time() - os.fstat(file.fileno()).st_mtime > _IDLE


def is_foreign(found: bytes, header: bytes) -> bool:
    """Whether what begins a file is a whole header of another format, width or network, and no damaged one of ours.

    An identity that differs in few bytes is taken for damage: a folder holds one network's shards.
    """
    told, right = _read_header(found), json_of(header)
    if told is None:
        return False
    return not _is_near(found, header) or {**told, "identity": right["identity"]} != right


def mend(path: Path, header: bytes, record: np.dtype[Any]) -> bool:
    """Put a shard of the good records in place of a damaged one; say whether it was done.

    Not while another process appends to it or mends it. The new one is there, whole, before the old one goes; its name
    comes from its content, so that a second attempt after a kill makes no second copy. A file whose header does not
    tell whose scores it holds is set aside as *.damaged. OSError where the disk refuses: then all is as it was.
    """
    with path.open("r+b") as file:
        if not lock(file, wait=False) or not path.exists():
            return False
        found = file.read(len(header))
        ours = found == header or (_is_near(found, header) and _read_header(found) is None)
        aside = path.with_name(f"{secrets.token_hex(8)}.new")
        new = None
        try:
            if ours:
                name, kept, lost = _copy_good(file, aside, header, record)
                if not lost and found == header:  # it was being written when it looked damaged
                    return False
                if kept:
                    new = aside.replace(path.with_name(name))
                    _flush_folder(path.parent)
            if fcntl is None:
                file.close()  # Windows removes no open file
            path.unlink() if ours else path.replace(path.with_name(path.name + _SET_ASIDE))
        except OSError:
            if new is not None:
                new.unlink(missing_ok=True)
            raise
        finally:
            aside.unlink(missing_ok=True)
    return True


def _copy_good(source: IO[bytes], target: Path, header: bytes, record: np.dtype[Any]) -> tuple[str, int, int]:
    """Write the good records that follow to a new shard; return a name for it, how many they are, how many are not."""
    kept = lost = 0
    digest = hashlib.sha256(header)
    with target.open("xb") as file:
        file.write(header)
        while (
            whole := len(content := source.read(max(1, BLOCK // record.itemsize) * record.itemsize)) // record.itemsize
        ):
            records = np.frombuffer(content, record, whole)
            good = records[checksums(records) == records["crc"]]
            kept, lost = kept + len(good), lost + whole - len(good)
            digest.update(good.tobytes())
            file.write(good.tobytes())
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()[:16] + SUFFIX, kept, lost


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _is_near(found: bytes, header: bytes) -> bool:
    return len(found) == len(header) and sum(a != b for a, b in zip(found, header, strict=True)) <= _NEAR


def _read_header(found: bytes) -> dict[str, Any] | None:
    """Return what a whole header says; nothing of it where it is longer than `found`; None if it is no header."""
    line, end, _ = found.partition(b"\n")
    if not end and found.startswith(b'{"gancolor embeddings": '):
        return {}
    try:
        told = json_of(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and set(told) == {"gancolor embeddings", "identity", "width"} else None
