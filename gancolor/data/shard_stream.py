"""Training pictures from shards, read one after another through the webdataset library, from disk
or over HTTP.

The order is decided by the seed alone. In every pass the shards are put into a random order, and
their pictures, one after another in that order, are cut into equal ranges, one for each lane of
each process. A lane reads its range in chunks whose pictures are shuffled. The batches of a process
come from its lanes in turn, and each lane is read by one worker, so that any number of workers sees
the same pictures, each of them once a pass; a resumed run begins to read at the chunks where it
stopped. Lanes are as far in their passes as the others, to one batch.
"""

from __future__ import annotations

import itertools
import logging
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from gancolor.config import TrainConfig
from gancolor.data import picture_cache
from gancolor.data.example import Augment, TrainingPictures
from gancolor.data.shard_listing import STRIDE, Shard, picture_suffix
from gancolor.data.shard_lookup import ShardSource, about, decode
from gancolor.data.source import split_of
from gancolor.errors import ConfigError, DataError, MissingExtra, shown
from gancolor.images.arrays import Picture
from gancolor.runtime.download import RemoteFile, Unanswered
from gancolor.runtime.files import stat_regular
from gancolor.runtime.remote_files import is_remote

LANES = 12  # of a process: 1, 2, 3, 4, 6 or 12 workers share them evenly
CHUNK = 256  # pictures that are shuffled among themselves
CHUNK_BYTES = 32 << 20  # of a chunk; where pictures are large, it has fewer of them
TIMEOUT = 30.0  # seconds in which a server may be silent
TRIES = 6  # without a byte in between
BACKOFF = 0.5  # seconds before the second try; twice that before the next, and so on

log = logging.getLogger("gancolor")


class PackedPicture(NamedTuple):
    """A picture as its shard has it: its name, the bytes of its file, and their SHA-256, "" if it
    is not known.
    """

    name: str
    data: bytes
    sha256: str


class StreamedPictures(TrainingPictures):
    """Augmented pictures by (position, index): where in the run, which picture of the process's
    stream.
    """

    def __init__(
        self,
        stream: ShardStream,
        source: ShardSource,
        augmentation: Augment,
        side: int,
        config: TrainConfig,
    ) -> None:
        super().__init__(source, augmentation, config)
        self.stream, self.side = stream, side

    def read_good(self, index: int) -> tuple[Picture, list[tuple[str, str]]]:
        broken: list[tuple[str, str]] = []
        most = max(len(self), 1000)
        # Those that follow in the same lane.
        for candidate in itertools.islice(itertools.count(index, self.stream.lanes), most):
            name, data, sha256 = self.stream.read(candidate)
            try:
                return picture_cache.reduce(decode(data, name, sha256), self.side), broken
            except DataError as error:
                broken.append((name, str(error)))
        raise DataError(
            f"dataset must keep a picture that can be read, got none in {most} tries; pack it again"
        )


class StreamKeys:
    """For each step from `start` on, endlessly: the (position, index) pairs of one process."""

    def __init__(self, lanes: int, batch_size: int, start: int, rank: int, world: int) -> None:
        self.lanes, self.start = lanes, start
        self.batch_size, self.share, self.offset = (
            batch_size,
            batch_size // world,
            batch_size // world * rank,
        )

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in itertools.count(self.start):
            turn, lane = divmod(step, self.lanes)
            first = step * self.batch_size + self.offset
            yield [
                (first + j, (turn * self.share + j) * self.lanes + lane) for j in range(self.share)
            ]


