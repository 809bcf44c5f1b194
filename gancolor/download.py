"""Fetching a file over HTTP: resumed, checked, put in place in one piece, once for any number of processes."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from gancolor.errors import DownloadError

if sys.platform != "win32":  # there two processes at once are not kept apart
    import fcntl

log = logging.getLogger("gancolor")

Progress = Callable[[int, int | None], None]  # bytes done, bytes in all where the server tells

BLOCK = 1 << 18  # bytes
WORTH_ANOTHER_TRY = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses that may pass
LOST = (OSError, http.client.HTTPException)  # what urllib raises when the network fails; timeouts are OSErrors


def fetch(
    url: str,
    target: Path,
    sha256: str | None,
    *,
    timeout: float = 30.0,
    retries: int = 3,
    backoff: float = 0.5,
    progress: Progress | None = None,
) -> Path:
    """Download `url` to `target` unless it is there already, and return `target`.

    `sha256` is the checksum in hexadecimal or its beginning; None checks the length only. An interrupted transfer stays
    beside the target as `.part` and goes on from there, now or in a later call, if the server can and its file is still
    the same. Network failures are tried again `retries` times, waiting `backoff` seconds, then twice that, and so on;
    `timeout` is in seconds of silence. Processes that ask for the same target wait for the first.
    Raises DownloadError with url, reason and way out; the target then does not exist.
    """
    try:
        if _is_right(target, sha256):  # without the lock: the folder may be read-only
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target):
            if not _is_right(target, sha256):
                if target.exists():
                    log.warning("%s has a wrong checksum (not %s...); downloading it again", target, sha256)
                    target.unlink()
                log.info("downloading %s to %s", url, target)
                _Transfer(url, target, sha256, timeout, progress).run(retries, backoff)
    except OSError as error:  # the disk's: the network's are dealt with in _Transfer
        raise _failure(url, target, f"cannot write there ({error.strerror or error})") from error
    return target


class _Transfer:
    """One download into `target`, by way of `target.part` and `target.part.json`, which says what the part is of."""

    def __init__(self, url: str, target: Path, sha256: str | None, timeout: float, progress: Progress | None) -> None:
        self.url, self.target, self.sha256 = url, target, sha256
        self.timeout, self.progress = timeout, progress
        self.part = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")

    def run(self, retries: int, backoff: float) -> None:
        """Try until the file is complete and right; raise DownloadError when trying again is of no use."""
        started_over = False
        tries = 0
        while True:
            try:
                resumed = self._attempt()
            except _Interrupted as interrupted:
                if tries == retries or not interrupted.passing:
                    tried = f"{interrupted} (tried {tries + 1} times)" if tries else str(interrupted)
                    raise _failure(self.url, self.target, tried) from interrupted
                log.warning("download of %s: %s; trying again", self.url, interrupted)
                time.sleep(backoff * 2**tries)
                tries += 1
                continue
            if _is_right(self.part, self.sha256):
                break
            digest = _digest(self.part)
            self._forget()
            if not resumed or started_over:
                reason = f"wrong checksum: SHA-256 must begin with {self.sha256}, got {digest}; the file was not kept"
                raise _failure(self.url, self.target, reason)
            log.warning("download of %s: the resumed file has a wrong checksum; starting over", self.url)
            started_over = True
        os.replace(self.part, self.target)
        self.note.unlink(missing_ok=True)

    def _attempt(self) -> bool:
        """Get what is missing of the part; return whether some of it was there before."""
        begin, validator = self._kept()
        with self._ask(begin, validator) as response:
            if response.status != 206:
                begin = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
                self._forget()
                raise _Interrupted("the server sent another range than it was asked for")
            self._receive(response, begin)
        return begin > 0

    def _ask(self, begin: int, validator: str) -> http.client.HTTPResponse:
        """Send the request for the bytes from `begin` on, or for all of them if the file is another one by now."""
        try:
            request = urllib.request.Request(self.url, headers={"User-Agent": "gancolor"})
            if begin:
                request.add_header("Range", f"bytes={begin}-")
                request.add_header("If-Range", validator)
            response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # the part is longer than the file: the next try begins without it
                self._forget()
            passing = error.code in WORTH_ANOTHER_TRY or error.code == 416
            raise _Interrupted(f"HTTP {error.code} {error.reason}", passing) from error
        except urllib.error.URLError as error:
            raise _Interrupted(str(error.reason)) from error
        except ValueError as error:  # no address at all
            raise _Interrupted(str(error), passing=False) from error
        except LOST as error:
            raise _Interrupted(_words(error)) from error
        return response

    def _receive(self, response: http.client.HTTPResponse, begin: int) -> None:
        """Append the response's body to the part, after its first `begin` bytes."""
        if begin == 0:
            validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            self.part.unlink(missing_ok=True)
            self.note.write_text(json.dumps({"url": self.url, "validator": validator}), encoding="utf-8")
        length = response.headers.get("Content-Length")
        total = begin + int(length) if length is not None and length.isdigit() else None
        done = begin
        with self.part.open("ab") as file:
            while block := _next_block(response):
                file.write(block)
                done += len(block)
                if self.progress is not None:
                    self.progress(done, total)
            _sync(file)
        if total is not None and done != total:
            raise _Interrupted(f"the connection ended after {done} of {total} bytes")

    def _kept(self) -> tuple[int, str]:
        """Return how many bytes an earlier transfer of this url left, if the server can tell they still hold."""
        try:
            note: Any = json.loads(self.note.read_text(encoding="utf-8"))
            validator = note["validator"] if note["url"] == self.url else ""
            # A weak ETag does not promise the same bytes.
            if isinstance(validator, str) and validator and not validator.startswith("W/"):
                return self.part.stat().st_size, validator
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, ""

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


class _Interrupted(Exception):
    """A transfer failed; `passing` says whether it makes sense to try again."""

    def __init__(self, reason: str, passing: bool = True) -> None:
        super().__init__(reason)
        self.passing = passing


def _next_block(response: http.client.HTTPResponse) -> bytes:
    """Read some bytes, b"" at the end; the network's errors become _Interrupted, unlike the disk's."""
    try:
        return response.read(BLOCK)
    except LOST as error:
        raise _Interrupted(f"the connection was lost ({_words(error)})") from error


def _is_right(path: Path, sha256: str | None) -> bool:
    return path.is_file() and (sha256 is None or _digest(path).startswith(sha256.lower()))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _only_one(target: Path) -> Iterator[None]:
    """Hold `target.lock`; others wait. The system lets go of it even when the holder is killed."""
    if sys.platform == "win32":
        yield
        return
    path = target.with_name(target.name + ".lock")
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_same(file, path):  # the holder before removed it: the next one must be the same for all
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_same(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _failure(url: str, target: Path, reason: str) -> DownloadError:
    return DownloadError(f"download of {url} failed: {reason}; download it by hand and save it as {target}")
