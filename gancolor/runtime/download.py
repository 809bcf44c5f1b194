"""Asking a web server: which redirects are followed, who is shown a token, and what a failure is
called.

Fetching a file over HTTP: resumed, checked, put in place in one piece, once for any number of
processes.

A file on a server as a stream of bytes that survives a connection which is cut.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import ipaddress
import json
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from urllib.parse import urlsplit

from gancolor.errors import DataError, DownloadError, shown
from gancolor.runtime.files import Progress, held

WORTH_ANOTHER_TRY = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses that may pass
LOST = (
    OSError,
    http.client.HTTPException,
)  # what urllib raises when the network fails; timeouts are OSErrors


class Unanswered(Exception):
    """A server did not answer, or not with what was asked for.

    `passing`: whether it makes sense to try again. `status` and `headers`: those of its answer, if
    it gave one.
    """

    def __init__(
        self,
        reason: str,
        passing: bool = True,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason)
        self.passing, self.status, self.headers = passing, status, headers or {}


def ask(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    token: str | None = None,
    encrypted: bool = False,
    timeout: float = 30.0,
) -> http.client.HTTPResponse:
    """The answer to a GET of `url`, unread. Unanswered for every other than a success.

    `token` is shown to the server of `url` alone: after a redirect to another one it is left out.
    `encrypted`: neither `url` nor what it redirects to may be plain http, except to this machine.
    `timeout` is in seconds of silence.
    """
    if not url.startswith(("http://", "https://")):
        raise Unanswered("unknown url type: it must begin with http:// or https://", passing=False)
    if encrypted and not is_encrypted(url):
        raise Unanswered("the address must begin with https://", passing=False)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "gancolor", **(headers or {})})
        if token is not None:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        opener = urllib.request.build_opener(_Redirects(encrypted))
        response: http.client.HTTPResponse = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"HTTP {error.code} {' '.join(str(error.reason).split())}"
        raise Unanswered(
            reason, error.code in WORTH_ANOTHER_TRY, error.code, dict(error.headers.items())
        ) from error
    except ValueError as error:  # no address at all
        raise Unanswered(str(error), passing=False) from error
    except LOST as error:
        raise Unanswered(words(error)) from error
    return response


def is_encrypted(url: str) -> bool:
    """Whether nobody on the way can change what `url` answers: https, or a server on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    host = parts.hostname or ""
    try:
        return parts.scheme == "http" and (
            host == "localhost" or ipaddress.ip_address(host).is_loopback
        )
    except ValueError:  # a name
        return False


