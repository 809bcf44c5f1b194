"""Files from web servers and object storage: asking for one, and reading its bytes over connections
that break.

`ask` sends one request to a web server and says which redirects are followed, who is shown a token,
and what a failure is called. `RemoteFile` is the stream of a file's bytes, wherever it lies
(`remote_files` speaks to object storage); it asks again from where a connection was lost. `fetch`
brings such a stream to the disk, once for any number of processes: the file is resumed, checked
against its checksum, and put in place in one piece.
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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from gancolor.errors import DownloadError, shown
from gancolor.runtime import remote_files
from gancolor.runtime.files import Progress, locked
from gancolor.runtime.remote_files import Refused, StoredFile

LOST = (OSError, http.client.HTTPException)
"""What urllib raises when the network fails; timeouts are OSErrors."""

_WORTH_ANOTHER_TRY = frozenset((408, 425, 429, 500, 502, 503, 504))  # HTTP statuses that may pass
_BLOCK = 1 << 18  # bytes read at a time
_LONGEST = 1000  # characters of a reason that are shown
_WRONG = ".wrong-checksum"  # ends the name of a file that is kept although it is not the right one

_log = logging.getLogger("gancolor")


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

    @property
    def line(self) -> str:
        """The reason on one short line: a server may have said anything."""
        return shown(str(self)[:_LONGEST])


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
        passing, answer = error.code in _WORTH_ANOTHER_TRY, dict(error.headers.items())
        raise Unanswered(reason, passing, error.code, answer) from error
    except ValueError as error:  # no address at all
        raise Unanswered(str(error), passing=False) from error
    except LOST as error:
        raise Unanswered(reason_of(error)) from error
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


def reason_of(error: BaseException) -> str:
    """What one of `LOST` says."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(reason) or type(error).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects as `ask` promises."""

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


class FileAnswer(Protocol):
    """What a server, or object storage, sends of a file."""

    status: int

    @property
    def headers(self) -> Any:
        """By their names."""

    def read1(self, most: int, /) -> bytes:
        """Some bytes, as they arrive."""

    def close(self) -> None:
        """End it."""


