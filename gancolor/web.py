"""Asking a web server: which redirects are followed, who is shown a token, and what a failure is called."""

from __future__ import annotations

import http.client
import ipaddress
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import IO
from urllib.parse import urlsplit

WORTH_ANOTHER_TRY = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses that may pass
LOST = (OSError, http.client.HTTPException)  # what urllib raises when the network fails; timeouts are OSErrors


class Unanswered(Exception):
    """A server did not answer, or not with what was asked for.

    `passing`: whether it makes sense to try again. `status` and `headers`: those of its answer, if it gave one.
    """

    def __init__(
        self, reason: str, passing: bool = True, status: int | None = None, headers: Mapping[str, str] | None = None
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

    `token` is shown to the server of `url` alone: after a redirect to another one it is left out. `encrypted`: neither
    `url` nor what it redirects to may be plain http, except to this machine. `timeout` is in seconds of silence.
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
        raise Unanswered(reason, error.code in WORTH_ANOTHER_TRY, error.code, dict(error.headers.items())) from error
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
        return parts.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
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
        if self.encrypted and after.scheme != "https" and not (before.scheme == "http" and is_encrypted(newurl)):
            fp.close()
            raise Unanswered(f"it redirects to {newurl}, which is not encrypted", passing=False)
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        known = req.unredirected_hdrs.get("Authorization")
        if new is not None and known is not None and before[:2] == after[:2]:
            new.add_unredirected_header("Authorization", known)
        return new
