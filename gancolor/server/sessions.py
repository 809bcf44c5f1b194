"""Who is at the page: the photographs that each visitor has dropped, and what was told of them, within
bounds of number, disk, memory and time.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from gancolor.coloring.references import Exemplar
from gancolor.coloring.views import Sight
from gancolor.errors import ConfigError
from gancolor.server import previews
from gancolor.server.editing import History
from gancolor.server.previews import Preview
from gancolor.server.wording import say

MOST_SESSIONS = 100
"""Visitors at once: of more the one who has done nothing for longest is forgotten."""

MOST_PICTURES = 100
"""Photographs of a visitor."""

MOST_REFERENCES = 8
"""References of a photograph."""

_PREVIEW_BYTES = 256 << 20  # that are kept of all visitors; others are made anew from their files
_REQUESTS_KEPT = 10  # so many of the largest requests are on the disk at once
_HOURS = 6.0  # after which a visitor who does nothing is forgotten


@dataclass
class OpenPicture:
    """A photograph that a visitor has dropped: its file, in a folder of its own, and its `name`.

    `thumbnail`, `variants`: addresses that hold pictures. `picked`: the place that was clicked.
    `palette`: the colours that are suggested there, #rrggbb. `selected`: the number of a mark.
    """

    path: Path
    name: str
    history: History = field(default_factory=History)
    references: list[tuple[Path, Exemplar]] = field(default_factory=list)
    thumbnail: str = ""
    picked: tuple[float, float] | None = None
    palette: list[str] = field(default_factory=list)
    selected: int | None = None
    variants: list[str] = field(default_factory=list)


@dataclass
class Session:
    """A visitor. `lock`: one thing at a time is done for them. `chosen`: the number of the photograph
    that is shown. `sure`: whether it is shown where colours are sure.
    """

    folder: Path
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    pictures: list[OpenPicture] = field(default_factory=list)
    chosen: int = 0
    sure: bool = False
    used: float = 0.0

    @property
    def picture(self) -> OpenPicture:
        """The photograph that is shown. ConfigError when there is none."""
        if not self.pictures:
            raise ConfigError(say("no_photograph"))
        return self.pictures[min(self.chosen, len(self.pictures) - 1)]

    def new_folder(self) -> Path:
        """A new folder of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / secrets.token_urlsafe(8)
        path.mkdir()
        return path

    def bytes(self) -> int:
        """How many its files have."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


class Sessions:
    """All visitors. `root`: of their folders, there when the first file comes. `most_bytes`: of one
    request.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._previews: OrderedDict[Path, Preview] = OrderedDict()

    def find(self, key: str, root: Path) -> Session:
        """The visitor of that key, who is new when nobody has it."""
        with self._lock:
            now = time.monotonic()
            for other, session in list(self._sessions.items()):
                if now - session.used > 3600 * _HOURS and not session.lock.locked():
                    self._forget(other)
            if key not in self._sessions:
                self._sessions[key] = Session(root / secrets.token_urlsafe(16))
            self._sessions.move_to_end(key)
            self._sessions[key].used = now
            self._trim(MOST_SESSIONS)
            return self._sessions[key]

    def remove(self, key: str) -> None:
        """Forget a visitor with all files."""
        with self._lock:
            self._forget(key)

    def make_room(self, session: Session) -> None:
        """Forget others while the files of all are too many. ConfigError when a visitor alone has
        too many, of files or pictures.
        """
        most = _REQUESTS_KEPT * self._most_bytes
        if len(session.pictures) > MOST_PICTURES:
            raise ConfigError(
                say("many_photographs", most=MOST_PICTURES, found=len(session.pictures))
            )
        with self._lock:
            while sum(each.bytes() for each in self._sessions.values()) > most:
                if not self._trim(len(self._sessions) - 1, session):
                    raise ConfigError(say("many_bytes", most=f"{most / 1e6:g}"))

    def preview(self, picture: OpenPicture, sight: Sight, max_pixels: int) -> Preview:
        """The preview of a photograph, made when it is not kept. DataError for one that cannot be
        read.
        """
        with self._lock:
            if (kept := self._previews.get(picture.path)) is not None:
                self._previews.move_to_end(picture.path)
                return kept
        made = previews.open_preview(picture.path, sight, max_pixels)
        with self._lock:
            self._previews[picture.path] = made
            while sum(each.rgb.nbytes for each in self._previews.values()) > _PREVIEW_BYTES:
                self._previews.popitem(last=False)
        return made

    def _trim(self, most: int, kept: Session | None = None) -> bool:
        """Forget who has done nothing for longest until there are `most`; whether that could be."""
        for key, session in list(self._sessions.items()):
            if len(self._sessions) <= most:
                break
            if session is not kept and not session.lock.locked():
                self._forget(key)
        return len(self._sessions) <= most

    def _forget(self, key: str) -> None:
        if (session := self._sessions.pop(key, None)) is None:
            return
        for picture in session.pictures:
            self._previews.pop(picture.path, None)
        shutil.rmtree(session.folder, ignore_errors=True)