class RemoteFile:
    """The bytes of a file on a server from `position` on, over as many connections as it takes.

    A lost connection is made again where it was lost, up to `retries` times, after `backoff`
    seconds, then twice that, and so on; `renewing`: with each byte that comes, all tries are back.
    `failed` is told of each failure that is followed by another try. `timeout` (seconds of
    silence), `token` and `encrypted` are those of `ask`.

    A file is gone on with only where it is still the same: `validator` is the server's mark of its
    version, "" where there is none. Without one it must be `checked` in another way, and its
    `length` known; else `read` begins anew. A `fixed` file has the `length` that the caller gives:
    it never begins anew, and one of another length is an error.
    """

    def __init__(
        self,
        url: str,
        *,
        position: int = 0,
        length: int | None = None,
        validator: str = "",
        checked: bool = False,
        fixed: bool = False,
        retries: int = 3,
        backoff: float = 0.5,
        renewing: bool = False,
        failed: Callable[[Unanswered], object] = lambda unanswered: None,
        timeout: float = 30.0,
        token: str | None = None,
        encrypted: bool = False,
    ) -> None:
        self.position, self.length, self.validator = position, length, validator
        self.began = position
        """Where the present connection began."""
        self._url, self._token, self._encrypted, self._timeout = url, token, encrypted, timeout
        self._checked, self._fixed = checked, fixed
        self._retries, self._backoff, self._renewing = retries, backoff, renewing
        self._failed, self._tries = failed, 0
        self._response: FileAnswer | None = None

    def __enter__(self) -> RemoteFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(self, most: int) -> bytes:
        """Some bytes, up to `most`; b"" at the end of the file.

        They end at `position`, and begin at `began` with every new connection, which is 0 where the
        file had to be begun anew. Unanswered when trying again is of no use.
        """
        while self.length is None or self.position < self.length:
            try:
                if self._response is None:
                    self._response = self._connected()
                elif data := self._received(self._response, most):
                    self._tries = 0 if self._renewing else self._tries
                    return data
                elif self.length is None:  # the server did not tell: this is the end
                    self.length = self.position
                else:
                    raise Unanswered(
                        f"the connection ended after {self.position} of {self.length} bytes"
                    )
            except Unanswered as unanswered:
                self.close()
                if self._tries == self._retries or not unanswered.passing:
                    tried = f" (tried {self._tries + 1} times)" if self._tries else ""
                    raise Unanswered(f"{unanswered}{tried}", passing=False) from unanswered
                self._failed(unanswered)
                time.sleep(self._backoff * 2**self._tries)
                self._tries += 1
        return b""

    def begin_anew(self) -> None:
        """Forget the position, and what is known of the file."""
        self.close()
        self.position, self.length, self.validator = 0, None, ""

    def _connected(self) -> FileAnswer:
        """A connection that goes on at the position, which is 0 if that is impossible."""
        if not (self.validator or (self._checked and self.length is not None)):
            self.begin_anew()
        try:
            response = self._answer()
        except Unanswered as unanswered:
            if unanswered.status == 416 and not self._fixed:  # more was there than the file has
                self.begin_anew()
                unanswered.passing = True
            raise
        try:
            self._agree(response)
        except BaseException:
            response.close()
            raise
        self.began = self.position
        return response

    def _answer(self) -> FileAnswer:
        """What is sent from the position on."""
        if remote_files.is_stored(self._url):
            try:
                return StoredFile(self._url, self.position, self.validator)
            except Refused as refused:
                raise Unanswered(str(refused), refused.passing) from refused
        headers = {"Range": f"bytes={self.position}-"} if self.position else {}
        if self.position and self.validator:
            headers["If-Range"] = self.validator
        return ask(
            self._url,
            headers,
            token=self._token,
            encrypted=self._encrypted,
            timeout=self._timeout,
        )

    def _agree(self, response: FileAnswer) -> None:
        """See what the server sends, and come to the position in it."""
        told = response.headers.get("Content-Length", "")
        here = int(told) if told.isdigit() else None
        if response.status == 206:
            found = re.match(
                rf"bytes {self.position}-\d+/(\d+|\*)", response.headers.get("Content-Range", "")
            )
            whole = found[1] if found else ""
            if found and self._fixed and whole.isdigit():
                self._check_length(int(whole))
            is_other = self.length is not None and whole != str(self.length)
            if not found or (is_other and not self.validator and not self._fixed):
                if not self._fixed:
                    self.begin_anew()
                raise Unanswered("the server sent another range than it was asked for")
            if not self._fixed:
                self.length = None if here is None else self.position + here
        elif self._fixed:  # a server without ranges sends all of it
            if here is not None:
                self._check_length(here)
            wanted, self.position = self.position, 0
            try:
                while self.position < wanted:
                    if not self._received(response, wanted - self.position):
                        raise Unanswered("the connection ended early")
            finally:
                self.position = wanted
        else:
            self.position, self.length = 0, here
            self.validator = _strong(
                response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            )

    def _check_length(self, length: int) -> None:
        if length != self.length:
            reason = f"it has {length} bytes, not the {self.length} that its list tells"
            raise Unanswered(reason, passing=False)

    def _received(self, response: FileAnswer, most: int) -> bytes:
        """The next bytes; they come as they arrive, so that a cut or a stall leaves what came."""
        if self.length is not None:
            most = min(most, self.length - self.position)
        try:
            data = response.read1(min(_BLOCK, most))
        except LOST as error:
            raise Unanswered(f"the connection was lost ({reason_of(error)})") from error
        self.position += len(data)
        return data

    def close(self) -> None:
        """Close the connection; `read` would make another one."""
        if self._response is not None:
            self._response.close()
            self._response = None


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
    quiet: bool = False,
) -> Path:
    """Download `url` to `target` unless it is there already, and return `target`.

    `url` may be several mirrors: the next one is tried when one fails. `checksum` is the SHA-256 in
    hexadecimal or its beginning, or `sha256:`, `sha1:` or `md5:` and its digits; None checks the
    length only. An interrupted transfer stays beside the target as `.part` and goes on from there,
    now or in a later call, if the file is still the same. A file with a wrong checksum is kept as
    `.wrong-checksum`. Network failures are tried again `retries` times, waiting `backoff` seconds,
    then twice that, and so on; `timeout` is in seconds of silence. Processes that ask for the same
    target wait for the first. `token` and `encrypted` are those of `ask`. Raises DownloadError with
    url, reason and way out (`way_out`: another than to save the file by hand); the target then does
    not exist. `quiet`: only troubles are logged.
    """
    urls = [url] if isinstance(url, str) else list(url)
    way_out = way_out or f"download it by hand and save it as {target}"
    transfer = _Transfer(urls, target, checksum, progress)
    level = logging.DEBUG if quiet else logging.INFO
    settings: dict[str, Any] = {"retries": retries, "backoff": backoff, "timeout": timeout}
    settings |= {"token": token, "encrypted": encrypted}
    try:
        if _is_right(target, checksum):  # without the lock: the folder may be read-only
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(target.name + ".lock"), None):
            if not _is_right(target, checksum):
                if target.exists():
                    aside = _put_aside(target, target)
                    _log.warning(
                        "%s has a wrong checksum (not %s...): kept as %s", target, checksum, aside
                    )
                _fetch_from_one(transfer, settings, way_out, level)
    except OSError as error:  # the disk's: the network's are Unanswered
        words = f"cannot write there ({error.strerror or error})"
        raise _failure(urls[0], words, way_out) from error
    return target


