"""Addresses of models, and what was fetched from each.

An address is `hf://owner/name[@revision]` on the Hub or `https://server/path[#sha256=DIGITS]`
elsewhere. Each has a folder in `models/` of $GANCOLOR_CACHE or of the user's cache folder, with the
files that were fetched and a record of them. The record is JSON: `address`, `accepted` (what each
name of the model stood for when it was last accepted: a commit, a SHA-256), `files` (by that, the
file's name, its `sha256` and when it was fetched) and, of a web server's file, its `validators`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from gancolor.errors import ConfigError, DownloadError, shown
from gancolor.runtime import download
from gancolor.runtime.files import cache_root, locked, write_whole

MAIN = "main"
"""The revision that a name on the Hub without one means."""

_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")  # of a name on the Hub
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = "record.json"

_log = logging.getLogger("gancolor")


@dataclass(frozen=True)
class HubAddress:
    """A repository on the Hub. `revision`: a branch, a tag or a commit; None for what is newest
    there.
    """

    owner: str
    name: str
    revision: str | None = None

    @property
    def repository(self) -> str:
        """owner/name."""
        return f"{self.owner}/{self.name}"

    def at(self, revision: str | None) -> HubAddress:
        """The same repository at another revision."""
        return HubAddress(self.owner, self.name, revision)

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class WebAddress:
    """A file on a web server. `sha256`: what its address says that it must be, 64 digits, or None."""

    url: str
    sha256: str | None = None

    @property
    def stem(self) -> str:
        """The file's name without its ending, fit for a file here."""
        stem = PurePosixPath(unquote(urlsplit(self.url).path)).stem
        return re.sub(r"[^\w.+-]+", "-", stem).strip(".-")[:80] or "model"

    def pinned(self, sha256: str) -> WebAddress:
        """The same file with what it must be."""
        return WebAddress(self.url, sha256)

    def __str__(self) -> str:
        return self.url + (f"#sha256={self.sha256}" if self.sha256 else "")


Address = HubAddress | WebAddress


def is_address(text: str) -> bool:
    """Whether `text` is meant as an address, not as a path or the name of a run."""
    return re.match(r"(hf:|[A-Za-z][A-Za-z0-9+.-]*://)", text) is not None


def is_commit(revision: str) -> bool:
    """Whether a revision names one state for ever: the 40 digits of a commit."""
    return _COMMIT.fullmatch(revision) is not None


def parse(text: str) -> Address:
    """The address that `text` is. ConfigError says how one must look."""
    if text.startswith("hf:"):
        return _parse_hub(text)
    if not text.startswith(("https://", "http://")):
        raise ConfigError(
            "the address of a model must look like hf://owner/name or"
            f" https://server/model.safetensors, got {_short(text)}"
        )
    url, _, fragment = text.partition("#")
    parts = urlsplit(url)
    if not parts.hostname or "@" in parts.netloc or not url.isprintable() or " " in url:
        raise ConfigError(
            "the address of a model must look like https://server/model.safetensors, got"
            f" {_short(text)}"
        )
    if not download.is_encrypted(url):
        raise ConfigError(
            f"the address of a model must begin with https://, got {_short(text)}: over plain http"
            " anybody on the way could put another in its place"
        )
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if fragment and not found:
        raise ConfigError(
            "what follows # in a model's address must be sha256= and 64 digits, got"
            f" {_short(fragment)}"
        )
    return WebAddress(url, found[1].lower() if found else None)


def _parse_hub(text: str) -> HubAddress:
    name, at, revision = text.removeprefix("hf://").partition("@")
    parts = name.split("/")
    good = len(parts) == 2 and all(
        _PART.fullmatch(part) and "--" not in part and ".." not in part for part in parts
    )
    if not text.startswith("hf://") or not good or parts[1].endswith(".git"):
        raise ConfigError(
            "a model on the Hub must be named hf://owner/name or hf://owner/name@revision, got"
            f" {_short(text)}; names are letters, digits, and single - . _ inside"
        )
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise ConfigError(
            f"the revision after @ must be a branch, a tag or a commit, got {_short(revision)}"
        )
    return HubAddress(parts[0], parts[1], revision or None)


def _short(text: str) -> str:
    text = shown(text)
    return text if len(text) <= 120 else f"{text[:119]}…"


@dataclass
class AddressRecord:
    """What is known of an address. See the module."""

    address: str
    accepted: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    validators: dict[str, str] = field(default_factory=dict)

    def keep(self, key: str, path: Path, sha256: str) -> None:
        """Remember a file that was fetched and checked."""
        self.files[key] = {
            "file": path.name,
            "sha256": sha256,
            "fetched": time.strftime("%Y-%m-%d"),
        }

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
def opened(address: Address) -> Iterator[tuple[Path, AddressRecord]]:
    """The folder and the record of an address, for one process at a time; what changes in the
    record is saved.

    DownloadError when they cannot be read or written.
    """
    folder = folder_of(address)
    try:
        with locked(folder / ".lock", None):
            record = read(folder) or AddressRecord(_bare(address))
            before = asdict(record)  # a copy
            try:
                yield folder, record
            finally:
                if asdict(record) != before:
                    write_whole(folder / _NAME, json.dumps(asdict(record), indent=2) + "\n")
    except OSError as error:
        raise DownloadError(
            f"{shown(folder)} must be a folder that can be written, got"
            f" '{error.strerror or error}'; choose another with $GANCOLOR_CACHE"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # where nothing was fetched


def read(folder: Path) -> AddressRecord | None:
    """The record in a folder, None if there is none. DownloadError when it is damaged."""
    try:
        values = json.loads((folder / _NAME).read_text(encoding="utf-8"))
        record = AddressRecord(**values)
        if not all(set(file) == {"file", "sha256", "fetched"} for file in record.files.values()):
            raise ValueError("its files are not described")
        return record
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError) as error:
        raise DownloadError(
            f"{shown(folder / _NAME)} must say what was fetched, got a damaged file ({error});"
            f" remove {shown(folder)} to fetch the model anew"
        ) from error


def all_kept() -> Iterator[tuple[AddressRecord, str, Path]]:
    """Every fetched file that is still there: its record, its key in it, its path. Damaged records
    are only said.
    """
    for note in sorted(root().glob(f"*/*/{_NAME}")):
        try:
            record = read(note.parent) or AddressRecord("")
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
