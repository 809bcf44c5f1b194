"""Errors that a user can cause and mend; the command line prints them as one line without a traceback.

GancolorError
├── ConfigError        a setting is out of bounds, unknown, or contradicts another
├── DataError          a picture or a dataset cannot be found or read
├── DownloadError      a file cannot be fetched or does not have the expected checksum
├── WeightsError       backbone weights are missing or belong to another network
├── CheckpointError    a run or checkpoint cannot be read, resumed or written
├── TrainingError      training cannot go on (a loss is not a number, for example)
└── MissingExtra       an optional dependency is not installed
"""

from __future__ import annotations

from os import PathLike


class GancolorError(Exception):
    """Base of all errors meant for the user. `exit_code` is the command's exit status."""

    exit_code = 1


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


class TrainingError(GancolorError):
    """Training cannot go on."""


class MissingExtra(GancolorError):
    """An optional dependency is not installed; the message holds the line that installs it."""


def shown(path: str | PathLike[str]) -> str:
    """A file's name for a message: on one line, also when it holds line breaks or bytes that are no text."""
    name = str(path)
    return name if name.isprintable() else ascii(name)
