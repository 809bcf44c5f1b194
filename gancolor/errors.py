"""Errors that a user can cause and mend; the command line prints them as one line without a
traceback.

GancolorError
├── ConfigError        a setting is out of bounds, unknown, or contradicts another
├── DataError          a picture or a dataset cannot be found or read
├── DownloadError      a file cannot be fetched or does not have the expected checksum
├── WeightsError       backbone weights are missing or belong to another network
├── CheckpointError    a run or checkpoint cannot be read, resumed or written
│   └── DamagedCheckpoint  its file is not as it was written
├── TrainingError      training cannot go on (a loss is not a number, for example)
└── MissingExtra       an optional dependency is not installed
"""

from __future__ import annotations

import errno
import os
import re
import unicodedata


class GancolorError(Exception):
    """Base of all errors meant for the user. `exit_code` is the command's exit status.

    Its message may quote names and texts from outside: what a terminal might obey in them is made
    visible.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(masked(message)))


class ConfigError(GancolorError):
    """A setting is out of bounds, unknown, or contradicts another."""

    exit_code = 2


class DataError(GancolorError):
    """A picture or a dataset cannot be found or read."""


class DownloadError(GancolorError):
    """A file cannot be fetched or does not have the expected checksum."""


class WeightsError(GancolorError):
    """Backbone weights are missing or belong to another network."""


class CheckpointError(GancolorError):
    """A run or a checkpoint cannot be read, resumed or written."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint's file is not as it was written: its checksums or its structure say so."""


class TrainingError(GancolorError):
    """Training cannot go on."""


class MissingExtra(GancolorError):
    """An optional dependency is not installed; the message holds the line that installs it."""


_LONGEST = 400  # letters of a text from outside in a message


def shown(text: object, longest: int = _LONGEST) -> str:
    """A text from outside for a message: a file's name, a key or value of a file, what a library
    says.

    On one line, with control characters and bytes that are no text made visible, secrets of
    addresses masked, and at most `longest` letters: of a longer one the beginning and the end.
    """
    words = masked(str(text))
    if len(words) > longest:
        end = longest // 3
        words = f"{words[: longest - end - 3]}...{words[len(words) - end :]}"
    seen = visible(words)
    return words if seen == words else f"'{seen}'"


_USER = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@'\"]+@")
_SECRET = re.compile(
    r"([?&][^=&\s]*(?:signature|credential|token|secret|passw|sig|key)[^=&\s]*=)[^&\s'\"#;]+", re.I
)


def masked(text: str) -> str:
    """A text in which no address tells a password or a signature: `https://***@host/a?sig=***`."""
    if "://" not in text:
        return text
    return _SECRET.sub(r"\1***", _USER.sub(r"\1***@", text))


def visible(text: str, keep: str = "") -> str:
    """A text with everything that a terminal might obey, or that hides or turns letters, as
    escapes; not `keep`.
    """
    if text.isprintable():
        return text
    return "".join(
        (
            each
            if each.isprintable() or each in keep or unicodedata.category(each) == "Zs"
            else _escape(each)
        )
        for each in text
    )


def reason_of(error: BaseException, longest: int = 160) -> str:
    """The first line of what a library says, for a message; of an error without words its kind."""
    lines = str(error).strip().splitlines()
    return shown(lines[0].strip() if lines else type(error).__name__, longest)


_MEMORY = (  # what torch's allocators, oneDNN, OpenCV and the system call it
    "out of memory",
    "allocate memory",
    "not enough memory",
    "insufficient memory",
    "failed to allocate",
    "alloc_failed",
    "bad_alloc",
    "bad allocation",
    "failed to map segment",  # of a library that is being loaded
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is memory that is missing; every library says so in another way."""
    if isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    ):
        return True
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for it
        return True
    if (
        not isinstance(error, RuntimeError | ImportError | OSError)
        and type(error).__module__ != "cv2"
    ):
        return False
    words = str(error).lower()
    # on a disk without execution
    return any(sign in words for sign in _MEMORY) and "not permitted" not in words


def memory_ran_out(error: BaseException | None) -> bool:
    """Whether missing memory is behind an error, by itself or covered by others."""
    while error is not None:
        if is_out_of_memory(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def passing(error: BaseException) -> str | None:
    """What kept a file from being read or written this once, with what to do: memory, open files,
    its disk or rights.

    None where nothing says that: then what was read may be at fault. Libraries cover such an error
    with their own, so those behind it count too. EINVAL does not: a wrong place in a damaged file
    gives it.
    """
    cause: BaseException | None = error
    while cause is not None:
        if is_out_of_memory(cause):
            return "memory ran out; close other programs and try again"
        if isinstance(cause, OSError) and cause.errno not in (None, errno.EINVAL):
            return (
                f"{os.strerror(cause.errno)};"
                f" {_WAYS.get(cause.errno, 'look at its disk and try again')}"
            )
        cause = cause.__cause__ or cause.__context__
    return None


_WAYS = {
    errno.EMFILE: "raise the limit of open files (ulimit -n) and try again",
    errno.ENFILE: "close other programs and try again",
    errno.EACCES: "look at its permissions",
    errno.EPERM: "look at its permissions",
}


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
