"""A file on a server as a stream of bytes that survives a connection which is cut."""

from __future__ import annotations

import http.client
import logging
import time
import urllib.error
import urllib.request
from types import TracebackType

from gancolor.errors import DataError, shown
from gancolor.web import LOST, WORTH_ANOTHER_TRY

BLOCK = 1 << 16  # bytes
TIMEOUT = 30.0  # seconds of silence
TRIES = 6  # without a byte in between
BACKOFF = 0.5  # seconds before the second try; twice that before the next, and so on
_LONGEST = 1000  # characters of a reason that are shown

log = logging.getLogger("gancolor")


class RemoteFile:
    """The bytes of a remote file of `size` bytes from `start` on.

    `read` raises DataError when trying again is of no use; `failure` keeps it for who gets it changed by others.
    """

    def __init__(self, address: str, start: int, size: int) -> None:
        self.address, self.position, self.size = address, start, size
        self.failure: DataError | None = None
        self._response: http.client.HTTPResponse | None = None

    def __enter__(self) -> RemoteFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, b"" at the end of the file. A lost connection is made again where it was lost."""
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
            data = response.read(min(BLOCK, self.position - skipped))
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