def words(error: BaseException) -> str:
    """What one of `LOST` says."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(reason) or type(error).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, encrypted: bool) -> None:
        self.encrypted = encrypted

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if (
            self.encrypted
            and after.scheme != "https"
            and not (before.scheme == "http" and is_encrypted(newurl))
        ):
            fp.close()
            raise Unanswered(f"it redirects to {newurl}, which is not encrypted", passing=False)
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        known = req.unredirected_hdrs.get("Authorization")
        if new is not None and known is not None and before[:2] == after[:2]:
            new.add_unredirected_header("Authorization", known)
        return new


log = logging.getLogger("gancolor")

BLOCK = 1 << 18  # bytes
_LONGEST = 1000  # characters of a reason that are shown
WRONG = (  # what a file's name ends with that is kept although it is not the right one
    ".wrong-checksum"
)


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

    `url` may be several mirrors: the next one is tried when one fails. `checksum` is the SHA-256 in
    hexadecimal or its beginning, or `sha256:`, `sha1:` or `md5:` and its digits; None checks the
    length only. An interrupted transfer stays beside the target as `.part` and goes on from there,
    now or in a later call, if the file is still the same. A file with a wrong checksum is kept as
    `.wrong-checksum`. Network failures are tried again `retries` times, waiting `backoff` seconds,
    then twice that, and so on; `timeout` is in seconds of silence. Processes that ask for the same
    target wait for the first. `token` and `encrypted` as for `web.ask`. Raises DownloadError with
    url, reason and way out (`way_out`: another than to save the file by hand); the target then does
    not exist.
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
                    log.warning(
                        "%s has a wrong checksum (not %s...): kept as %s", target, checksum, aside
                    )
                _fetch_from_one(urls, transfer, retries, backoff, way_out or _by_hand(target))
    except OSError as error:  # the disk's: the network's are dealt with in _Transfer
        words = f"cannot write there ({error.strerror or error})"
        raise _failure(urls[0], words, way_out or _by_hand(target)) from error
    return target


def _fetch_from_one(
    urls: list[str], transfer: _Transfer, retries: int, backoff: float, way_out: str
) -> None:
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
    """One download into `target`, by way of `target.part` and `target.part.json`, which says what
    the part is of.
    """

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
        self.timeout, self.progress, self.token, self.encrypted = (
            timeout,
            progress,
            token,
            encrypted,
        )
        self.part = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")

    def run(self, url: str, retries: int, backoff: float) -> None:
        """Try until the file is complete and right; raise Unanswered when trying again is of no
        use.
        """
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
        words = (
            f"wrong checksum: {kind} must {rule} {wanted}, got {digest}; the file is kept as"
            f" {aside}"
        )
        return Unanswered(words, passing=False)

    def _attempt(self, url: str) -> bool:
        """Get what is missing of the part; return whether some of it was there before."""
        begin, validator, total = self._kept(url)
        if self.checksum is not None and begin and begin == total:
            return True  # whole, but nobody got round to checking it
        with self._ask(url, begin, validator) as response:
            if response.status != 206:
                begin = 0
            elif not _continues(
                response.headers.get("Content-Range", ""), begin, None if validator else total
            ):
                self._forget()
                raise Unanswered("the server sent another range than it was asked for")
            self._receive(url, response, begin)
        return begin > 0

    def _ask(self, url: str, begin: int, validator: str) -> http.client.HTTPResponse:
        """Send the request for the bytes from `begin` on, or for all of them if the file is another
        one by now.
        """
        headers = {"Range": f"bytes={begin}-"} if begin else {}
        if begin and validator:
            headers["If-Range"] = validator
        try:
            return ask(
                url, headers, token=self.token, encrypted=self.encrypted, timeout=self.timeout
            )
        except Unanswered as unanswered:
            if (
                unanswered.status == 416
            ):  # the part is longer than the file: the next try begins without it
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
            self.note.write_text(
                json.dumps({"url": url, "validator": validator, "total": total}), encoding="utf-8"
            )
        _check_space(self.target.parent, (total or 0) - begin)
        done = begin
        with self.part.open("ab") as file:
            # Bytes are written as they come, so that what a cut or a stall leaves is not asked for
            # again.
            while done != total and (
                block := _next_block(response, BLOCK if total is None else total - done)
            ):
                file.write(block)
                done += len(block)
                if self.progress is not None:
                    self.progress(done, total)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and done != total:
            raise Unanswered(f"the connection ended after {done} of {total} bytes")

    def _kept(self, url: str) -> tuple[int, str, int | None]:
        """Return how many bytes an earlier transfer left, the server's word for them, and how long
        the file was.

        Without that word, or from another mirror, they are only gone on with if a checksum has the
        last word.
        """
        try:
            note: Any = json.loads(self.note.read_text(encoding="utf-8"))
            validator, total, size = note["validator"], note.get("total"), self.part.stat().st_size
            # A weak ETag does not promise the same bytes.
            if (
                note["url"] == url
                and isinstance(validator, str)
                and validator
                and not validator.startswith("W/")
            ):
                return size, validator, total
            if (
                note["url"] in self.urls
                and self.checksum is not None
                and isinstance(total, int)
                and size <= total
            ):
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
        raise Unanswered(f"the connection was lost ({words(error)})") from error


def _continues(content_range: str, begin: int, total: int | None) -> bool:
    found = re.match(rf"bytes {begin}-\d+/(\d+|\*)", content_range)
    return found is not None and (total is None or found.group(1) == str(total))


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free; make room",
        )


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
        return hashlib.file_digest(
            file, lambda: hashlib.new(kind, usedforsecurity=False)
        ).hexdigest()


def _by_hand(target: Path) -> str:
    return f"download it by hand and save it as {target}"


def _failure(url: str, reason: str, way_out: str) -> DownloadError:
    said = shown(reason[:_LONGEST])  # a server may have said anything
    return DownloadError(f"download of {url} failed: {said}; {way_out}")


READ_AT_ONCE = 1 << 16  # bytes
TIMEOUT = 30.0  # seconds of silence
TRIES = 6  # without a byte in between
BACKOFF = 0.5  # seconds before the second try; twice that before the next, and so on


class RemoteFile:
    """The bytes of a remote file of `size` bytes from `start` on.

    `read` raises DataError when trying again is of no use; `failure` keeps it for who gets it
    changed by others.
    """

    def __init__(self, address: str, start: int, size: int) -> None:
        self.address, self.position, self.size = address, start, size
        self.failure: DataError | None = None
        self._response: http.client.HTTPResponse | None = None

    def __enter__(self) -> RemoteFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, b"" at the end of the file. A lost connection is made again where it
        was lost.
        """
        count = min(count, self.size - self.position)
        tries = 0
        while count > 0:
            try:
                if self._response is None:
                    self._response = self._connect()
                if data := self._response.read(count):
                    self.position += len(data)
                    return data
                reason = f"the connection ended after {self.position} of {self.size} bytes"
            except urllib.error.HTTPError as error:
                error.close()
                reason = f"HTTP {error.code} {error.reason}"
                if error.code not in WORTH_ANOTHER_TRY:
                    raise self._failure(reason) from None
            except LOST as error:
                reason = str(getattr(error, "reason", "") or error) or type(error).__name__
            self._close()
            tries += 1
            if tries == TRIES:
                raise self._failure(f"{reason} (tried {tries} times)")
            log.info("shard %s: %s; trying again", shown(self.address), shown(reason))
            time.sleep(BACKOFF * 2 ** (tries - 1))
        return b""

    def _connect(self) -> http.client.HTTPResponse:
        request = urllib.request.Request(self.address, headers={"User-Agent": "gancolor"})
        if self.position:
            request.add_header("Range", f"bytes={self.position}-")
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
        try:
            self._check(response)
        except BaseException:
            response.close()
            raise
        return response

    def _check(self, response: http.client.HTTPResponse) -> None:
        """See that it is the file that was listed, and come to the position in it."""
        if response.status == 206:
            told = response.headers.get("Content-Range", "")
            if not told.startswith(f"bytes {self.position}-"):
                raise OSError("the server sent another range than it was asked for")
            size = told.rpartition("/")[2]
        else:
            size = response.headers.get("Content-Length", "")
        if size.isdigit() and int(size) != self.size:
            raise self._failure(f"it has {size} bytes, not the {self.size} that its list tells")
        skipped = self.position if response.status == 206 else 0
        while skipped < self.position:  # a server without ranges sends all of it
            data = response.read(min(READ_AT_ONCE, self.position - skipped))
            if not data:
                raise OSError("the connection ended early")
            skipped += len(data)

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _failure(self, reason: str) -> DataError:
        said = shown(reason[:_LONGEST])  # a server may have said anything
        text = f"shard must be readable, got {shown(self.address)}: {said}; is the server there?"
        self.failure = DataError(text)
        return DataError(text)
