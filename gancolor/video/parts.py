"""The parts of a film in the making: kept whole in a hidden folder beside it, and joined.

`.<film>.parts/film.json` says what the film is made of and how. `part-000-00002.nut` is the third
part of the first share, and `part-000-00002.npz` is what is needed to go on behind it. A
part counts once its .npz is there, which is written last. In a film with key frames of the user's
own, each shot is a share, and its name a hash of all that decides its colours.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from gancolor.errors import ConfigError, DataError, shown
from gancolor.runtime.files import LONGEST_NAME, fitted, json_of, locked, write_whole, written
from gancolor.video.opening import film_stream, opened

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

SHOTS = "shots.npz"
"""The file of a film's shots (see `shots`) among its parts."""

SHARES = "the number of shares"
"""What `prepare` calls it."""

_ABOUT_FILM = "film.json"
_ABOUT = "about"  # the name of a checkpoint's JSON among its arrays
_MEMORY = "memory."  # opens the names of the others


@dataclass(frozen=True)
class Checkpoint:
    """What a share has come to at the end of a part.

    `frames`: how many were written; `shots`: how many were found; `passes`: how many frames the
    network saw. `chroma`: the mean CIE chroma of the network's colours. `seconds`: how long it took
    so far. `last_pts`: the last frame's time. `size`: width and height of the frames. `memory`: the
    stabilizer's state. `written`: the part has a file. `done`: nothing is left of the share.
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
    """The parts of one stretch of a film, in order: of one of several, or of a shot.

    `name`: the share's number or the shot's name. `paths`: the files of the whole parts.
    `checkpoint`: the end of the last one; None if there is none.
    """

    def __init__(self, folder: Path, name: int | str) -> None:
        self._folder = folder
        self._stem = f"part-{name:03d}-" if isinstance(name, int) else f"part-{name}-"
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
        """Make the part at `next_path`, which is whole, count. DataError if that fails."""
        arrays: dict[str, Any] = {
            _MEMORY + key: np.asarray(value) for key, value in checkpoint.memory.items()
        }
        about = asdict(checkpoint)
        del about["memory"]
        arrays[_ABOUT] = np.array(json.dumps(about))
        with _plain_errors(self._folder):
            with written(self._name(".npz")) as file:
                np.savez(file, **arrays)
        self._add(checkpoint)

    def names(self) -> set[str]:
        """The names of the files that belong to the parts."""
        ends = {self._name(".npz", number).name for number in range(self._count)}
        return ends | {path.name for path in self.paths}

    def clear(self) -> None:
        """Remove what a killed process left of this share's next parts."""
        known = self.names()
        with _plain_errors(self._folder):
            for path in self._folder.iterdir():
                if path.name.startswith(self._stem) and path.name not in known:
                    path.unlink()

    def _add(self, checkpoint: Checkpoint) -> None:
        if checkpoint.written:
            self.paths.append(self.next_path)
        self.checkpoint = checkpoint
        self._count += 1

    def _name(self, suffix: str, number: int | None = None) -> Path:
        return self._folder / f"{self._stem}{self._count if number is None else number:05d}{suffix}"


def folder_of(target: Path) -> Path:
    """The folder of a film's parts."""
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
    return locked(lock_of(target), message)


def prepare(folder: Path, making: dict[str, Any], *, resume: bool) -> None:
    """Make the folder ready for a film that is made as `making` says, which must be plain JSON.

    With `resume`, the whole parts that were made the same way stay; if they were made in another
    way, a ConfigError names what differs. Without it, what was there is removed.
    """
    about = folder / _ABOUT_FILM
    with _plain_errors(folder):
        if resume and (before := _read_json(about)) is not None:
            _compare(before, making)
            for torn in folder.glob(".*.part"):  # left by a process that was killed
                torn.unlink()
            return
        remove(folder)
        folder.mkdir(parents=True)
        write_whole(about, json.dumps(making, indent=1))


def prepare_share(folder: Path, making: dict[str, Any]) -> None:
    """Make the folder ready for one of those who make a film's shares at once, as `making` says.

    What is there stays: it was cleared before all of them, and is again behind them. ConfigError as
    `prepare`.
    """
    about = folder / _ABOUT_FILM
    with _plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (before := _read_json(about)) is not None:
            _compare(before, making)
        else:
            write_whole(about, json.dumps(making, indent=1))


def shares_of(folder: Path) -> int | None:
    """Into how many shares the film was cut whose parts are there; None if there are none."""
    with _plain_errors(folder):
        shares = (_read_json(folder / _ABOUT_FILM) or {}).get(SHARES)
    return shares if isinstance(shares, int) and shares > 0 else None


def prepare_shots(folder: Path, making: dict[str, Any]) -> None:
    """Make the folder ready for a film that is made shot by shot; what is there stays."""
    with _plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for torn in folder.glob(".*.part"):  # left by a process that was killed
            torn.unlink()
        write_whole(folder / _ABOUT_FILM, json.dumps(making, indent=1))


def keep_only(folder: Path, shares: Sequence[Share]) -> int:
    """Remove all parts but those of some shares; returns how many bytes the folder holds then."""
    with _plain_errors(folder):
        kept = {name for share in shares for name in share.names()}
        for path in folder.glob("part-*"):
            if path.name not in kept:
                path.unlink()
        return sum(path.stat().st_size for path in folder.iterdir())


