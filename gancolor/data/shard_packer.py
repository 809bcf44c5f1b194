"""Writes a dataset as shards: tar files in WebDataset's convention, each with pictures of one split
in a random order.

A picture is two files, `<key>.jpg` and `<key>.json` (path, width, height, split, SHA-256 of the
JPEG file). The file `shards.json` beside the shards lists them. The same pictures give the same
bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import cv2
import numpy as np

from gancolor.data import facts, manifest
from gancolor.data.dataset import open_source
from gancolor.data.doctor import examination
from gancolor.data.folder import FolderSource
from gancolor.data.shard_folder import ShardFolder, open_folder_of
from gancolor.data.shard_listing import LISTING, STATE, STRIDE, Listing, Shard
from gancolor.data.shard_lookup import ShardSource
from gancolor.data.source import SPLITS, PictureSource, Split, split_of
from gancolor.errors import ConfigError, DataError, shown
from gancolor.images import arrays
from gancolor.images.formats import HEAD
from gancolor.runtime.files import json_of
from gancolor.runtime.workers import usable_cores

SHARD_BYTES = 128 << 20

# What a call that was stopped leaves, beside shards.
_OWN = re.compile(r"\.packing\.(jsonl|lock)|\.[^/]*\.part")
_FORMAT = 1  # raised when the same pictures give other shards
_AHEAD = 16  # pictures that are made before they are needed


@dataclass(frozen=True)
class Packed:
    """A dataset in shards: its `listing`, how many of them were `made` now, and which pictures are
    `broken`, in words.
    """

    listing: Listing
    made: int
    broken: tuple[str, ...]


def pack(
    dataset: str,
    out: Path | str,
    *,
    datasets_root: Path | str | None = None,
    resize: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    shard_pictures: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Packed:
    """Write all splits of a dataset (a name or a folder) as shards into the folder `out`, or to an
    address in object storage (a string).

    Pictures become JPEG files; with `resize` their shorter side has at most so many pixels. A shard
    is full with `shard_bytes` or `shard_pictures`. `progress` gets pictures done and all. Broken
    pictures are left out. A shard appears whole or not at all; what an earlier call finished is
    kept. DataError if `out` holds something else, or cannot be written; ConfigError if it is the
    pictures' own folder.
    """
    place = open_folder_of(out)
    splits = open_splits(dataset, datasets_root)
    for source in (pictures.source for pictures in splits):
        if (
            isinstance(source, FolderSource)
            and isinstance(out, Path)
            and source.root.resolve() == out.resolve()
        ):
            raise ConfigError(
                f"--out must be another folder than that of the pictures, got {shown(out)}; name a"
                " new one"
            )
    known = facts.find(dataset, datasets_root)
    plan = fingerprint(splits, [_FORMAT, resize, shard_bytes, shard_pictures])
    try:
        busy = (
            f"folder for shards must be free, got {shown(out)}, into which another process packs;"
            " wait for it"
        )
        _check_folder(place, plan)
        with place.locked(busy):
            packer = _Packer(place, resize, shard_bytes, shard_pictures)
            packer.begin(plan)
            packer.run(splits, progress or (lambda done, total: None))
            listing = Listing(
                name=known.name, licence=known.licence, shards=tuple(packer.shards), plan=plan
            )
            packer.tidy()
            place.write(LISTING, listing.to_json())
    except OSError as error:
        raise DataError(
            f"shards must be writable, got {shown(out)}: {error.strerror or error}; make room"
        ) from None
    return Packed(listing, packer.made, tuple(packer.broken))


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A JPEG file: its bytes, its sides in pixels and its SHA-256 in hexadecimal."""

    data: bytes
    width: int
    height: int
    sha256: str


def to_jpeg(data: bytes, name: str, resize: int | None) -> Jpeg:
    """A picture file as an upright sRGB JPEG of 8 bits whose shorter side is at most `resize`
    pixels.

    A file that is one already stays as it is. `name` is for the DataError if the picture is broken.
    """
    kind = examination.kind_of(data[:HEAD], name)
    if not kind:
        raise _unreadable(name, "it is no picture of a kind that can be read")
    try:
        data = examination.to_jpeg(data, kind, sys.maxsize if resize is None else resize)
    except Exception as error:  # on damaged files decoders raise almost anything
        text = " ".join(str(error).split())
        # Either the reason alone, or a whole line with a name that is not this one.
        raise _unreadable(
            name, text.split(": ", 1)[-1] if text.startswith("picture must ") else text
        ) from None
    rgb = arrays.decode_rgb(data, name)  # as training will: a damaged file may have stayed as it is
    return Jpeg(data, rgb.shape[1], rgb.shape[0], hashlib.sha256(data).hexdigest())


