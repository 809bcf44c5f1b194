"""Fetching a file over HTTP: resumed, checked, put in place in one piece, once for any number of processes."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gancolor import web
from gancolor.errors import DownloadError
from gancolor.locking import held
from gancolor.web import LOST, Unanswered

log = logging.getLogger("gancolor")

Progress = Callable[[int, int | None], None]  # bytes done, bytes in all where the server tells

BLOCK = 1 << 18  # bytes
WRONG = ".wrong-checksum"  # what a file's name ends with that is kept although it is not the right one


def fetch(
    url: str | Sequence[str],
    target: Path,
    checksum: str | None,
    *,
    timeout: float = 30.0,
    retries: int = 3,
    backoff: float = 0.5,
    progress: Progress | None = None,
    token: str | None = None,
    encrypted: bool = False,
    way_out: str | None = None,
) -> Path:
    """Download `url` to `target` unless it is there already, and return `target`.

    `url` may be several mirrors: the next one is tried when one fails. `checksum` is the SHA-256 in hexadecimal or its
    beginning, or `sha256:`, `sha1:` or `md5:` and its digits; None checks the length only. An interrupted transfer
    stays beside the target as `.part` and goes on from there, now or in a later call, if the file is still the same. A
    file with a wrong checksum is kept as `.wrong-checksum`. Network failures are tried again `retries` times, waiting
    `backoff` seconds, then twice that, and so on; `timeout` is in seconds of silence. Processes that ask for the same
    target wait for the first. `token` and `encrypted` as for `web.ask`. Raises DownloadError with url, reason and way
    out (`way_out`: another than to save the file by hand); the target then does not exist.
    """
    urls = [url] if isinstance(url, str) else list(url)
    transfer = _Transfer(urls, target, checksum, timeout, progress, token, encrypted)
    try:
        if _is_right(target, checksum):  # without the lock: the folder may be read-only
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with held(target.with_name(target.name + ".lock"), None):
            if not _is_right(target, checksum):
                if target.exists():
                    aside = _put_aside(target, target)
                    log.warning("%s has a wrong checksum (not %s...): kept as %s", target, checksum, aside)
                _fetch_from_one(urls, transfer, retries, backoff, way_out or _by_hand(target))
    except OSError as error:  # the disk's: the network's are dealt with in _Transfer
        words = f"cannot write there ({error.strerror or error})"
        raise _failure(urls[0], words, way_out or _by_hand(target)) from error
    return target


def _fetch_from_one(urls: list[str], transfer: _Transfer, retries: int, backoff: float, way_out: str) -> None:
    """Try the mirrors in order; the error tells what was wrong with each."""
    failures: list[str] = []
    for place, url in enumerate(urls, 1):
        log.info("downloading %s to %s", url, transfer.target)
        try:
            transfer.run(url, retries, backoff)
            return
        except Unanswered as unanswered:
            failures.append(str(unanswered) if place == 1 else f"{url}: {unanswered}")
            if place < len(urls):
                log.warning("download of %s: %s; trying %s", url, unanswered, urls[place])
    raise _failure(urls[0], "; ".join(failures), way_out)


class _Transfer:
    """One download into `target`, by way of `target.part` and `target.part.json`, which says what the part is of."""

    def __init__(
        self,
        urls: list[str],
        target: Path,
        checksum: str | None,
        timeout: float,
        progress: Progress | None,
        token: str | None,
        encrypted: bool,
    ) -> None:
        self.urls, self.target, self.checksum = urls, target, checksum
        self.timeout, self.progress, self.token, self.encrypted = timeout, progress, token, encrypted
        self.part = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")

    def run(self, url: str, retries: int, backoff: float) -> None:
        """Try until the file is complete and right; raise Unanswered when trying again is of no use."""
        started_over = False
        tries = 0
        while True:
            try:
                resumed = self._attempt(url)
            except Unanswered as unanswered:
                if tries == retries or not unanswered.passing:
                    tried = f"{unanswered} (tried {tries + 1} times)" if tries else str(unanswered)
                    raise Unanswered(tried, passing=False) from unanswered
                log.warning("download of %s: %s; trying again", url, unanswered)
                time.sleep(backoff * 2**tries)
                tries += 1
                continue
            if _is_right(self.part, self.checksum):
                break
            if not resumed or started_over:
                raise self._reject()
            self._forget()
            log.warning("download of %s: the resumed file has a wrong checksum; starting over", url)
            started_over = True
        os.replace(self.part, self.target)
        self.note.unlink(missing_ok=True)

    def _reject(self) -> Unanswered:
        """Keep the part under a name that says what it is; the error names its checksum."""
        kind, wanted = _parse(self.checksum or "")
        digest = _digest(self.part, kind)
        aside = _put_aside(self.part, self.target)
        self._forget()
        rule = "be" if len(wanted) == len(digest) else "begin with"
        words = f"wrong checksum: {kind} must {rule} {wanted}, got {digest}; the file is kept as {aside}"
        return Unanswered(words, passing=False)

    def _attempt(self, url: str) -> bool:
        """Get what is missing of the part; return whether some of it was there before."""
        begin, validator, total = self._kept(url)
        if self.checksum is not None and begin and begin == total:
            return True  # whole, but nobody got round to checking it
        with self._ask(url, begin, validator) as response:
            if response.status != 206:
                begin = 0
            elif not _continues(response.headers.get("Content-Range", ""), begin, None if validator else total):
                self._forget()
                raise Unanswered("the server sent another range than it was asked for")
            self._receive(url, response, begin)
        return begin > 0

    def _ask(self, url: str, begin: int, validator: str) -> http.client.HTTPResponse:
        """Send the request for the bytes from `begin` on, or for all of them if the file is another one by now."""
        headers = {"Range": f"bytes={begin}-"} if begin else {}
        if begin and validator:
            headers["If-Range"] = validator
        try:
            return web.ask(url, headers, token=self.token, encrypted=self.encrypted, timeout=self.timeout)
        except Unanswered as unanswered:
            if unanswered.status == 416:  # the part is longer than the file: the next try begins without it
                self._forget()
                unanswered.passing = True
            raise

    def _receive(self, url: str, response: http.client.HTTPResponse, begin: int) -> None:
        """Append the response's body to the part, after its first `begin` bytes."""
        length = response.headers.get("Content-Length")
        total = begin + int(length) if length is not None and length.isdigit() else None
        if begin == 0:
            self.part.unlink(missing_ok=True)
            validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            self.note.write_text(json.dumps({"url": url, "validator": validator, "total": total}), encoding="utf-8")
        _check_space(self.target.parent, (total or 0) - begin)
        done = begin
        with self.part.open("ab") as file:
            # Bytes are written as they come, so that what a cut or a stall leaves is not asked for again.
            while done != total and (block := _next_block(response, BLOCK if total is None else total - done)):
                file.write(block)
                done += len(block)
                if self.progress is not None:
                    self.progress(done, total)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and done != total:
            raise Unanswered(f"the connection ended after {done} of {total} bytes")

    def _kept(self, url: str) -> tuple[int, str, int | None]:
        """Return how many bytes an earlier transfer left, the server's word for them, and how long the file was.

        Without that word, or from another mirror, they are only gone on with if a checksum has the last word.
        """
        try:
            note: Any = json.loads(self.note.read_text(encoding="utf-8"))
            validator, total, size = note["validator"], note.get("total"), self.part.stat().st_size
            # A weak ETag does not promise the same bytes.
            if note["url"] == url and isinstance(validator, str) and validator and not validator.startswith("W/"):
                return size, validator, total
            if note["url"] in self.urls and self.checksum is not None and isinstance(total, int) and size <= total:
                return size, "", total
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return 0, "", None

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def log_tenths(what: str) -> Progress:
    """Return a reporter for `fetch` that logs each tenth of a download of `what` once."""
    tenths = 0

    def report(done: int, total: int | None) -> None:
        nonlocal tenths
        if total and done * 10 // total > tenths:
            tenths = done * 10 // total
            log.info("downloading %s: %d %% of %.0f MB", what, tenths * 10, total / 1e6)

    return report


