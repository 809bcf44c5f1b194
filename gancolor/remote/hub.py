"""What the Hub says of a repository: which commit a revision is, which files it holds, what they must be."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from gancolor import web
from gancolor.errors import ConfigError, DownloadError
from gancolor.remote.addresses import MAIN, HubAddress, is_commit
from gancolor.web import Unanswered

MODEL, CARD, CONFIG = "model.safetensors", "README.md", "config.json"
"""A model's files in its repository."""

ENDPOINT = "https://huggingface.co"
TIMEOUT = 15.0  # seconds of silence

_MOST_ANSWER, _MOST_CARD = 1 << 24, 1 << 20  # bytes


@dataclass(frozen=True)
class Snapshot:
    """A repository at a commit. `files`: their names; `sha256`: of its model, None where the Hub does not say it."""

    address: HubAddress
    commit: str
    files: tuple[str, ...]
    sha256: str | None
    private: bool

    def url(self, file: str) -> str:
        """Where one of its files is to be had."""
        return f"{endpoint()}/{self.address.repository}/resolve/{self.commit}/{quote(file)}"


def endpoint() -> str:
    """The Hub's address: $HF_ENDPOINT or huggingface.co. ConfigError unless it is encrypted or on this machine."""
    given = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    if not web.is_encrypted(given):
        raise ConfigError(f"HF_ENDPOINT must begin with https://, got {given!r}")
    return given


def token() -> str | None:
    """The user's token for the Hub, $HF_TOKEN; None without one. ConfigError, which does not show it, for no token."""
    given = os.environ.get("HF_TOKEN", "").strip()
    if re.search(r"[^\x21-\x7e]", given):
        raise ConfigError("HF_TOKEN must be a token of the Hub, one word of plain letters and digits; copy it again")
    return given or None


def look(address: HubAddress, revision: str | None = None) -> Snapshot:
    """The repository at a revision: `revision`, else the address's own, else `main`.

    Unanswered when the Hub cannot be reached, DownloadError with the way out when it has no such thing or does not
    show it.
    """
    wanted = revision or address.revision or MAIN
    url = f"{endpoint()}/api/models/{address.repository}/revision/{quote(wanted, safe='')}?blobs=true"
    try:
        answer: Any = json.loads(_get(url, _MOST_ANSWER))
        siblings = answer["siblings"]
        files = tuple(str(item["rfilename"]) for item in siblings)
        found = [item for item in siblings if item["rfilename"] == MODEL]
        sha256 = found[0]["lfs"]["sha256"] if found and isinstance(found[0].get("lfs"), dict) else None
        commit = answer["sha"]
        if not is_commit(commit) or (sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256)):
            raise ValueError
    except Unanswered as unanswered:
        if (words := _explain(address, wanted, unanswered)) is None:
            raise
        raise DownloadError(words) from unanswered
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(f"{url} must tell of a model on the Hub, got another answer; check HF_ENDPOINT") from error
    return Snapshot(address, commit, files, sha256, bool(answer.get("private")))


def read_card(snapshot: Snapshot) -> str | None:
    """The text of a repository's card, None if it has none. Unanswered when it cannot be had."""
    if CARD not in snapshot.files:
        return None
    return _get(snapshot.url(CARD), _MOST_CARD).decode("utf-8", "replace")


def _get(url: str, most: int) -> bytes:
    try:
        with web.ask(url, token=token(), encrypted=True, timeout=TIMEOUT) as response:
            body = response.read(most + 1)
    except web.LOST as error:
        raise Unanswered(f"the connection was lost ({web.words(error)})") from error
    if len(body) > most:
        raise Unanswered(f"the answer has more than {most / 1e6:.0f} MB", passing=False)
    return body


def _explain(address: HubAddress, revision: str, unanswered: Unanswered) -> str | None:
    """What an answer of the Hub means, with the way out; None where it says nothing about the repository."""
    code = header(unanswered.headers, "X-Error-Code")
    if code == "RevisionNotFound":
        return f"{address.at(None)} must have the revision {revision!r}, got none of that name; check its spelling"
    if code == "GatedRepo":
        return (
            f"{address.at(None)} asks for its terms to be accepted: do so at {endpoint()}/{address.repository}, and "
            "set HF_TOKEN to a token of that account"
        )
    if unanswered.status in (401, 403, 404):
        if token() is None:
            way = f"if it is private, set HF_TOKEN to a token that may read it ({endpoint()}/settings/tokens)"
        else:
            way = "check its spelling, or whether the token in HF_TOKEN may read it"
        return f"{address.at(None)} must be a model on the Hub, got none that is shown to you; {way}"
    return None


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's value, whatever the case of its name; "" without it."""
    return next((value for key, value in headers.items() if key.lower() == name.lower()), "")