def _unreadable(name: str, reason: str) -> DataError:
    return DataError(f"picture must be readable, got {shown(name)}: {reason}")


class PackingOrder:
    """The pictures of a split in the order in which they are packed."""

    def __init__(self, source: PictureSource, split: str) -> None:
        self.source, self.split = source, split
        self.order = (
            np.random.default_rng([0, SPLITS.index(split)])
            .permutation(len(source))
            .astype(np.int32)
        )

    def path(self, place: int) -> str:
        """What others see of where the picture came from: no folders of this computer."""
        name = self.source.name(int(self.order[place]))
        return PurePath(name).name if os.path.isabs(name) else name

    def stamp(self, place: int) -> list[Any]:
        """What changes when the picture does."""
        index = int(self.order[place])
        if not isinstance(self.source, FolderSource):
            return [self.source.name(index)]
        try:
            status = (self.source.root / self.source.paths[index]).stat()
            return [self.source.paths[index], status.st_size, status.st_mtime_ns]
        except OSError:
            return [self.source.paths[index]]  # it will be left out as broken

    def jpeg(self, place: int, resize: int | None) -> Jpeg | str:
        """The picture as a JPEG file, or why it is left out."""
        index = int(self.order[place])
        try:
            if not isinstance(self.source, FolderSource):
                _, lossless = cv2.imencode(
                    ".png", cv2.cvtColor(self.source.read(index), cv2.COLOR_RGB2BGR)
                )
                return to_jpeg(lossless.tobytes(), self.source.name(index), resize)
            path = self.source.root / self.source.paths[index]
            try:
                data = path.read_bytes()
            except OSError as error:
                return f"picture must be readable, got {shown(path)}: {error.strerror}"
            return to_jpeg(data, str(path), resize)
        except DataError as error:
            return str(error)


def open_splits(dataset: str, root: Path | str | None) -> list[PackingOrder]:
    """The splits of a dataset that have pictures of their own. DataError for one that is in shards
    already.
    """
    found: list[tuple[Split, PictureSource]] = []
    splits: tuple[Split, ...] = ("train", "val", "test")
    for split in splits:
        with contextlib.suppress(DataError) if found else contextlib.nullcontext():
            source = open_source(dataset, split, datasets_root=root)
            if isinstance(source, ShardSource):
                raise DataError(
                    f"dataset to pack must be pictures, got shards, {shown(dataset)}; pack the set"
                    " they were made of"
                )
            same = [
                place for place, (_, other) in enumerate(found) if other.name(0) == source.name(0)
            ]
            if not same:
                found.append((split, source))
            elif _own_split(source) == split:  # the other one has borrowed it
                found[same[0]] = (split, source)
    return [PackingOrder(source, split) for split, source in found]


def _own_split(source: PictureSource) -> str:
    assert isinstance(source, FolderSource)  # generated datasets have pictures of all splits
    code = manifest.read(source.root / manifest.MANIFEST).get(source.name(0), manifest.UNDECIDED)
    return SPLITS[code] if code < len(SPLITS) else split_of(source.name(0))


def fingerprint(splits: Sequence[PackingOrder], how: list[Any]) -> str:
    """What is the same only for the same pictures, packed in the same way."""
    plan = hashlib.sha256(json.dumps(how).encode())
    for pictures in splits:
        for place in range(len(pictures.order)):
            plan.update(json.dumps([pictures.split, *pictures.stamp(place)]).encode())
    return plan.hexdigest()


@dataclass(frozen=True)
class _Done:
    """A finished shard (None if all its pictures are broken), how many pictures it took, and what
    was left out.
    """

    shard: Shard | None
    taken: int
    broken: tuple[str, ...]


