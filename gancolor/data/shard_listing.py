"""Which shards a dataset has, and where in a shard its pictures lie.

A file `shards.json` beside the shards tells it. Of local tar files without one the headers are
read, and what they tell is kept in the cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tarfile
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from gancolor.data.archives import StrictInfo
from gancolor.data.source import SPLITS, split_of
from gancolor.errors import DataError, DownloadError, MissingExtra, shown
from gancolor.images import formats
from gancolor.runtime import remote_files
from gancolor.runtime.download import fetch
from gancolor.runtime.files import cache_root, json_of, stat_regular, write_whole
from gancolor.runtime.remote_files import is_address, is_remote, is_web

LISTING = "shards.json"
FORMAT = 1
STRIDE = 64
"""A shard's `starts` tell where every so many-th picture begins."""

STATE = ".packing.jsonl"
"""What a call that packs has finished: a line that tells the plan, then one for each shard."""

_LEAST = 512  # bytes that a picture takes in a tar file: its header
_CACHE_FORMAT = 1  # raised when what is cached of a shard changes
_SUFFIXES = frozenset(suffix.removeprefix(".") for suffix in formats.SUFFIXES)
# WebDataset's rule: a sample's key is all before the first dot of the file's name; files named
# __x__ are not looked at.
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
_META = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A tar file of pictures. `file`: its path or address; in `shards.json` its name.

    `pictures` of `split` are in it, in `bytes` of the file, whose checksum is `sha256` ("" if not
    known). `starts`: offsets of the pictures 0, STRIDE, 2 * STRIDE... `hashed`: there are pictures
    of all splits in it, told apart by the hash of their keys; only those of `split` count.
    """

    file: str
    split: str
    pictures: int
    bytes: int
    sha256: str = ""
    starts: tuple[int, ...] = ()
    hashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A dataset in shards, as `shards.json` holds it. `plan`: what tells packs of the same pictures
    from others.

    `others`: shards that `shards.json` lists beside those that a pattern names.
    """

    name: str
    licence: str
    shards: tuple[Shard, ...]
    plan: str = ""
    others: tuple[Shard, ...] = ()

    def to_json(self) -> str:
        """The text of `shards.json`."""
        rows = [
            {key: value for key, value in asdict(shard).items() if key != "hashed"}
            for shard in self.shards
        ]
        head = {
            "gancolor shards": FORMAT,
            "name": self.name,
            "licence": self.licence,
            "plan": self.plan,
        }
        lines = ",\n  ".join(json.dumps(row) for row in rows)
        return f'{json.dumps(head)[:-1]}, "shards": [\n  {lines}\n]}}\n'


class Member(NamedTuple):
    """A picture in a shard: its key and suffix (without the dot, in lower case), and where it lies,
    in bytes.

    `start`: header of its sample's first file; `offset`, `size`: the picture's bytes;
    `text_offset`, `text_size`: those of the JSON file beside it, 0 if there is none.
    """

    key: str
    suffix: str
    start: int
    offset: int
    size: int
    text_offset: int
    text_size: int


def is_shards(dataset: str) -> bool:
    """Whether a dataset is meant as shards: an address, a tar file or pattern of them, a folder
    with `shards.json`.
    """
    path = Path(dataset).expanduser()
    if is_address(dataset) or path.is_dir():
        return is_address(dataset) or (path / LISTING).is_file()
    return path.name == LISTING or path.suffix == ".tar" or ("{" in dataset and not path.exists())


