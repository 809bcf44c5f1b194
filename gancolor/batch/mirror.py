"""Files of a batch that come from addresses, or whose results go to one: where they lie here for a
moment, how they are brought and sent, and what they are called in what is said of them.

A picture is fetched, coloured, sent and removed by the process that colours it, so that no more of
them are here than processes are at work. A film stays until its result has been sent, so that it can
be gone on with after a stop.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gancolor.batch.batch_settings import Existing
from gancolor.batch.input_files import Item
from gancolor.batch.records import Record
from gancolor.errors import DataError, masked, shown
from gancolor.runtime import download, remote_files
from gancolor.runtime.files import LONGEST_NAME, cache_root

_WAY_OUT = "look at the address, or try again later"
_KEPT = 8  # folders of results whose names are remembered
_BRINGING = re.compile(r"t-(\d+)-.*")  # folders of pictures on their way, by their process
_QUERY = re.compile(r"\?[0-9a-f]{8}/")  # what stands for what followed a ? on the web


@dataclass(frozen=True)
class Mirror:
    """What lies elsewhere, seen as paths below `folder`, which is this batch's own.

    `out`: the address that results go to, None where they go to a folder here.
    """

    folder: Path
    out: str | None = None

    @property
    def results(self) -> Path:
        """The folder that stands for `out`."""
        return self.folder / "out"

    def source_of(self, address: str) -> Path:
        """The path that stands for what is fetched. DataError for an address without a file's name,
        or one that no path can stand for.
        """
        scheme, _, rest = address.partition("://")
        if remote_files.is_web(address):
            parts = urlsplit(address)
            folder, name = posixpath.split(parts.path)
            host = parts.netloc.rpartition("@")[2]  # who asks is nobody's business
            mark = hashlib.sha256(parts.query.encode()).hexdigest()[:8]
            query = f"?{mark}/" if parts.query else ""
            rest = f"{host}{folder.rstrip('/')}/{query}{unquote(name)}"
        names = rest.split("/")
        long = any(len(os.fsencode(name)) > LONGEST_NAME for name in names)
        if len(names) < 2 or long or not set(names).isdisjoint(("", ".", "..")) or "\0" in rest:
            raise DataError(f"input must be the address of a file, got {shown(address)}")
        return self.folder / "in" / scheme / rest

    def address_of(self, result: Path) -> str | None:
        """The address that a result goes to; None of one that stays here."""
        if self.out is None or not result.is_relative_to(self.results):
            return None
        return remote_files.joined(self.out, result.relative_to(self.results).as_posix())

    def is_far(self, item: Item) -> bool:
        """Whether a file, or what becomes of it, lies elsewhere."""
        return item.origin is not None or self.address_of(item.target) is not None

    def told(self, text: str) -> str:
        """A text with addresses in place of the paths that stand for them."""
        found = re.sub(re.escape(f"{self.folder / 'in'}{os.sep}") + "([a-z0-9]+)/", r"\1://", text)
        if self.out is not None:
            found = found.replace(str(self.results), self.out.rstrip("/"))
        return masked(_QUERY.sub("", found))

    def renamed(self, record: Record) -> Record:
        """A Record with addresses."""
        return replace(
            record,
            source=self.told(record.source),
            targets=[self.told(target) for target in record.targets],
            notes=[self.told(note) for note in record.notes],
            error=None if record.error is None else self.told(record.error),
        )

    @contextlib.contextmanager
    def brought(self, item: Item, busy: Callable[[], None]) -> Iterator[Item]:
        """A picture as it lies here while the block lasts, its results beside it; `busy` is called
        as it comes. DownloadError where it cannot be had.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"t-{os.getpid()}-", dir=self.folder) as aside:
            near = item
            if item.origin is not None:
                near = replace(near, source=Path(aside, "in", item.source.name))
                _fetch(item.origin, near.source, busy)
            if self.address_of(item.target) is not None:
                near = replace(near, target=Path(aside, "out", item.target.name))
            try:
                yield near
            except Exception as error:
                error.args = tuple(
                    _renamed(each, near, item) if isinstance(each, str) else each
                    for each in error.args
                )
                raise

    def send(
        self,
        item: Item,
        near: Item,
        record: Record,
        existing: Existing,
        busy: Callable[[], None],
    ) -> None:
        """Send the results of a picture, all or none of them, and call them by their paths. DataError
        where one cannot be sent.
        """
        record.source = str(item.source)
        record.notes = [_renamed(note, near, item) for note in record.notes]
        record.error = None if record.error is None else _renamed(record.error, near, item)
        if near.target == item.target:
            return
        paths = [Path(target) for target in record.targets]
        record.targets = []
        sent: list[str] = []
        try:
            for path in paths:
                busy()
                result = item.target.with_name(path.name)
                address = self.address_of(result)
                assert address is not None
                # What was there is not taken back; of one alone nothing has to be.
                ask = len(paths) > 1 and existing != "refuse"
                there = ask and remote_files.find(address) is not None
                if there and existing == "skip":
                    continue
                remote_files.upload(path, address)
                sent += [] if there else [address]
                record.targets.append(str(result))
        except BaseException:
            for address in sent:  # what replaced a file is whole, and all that is left of it
                with contextlib.suppress(DataError):
                    remote_files.remove(address)
            raise

    def bring_film(self, item: Item) -> None:
        """Fetch a film to where its path says, unless it is there. DownloadError as `brought`."""
        if item.origin is not None:
            _fetch(item.origin, item.source, lambda: None)
        if self.address_of(item.target) is not None:
            item.target.parent.mkdir(parents=True, exist_ok=True)

    def send_film(self, item: Item) -> None:
        """Send a film's result, and let go of what is here of it. DataError as `send`."""
        if (address := self.address_of(item.target)) is not None:
            remote_files.upload(item.target, address)
            item.target.unlink()
        if item.origin is not None:
            item.source.unlink(missing_ok=True)

    def sweep(self, whole: bool) -> None:
        """Remove what processes left that are gone; all of it where the batch is `whole`."""
        if whole:
            shutil.rmtree(self.folder, ignore_errors=True)
        for path in self.folder.glob("t-*") if self.folder.is_dir() else ():
            found = _BRINGING.fullmatch(path.name)
            if found is not None and not _is_there(int(found[1])):
                shutil.rmtree(path, ignore_errors=True)