class _Packer:
    """Writes shards, or finds those that are finished."""

    def __init__(
        self, out: ShardFolder, resize: int | None, shard_bytes: int, shard_pictures: int | None
    ) -> None:
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
        self.out.tidy()
        self._write_state()

    def run(self, splits: Sequence[PackingOrder], progress: Callable[[int, int], None]) -> None:
        """Make what is missing of the shards."""
        total = sum(len(pictures.order) for pictures in splits)
        with ThreadPoolExecutor(usable_cores()) as threads:
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
        for name in self.out.names():
            if re.fullmatch(r"\d{4,}\.tar", name) and name not in names:
                self.out.remove(name)

    def _finished(self) -> _Done | None:
        """What comes next, if an earlier call finished it and it is still there."""
        row = self._expected()
        if row is not None and row.shard is not None:
            return row if self.out.size(row.shard.file) == row.shard.bytes else None
        return row

    def _take(self, row: _Done) -> None:
        self._rows += 1
        self.broken += row.broken
        if row.shard is not None:
            self.shards.append(row.shard)
            self._packed += row.shard.pictures

    def _encoded(
        self, pictures: PackingOrder, place: int, threads: ThreadPoolExecutor
    ) -> Iterator[tuple[int, Jpeg | str]]:
        """The places from `place` on with their pictures, some of them made ahead."""
        ahead: deque[Future[Jpeg | str]] = deque()
        for following in range(place, len(pictures.order) + _AHEAD):
            if following < len(pictures.order):
                ahead.append(threads.submit(pictures.jpeg, following, self.resize))
            if following >= place + _AHEAD and ahead:
                yield following - _AHEAD, ahead.popleft().result()

    def _make(
        self,
        pictures: PackingOrder,
        ready: Iterator[tuple[int, Jpeg | str]],
        report: Callable[[], None],
    ) -> _Done:
        """Fill one shard with what is ready, and note that it is finished."""
        name = f"{len(self.shards):04d}.tar"
        broken: list[str] = []
        starts: list[int] = []
        count = taken = 0
        with contextlib.suppress(_AllBroken), self.out.writing(name) as file:
            with tarfile.open(fileobj=file, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
                for place, jpeg in ready:
                    taken, self._seen = taken + 1, self._seen + 1
                    report()
                    if isinstance(jpeg, str):
                        broken.append(jpeg)
                        continue
                    if count % STRIDE == 0:
                        starts.append(tar.offset)
                    path = pictures.path(place)
                    _add(tar, f"{self._packed + count:08d}", path, pictures.split, jpeg)
                    count += 1
                    if count == self.most_pictures or tar.offset >= self.most_bytes:
                        break
            shard = _described(file, name, pictures.split, count, starts) if count else None
            row = _Done(shard, taken, tuple(broken))
            if row != self._expected():
                self._forget()
            if shard is None:
                raise _AllBroken
            self.made += 1
        if self._expected() is None:
            self.out.append(STATE, json.dumps(asdict(row)) + "\n")
            self._known.append(row)
        return row

    def _expected(self) -> _Done | None:
        """What an earlier call made in the place of what comes next."""
        return self._known[self._rows] if self._rows < len(self._known) else None

    def _forget(self) -> None:
        """What comes next is not what it was: nothing that follows it is, and the list of it all is
        wrong.
        """
        if self._rows < len(self._known):
            self.out.remove(LISTING)
            del self._known[self._rows :]
            self._write_state()

    def _write_state(self) -> None:
        lines = [{"plan": self._plan}, *(asdict(row) for row in self._known)]
        self.out.write(STATE, "".join(json.dumps(line) + "\n" for line in lines))


class _AllBroken(Exception):
    """There was no picture for a shard: it does not appear."""


def _described(file: BinaryIO, name: str, split: str, pictures: int, starts: list[int]) -> Shard:
    """What `shards.json` says of a shard that has just been written to `file`."""
    file.flush()
    with open(file.name, "rb") as whole:
        sha256 = hashlib.file_digest(whole, "sha256").hexdigest()
    return Shard(
        file=name,
        split=split,
        pictures=pictures,
        bytes=file.tell(),
        sha256=sha256,
        starts=tuple(starts),
    )


def _add(tar: tarfile.TarFile, key: str, path: str, split: str, jpeg: Jpeg) -> None:
    about = {
        "path": path,
        "width": jpeg.width,
        "height": jpeg.height,
        "split": split,
        "sha256": jpeg.sha256,
    }
    for suffix, data in (("jpg", jpeg.data), ("json", json.dumps(about).encode())):
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size = len(data)
        tar.addfile(member, BytesIO(data))


def _check_folder(out: ShardFolder, plan: str) -> list[Any]:
    """What an earlier call finished in a folder, in lines; DataError if it holds other things."""
    lines = _lines_of(out.read(STATE))
    empty = all(_OWN.fullmatch(name) for name in out.names())
    if lines[:1] != [{"plan": plan}] and (lines or not empty):
        raise DataError(
            "folder for shards must be empty or hold the same pictures, packed in the same way,"
            f" got {shown(out)}; name another one, or remove it"
        )
    return lines


def _lines_of(text: str) -> list[Any]:
    """The lines that are whole."""
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json_of(line))
        except ValueError:  # the last one of a call that was killed
            break
    return lines


def _done(line: dict[str, Any]) -> _Done:
    shard = line["shard"]
    kept = None if shard is None else Shard(**{**shard, "starts": tuple(shard["starts"])})
    return _Done(kept, line["taken"], tuple(line["broken"]))