def _next_block(response: http.client.HTTPResponse, most: int) -> bytes:
    """Read some bytes, b"" at the end; the network's errors become Unanswered, unlike the disk's."""
    try:
        return response.read1(min(BLOCK, most))
    except LOST as error:
        raise Unanswered(f"the connection was lost ({web.words(error)})") from error


def _continues(content_range: str, begin: int, total: int | None) -> bool:
    found = re.match(rf"bytes {begin}-\d+/(\d+|\*)", content_range)
    return found is not None and (total is None or found.group(1) == str(total))


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free; make room")


def _put_aside(path: Path, target: Path) -> str:
    aside = target.with_name(target.name + WRONG)
    os.replace(path, aside)
    return aside.name


def _parse(checksum: str) -> tuple[str, str]:
    """Algorithm and digits: `md5:900150...` has both, digits alone are a SHA-256."""
    kind, _, digits = checksum.rpartition(":")
    return kind or "sha256", digits.lower()


def _is_right(path: Path, checksum: str | None) -> bool:
    if not path.is_file():
        return False
    if checksum is None:
        return True
    kind, digits = _parse(checksum)
    return _digest(path, kind).startswith(digits)


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _by_hand(target: Path) -> str:
    return f"download it by hand and save it as {target}"


def _failure(url: str, reason: str, way_out: str) -> DownloadError:
    return DownloadError(f"download of {url} failed: {reason}; {way_out}")
