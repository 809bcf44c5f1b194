"""What was fetched before, and what it was: a folder for each address, with its files and a record of them.

The folders are in `models/` of $GANCOLOR_CACHE or of the user's cache folder. A record is JSON: `address`, `accepted`
(what each name of the model stood for when it was last accepted: a commit, a SHA-256), `files` (by that, the file's
name, its `sha256` and when it was fetched) and, of a web server's file, its `validators`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gancolor.errors import DownloadError, shown
from gancolor.files import cache_root
from gancolor.locking import held
from gancolor.remote.addresses import Address, HubAddress

_NAME = "record.json"

_log = logging.getLogger("gancolor")


@dataclass
class Record:
    """What is known of an address. See the module."""

    address: str
    accepted: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    validators: dict[str, str] = field(default_factory=dict)

    def keep(self, key: str, path: Path, sha256: str) -> None:
        """Remember a file that was fetched and checked."""
        self.files[key] = {"file": path.name, "sha256": sha256, "fetched": time.strftime("%Y-%m-%d")}

    def sha256(self, key: str) -> str | None:
        """What the file must be, None if it was never here."""
        return self.files[key]["sha256"] if key in self.files else None


def root() -> Path:
    """Where all fetched models are."""
    return cache_root() / "models"


def folder_of(address: Address) -> Path:
    """Where the files of an address are, whatever its revision or checksum."""
    if isinstance(address, HubAddress):
        return root() / "hub" / f"{address.owner}--{address.name}"
    return root() / "web" / hashlib.sha256(address.url.encode()).hexdigest()[:16]


@contextlib.contextmanager
def opened(address: Address) -> Iterator[tuple[Path, Record]]:
    """The folder and the record of an address, for one process at a time; what changes in the record is saved.

    DownloadError when they cannot be read or written.
    """
    folder = folder_of(address)
    try:
        with held(folder / ".lock", None):
            record = read(folder) or Record(_bare(address))
            before = asdict(record)  # a copy
            try:
                yield folder, record
            finally:
                if asdict(record) != before:
                    _write(folder / _NAME, record)
    except OSError as error:
        raise DownloadError(
            f"{shown(folder)} must be a folder that can be written, got '{error.strerror or error}'; choose another "
            "with $GANCOLOR_CACHE"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # where nothing was fetched


def read(folder: Path) -> Record | None:
    """The record in a folder, None if there is none. DownloadError when it is damaged."""
    try:
        values = json.loads((folder / _NAME).read_text(encoding="utf-8"))
        record = Record(**values)
        if not all(set(file) == {"file", "sha256", "fetched"} for file in record.files.values()):
            raise ValueError("its files are not described")
        return record
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError) as error:
        raise DownloadError(
            f"{shown(folder / _NAME)} must say what was fetched, got a damaged file ({error}); remove {shown(folder)} "
            "to fetch the model anew"
        ) from error


def all_kept() -> Iterator[tuple[Record, str, Path]]:
    """Every fetched file that is still there: its record, its key in it, its path. Damaged records are only said."""
    for note in sorted(root().glob(f"*/*/{_NAME}")):
        try:
            record = read(note.parent) or Record("")
        except (DownloadError, OSError) as error:
            _log.warning("%s", error)
            continue
        for key, file in record.files.items():
            if (path := note.parent / Path(file["file"]).name).is_file():
                yield record, key, path


def digest(path: Path) -> str:
    """A file's SHA-256, 64 digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bare(address: Address) -> str:
    return str(address.at(None)) if isinstance(address, HubAddress) else address.url


def _write(path: Path, record: Record) -> None:
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    os.replace(aside, path)
