"""Pictures from object storage that lie in the set's hidden folder between their examination and
their copying, so that each is transferred once.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from gancolor.data.doctor import examination
from gancolor.data.doctor.examination import Findings
from gancolor.images import arrays


class Reserve:
    """Keeps pictures by their SHA-256, as their copies will be: reduced already where those are.

    `folder`: where they lie, for this alone. `sources`: numbers of the sources whose pictures are
    kept. `resize`: most pixels of a copy's shorter side, None for the files as they are. It can be
    sent to other processes. What is missing here is fetched again.
    """

    def __init__(self, folder: Path, sources: frozenset[int], resize: int | None) -> None:
        self._folder, self._sources, self._resize = folder, sources, resize

    def keep(self, source: int, data: bytes, found: Findings) -> None:
        """Keep the bytes of a picture, if its source's are kept and it can be read. DataError if the
        folder cannot be written.
        """
        path = self._path(found.sha256)
        if source not in self._sources or not found.width or not found.kind or path.exists():
            return
        if self._resize is not None:
            try:
                data = examination.to_jpeg(data, found.kind, self._resize)
            except (
                Exception
            ):  # on damaged files decoders raise almost anything: copying tells of it
                return
        arrays.write_file(path, data)

    def take(self, source: int, sha256: bytes) -> bytes | None:
        """The bytes of a picture as they are to be copied; None if they are not here."""
        if source not in self._sources:
            return None
        try:
            return self._path(sha256).read_bytes()
        except OSError:
            return None

    def drop(self, source: int, sha256: bytes) -> None:
        """Forget a picture, which has been copied."""
        if source in self._sources:
            self._path(sha256).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all that is left: pictures that were not to be copied."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, sha256: bytes) -> Path:
        name = sha256.hex()
        how = "whole" if self._resize is None else f"{self._resize}-{examination.QUALITY}"
        return self._folder / how / name[:2] / name


NOTHING = Reserve(Path(), frozenset(), None)
"""Keeps no picture."""