def parse(text: str, where: str) -> Listing:
    """Read the text of `shards.json`; `where` is for the DataError that names what is wrong with
    it.
    """
    try:
        content = json_of(text)
        if content["gancolor shards"] != FORMAT:
            raise ValueError(
                f"it is of the format {shown(content['gancolor shards'], 40)}, not {FORMAT}"
            )
        shards = tuple(_row(row) for row in content["shards"])
        if not shards:
            raise ValueError("it lists none")
        return Listing(
            name=str(content["name"]),
            licence=str(content["licence"]),
            shards=shards,
            plan=str(content.get("plan", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError(
            f"{LISTING} must list shards, got {shown(where)}: {reason}; pack the set again"
        ) from None


def find(dataset: str) -> Listing:
    """The shards that a pattern, a tar file, a folder or an address names. DataError says which one
    is missing.

    Only local tar files can do without a `shards.json`: their pictures are counted, and divided by
    their keys' hash.
    """
    if is_address(dataset):
        remote_files.check(dataset, "--dataset")
    files = _expand(dataset)
    if is_remote(dataset):
        return _of_remote(files, dataset)
    folder = Path(files[0]).parent if files else Path(dataset).expanduser()
    if (folder / LISTING).is_file():
        return _local(_narrow(read(folder / LISTING), [Path(file).name for file in files]), folder)
    return Listing(
        name=folder.absolute().name,
        licence="",
        shards=tuple(_foreign(Path(file)) for file in files),
    )


def read(path: Path) -> Listing:
    """Read a `shards.json` file. DataError if it cannot be read."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{LISTING} must be readable, got {shown(path)}: {error}") from None


def choose(shards: Sequence[Shard], split: str) -> tuple[Shard, ...]:
    """The shards that have pictures of a split; of those divided by hash, what counts in them."""
    chosen = []
    for shard in shards:
        if shard.hashed:
            members = members_of(shard.file, split, True)
            starts = tuple(member.start for member in members[::STRIDE])
            shard = replace(shard, split=split, pictures=len(members), starts=starts)
        if shard.pictures and split in (shard.split, "all"):
            chosen.append(shard)
    return tuple(chosen)


def members_of(path: str | Path, split: str, hashed: bool) -> list[Member]:
    """The pictures of a local shard that belong to a split. DataError if it cannot be read."""
    members = find_members(Path(path))
    if not hashed or split == "all":
        return members
    return [member for member in members if split_of(member.key) == split]


def shard_cache() -> Path:
    """Where shards from elsewhere, and what is known of foreign ones, are kept."""
    return cache_root() / "shards"


def picture_suffix(suffixes: Any) -> str | None:
    """The suffix of a sample's picture among those of its files, in their order; None for a sample
    without one.
    """
    return next((suffix for suffix in suffixes if suffix in _SUFFIXES), None)


def find_members(path: Path) -> list[Member]:
    """The pictures of a shard in their order. DataError if it is no whole, plain tar file."""
    try:
        status = stat_regular(path)
        stamp = [_CACHE_FORMAT, status.st_size, status.st_mtime_ns]
        place = shard_cache() / (
            hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32] + ".json"
        )
        if (kept := _kept(place, stamp)) is not None:
            return kept
        found = list(_scan(path, status.st_size))
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"shard must be a readable tar file, got {shown(path)}: {error}; replace it"
        ) from None
    with contextlib.suppress(OSError):  # without a cache it is found again each time
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, json.dumps({"shard": stamp, "members": found}))
    return found


def _kept(place: Path, stamp: list[int]) -> list[Member] | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json_of(place.read_text(encoding="utf-8"))
        if known["shard"] == stamp:
            return [Member(*row) for row in known["members"]]
    return None


def _scan(path: Path, size: int) -> Iterator[Member]:
    key, start = "", 0
    files: dict[str, tuple[int, int]] = {}  # of the sample so far: where each suffix's bytes lie
    with tarfile.open(path, "r:", tarinfo=StrictInfo) as shard:
        while (member := shard.next()) is not None:
            if member.offset_data + member.size > size:
                raise tarfile.ReadError("it is cut off")
            named = _NAME.match(member.name)
            if not member.isreg() or _META.match(member.name) or named is None:
                continue
            if named[1] != key:
                yield from _sample(key, start, files)
                key, start, files = named[1], member.offset, {}
            files[named[2].lower()] = (member.offset_data, member.size)
    yield from _sample(key, start, files)


def _sample(key: str, start: int, files: dict[str, tuple[int, int]]) -> Iterator[Member]:
    suffix = picture_suffix(files)
    if suffix is not None:
        yield Member(key, suffix, start, *files[suffix], *files.get("json", (0, 0)))


def say_elsewhere(listing: Listing, split: str) -> str:
    """Where the pictures of a split are that a pattern leaves out, as the end of a message; else an
    empty text.
    """
    others = [shard.file for shard in listing.others if shard.split == split]
    return f"; {split} pictures are in {_first_to_last(others)} beside them" if others else ""


def _first_to_last(files: Sequence[str]) -> str:
    return files[0] if len(files) == 1 else f"{files[0]} to {files[-1]}"


def _row(row: dict[str, Any]) -> Shard:
    file, split, starts = row["file"], row["split"], tuple(row.get("starts", ()))
    # Names may come from elsewhere: they must not lead out of the shards' folder.
    if (
        not isinstance(file, str)
        or not file.isprintable()
        or not file.endswith(".tar")
        or set(file) & set("/\\:?#")
    ):
        raise ValueError(f"{shown(file)} is no name of a tar file")
    if split not in SPLITS:
        raise ValueError(f"{shown(split, 40)} is no split")
    numbers = (row["pictures"], row["bytes"], *starts)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"the numbers of {shown(file)} are none")
    pictures, size = row["pictures"], row["bytes"]
    if size >= 2**63 or pictures * _LEAST > size:
        raise ValueError(
            f"{shown(file)} cannot hold {shown(pictures, 40)} pictures in {shown(size, 40)} bytes"
        )
    if starts and (
        len(starts) * STRIDE < pictures or max(starts) >= size or list(starts) != sorted(starts)
    ):
        raise ValueError(f"the places in {shown(file)} are none")
    if not re.fullmatch("[0-9a-f]{64}", str(row["sha256"])):
        raise ValueError(f"the checksum of {shown(file)} is none")
    return Shard(
        file=file,
        split=split,
        pictures=row["pictures"],
        bytes=row["bytes"],
        sha256=str(row["sha256"]),
        starts=starts,
    )


def _expand(dataset: str) -> list[str]:
    """The tar files that a pattern names; none for a folder or address with `shards.json`."""
    if not is_remote(dataset):
        path = Path(dataset).expanduser()
        if path.is_dir() or path.name == LISTING:
            return (
                []
                if path.is_dir()
                else [str(path.parent / shard.file) for shard in read(path).shards]
            )
        if path.exists():
            return [str(path)]
        if set("*?[") & set(path.name):
            raise DataError(
                f"pattern of shards must be written with braces, got {shown(dataset)}; write"
                f" {{0000..0099}}.tar, or name a folder with {LISTING}"
            )
        dataset = str(path)
    files = _braces(dataset) if "{" in dataset else [dataset]
    if is_remote(dataset) and not _path_of(files[0]).endswith(".tar"):
        return []
    if wrong := next((file for file in files if not _path_of(file).endswith(".tar")), None):
        raise DataError(
            f"shards must be .tar files, got {shown(wrong)}; unpack compressed ones, or name a"
            " folder"
        )
    if len({_folder_of(file) for file in files}) > 1:
        raise DataError(
            f"shards must lie in one folder, got {shown(dataset)}; put braces into the file's name"
            " only"
        )
    return files


def _braces(pattern: str) -> list[str]:
    try:
        from braceexpand import braceexpand
    except ImportError:
        raise MissingExtra(
            "patterns of shards need webdataset; install it: pip install 'gancolor[shards]'"
        ) from None
    try:
        return list(braceexpand(pattern))
    except ValueError as error:  # its UnbalancedBracesError
        raise DataError(
            f"pattern of shards must have its braces in pairs, got {shown(pattern)}: {error}"
        ) from None


def _path_of(file: str) -> str:
    """What a path or an address says without what may follow a `?` on the web."""
    return urllib.parse.urlsplit(file).path if is_web(file) else file


def _folder_of(file: str) -> str:
    return _path_of(file).rpartition("/")[0] if is_remote(file) else str(Path(file).parent)


def _beside(address: str, name: str) -> str:
    """The address of a file beside another one, or in a folder's; what follows a `?` goes along."""
    if not is_web(address):
        is_file = address.endswith((".tar", ".json"))
        return remote_files.joined(address.rpartition("/")[0] if is_file else address, name)
    parts = urllib.parse.urlsplit(address)
    named = parts.path.endswith((".tar", ".json"))
    folder = parts.path.rpartition("/")[0] if named else parts.path.rstrip("/")
    return urllib.parse.urlunsplit(parts._replace(path=f"{folder}/{urllib.parse.quote(name)}"))


def _narrow(listing: Listing, names: list[str]) -> Listing:
    """The shards of these names only; all without names."""
    known = {shard.file: shard for shard in listing.shards}
    if missing := [name for name in names if name not in known]:
        raise DataError(
            f"shards must be listed in their {LISTING}, got {shown(missing[0])}, which is not; it"
            f" lists {_first_to_last(list(known))}: name those, or their folder for all of them"
        )
    if not names:
        return listing
    others = tuple(shard for shard in listing.shards if shard.file not in names)
    return replace(listing, shards=tuple(known[name] for name in names), others=others)


def _local(listing: Listing, folder: Path) -> Listing:
    for shard in listing.shards:
        try:
            size = (folder / shard.file).stat().st_size
        except OSError as error:
            raise DataError(
                f"shard must be there, got {shown(folder / shard.file)}: {error.strerror}"
            ) from None
        if size != shard.bytes:
            raise DataError(
                f"shard must have the {shard.bytes} bytes that {LISTING} tells, got {size} in "
                f"{shown(folder / shard.file)}; copy it again"
            )
    return replace(
        listing, shards=tuple(replace(s, file=str(folder / s.file)) for s in listing.shards)
    )


def _foreign(path: Path) -> Shard:
    members = find_members(path)
    return Shard(
        file=str(path), split="all", pictures=len(members), bytes=path.stat().st_size, hashed=True
    )


def _of_remote(files: list[str], dataset: str) -> Listing:
    address = _beside(files[0] if files else dataset, LISTING)
    with tempfile.TemporaryDirectory() as folder:
        try:
            text = fetch(address, Path(folder) / LISTING, None).read_text(encoding="utf-8")
        except (DownloadError, UnicodeDecodeError) as error:
            reason = str(error).partition(" failed: ")[2].partition(";")[0] or str(error)
            raise DataError(
                f"remote shards must have a {LISTING} beside them, got none at {shown(address)}"
                f" ({shown(reason)}); make them with gancolor data pack, or download them: local"
                " ones can do without"
            ) from None
    names = [_path_of(file).rpartition("/")[2] for file in files]
    names = [urllib.parse.unquote(name) for name in names] if is_web(dataset) else names
    listing = _narrow(parse(text, address), names)
    return replace(
        listing, shards=tuple(replace(s, file=_beside(address, s.file)) for s in listing.shards)
    )
