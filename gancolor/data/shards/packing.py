"""Write a set as shards: tar files in WebDataset's convention, each with pictures of one split in a random order.

A picture is two files, `<key>.jpg` and `<key>.json` (path, width, height, split, sha256 of the JPEG file). The file
`shards.json` beside the shards lists them. The same pictures give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import sys
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BufferedRandom, BytesIO
from pathlib import Path
from typing import Any

from gancolor import images, locking
from gancolor.data import facts
from gancolor.data.folder import FolderSource
from gancolor.data.shards.encoding import Jpeg
from gancolor.data.shards.listing import LISTING, STATE, STRIDE, Listing, Shard
from gancolor.data.shards.planning import Pictures, fingerprint, open_splits
from gancolor.errors import ConfigError, DataError, shown
from gancolor.texts import json_of

SHARD_BYTES = 128 << 20

_LOCK = ".packing.lock"
_OWN = re.compile(r"\.packing\.(jsonl|lock)|\.[^/]*\.part")  # what a call that was stopped leaves, beside shards
_FORMAT = 1  # raised when the same pictures give other shards
_AHEAD = 16  # pictures that are made before they are needed


@dataclass(frozen=True)
class Packed:
    """The set in shards: its `listing`, how many of them were `made` now, and which pictures are `broken`, in words."""

    listing: Listing
    made: int
    broken: tuple[str, ...]


@dataclass(frozen=True)
class _Done:
    """A finished shard (None if all its pictures are broken), how many pictures it took, and what was left out."""

    shard: Shard | None
    taken: int
    broken: tuple[str, ...]


def pack(
    dataset: str,
    out: Path,
    *,
    datasets_root: Path | str | None = None,
    resize: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    shard_pictures: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Packed:
    """Write all splits of a set (a name or a folder) as shards into the folder `out`.

    Pictures become JPEG files; with `resize` their shorter side has at most so many pixels. A shard is full with
    `shard_bytes` or `shard_pictures`. `progress` gets pictures done and all. Broken pictures are left out. A shard
    appears whole or not at all; what an earlier call finished is kept. DataError if `out` holds something else, or
    cannot be written; ConfigError if it is the pictures' own folder.
    """
    splits = open_splits(dataset, datasets_root)
    for source in (pictures.source for pictures in splits):
        if isinstance(source, FolderSource) and source.root.resolve() == out.resolve():
            raise ConfigError(
                f"--out must be another folder than that of the pictures, got {shown(out)}; name a new one"
            )
    known = facts.find(dataset, datasets_root)
    plan = fingerprint(splits, [_FORMAT, resize, shard_bytes, shard_pictures])
    try:
        busy = f"folder for shards must be free, got {shown(out)}, into which another process packs; wait for it"
        _check_folder(out, plan)
        with locking.held(out / _LOCK, busy):
            packer = _Packer(out, resize, shard_bytes, shard_pictures)
            packer.begin(plan)
            packer.run(splits, progress or (lambda done, total: None))
            listing = Listing(name=known.name, licence=known.licence, shards=tuple(packer.shards), plan=plan)
            packer.tidy()
            images.write_file(out / LISTING, listing.to_json().encode())
    except OSError as error:
        raise DataError(f"shards must be writable, got {shown(out)}: {error.strerror or error}; make room") from None
    return Packed(listing, packer.made, tuple(packer.broken))


class _Packer:
    """Writes shards, or finds those that are finished."""

    def __init__(self, out: Path, resize: int | None, shard_bytes: int, shard_pictures: int | None) -> None:
        self.out, self.resize = out, resize
        self.most_bytes, self.most_pictures = shard_bytes, shard_pictures or sys.maxsize
        self.made = self._rows = self._packed = self._seen = 0
        self.shards: list[Shard] = []
        self.broken: list[str] = []
        self._plan = ""
        self._known: list[_Done] = []

    def begin(self, plan: str) -> None:
        """Read what an earlier call finished. DataError if it was of other pictures."""
        lines = _check_folder(self.out, plan)
        self._plan, self._known = plan, [_done(line) for line in lines[1:]]
        for aside in self.out.glob(".*.part"):  # of a call that was killed
            aside.unlink()
        self._write_state()

    def run(self, splits: Sequence[Pictures], progress: Callable[[int, int], None]) -> None:
        """Make what is missing of the shards."""
        total = sum(len(pictures.order) for pictures in splits)
        with ThreadPoolExecutor(_threads()) as threads:
            for pictures in splits:
                place, ready = 0, None
                while place < len(pictures.order):
                    row = self._finished()
                    if row is not None:
                        ready = None
                        self._seen += row.taken
                    else:
                        ready = ready or self._encoded(pictures, place, threads)
                        row = self._make(pictures, ready, lambda: progress(self._seen, total))
                    self._take(row)
                    place += row.taken
        progress(total, total)

    def tidy(self) -> None:
        """Remove the shards of an earlier call that are none any more."""
        names = {shard.file for shard in self.shards}
        for path in self.out.glob("*.tar"):
            if re.fullmatch(r"\d{4,}\.tar", path.name) and path.name not in names:
                path.unlink()

    def _finished(self) -> _Done | None:
        """What comes next, if an earlier call finished it and it is still there."""
        row = self._expected()
        if row is not None and row.shard is not None:
            path = self.out / row.shard.file
            return row if path.is_file() and path.stat().st_size == row.shard.bytes else None
        return row

    def _take(self, row: _Done) -> None:
        self._rows += 1
        self.broken += row.broken
        if row.shard is not None:
            self.shards.append(row.shard)
            self._packed += row.shard.pictures

    def _encoded(self, pictures: Pictures, place: int, threads: ThreadPoolExecutor) -> Iterator[tuple[int, Jpeg | str]]:
        """The places from `place` on with their pictures, some of them made ahead."""
        ahead: deque[Future[Jpeg | str]] = deque()
        for following in range(place, len(pictures.order) + _AHEAD):
            if following < len(pictures.order):
                ahead.append(threads.submit(pictures.jpeg, following, self.resize))
            if following >= place + _AHEAD and ahead:
                yield following - _AHEAD, ahead.popleft().result()

    def _make(self, pictures: Pictures, ready: Iterator[tuple[int, Jpeg | str]], report: Callable[[], None]) -> _Done:
        """Fill one shard with what is ready, and note that it is finished."""
        aside = self.out / f".{os.getpid()}-{secrets.token_hex(4)}.part"
        broken: list[str] = []
        starts: list[int] = []
        count = taken = 0
        try:
            with aside.open("x+b") as file:
                with tarfile.open(fileobj=file, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
                    for place, jpeg in ready:
                        taken, self._seen = taken + 1, self._seen + 1
                        report()
                        if isinstance(jpeg, str):
                            broken.append(jpeg)
                            continue
                        if count % STRIDE == 0:
                            starts.append(tar.offset)
                        _add(tar, f"{self._packed + count:08d}", pictures.path(place), pictures.split, jpeg)
                        count += 1
                        if count == self.most_pictures or tar.offset >= self.most_bytes:
                            break
                shard = self._shard(file, pictures.split, count, starts) if count else None
            row = _Done(shard, taken, tuple(broken))
            if row != self._expected():
                self._forget()
            if shard is not None:
                aside.replace(self.out / shard.file)
                self.made += 1
        finally:
            aside.unlink(missing_ok=True)
        if self._expected() is None:
            with (self.out / STATE).open("a", encoding="utf-8") as state:
                state.write(json.dumps(asdict(row)) + "\n")
            self._known.append(row)
        return row

    def _expected(self) -> _Done | None:
        """What an earlier call made in the place of what comes next."""
        return self._known[self._rows] if self._rows < len(self._known) else None

    def _forget(self) -> None:
        """What comes next is not what it was: nothing that follows it is, and the list of it all is wrong."""
        if self._rows < len(self._known):
            (self.out / LISTING).unlink(missing_ok=True)
            del self._known[self._rows :]
            self._write_state()

    def _write_state(self) -> None:
        lines = [{"plan": self._plan}, *(asdict(row) for row in self._known)]
        images.write_file(self.out / STATE, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def _shard(self, file: BufferedRandom, split: str, pictures: int, starts: list[int]) -> Shard:
        file.flush()
        os.fsync(file.fileno())
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        return Shard(
            file=f"{len(self.shards):04d}.tar",
            split=split,
            pictures=pictures,
            bytes=size,
            sha256=hashlib.file_digest(file, "sha256").hexdigest(),
            starts=tuple(starts),
        )


def _add(tar: tarfile.TarFile, key: str, path: str, split: str, jpeg: Jpeg) -> None:
    about = {"path": path, "width": jpeg.width, "height": jpeg.height, "split": split, "sha256": jpeg.sha256}
    for suffix, data in (("jpg", jpeg.data), ("json", json.dumps(about).encode())):
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size = len(data)
        tar.addfile(member, BytesIO(data))


def _check_folder(out: Path, plan: str) -> list[Any]:
    """The lines of what an earlier call finished in a folder; DataError if it holds something else."""
    lines = _read_state(out / STATE)
    empty = not out.exists() or all(_OWN.fullmatch(path.name) for path in out.iterdir())
    if lines[:1] != [{"plan": plan}] and (lines or not empty):
        raise DataError(
            f"folder for shards must be empty or hold the same pictures, packed in the same way, got {shown(out)}; "
            "name another one, or remove it"
        )
    return lines


def _read_state(path: Path) -> list[Any]:
    """The lines that are whole."""
    lines = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                lines.append(json_of(line))
            except ValueError:  # the last one of a call that was killed
                break
    return lines


def _done(line: dict[str, Any]) -> _Done:
    shard = line["shard"]
    kept = None if shard is None else Shard(**{**shard, "starts": tuple(shard["starts"])})
    return _Done(kept, line["taken"], tuple(line["broken"]))


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
