"""A film in the making: whole parts in a hidden folder beside it, with all that is needed to go on
behind them.

`.<film>.parts/film.json` says what the film is made of and how; `part-000-00002.nut` is the third
part of the first process's share, and `part-000-00002.npz` where it ends. A part counts once its
.npz is there: that is renamed last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gancolor.errors import ConfigError, DataError, shown
from gancolor.runtime.files import LONGEST_NAME, fitted, held

_ABOUT = "about"  # the name of a checkpoint's JSON among its arrays
_MEMORY = "memory."  # opens the names of the others


@dataclass(frozen=True)
class Checkpoint:
    """What a share has come to at the end of a part.

    `frames`, `shots`, `passes`: how many were written, found, and shown to the network. `chroma`:
    the mean CIE chroma of what the network said. `last_pts`: the last frame's time. `size`: width
    and height of the frames. `memory`: the stabilizer's. `written`: whether the part has a file.
    `done`: nothing is left of the share.
    """

    frames: int = 0
    shots: int = 0
    passes: int = 0
    chroma: float = 0.0
    seconds: float = 0.0
    last_pts: int | None = None
    size: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    written: bool = False
    done: bool = False
    memory: dict[str, NDArray[Any] | int] = field(default_factory=dict)


class Share:
    """One process's parts, in order: `paths` are the whole ones, `checkpoint` the end of the last
    one.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number
        self.paths: list[Path] = []
        self.checkpoint: Checkpoint | None = None
        self._count = 0
        with _plain_errors(folder):
            while (self._name(".npz")).exists():
                checkpoint = _load(self._name(".npz"))
                if checkpoint is None or (checkpoint.written and not self.next_path.exists()):
                    break
                self._add(checkpoint)

    @property
    def next_path(self) -> Path:
        """Where the next part belongs."""
        return self._name(".nut")

    def save(self, checkpoint: Checkpoint) -> None:
        """Make the part at `next_path`, which is whole, count. DataError where it cannot be
        written.
        """
        arrays: dict[str, Any] = {
            _MEMORY + key: np.asarray(value) for key, value in checkpoint.memory.items()
        }
        about = asdict(checkpoint)
        del about["memory"]
        arrays[_ABOUT] = np.array(json.dumps(about))
        with _plain_errors(self._folder):
            _write_whole(self._name(".npz"), lambda file: np.savez(file, **arrays))
        self._add(checkpoint)

    def clear(self) -> None:
        """Remove what a killed process left of this share's next parts."""
        known = {path.name for path in self.paths} | {
            path.with_suffix(".npz").name for path in self.paths
        }
        known |= {self._name(".npz", number).name for number in range(self._count)}
        with _plain_errors(self._folder):
            for path in self._folder.iterdir():
                if (
                    path.name.lstrip(".").startswith(f"part-{self._number:03d}-")
                    and path.name not in known
                ):
                    path.unlink()

    def _add(self, checkpoint: Checkpoint) -> None:
        if checkpoint.written:
            self.paths.append(self.next_path)
        self.checkpoint = checkpoint
        self._count += 1

    def _name(self, suffix: str, number: int | None = None) -> Path:
        return (
            self._folder
            / f"part-{self._number:03d}-{self._count if number is None else number:05d}{suffix}"
        )


def folder_of(target: Path) -> Path:
    """Where the parts of a film are kept."""
    return target.with_name(_hidden(target.name, ".parts"))


def lock_of(target: Path) -> Path:
    """The file that is locked while a film is made."""
    return target.with_name(_hidden(target.name, ".lock"))


def alone(target: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of a film while it is made. DataError if another process holds it."""
    message = (
        f"{shown(target)} must be made by one process at a time, got another that makes it; wait"
        " for it"
    )
    return held(lock_of(target), message)


def _hidden(name: str, ending: str) -> str:
    """A hidden name beside a film's; where it would be too long for a file system, the film's is
    cut and hashed.
    """
    hidden = f".{name}{ending}"
    if len(os.fsencode(hidden)) <= LONGEST_NAME:
        return hidden
    return fitted(f".{name}", f"-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}{ending}")


def prepare(folder: Path, making: dict[str, Any], *, resume: bool) -> None:
    """Make the folder ready for a film made as `making` says, which must be plain JSON.

    With `resume`, parts that were made the same way stay; others are a ConfigError that names what
    differs. Without, what was there is removed.
    """
    about = folder / "film.json"
    with _plain_errors(folder):
        if resume and (before := _read_json(about)) is not None:
            _compare(before, making)
            return
        remove(folder)
        folder.mkdir(parents=True)
        _write_whole(about, lambda file: file.write(json.dumps(making, indent=1).encode()))


def remove(folder: Path) -> None:
    """Remove the folder with all parts, if it is there."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder in which no part counts, so that nothing stays of a film that failed at its
    beginning.
    """
    with contextlib.suppress(OSError):
        if folder.is_dir() and not any(
            path.with_suffix(".npz").exists() for path in folder.glob("*.nut")
        ):
            remove(folder)


def _compare(before: dict[str, Any], making: dict[str, Any]) -> None:
    for key in sorted(before.keys() | making.keys()):
        was, now = before.get(key), making.get(key)
        if was != now:
            raise ConfigError(
                f"{key} must be what the film was begun with when it is resumed ({was}), got {now};"
                " leave out --resume to begin anew"
            )


def _load(path: Path) -> Checkpoint | None:
    """A checkpoint, or None for one that is damaged: it never became whole."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            about = json.loads(str(content[_ABOUT]))
            memory = {
                key.removeprefix(_MEMORY): content[key]
                for key in content.files
                if key.startswith(_MEMORY)
            }
        for name in ("size", "notes", "damaged"):
            about[name] = tuple(about[name])
        return Checkpoint(
            **about,
            memory={key: value if value.ndim else int(value) for key, value in memory.items()},
        )
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    aside = path.with_name(f".{path.name}.part")
    try:
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _plain_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(
            f"{folder} must be a folder to write in, got an error ({reason}); make room or choose"
            " another --out"
        ) from error
