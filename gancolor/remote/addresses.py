"""Addresses of models: `hf://owner/name[@revision]` on the Hub, `https://server/path[#sha256=DIGITS]` elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from gancolor import web
from gancolor.errors import ConfigError, shown

MAIN = "main"
"""The revision that a name on the Hub without one means."""

_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")  # of a name on the Hub
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubAddress:
    """A repository on the Hub. `revision`: a branch, a tag or a commit; None for what is newest there."""

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
            "the address of a model must look like hf://owner/name or https://server/model.safetensors, got "
            f"{_short(text)}"
        )
    url, _, fragment = text.partition("#")
    parts = urlsplit(url)
    if not parts.hostname or "@" in parts.netloc or not url.isprintable() or " " in url:
        raise ConfigError(f"the address of a model must look like https://server/model.safetensors, got {_short(text)}")
    if not web.is_encrypted(url):
        raise ConfigError(
            f"the address of a model must begin with https://, got {_short(text)}: over plain http anybody on the way "
            "could put another in its place"
        )
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if fragment and not found:
        raise ConfigError(f"what follows # in a model's address must be sha256= and 64 digits, got {_short(fragment)}")
    return WebAddress(url, found[1].lower() if found else None)


def _parse_hub(text: str) -> HubAddress:
    name, at, revision = text.removeprefix("hf://").partition("@")
    parts = name.split("/")
    good = len(parts) == 2 and all(_PART.fullmatch(part) and "--" not in part and ".." not in part for part in parts)
    if not text.startswith("hf://") or not good or parts[1].endswith(".git"):
        raise ConfigError(
            f"a model on the Hub must be named hf://owner/name or hf://owner/name@revision, got {_short(text)}; names "
            "are letters, digits, and single - . _ inside"
        )
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise ConfigError(f"the revision after @ must be a branch, a tag or a commit, got {_short(revision)}")
    return HubAddress(parts[0], parts[1], revision or None)


def _short(text: str) -> str:
    text = shown(text)
    return text if len(text) <= 120 else f"{text[:119]}…"
