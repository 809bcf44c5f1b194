"""The body of a request: received within bounds of size and time, and files of multipart/form-data
into a folder under names of our own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from gancolor.errors import shown
from gancolor.images.formats import suffix_of
from gancolor.server.problems import Problem

# What it warns of is told to the client.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

_MOST_TEXT = 1 << 20  # bytes of a part that is no file
_DRAINED = 4 << 20  # bytes that are read of what is refused, so that the answer arrives
_DRAIN_SECONDS = 5.0


@dataclasses.dataclass
class Upload:
    """What a request brought: files and texts by the names of their parts."""

    files: dict[str, list[Path]] = dataclasses.field(default_factory=dict)
    texts: dict[str, str] = dataclasses.field(default_factory=dict)

    def file(self, name: str) -> Path | None:
        """The only file of a part's name."""
        return next(iter(self.files.get(name, ())), None)


@dataclasses.dataclass(frozen=True)
class PartRule:
    """What may come in a part: a file, up to `most` of that name, or a text (`most` 0).

    `suffixes`: of the names that clients give to files; another one is left out, and the file is
    known by what it holds. `named`: says which names, without their suffix, mean something; such
    files lie under these names in a folder of their own, and must have one of the suffixes.
    """

    most: int = 0
    suffixes: Collection[str] = ()
    named: Callable[[str], bool] | None = None


async def receive(
    request: Request,
    folder: Path,
    rules: Mapping[str, PartRule],
    *,
    required: str,
    most_bytes: int,
    seconds: float,
) -> Upload:
    """Read the body into `folder`. Problem for what is too large, too slow, torn or not asked for,
    and unless there is a file for the part `required`.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind.lower() != b"multipart/form-data" or not boundary:
        await drain(request)
        raise Problem(
            415,
            "a request must be multipart/form-data, got"
            f" {shown(kind.decode('latin-1'), 60) or 'nothing'}; for example curl -F"
            f" {required}=@FILE",
        )
    with contextlib.closing(_Receiver(folder, rules, boundary)) as receiver:
        await take_bounded(request, receiver.feed, most_bytes=most_bytes, seconds=seconds)
        upload = receiver.finish()
    if required not in upload.files:
        raise Problem(400, f"a request must have a file as {required}, got none")
    return upload


async def take_bounded(
    request: Request, feed: Callable[[bytes], object], *, most_bytes: int, seconds: float
) -> None:
    """Hand the pieces of a body on as they come. Problem for one that is too large or too slow, and
    where the disk has no room for it.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most_bytes:
        await drain(request)
        raise _too_large(most_bytes)
    received = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                received += len(chunk)
                if received > most_bytes:
                    raise _too_large(most_bytes)
                feed(chunk)
    except TimeoutError:
        raise Problem(
            408, f"a request must arrive within {seconds:g} seconds, got a part of it"
        ) from None
    except OSError as error:
        raise Problem(507, f"the server has no room for it: {error.strerror}") from error


async def drain(request: Request) -> None:
    """Read on a little of what is refused: a client that still sends does not see an answer."""
    left = _DRAINED
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for chunk in request.stream():
                left -= len(chunk)
                if left < 0:
                    break


def _too_large(most: int) -> Problem:
    return Problem(413, f"a request must have at most {most / 1e6:g} megabytes, got more")


class _Receiver:
    """Takes the pieces of a body."""

    def __init__(self, folder: Path, rules: Mapping[str, PartRule], boundary: bytes) -> None:
        self.folder, self.rules = folder, rules
        self.upload = Upload()
        self._field, self._value, self._disposition = b"", b"", b""
        self._name, self._text = "", b""
        self._file: IO[bytes] | None = None
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_field,
                    "on_header_value": self._on_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open,
                    "on_part_data": self._on_data,
                    "on_part_end": self._end,
                    "on_end": self._finish,
                },
            )
        except FormParserError as error:
            raise _torn() from error

    def feed(self, chunk: bytes) -> None:
        """Take the next piece. Problem for one that is wrong."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _torn() from error

    def finish(self) -> Upload:
        """What has come. Problem for a body that is not at its end."""
        if not self._ended:
            raise _torn()
        return self.upload

    def close(self) -> None:
        """Close the file of a part that did not end."""
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        self._disposition = b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field, self._value = b"", b""

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        rule = self.rules.get(self._name)
        if rule is None:
            known = ", ".join(self.rules)
            raise Problem(400, f"a part must be one of {known}, got {shown(self._name, 60)!r}")
        files = self.upload.files.setdefault(self._name, []) if rule.most else []
        if len(files) >= max(1, rule.most) or self._name in self.upload.texts:
            most = f"{rule.most} times" if rule.most > 1 else "once"
            raise Problem(400, f"{self._name} must be given {most} at most, got it again")
        self._text = b""
        if rule.most:
            name = options.get(b"filename", b"").decode("utf-8", "replace")
            files.append(self._place(name, rule, len(files)))
            self._file = files[-1].open("xb")

    def _place(self, name: str, rule: PartRule, before: int) -> Path:
        """Where a file belongs that a client calls `name`, and that comes after so many others."""
        suffix = suffix_of(name)
        known_suffix = suffix if suffix in rule.suffixes else ""
        if rule.named is None:
            number = f"-{before + 1}" if before else ""
            return self.folder / f"{self._name}{number}{known_suffix}"
        stem = name[: len(name) - len(suffix)]
        path = self.folder / self._name / f"{stem}{known_suffix}"
        if not (known_suffix and rule.named(stem)) or path in self.upload.files[self._name]:
            raise Problem(
                400,
                f"a file of {self._name} must have a name that says its time and no other has, such"
                f" as 000012.480.png, got {shown(name, 60)!r}",
            )
        path.parent.mkdir(exist_ok=True)
        return path

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > _MOST_TEXT:
            raise Problem(413, f"{self._name} must have at most 1 megabyte, got more")

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            return
        try:
            self.upload.texts[self._name] = self._text.decode("utf-8")
        except UnicodeDecodeError:
            raise Problem(400, f"{self._name} must be text in UTF-8, got other bytes") from None

    def _finish(self) -> None:
        self._ended = True


def _torn() -> Problem:
    return Problem(400, "a request must be whole multipart/form-data, got a body that is not")
