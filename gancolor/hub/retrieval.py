"""Fetching a model by its address: once, checked against what it must be, kept for next time and
without network.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from gancolor.errors import CheckpointError, DownloadError
from gancolor.hub import addresses, repository
from gancolor.hub.addresses import MAIN, AddressRecord, HubAddress, WebAddress, is_commit, parse
from gancolor.runtime import download
from gancolor.runtime.download import Unanswered
from gancolor.storage import checkpoint, model_file

BACKOFF = 0.5  # seconds, as of `download.fetch`

_SHORT = 12  # digits of a commit in a file's name
_SHORT_SUM = 8  # digits of a SHA-256 in one

_log = logging.getLogger("gancolor")


@dataclass(frozen=True)
class Fetched:
    """A model's file. `name`: what it is called, with the state that it is of; `sha256`: 64 digits."""

    path: Path
    name: str
    sha256: str


def fetch(text: str) -> Fetched:
    """The model of an address `hf://owner/name[@revision]` or `https://...[#sha256=...]`.

    A kept copy is used where the address says which one is meant, or where nobody answers, which is
    said. The file is always checked, against its address or against what it was when it was first
    fetched. ConfigError for no address, DownloadError for what cannot be had or has become another,
    CheckpointError for what is no model.
    """
    address = parse(text)
    with addresses.opened(address) as (folder, record):
        if isinstance(address, HubAddress):
            return _from_hub(address, folder, record)
        return _from_web(address, folder, record)


# --- the Hub ---


def _from_hub(address: HubAddress, folder: Path, record: AddressRecord) -> Fetched:
    wanted = _complete(address.revision or MAIN, record)
    if is_commit(wanted) and (kept := _kept_commit(address, folder, record, wanted)):
        record.accepted[MAIN] = wanted
        return kept
    known = record.accepted.get(wanted)
    try:
        snapshot = repository.look(address, wanted)
    except Unanswered as unanswered:
        if known is None or (kept := _kept_commit(address, folder, record, known)) is None:
            raise DownloadError(
                f"{address} could not be fetched: {repository.endpoint()} does not answer"
                f" ({unanswered}), and no copy is kept here; try again later, or take another model"
            ) from unanswered
        _log.warning(
            "%s: the Hub does not answer (%s); the copy of revision %s is used",
            address,
            unanswered,
            known,
        )
        return kept
    except DownloadError as error:
        if known is None:
            raise
        raise DownloadError(
            f"{error}; the copy that is kept here is {address.at(known)}"
        ) from error
    _check_snapshot(address, snapshot, known, record)
    if same := [file for file in record.files.values() if file["sha256"] == snapshot.sha256]:
        # only other files of the repository have changed
        record.files.setdefault(snapshot.commit, same[0])
    fetched = _kept_commit(address, folder, record, snapshot.commit) or _get(
        address, folder, record, snapshot
    )
    record.accepted[MAIN if is_commit(wanted) else wanted] = snapshot.commit
    return fetched


def _check_snapshot(
    address: HubAddress, snapshot: repository.Snapshot, known: str | None, record: AddressRecord
) -> None:
    """DownloadError for a repository without a model, and for one with another model than the
    `known` commit's.
    """
    if repository.MODEL not in snapshot.files:
        there = ", ".join(snapshot.files[:8]) or "nothing"
        raise DownloadError(
            f"{address} must hold {repository.MODEL}, got {there}; gancolor models push writes such"
            " a one"
        )
    is_same = snapshot.sha256 is not None and snapshot.sha256 == record.sha256(known or "")
    if known is not None and snapshot.commit != known and not is_same:
        raise DownloadError(
            f"{address} has changed: revision {known} when it was accepted, {snapshot.commit} now;"
            f" take the new one with {address.at(snapshot.commit)}, or keep the other with"
            f" {address.at(known)}"
        )


def _get(
    address: HubAddress, folder: Path, record: AddressRecord, snapshot: repository.Snapshot
) -> Fetched:
    """Fetch the model of a commit."""
    sha256 = record.sha256(snapshot.commit) or snapshot.sha256
    path = folder / f"{address.owner}--{address.name}@{snapshot.commit[:_SHORT]}{model_file.SUFFIX}"
    _download(address, snapshot.url(repository.MODEL), path, sha256, repository.token())
    sha256 = sha256 or addresses.digest(path)
    record.keep(snapshot.commit, path, sha256)
    return Fetched(path, f"{address.repository}@{snapshot.commit[:_SHORT]}", sha256)