def _fetch_from_one(
    transfer: _Transfer, settings: Mapping[str, Any], way_out: str, level: int
) -> None:
    """Try the mirrors in order; the error tells what was wrong with each."""
    failures: list[str] = []
    urls = transfer.urls
    for place, url in enumerate(urls, 1):
        _log.log(level, "downloading %s to %s", shown(url), transfer.target)
        try:
            transfer.run(url, settings)
            return
        except Unanswered as unanswered:
            failures.append(str(unanswered) if place == 1 else f"{url}: {unanswered}")
            if place < len(urls):
                following = shown(urls[place])
                _log.warning("download of %s: %s; trying %s", shown(url), unanswered, following)
    raise _failure(urls[0], "; ".join(failures), way_out)


class _Transfer:
    """One download into `target`, by way of `target.part` and `target.part.json`, which says what
    the part is of.
    """

    def __init__(
        self, urls: list[str], target: Path, checksum: str | None, progress: Progress | None
    ) -> None:
        self.urls, self.target, self.checksum, self.progress = urls, target, checksum, progress
        self.part = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")

    def run(self, url: str, settings: Mapping[str, Any]) -> None:
        """Get the file and put it in place. Unanswered when it cannot be had from `url`."""
        position, length, validator = self._kept(url)

        def failed(unanswered: Unanswered) -> None:
            _log.warning("download of %s: %s; trying again", shown(url), unanswered.line)

        with RemoteFile(
            url,
            position=position,
            length=length,
            validator=validator,
            checked=self.checksum is not None,
            failed=failed,
            **settings,
        ) as remote:
            self._receive(url, remote)
            right = _is_right(self.part, self.checksum)
            if not right and remote.began > 0:
                _log.warning(
                    "download of %s: the resumed file has a wrong checksum; starting over",
                    shown(url),
                )
                remote.begin_anew()
                self._receive(url, remote)
                right = _is_right(self.part, self.checksum)
        if not right:
            raise self._reject()
        os.replace(self.part, self.target)
        self.note.unlink(missing_ok=True)

    def _receive(self, url: str, remote: RemoteFile) -> None:
        """Write what is missing of the part."""
        file: IO[bytes] | None = None
        try:
            while block := remote.read(_BLOCK):
                start = remote.position - len(block)
                if start == remote.began:
                    _check_space(self.target.parent, (remote.length or 0) - start)
                    if start == 0:
                        note = {"url": url, "validator": remote.validator, "total": remote.length}
                        self.note.write_text(json.dumps(note), encoding="utf-8")
                    file = file or self.part.open("ab")
                    file.truncate(start)
                assert file is not None  # a connection's first block opened it
                file.write(block)
                if self.progress is not None:
                    self.progress(remote.position, remote.length)
            file = file or self.part.open("ab")
            file.truncate(remote.position)
            file.flush()
            os.fsync(file.fileno())
        except Unanswered:
            if remote.position == 0:  # what is there is of no use
                self._forget()
            raise
        finally:
            if file is not None:
                file.close()

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

    def _kept(self, url: str) -> tuple[int, int | None, str]:
        """How many bytes an earlier transfer left, how long the file was, and the server's mark of
        its version.

        Without that mark, or from another mirror, they are only gone on with if a checksum has the
        last word.
        """
        try:
            note: Any = json.loads(self.note.read_text(encoding="utf-8"))
            total, size = note.get("total"), self.part.stat().st_size
            validator = _strong(note["validator"]) if note["url"] == url else ""
            if validator and (self.checksum is not None or size != total):
                return size, total, validator
            if (
                note["url"] in self.urls
                and self.checksum is not None
                and isinstance(total, int)
                and size <= total
            ):
                return size, total, ""
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return 0, None, ""

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
            _log.info("downloading %s: %d %% of %.0f MB", what, tenths * 10, total / 1e6)

    return report


def _strong(validator: str) -> str:
    """The mark of a file's version; "" for a weak ETag, which does not promise the same bytes."""
    return "" if validator.startswith("W/") else validator


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free; make room",
        )


def _put_aside(path: Path, target: Path) -> str:
    aside = target.with_name(target.name + _WRONG)
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


def _failure(url: str, reason: str, way_out: str) -> DownloadError:
    said = shown(reason[:_LONGEST])  # a server may have said anything
    return DownloadError(f"download of {shown(url)} failed: {said}; {way_out}")
