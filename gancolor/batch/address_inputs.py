"""The files of a batch that lie at addresses: found in folders of object storage, or named one by one.

They become Items whose paths stand for the addresses (`mirror`). Only what a user names is looked at:
nothing that a file holds is ever taken for an address.
"""

from __future__ import annotations

import itertools
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gancolor.batch import input_files
from gancolor.batch.input_files import Item, result_name
from gancolor.batch.mirror import Mirror
from gancolor.errors import ConfigError, DataError, shown
from gancolor.images import formats
from gancolor.runtime import remote_files
from gancolor.video.encoding import film_name
from gancolor.video.opening import SUFFIXES


def expand(
    inputs: Sequence[str],
    out: Path,
    mirror: Mirror,
    *,
    format: str | None = None,
    listed: BinaryIO | None = None,
    null: bool = False,
    folders: bool = False,
    addresses: bool = False,
    exclude: Sequence[str] = (),
    passed: Counter[str] | None = None,
) -> Iterator[Item]:
    """`input_files.expand`, with addresses among the inputs, which come first; the results go to
    `out`, or where the mirror says.

    addresses: fetch what a list names by its address; without it each is a problem, so that no list
    from elsewhere has anything fetched by surprise.
    """
    passed = Counter[str]() if passed is None else passed
    stored = [name for name in inputs if remote_files.is_address(name)]
    local = [name for name in inputs if not remote_files.is_address(name)]
    place = out if mirror.out is None else mirror.results
    found = AddressInputs(mirror, place, format, exclude, passed)
    here = sum(os.path.isdir(name) for name in local)
    far, several = found.items(stored, here)
    near = input_files.expand(
        local,
        place,
        format=format,
        listed=listed,
        null=null,
        folders=folders,
        exclude=exclude,
        passed=passed,
        several=several,
        from_address=found.listed if addresses else None,
    )
    return itertools.chain(far, near)


@dataclass(frozen=True)
class AddressInputs:
    """Addresses among the inputs, and how their results are called; the rest as `input_files.expand`
    has it.
    """

    mirror: Mirror
    out: Path
    format: str | None
    exclude: Sequence[str]
    passed: Counter[str]

    def items(self, addresses: Sequence[str], others: int) -> tuple[Iterator[Item], bool]:
        """The files at addresses, lazily, and whether they and `others` are several folders.
        ConfigError at once if results would go among them, DataError if a bucket cannot be read.
        """
        folders = {each: self._is_folder(each) for each in addresses}
        for address, is_folder in folders.items():
            self._check(address, bool(is_folder))
        several = others + sum(map(bool, folders.values())) > 1
        return self._found(folders, several), several

    def one(self, address: str, inside: Path) -> Item:
        """The file at an address, its result in the folder `inside`."""
        return self._item(address, inside, lambda name: False)

    def listed(self, address: str) -> Item:
        """A file that a list names: it keeps its folders below --out."""
        try:
            remote_files.check(address, "list")
            kept = self.mirror.source_of(address).relative_to(self.mirror.folder / "in").parts
        except (ConfigError, DataError) as error:
            return self._trouble(address, str(error))
        return self.one(address, self.out.joinpath(*kept[1:-1]))

    def _found(self, folders: dict[str, bool | None], several: bool) -> Iterator[Item]:
        for address, is_folder in folders.items():
            if is_folder is None:
                words = f"input must be the address of a file or folder, got {shown(address)}"
                yield self._trouble(address, f"{words}: nothing is there")
            elif is_folder:
                name = posixpath.basename(address.rstrip("/"))
                yield from self._folder(address, self.out / name if several else self.out)
            else:
                yield self.one(address, self.out)

    def _is_folder(self, address: str) -> bool | None:
        """None where nothing is."""
        if remote_files.is_web(address):
            return False
        if not address.endswith("/"):
            found = remote_files.find(address)
            return None if found is None else found.is_folder
        return True if remote_files.entries(address) else None

    def _check(self, address: str, is_folder: bool) -> None:
        base = address.rstrip("/") if is_folder else address.rpartition("/")[0]
        out = (self.mirror.out or "").rstrip("/")
        if out == base:
            raise ConfigError(
                f"--out must not be the input folder, got {shown(out)}; choose another"
            )

    def _folder(self, address: str, inside: Path) -> Iterator[Item]:
        empty, base = True, address.rstrip("/")
        out = (self.mirror.out or "").rstrip("/") + "/"
        siblings: tuple[str, frozenset[str]] = ("", frozenset())
        for found, _ in remote_files.walk(base):
            full = remote_files.joined(base, found)
            if full.startswith(out) and out.startswith(base + "/"):
                continue  # results of an earlier batch
            if formats.is_excluded(found, self.exclude):
                continue
            if not _is_known(found):
                self.passed[os.path.splitext(found)[1].lower()] += 1
                continue
            folder = posixpath.dirname(found)
            if self.format is not None and folder != siblings[0]:
                names = (each.name for each in remote_files.entries(posixpath.dirname(full)))
                siblings = (folder, frozenset(names))
            item = self._item(full, inside / folder, siblings[1].__contains__)
            goal = self.mirror.address_of(item.target) or ""
            if goal.startswith(base + "/") and not out.startswith(base + "/"):
                words = f"output must not lie among the inputs, got {shown(goal)}; change --out"
                yield self._trouble(full, words)
            else:
                yield item
            empty = False
        if empty:
            words = "folder must hold a picture or film that gancolor reads, got none in"
            yield self._trouble(address, f"{words} {shown(address)}")

    def _item(self, address: str, inside: Path, has: Callable[[str], bool]) -> Item:
        try:
            source = self.mirror.source_of(address)
        except DataError as error:
            return self._trouble(address, str(error))
        film = source.suffix.lower() in SUFFIXES
        name = film_name(source) if film else result_name(source.name, self.format, has)
        return Item(
            source, inside / name, film, folder=inside.relative_to(self.out), origin=address
        )

    def _trouble(self, address: str, words: str) -> Item:
        place = self.mirror.folder / "in" / address.replace("://", "/").strip("/")
        return Item(place, self.out / place.name, problem=words, origin=address)


def _is_known(name: str) -> bool:
    """Whether a file is a picture or a film by its suffix: to look into it, it had to be fetched."""
    kind = formats.by_suffix(posixpath.basename(name))
    return (kind is not None and kind.readable) or os.path.splitext(name)[1].lower() in SUFFIXES