class ShardStream:
    """The pictures of one process in their order: picture i is the (i // lanes)-th of the lane i %
    lanes, endlessly.

    At most a chunk of each lane is held in memory. DataError when a shard cannot be read.
    """

    def __init__(self, source: ShardSource, seed: int, rank: int, world: int) -> None:
        self.shards, self.seed, self.count = source.shards, seed, len(source)
        self.lanes = next(n for n in (LANES, 6, 4, 3, 2, 1) if n == 1 or n * world <= self.count)
        self.ranges, self.first = self.lanes * world, self.lanes * rank
        mean = sum(shard.bytes for shard in self.shards) / self.count
        self.chunk = max(1, min(CHUNK, int(CHUNK_BYTES / max(mean, 1))))
        self._pictures = np.array([shard.pictures for shard in self.shards])
        self._lanes = [_Lane() for _ in range(self.lanes)]

    def read(self, index: int) -> PackedPicture:
        """The picture at a place of the stream."""
        position, number = divmod(index, self.lanes)
        lane = self._lanes[number]
        place, chunk, begin, end = self._place(position, number)
        if lane.chunk != chunk:
            lane.chunk, lane.pictures = None, []  # before the next ones come into memory
            pieces = list(self._pieces(chunk[0], begin, end))
            pictures = [
                picture
                for piece in pieces
                for picture in lane.take(self.shards[piece.shard], piece)
            ]
            order = np.random.default_rng([self.seed, *chunk, 3]).permutation(len(pictures))
            lane.chunk, lane.pictures = chunk, [pictures[i] for i in order]
        return lane.pictures[place - begin]

    def _place(self, position: int, lane: int) -> tuple[int, tuple[int, int, int], int, int]:
        """Where a lane's picture lies in its pass, its chunk as (pass, range, number), and that
        chunk's begin and end.

        Ranges follow one another on an endless line, a pass after a pass; lane i begins with range
        i. Passes are then equally long in the mean, whether or not the ranges divide the pictures.
        """
        own = self.first + lane
        place = self.count * own // self.ranges + position
        on_line = ((place + 1) * self.ranges - 1) // self.count
        begin, end = (self.count * number // self.ranges for number in (on_line, on_line + 1))
        # Lanes come to their chunks' ends one after another.
        shift = self.chunk * lane // self.lanes
        number = (place - begin + shift) // self.chunk
        first = max(begin, begin + number * self.chunk - shift)
        last = min(end, begin + (number + 1) * self.chunk - shift)
        epoch, within = on_line - own, on_line // self.ranges * self.count
        return place - within, (epoch, on_line % self.ranges, number), first - within, last - within

    def _pieces(self, epoch: int, begin: int, end: int) -> Iterator[_Piece]:
        """What the pictures from `begin` to `end` of a pass are of the shards in its order."""
        order = np.random.default_rng([self.seed, epoch, 2]).permutation(len(self.shards))
        ends = np.cumsum(self._pictures[order])
        number = int(np.searchsorted(ends, begin, side="right"))
        while begin < end:
            shard = int(order[number])
            count = min(end, int(ends[number])) - begin
            yield _Piece(shard, begin - int(ends[number]) + int(self._pictures[shard]), count)
            begin, number = begin + count, number + 1


class _Piece(NamedTuple):
    shard: int
    first: int
    pictures: int


@dataclass
class _Lane:
    """What a lane has read, and the shard that it is in the middle of."""

    chunk: tuple[int, int, int] | None = None
    pictures: list[PackedPicture] = field(default_factory=list)
    _next: tuple[int, int] | None = None  # shard and picture that come next in `_stream`
    _stream: Iterator[PackedPicture] = field(default_factory=lambda: iter(()))

    def take(self, shard: Shard, piece: _Piece) -> list[PackedPicture]:
        if self._next != (piece.shard, piece.first):
            self._stream = _pictures(shard, piece.first)
        self._next = None
        taken = list(itertools.islice(self._stream, piece.pictures))
        if len(taken) < piece.pictures:
            raise DataError(
                f"shard must hold {shard.pictures} pictures, got {piece.first + len(taken)} in"
                f" {shown(shard.file)}; pack the set again"
            )
        end = piece.first + piece.pictures
        self._next = (piece.shard, end)
        if end == shard.pictures:
            self._stream = iter(())  # closes the file
        return taken


def check(config: TrainConfig) -> None:
    """ConfigError if the pictures of shards are to be cached, MissingExtra if webdataset is
    missing.
    """
    if config.cache != "none":
        raise ConfigError(f"--cache must be none with shards, got {config.cache}; leave it out")
    _webdataset()


def open_stream(
    source: ShardSource,
    augmentation: Augment,
    side: int,
    config: TrainConfig,
    start_step: int,
    rank: int,
    world: int,
    workers: int,
) -> tuple[StreamedPictures, StreamKeys, int]:
    """The pictures of a training on shards, the keys of its batches, and how many workers share the
    lanes evenly.

    The pictures' shorter side is reduced to `side` pixels. Errors: those of `check`.
    """
    check(config)
    picture_cache.remove_leftovers()  # of other trainings: it has none
    stream = ShardStream(source, config.seed, rank, world)
    fitting = next((n for n in range(workers, 0, -1) if stream.lanes % n == 0), 0)
    if fitting != workers:
        log.info(
            "%d workers read the shards: %d cannot share %d lanes evenly",
            fitting,
            workers,
            stream.lanes,
        )
    keys = StreamKeys(stream.lanes, config.batch_size, start_step, rank, world)
    return StreamedPictures(stream, source, augmentation, side, config), keys, fitting


def _pictures(shard: Shard, first: int) -> Iterator[PackedPicture]:
    """The pictures of a shard from a number on."""
    webdataset = _webdataset()
    start, skipped = (shard.starts[first // STRIDE], first % STRIDE) if shard.starts else (0, first)
    with open_bytes(shard, start) as stream:
        files = webdataset.tar_file_expander(iter([{"url": shard.file, "stream": stream}]))
        try:
            for sample in webdataset.group_by_keys(files):
                suffix = picture_suffix(sample)
                if suffix is None or (shard.hashed and split_of(sample["__key__"]) != shard.split):
                    continue
                if skipped:
                    skipped -= 1
                else:
                    name, sha256 = about(shard, sample["__key__"], suffix, sample.get("json"))
                    yield PackedPicture(name, sample[suffix], sha256)
        except (DataError, OSError, ValueError, tarfile.TarError) as error:
            raise getattr(stream, "failure", None) or _unreadable(shard, error) from None


class RemoteShard(AbstractContextManager["RemoteShard"]):
    """The bytes of a shard of `size` bytes on a server, from `start` on.

    `failure`: the error that `read` raised, for who gets it changed by a library.
    """

    def __init__(self, address: str, start: int, size: int) -> None:
        self.failure: DataError | None = None
        self._address = address
        self._file = RemoteFile(
            address,
            position=start,
            length=size,
            checked=True,
            fixed=True,
            retries=TRIES - 1,
            backoff=BACKOFF,
            renewing=True,
            failed=lambda unanswered: log.info(
                "shard %s: %s; trying again", shown(address), unanswered.line
            ),
            timeout=TIMEOUT,
        )

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, b"" at the end. DataError when trying again is of no use."""
        try:
            return self._file.read(count)
        except Unanswered as unanswered:
            self.failure = DataError(
                f"shard must be readable, got {shown(self._address)}: {unanswered.line};"
                " is the server there?"
            )
            raise self.failure from None


def open_bytes(shard: Shard, start: int) -> AbstractContextManager[Any]:
    """Open a shard, here or remote, to be read from the byte `start` on. DataError if it cannot be."""
    if is_remote(shard.file):
        return RemoteShard(shard.file, start, shard.bytes)
    try:
        stat_regular(shard.file)
        file: IO[bytes] = Path(shard.file).open("rb")
    except OSError as error:
        raise _unreadable(shard, error) from None
    file.seek(start)
    return file


def _unreadable(shard: Shard, error: Exception) -> DataError:
    # The library puts the stream and the address behind what an error says.
    reason = (
        getattr(error, "strerror", None)
        or str(error.args[0] if error.args else error).partition(" @ ")[0]
    )
    return DataError(
        f"shard must be a readable tar file, got {shown(shard.file)}: {reason}; replace it"
    )


def _webdataset() -> Any:
    try:
        from webdataset import tariterators
    except ImportError:
        raise MissingExtra(
            "training on shards needs webdataset; install it: pip install 'gancolor[shards]'"
        ) from None
    return tariterators