def remove(folder: Path) -> None:
    """Remove the folder with all parts, if it is there."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder in which no part counts, as a film leaves it that failed early.

    One with the film's shots stays: to find them again takes a pass over the film.
    """
    with contextlib.suppress(OSError):
        if folder.is_dir() and not (
            (folder / SHOTS).exists()
            or any(path.with_suffix(".npz").exists() for path in folder.glob("*.nut"))
        ):
            remove(folder)


class EncodedFrame(NamedTuple):
    """An encoded frame with its times in the film's time base."""

    packet: Packet[VideoStream]
    pts: int
    dts: int
    duration: int


class Joined:
    """The encoded frames of parts, one part behind the other: a context manager.

    `times`: when each frame is shown, in order, in `time_base`. `template`: a stream to copy the
    codec's settings from. `usual`: how long the last frame is shown, in `time_base`. `start_pts`:
    the film's; where it is negative, the parts count from it (see `encoding.PartWriter`). DataError
    if a part is broken, overlaps the one before it, or was encoded differently.
    """

    def __init__(
        self, parts: Sequence[Path], time_base: Fraction, usual: int, start_pts: int = 0
    ) -> None:
        self.parts, self.time_base, self.usual = list(parts), time_base, max(1, usual)
        self._zero = min(0, start_pts)
        self._stack = contextlib.ExitStack()
        self._decoded: list[int] = []  # times in the order of decoding
        for part in self.parts:
            self._look(part)
        self.times = sorted(self._decoded)
        if any(after == before for before, after in zip(self.times, self.times[1:], strict=False)):
            raise DataError(
                "parts of a film must not overlap, got a frame twice in"
                f" {shown(self.parts[0].parent)}"
            )
        if not self.times:
            raise DataError(f"film must have frames, got none in {shown(self.parts[0].parent)}")
        rank = {time: index for index, time in enumerate(self.times)}
        # Every frame is decoded as long before it is shown as the most displaced one needs.
        self.delay = max(index - rank[time] for index, time in enumerate(self._decoded))
        self._next = {
            before: after for before, after in zip(self.times, self.times[1:], strict=False)
        }

    def __enter__(self) -> Self:
        container = self._stack.enter_context(opened(self.parts[0]))
        self.template = film_stream(container, self.parts[0])
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def frames(self) -> Iterator[EncodedFrame]:
        """Yield the encoded frames in the order of decoding."""
        order = 0
        for part in self.parts:
            with opened(part) as container:
                for packet in container.demux(film_stream(container, part)):
                    if packet.pts is None or not packet.size:
                        continue
                    pts = self._ticks(packet)
                    duration = self._next.get(pts, pts + self.usual) - pts
                    yield EncodedFrame(packet, pts, self._decode_time(order), duration)
                    order += 1

    def _decode_time(self, order: int) -> int:
        """When the frame at this place in the order of decoding is decoded.

        These are the times at which frames are shown, moved forward by the delay.
        """
        early = order - self.delay
        return self.times[early] if early >= 0 else self.times[0] + early * self.usual

    def _ticks(self, packet: Packet[VideoStream]) -> int:
        """When a packet of a part is shown, in the film's time base."""
        assert packet.pts is not None
        return round(packet.pts * packet.time_base / self.time_base) + self._zero

    def _look(self, part: Path) -> None:
        """Check how a part is encoded, and take its times."""
        with opened(part) as container:
            stream = film_stream(container, part)
            context = stream.codec_context
            made = (context.name, context.width, context.height, context.extradata)
            if part == self.parts[0]:
                self._made = made
            if made != self._made:
                raise DataError(
                    f"parts of a film must be encoded alike, got another encoding in {shown(part)};"
                    " start anew"
                )
            packets = container.demux(stream)
            self._decoded += [
                self._ticks(packet) for packet in packets if packet.pts is not None and packet.size
            ]


def _hidden(name: str, ending: str) -> str:
    """A film's name made a hidden one; if it is too long for a file system, it is cut and a hash of
    it added.
    """
    hidden = f".{name}{ending}"
    if len(os.fsencode(hidden)) <= LONGEST_NAME:
        return hidden
    return fitted(f".{name}", f"-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}{ending}")


def _compare(before: dict[str, Any], making: dict[str, Any]) -> None:
    """Raise a ConfigError for the first thing that differs."""
    for key in sorted(before.keys() | making.keys()):
        was, now = before.get(key), making.get(key)
        if was != now:
            raise ConfigError(
                f"{key} must be what the film was begun with when it is resumed ({was}), got {now};"
                " leave out --resume to begin anew"
            )


def _load(path: Path) -> Checkpoint | None:
    """Read a checkpoint; None if it is damaged."""
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
    """Read an object of JSON; None if there is none."""
    try:
        content = json_of(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@contextlib.contextmanager
def _plain_errors(folder: Path) -> Iterator[None]:
    """Turn the system's errors into a DataError that names the folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(
            f"{folder} must be a folder to write in, got an error ({reason}); make room or choose"
            " another --out"
        ) from error