def open_mirror(inputs: Sequence[str], out: Path | str, listed: bool = False) -> Mirror | None:
    """The mirror of a batch; None where no address is among inputs and `out` (a string), and a list
    may hold none. ConfigError for an address of another kind.
    """
    addresses = [name for name in inputs if remote_files.is_address(name)]
    for address in addresses:
        remote_files.check(address, "INPUT")
    if not isinstance(out, Path):
        remote_files.check(out, "--out", written=True)
    elif not addresses and not listed:
        return None
    where = os.path.realpath(out) if isinstance(out, Path) else out
    digest = hashlib.sha256("\n".join([where, *inputs]).encode("utf-8", "surrogateescape"))
    folder = cache_root() / "batches" / digest.hexdigest()[:16]
    return Mirror(folder, None if isinstance(out, Path) else out)


class ResultIndex:
    """Which results are there already, here or at an address.

    Of an address's folders, the names in the last few are remembered as they were when one was first
    asked for.
    """

    def __init__(self, mirror: Mirror | None) -> None:
        self._mirror = mirror
        self._known: OrderedDict[Path, frozenset[str]] = OrderedDict()

    def holds(self, result: Path) -> bool:
        """Whether something is in a result's place."""
        if self._mirror is None or self._mirror.address_of(result) is None:
            return os.path.lexists(result)
        return result.name in self._names(result.parent)

    def is_file(self, result: Path) -> bool:
        """Whether a result is there."""
        if self._mirror is None or self._mirror.address_of(result) is None:
            return os.path.isfile(result)
        return result.name in self._names(result.parent)

    def _names(self, folder: Path) -> frozenset[str]:
        if folder not in self._known:
            assert self._mirror is not None
            address = self._mirror.address_of(folder)
            assert address is not None
            found = remote_files.entries(address)
            self._known[folder] = frozenset(each.name for each in found if not each.is_folder)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return self._known[folder]


def _fetch(address: str, path: Path, busy: Callable[[], None]) -> None:
    download.fetch(
        address,
        path,
        None,
        progress=lambda done, total: busy(),
        way_out=_WAY_OUT,
        quiet=True,
        backoff=remote_files.BACKOFF,
        retries=remote_files.RETRIES,
    )


def _renamed(text: str, near: Item, item: Item) -> str:
    for here, there in ((near.source, item.source), (near.target.parent, item.target.parent)):
        text = text.replace(str(here), str(there))
    return text


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks whether it is there
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