def _complete(revision: str, record: AddressRecord) -> str:
    """The commit that a revision begins, if it is one that was fetched before; else the revision."""
    known = [
        commit for commit in record.files if len(revision) >= 7 and commit.startswith(revision)
    ]
    return known[0] if len(known) == 1 else revision


def _kept_commit(
    address: HubAddress, folder: Path, record: AddressRecord, commit: str
) -> Fetched | None:
    return _kept(folder, record, commit, f"{address.repository}@{commit[:_SHORT]}")


# --- other servers ---


def _from_web(address: WebAddress, folder: Path, record: AddressRecord) -> Fetched:
    known = record.accepted.get(MAIN)
    wanted = address.sha256 or known
    kept = _kept(folder, record, wanted, _name_of(address, wanted)) if wanted else None
    validators: dict[str, str] = {}
    if kept is not None and address.sha256:
        if kept.sha256 != known:
            # what the server has now is not known
            record.accepted[MAIN], record.validators = (
                kept.sha256,
                {},
            )
        return kept
    if address.sha256 is None:
        try:
            validators = _validators(address, record)
            if kept is not None and validators and validators == record.validators:
                return kept
        except Unanswered as unanswered:
            if kept is not None:
                _log.warning(
                    "%s does not answer (%s); the kept copy is used", address.url, unanswered
                )
                return kept
    fetched = _take_in(address, folder, record)
    if wanted is not None and fetched.sha256 != wanted:  # the address itself says nothing of it
        raise DownloadError(
            f"{address.url} has changed: SHA-256 {wanted} when it was accepted, {fetched.sha256}"
            f" now; take the new one with {address.pinned(fetched.sha256)}, or keep the other with"
            f" {address.pinned(wanted)}"
        )
    record.accepted[MAIN], record.validators = fetched.sha256, validators
    return fetched


def _take_in(address: WebAddress, folder: Path, record: AddressRecord) -> Fetched:
    """Fetch, and give the file the name of its kind and checksum."""
    incoming = folder / f"incoming-{(address.sha256 or 'model')[:_SHORT]}"
    _download(address, address.url, incoming, address.sha256)
    sha256 = addresses.digest(incoming)
    name = _name_of(address, sha256)
    path = folder / (name + checkpoint.suffix_of(incoming))
    os.replace(incoming, path)
    record.keep(sha256, path, sha256)
    return Fetched(path, name, sha256)


def _validators(address: WebAddress, record: AddressRecord) -> dict[str, str]:
    """By what the server tells one state of its file from another, without sending it. Unanswered
    if it does not.
    """
    ways = {"If-None-Match": "ETag", "If-Modified-Since": "Last-Modified"}
    headers = {
        way: record.validators[name] for way, name in ways.items() if name in record.validators
    }
    try:
        with download.ask(
            address.url, headers, encrypted=True, timeout=repository.TIMEOUT
        ) as response:
            names = ("ETag", "Last-Modified", "Content-Length")
            return {name: value for name in names if (value := response.headers[name])}
    except Unanswered as unanswered:
        if unanswered.status == 304:
            return record.validators
        raise


def _name_of(address: WebAddress, sha256: str) -> str:
    return f"{address.stem}-{sha256[:_SHORT_SUM]}"


# --- both ---


def _kept(folder: Path, record: AddressRecord, key: str, name: str) -> Fetched | None:
    """A file that was fetched before, if it is there and still what it was."""
    if key not in record.files:
        return None
    path, sha256 = folder / Path(record.files[key]["file"]).name, record.files[key]["sha256"]
    if not path.is_file():
        return None
    if addresses.digest(path) != sha256:
        _log.warning("%s is damaged: another is fetched", path)
        return None
    return Fetched(path, name, sha256)


def _download(
    address: HubAddress | WebAddress,
    url: str,
    path: Path,
    sha256: str | None,
    token: str | None = None,
) -> None:
    """Fetch a file that is a model which this gancolor can use; CheckpointError, and it is gone, if
    it is not.
    """
    if sha256 is None:
        path.unlink(missing_ok=True)  # left by a kill: nothing says whether it is still the same
    download.fetch(
        url,
        path,
        sha256,
        backoff=BACKOFF,
        progress=download.log_tenths(str(address)),
        token=token,
        encrypted=True,
        way_out="try again later, or take another model",
    )
    try:
        checkpoint.check(path)
    except CheckpointError as error:
        path.unlink(missing_ok=True)
        raise CheckpointError(str(error).replace(str(path), str(address))) from error
