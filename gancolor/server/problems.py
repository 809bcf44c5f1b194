"""What goes wrong with a request, as RFC 9457 tells it: `application/problem+json`."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.responses import Response

from gancolor.errors import GancolorError, MissingExtra, memory_ran_out

MEDIA_TYPE = "application/problem+json"

CLOSED = 499
"""The status of a request whose client has gone: nobody sees it, it is counted."""


class Problem(Exception):
    """A request that is not answered as it was asked; `detail` is one line for its sender."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def content(self) -> dict[str, Any]:
        """What the answer says, as JSON."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }

    def response(self) -> Response:
        """The answer."""
        return Response(json.dumps(self.content()), self.status, self.headers, MEDIA_TYPE)


def fault() -> Problem:
    """A fault of ours, of which a client learns nothing."""
    return Problem(500, "the server failed over this request; its log says how")


def starved() -> Problem:
    """Memory ran out."""
    return Problem(
        503,
        "the server must have memory for this, it ran out; ask for less at once, or come back later",
        Retry_After="30",
    )


def of_fault(error: BaseException) -> Problem:
    """An error that no client can mend."""
    return starved() if memory_ran_out(error) else fault()


def of_error(error: GancolorError, folder: Path | None = None) -> Problem:
    """An error in the words of the command line, without the names of the server's folders."""
    if memory_ran_out(error):
        return starved()
    words = str(error) if folder is None else without_folder(str(error), folder)
    return Problem(501 if isinstance(error, MissingExtra) else 422, words)


def without_folder(words: str, folder: Path) -> str:
    """A text in which files of a request's folder are called by their own names alone."""
    return words.replace(f"{folder}/", "").replace(str(folder), "the request")
