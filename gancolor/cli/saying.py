"""What commands say: every line goes to the terminal through here, with what a terminal might obey made visible."""

from __future__ import annotations

import contextlib
import sys
from typing import IO, Any

import click

from gancolor.errors import visible

_LONGEST = 3000  # letters of one message


def say(text: object = "", *, err: bool = False) -> None:
    """Print a text of one or more lines on standard output, or with `err` on standard error."""
    click.echo(visible(str(text), keep="\n\t"), err=err)


def say_above(bar: Any, text: str, file: IO[str] | None = None) -> None:
    """Print one line on standard error, above a progress bar (None: there is none). A lost terminal is no error."""
    with contextlib.suppress(OSError):
        if bar is None:
            click.echo(one_line(text), err=True)
        else:
            bar.write(one_line(text), file=file or sys.stderr)


def one_line(text: str) -> str:
    """A message as one line of a bearable length."""
    words = visible(text)
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 500]}...{words[-497:]}"
