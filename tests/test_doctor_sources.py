"""Finding pictures in folders, archives and manifests."""

from __future__ import annotations

import functools
import gzip
import io
import os
import pickle
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from gancolor.data.doctor import readers
from gancolor.data.doctor.readers import Candidate, CompressedTarReader
from gancolor.data.doctor.sources import CompressedTar, Source, open_source
from gancolor.data.folder import find_pictures
from gancolor.data.information import read_manifest
from gancolor.errors import DataError

posix = pytest.mark.skipif(sys.platform == "win32", reason="names and links of POSIX systems")


def jpeg(value: int = 0) -> bytes:
    good, data = cv2.imencode(".jpg", np.full((8, 8, 3), value, np.uint8))
    assert good
    return data.tobytes()


PICTURES = {"a.jpg": jpeg(1), "deep/er/b.png": jpeg(2), "deep/c": jpeg(3), "empty.jpg": b""}
OTHERS = {
    "read me.txt": b"words",
    "deep/more.zip": b"PK\3\4",
    "deep/x.tar.gz": b"\x1f\x8b",
    "data.json": b"{}",
}
HIDDEN = {".hidden.jpg": jpeg(4), ".folder/d.jpg": jpeg(5), "__MACOSX/._a.jpg": b"resource"}
ALL = PICTURES | OTHERS | HIDDEN
SKIPPED = {"other file(s)": 2, "archive(s) inside, not opened": 2}


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("deep")
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_600_000_000
            archive.addfile(info, io.BytesIO(data))
    return path


def contents(source: Source) -> dict[str, bytes]:
    """What a source's reader, as another process gets it, reads of its pictures."""
    found = list(source.walk())
    reader = pickle.loads(pickle.dumps(source.reader()))
    assert len({entry.name for entry in found}) == len(found)
    return {entry.name: reader.read(entry) for entry in found}


MAKERS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda path: fill(path / "set", ALL),
    "stored zip": lambda path: zipped(path / "a.zip", ALL, zipfile.ZIP_STORED),
    "deflated zip": lambda path: zipped(path / "a.zip", ALL),
    "bzip2 zip": lambda path: zipped(path / "a.zip", ALL, zipfile.ZIP_BZIP2),
    "tar": lambda path: tarred(path / "a.tar", ALL),
    "tar.gz": lambda path: tarred(path / "a.tar.gz", ALL, "w:gz"),
    "tar.bz2": lambda path: tarred(path / "a.tbz2", ALL, "w:bz2"),
    "tar.xz": lambda path: tarred(path / "a.tar.xz", ALL, "w:xz"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_pictures_are_found_and_read(kind: str, tmp_path: Path) -> None:
    source = open_source(MAKERS[kind](tmp_path))
    assert contents(source) == PICTURES
    assert source.skipped == SKIPPED
    assert {entry.name: entry.size for entry in source.walk()} == {
        name: len(data) for name, data in PICTURES.items()
    }
    assert source.skipped == SKIPPED  # of the last walk, not of both


def test_a_folder_is_walked_as_training_does(tmp_path: Path) -> None:
    root = fill(
        tmp_path / "set",
        {f"{name}.jpg": jpeg() for name in ("a-b/1", "a/2", "a/b/3", "z", "a.c/4")},
    )
    fill(tmp_path / "elsewhere", {"x/5.jpg": jpeg(), "6.jpg": jpeg()})
    if sys.platform != "win32":
        (root / "a" / "one").symlink_to(tmp_path / "elsewhere")
        (root / "a-b" / "two").symlink_to(tmp_path / "elsewhere")
        (root / "loop").symlink_to(root)
        (root / "dangling.jpg").symlink_to(tmp_path / "nothing.jpg")
    found = list(open_source(root).walk())
    assert sorted(entry.name for entry in found) == find_pictures(root)
    stamps = {entry.name: entry.stamp for entry in found}
    assert stamps["z.jpg"] == (root / "z.jpg").stat().st_mtime_ns
    assert stamps.get("dangling.jpg", 0) == 0


@posix
def test_what_cannot_be_read_has_a_reason(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", {"there.jpg": jpeg()})
    (root / "dangling.jpg").symlink_to(tmp_path / "nothing.jpg")
    (root / "self.jpg").symlink_to("self.jpg")
    os.mkfifo(root / "pipe.jpg")
    (root / "to a pipe.jpg").symlink_to("pipe.jpg")
    (root / "to a device").symlink_to("/dev/zero")
    source = open_source(root)
    reader = source.reader()
    reasons = {}
    for entry in source.walk():
        try:
            reader.read(entry)
        except DataError as error:
            reasons[entry.name] = str(error)
    assert reasons == {
        "dangling.jpg": "No such file or directory",
        "self.jpg": "Too many levels of symbolic links",
    }
    # the pipes and the device: to read them would never end
    assert source.skipped == {"other file(s)": 3}


@posix
def test_a_link_to_itself_is_a_broken_picture(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", {"a.jpg": jpeg(), "deep/b.jpg": jpeg()})
    for folder in (root, root / "deep"):
        (folder / "self.jpg").symlink_to("self.jpg")
        (folder / "self").symlink_to("self")
        (folder / "pipe.jpg").symlink_to(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe")
    source = open_source(root)
    names = ["a.jpg", "deep/b.jpg", "deep/self.jpg", "self.jpg"]
    assert sorted(entry.name for entry in source.walk()) == names == find_pictures(root)
    assert source.skipped == {"other file(s)": 4}


@posix
def test_a_listed_path_that_is_no_file_is_broken(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "list.csv").write_text("path\npipe.jpg\na\0b.jpg\n.\n", encoding="utf-8")
    source = open_source(tmp_path / "list.csv")
    reader, reasons = source.reader(), []
    for entry in source.walk():
        with pytest.raises(DataError) as raised:
            reader.read(entry)
        reasons.append(str(raised.value))
    name = "its name cannot be one of a file (it has a NUL)"
    assert reasons == ["it is a pipe, not a regular file", name, "Is a directory"]


@posix
def test_names_of_any_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xff\n.jpg")
    try:
        fill(tmp_path / "set", {name: jpeg(9)})
    except OSError:
        pytest.skip("the file system takes only UTF-8")
    assert contents(open_source(tmp_path / "set")) == {name: jpeg(9)}
    assert contents(open_source(tarred(tmp_path / "a.tar", {name: jpeg(9)}))) == {name: jpeg(9)}


def test_a_folder_can_be_left_out(tmp_path: Path) -> None:
    root = fill(
        tmp_path / "all", {"a.jpg": jpeg(), "mine/copy.jpg": jpeg(), ".prepare/x.jpg": jpeg()}
    )
    assert [entry.name for entry in open_source(root, without=root / "mine").walk()] == ["a.jpg"]


def test_top_folders_give_splits(tmp_path: Path) -> None:
    names = [
        "train/a.jpg",
        "Valid/b.jpg",
        "validation/c.jpg",
        "test/deep/d.jpg",
        "more/train/e.jpg",
        "test.jpg",
    ]
    root = fill(tmp_path / "set", dict.fromkeys(names, jpeg()))
    expected = dict(zip(names, ["train", "val", "val", "test", "", ""], strict=True))
    for path in (root, zipped(tmp_path / "a.zip", dict.fromkeys(names, jpeg()))):
        assert {
            entry.name: entry.given for entry in open_source(path, by_folder=True).walk()
        } == expected
        assert {entry.given for entry in open_source(path).walk()} == {""}


def test_pictures_outside_of_split_folders_are_counted(tmp_path: Path) -> None:
    root = fill(
        tmp_path / "set",
        {f"{name}.jpg": jpeg() for name in ("train/a", "Test/b", "more/c", "d", "e")},
    )
    # e.jpg is not loose
    (root / "manifest.csv").write_text("path,split\ne.jpg,val\n", encoding="utf-8")
    for path, expected in (
        (root, (3, 2)),
        (tarred(tmp_path / "a.tar", {"test/a.jpg": b"", "b.jpg": b""}), (1, 1)),
    ):
        source = open_source(path, by_folder=True)
        for _ in range(2):
            assert sum(1 for _ in source.walk()) == sum(expected)
            assert (source.sorted_in, source.loose) == expected
    source = open_source(root)
    assert len(list(source.walk())) == 5 and (source.sorted_in, source.loose) == (0, 0)


def test_what_a_set_is_made_with_is_no_other_file(tmp_path: Path) -> None:
    ours = ("set.json", "manifest.csv", "manifest-before.csv")
    root = fill(
        tmp_path / "set", {name: b"path\n" for name in (*ours, "deep/set.json", "notes.txt")}
    )
    source = open_source(root)
    assert list(source.walk()) == [] and source.skipped == {"other file(s)": 2}


class Enough(Exception):
    """A walk was stopped."""


def enough(asked: list[int]) -> None:
    asked.append(1)
    if len(asked) == 10:
        raise Enough


def test_a_walk_can_be_stopped_where_there_are_no_pictures(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / "set" / f"{number}" / "deeper").mkdir(parents=True)
    words = {f"{number}.txt": b"words" for number in range(20)}
    sources = [
        tmp_path / "set",
        zipped(tmp_path / "a.zip", words),
        tarred(tmp_path / "a.tar", words),
    ]
    for path in (*sources, tarred(tmp_path / "a.tgz", words, "w:gz")):
        asked: list[int] = []
        with pytest.raises(Enough):
            list(open_source(path).walk(functools.partial(enough, asked)))
        assert len(asked) == 10


def test_a_manifest_is_a_source(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", {"far.jpg": jpeg(7)}) / "far.jpg"
    fill(
        tmp_path / "lists" / "pictures",
        {"a.jpg": jpeg(1), "b.jpg": jpeg(2), "not listed.jpg": jpeg(3)},
    )
    manifest = tmp_path / "lists" / "some.csv"
    rows = [
        "pictures/a.jpg,valid,",
        "./pictures/b.jpg,,",
        f"{outside},test,",
        "gone.jpg,,",
        "bad.jpg,,gray",
        ",,",
    ]
    manifest.write_text("\ufeffpath,split,reject\n" + "\n".join(rows) + "\n", encoding="utf-8")
    source = open_source(manifest)
    assert {entry.name: entry.given for entry in source.walk()} == {
        "pictures/a.jpg": "val",
        "pictures/b.jpg": "",
        str(outside): "test",
        "gone.jpg": "",
    }
    assert source.skipped == {"rejected by the manifest": 1}
    reader = pickle.loads(pickle.dumps(source.reader()))
    assert reader.read(Candidate(str(outside), len(jpeg(7)), 0)) == jpeg(7)
    with pytest.raises(DataError, match="^No such file or directory$"):
        reader.read(Candidate("gone.jpg", 0, 0))


def test_a_folders_own_manifest_counts(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", {"far.jpg": jpeg(7), "bad.jpg": jpeg(8)})
    root = fill(
        tmp_path / "set",
        {"a.jpg": jpeg(1), "b.jpg": jpeg(2), " c .jpg": jpeg(3), "train/d.jpg": jpeg(4)},
    )
    rows = [
        "a.jpg,0,test,",
        "b.jpg,0,val,blank",
        " c .jpg,0,val,",
        f"{root / 'train' / 'd.jpg'},0,,",
        f"{outside / 'far.jpg'},0,val,",
        f"{outside / 'bad.jpg'},0,val,gray",
        "missing.jpg,0,val,",
    ]
    (root / "manifest.csv").write_text(
        "path,sha256,split,reject\n" + "\n".join(rows) + "\n", encoding="utf-8"
    )
    source = open_source(root, by_folder=True)
    assert {entry.name: entry.given for entry in source.walk()} == {
        "a.jpg": "test",
        " c .jpg": "val",
        "train/d.jpg": "train",
        str(outside / "far.jpg"): "val",
    }
    assert source.skipped == {"rejected by the manifest": 1}  # the manifest itself is no other file
    assert len(list(open_source(root, manifest="").walk())) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name,split\na.jpg,train\n",
            "must have a column named path, got the columns: name, split",
        ),
        (
            "path,split\na.jpg,train\nb.jpg,dev\n",
            "split must be train, val or test, got 'dev'; mend line 3 of",
        ),
        ("\x01\x02" * 5000 + "\n", "got the columns: [^;]{,300}; mend it$"),
        ("", "must have a column named path, got the columns: none"),
    ],
)
def test_a_bad_manifest_is_told(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        list(open_source(tmp_path / "list.csv").walk())


def test_only_sources_can_be_opened(tmp_path: Path) -> None:
    fill(tmp_path, {"a.jpg": jpeg(), "x.gz": b"\x1f\x8bnothing"})
    for name, message in (
        ("a.jpg", "must be a folder, a .zip"),
        ("x.gz", "must be a folder"),
        ("no", "No such file"),
    ):
        with pytest.raises(DataError, match=message) as raised:
            open_source(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_archives_may_call_their_members_anything(tmp_path: Path) -> None:
    files = {
        "./a.jpg": jpeg(1),
        "../../up.jpg": jpeg(2),
        "/abs/c.jpg": jpeg(3),
        "x//y/./d.jpg": jpeg(4),
    }
    expected = {
        "a.jpg": jpeg(1),
        "../../up.jpg": jpeg(2),
        "abs/c.jpg": jpeg(3),
        "x/y/d.jpg": jpeg(4),
    }
    assert contents(open_source(tarred(tmp_path / "a.tar", files))) == expected
    assert contents(open_source(zipped(tmp_path / "a.zip", files))) == expected
    assert contents(open_source(zipped(tmp_path / "b.zip", {"win\\dows.jpg": jpeg()}))) == {
        "win/dows.jpg": jpeg()
    }


def test_links_in_archives_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (
            ("soft.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("null.jpg", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    source = open_source(tmp_path / "a.tar")
    assert list(source.walk()) == []
    assert source.skipped == {"link(s) in archives": 2, "other file(s)": 1}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipping:
        link = zipfile.ZipInfo("soft.jpg")
        link.external_attr = 0o120777 << 16
        zipping.writestr(link, "/etc/passwd")
    source = open_source(tmp_path / "a.zip")
    assert list(source.walk()) == []
    assert source.skipped == {"link(s) in archives": 1}


def test_damage_in_a_zip_is_told(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.jpg": jpeg(1), "b.jpg": jpeg(2)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(jpeg(1)) + 50] ^= 255
    path.write_bytes(data)
    source = open_source(path)
    first, second = source.walk()
    with pytest.raises(DataError, match="checksum"):
        source.reader().read(first)
    assert source.reader().read(second) == jpeg(2)
    path.write_bytes(data[:-30])
    with pytest.raises(DataError, match="archive must be readable, got .*a.zip.*fetch it again"):
        list(open_source(path).walk())


def test_a_zip_does_not_become_larger_than_it_says(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.jpg": bytes(50_000_000)})
    source = open_source(path)
    (entry,) = source.walk()
    tracemalloc.start()
    with pytest.raises(DataError, match="checksum"):
        source.reader().read(Candidate(entry.name, 1000, entry.stamp, "", entry.offset))
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.jpg": jpeg()}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2", 0, data.rindex(b"a.jpg")) + 8] |= 1  # the flag in the directory
    path.write_bytes(data)
    with pytest.raises(DataError, match="must not be encrypted, got .*a.zip; unpack it first"):
        list(open_source(path).walk())


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")]
)
def test_a_cut_tar_gives_what_it_has(
    name: str, mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0)
    path = tarred(
        tmp_path / name,
        {f"{number}.jpg": jpeg() + noise.bytes(30_000) for number in range(8)},
        mode,
    )
    path.write_bytes(path.read_bytes()[:120_000])
    source = open_source(path)
    found = [entry.name for entry in source.walk()]
    assert found in (
        [f"{number}.jpg" for number in range(3)],
        [f"{number}.jpg" for number in range(4)],
    )
    assert source.skipped == {"archive(s) cut off or damaged": 1}
    assert "what lies behind is left out if it is new" in caplog.text


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
@pytest.mark.parametrize("damage", ["flipped", "cut inside", "cut before"])
def test_a_damaged_header_does_not_end_a_tar_in_silence(
    name: str, mode: str, damage: str, tmp_path: Path
) -> None:
    plain = tarred(
        tmp_path / "plain", {f"{number}.jpg": jpeg(number) for number in range(4)}
    ).read_bytes()
    header = plain.index(b"2.jpg")
    flipped = plain[: header + 110] + b"x" + plain[header + 111 :]
    data = {"flipped": flipped, "cut inside": plain[: header + 200], "cut before": plain[:header]}[
        damage
    ]
    (tmp_path / name).write_bytes(gzip.compress(data) if mode == "w:gz" else data)
    source = open_source(tmp_path / name)
    assert [entry.name for entry in source.walk()] == ["0.jpg", "1.jpg"]
    assert source.incomplete and source.skipped == {"archive(s) cut off or damaged": 1}
    (tmp_path / name).write_bytes(gzip.compress(plain) if mode == "w:gz" else plain)
    assert len(list(source.walk())) == 4 and not source.incomplete


def test_a_stream_is_read_from_its_beginning_where_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(
        tarred(tmp_path / "a.tgz", {f"{n}.jpg": jpeg(n) for n in range(9)}, "w:gz")
    )
    assert isinstance(source, CompressedTar)
    found, starts = list(source.walk()), []
    members = readers.tar_members
    monkeypatch.setattr(readers, "tar_members", lambda *path: starts.append(1) or members(*path))  # type: ignore[func-returns-value]
    reader = CompressedTarReader(tmp_path / "a.tgz")
    for number in (2, 5, 8, 1, 3):
        assert reader.read(found[number]) == jpeg(number)
    assert len(starts) == 2
    with pytest.raises(DataError, match="no longer in the archive"):
        reader.read(Candidate("z.jpg", 1, 0, "", 12345))


def test_too_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gancolor.runtime.files.MOST_BYTES", 1 << 20)
    files = {"large.jpg": bytes(2 << 20)}
    paths = [
        fill(tmp_path / "set", files),
        zipped(tmp_path / "a.zip", files),
        tarred(tmp_path / "a.tar", files),
    ]
    for path in (*paths, tarred(tmp_path / "a.tgz", files, "w:gz")):
        source = open_source(path)
        with pytest.raises(DataError, match="^it has more than 1 MiB$"):
            source.reader().read(next(source.walk()))


@pytest.mark.slow
def test_memory_does_not_grow_with_a_tar(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", {f"{number:06}.jpg": b"" for number in range(2000)})
    used = []
    for source in (open_source(path), open_source(path)):
        tracemalloc.start()
        assert sum(1 for _ in source.walk()) == 2000
        used.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(used) < 500_000  # tarfile alone would remember 2000 members, 1 MB


@posix
def test_a_source_and_a_manifest_are_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.csv")
    with pytest.raises(DataError, match="got .*manifest.csv: it is a .*, not a regular file"):
        open_source(tmp_path / "manifest.csv")
    with pytest.raises(DataError, match="must be a readable CSV file, got: .*it is a pipe"):
        list(open_source(tmp_path).walk())
    with pytest.raises(DataError, match="must be a readable CSV file, got: .*it is a pipe"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "stored zip", "tar", "tar.gz"])
def test_litter_is_left_out_and_other_files_are_counted_by_suffix(
    kind: str, tmp_path: Path
) -> None:
    litter = {
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg": jpeg(6),
        "Thumbs.db": b"old",
        ".thumbnails/b.jpg": jpeg(7),
    }
    files = {
        "a.jpg": jpeg(1),
        "b.txt": b"words",
        "c.TXT": b"more",
        "d.psb": b"8BPS\0\2",
        "e": b"words",
    } | litter
    makers: dict[str, Callable[[], Path]] = {
        "folder": lambda: fill(tmp_path / "set", files),
        "stored zip": lambda: zipped(tmp_path / "a.zip", files, zipfile.ZIP_STORED),
        "tar": lambda: tarred(tmp_path / "a.tar", files),
        "tar.gz": lambda: tarred(tmp_path / "a.tar.gz", files, "w:gz"),
    }
    source = open_source(makers[kind]())
    assert [entry.name for entry in source.walk()] == ["a.jpg"]
    assert source.passed == {".txt": 2, ".psb": 1, "": 1} and source.skipped == {"other file(s)": 4}


def test_patterns_leave_pictures_out(tmp_path: Path) -> None:
    files = {"a.jpg": jpeg(1), "a-thumb.jpg": jpeg(2), "private/b.jpg": jpeg(3)}
    for path in (fill(tmp_path / "set", files), tarred(tmp_path / "a.tar", files)):
        source = open_source(path, exclude=("*-thumb.jpg", "private"))
        assert [entry.name for entry in source.walk()] == ["a.jpg"]
        assert source.skipped == {"left out by --exclude": 2}


def test_training_finds_what_prepare_finds(tmp_path: Path) -> None:
    names = (
        "a.jpg",
        "b.heic",
        "c.JP2",
        "d.psd",
        "e.psb",
        "@eaDir/f.jpg",
        "g.txt",
        "h.tga",
        "i.jfif",
    )
    root = fill(tmp_path / "set", {name: b"x" for name in names})
    found = sorted(entry.name for entry in open_source(root).walk())
    assert found == find_pictures(root) == ["a.jpg", "b.heic", "c.JP2", "d.psd", "h.tga", "i.jfif"]


@posix
def test_a_source_that_is_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.tar").symlink_to("/dev/zero")
    for name in ("pipe.csv", "zero.tar"):
        with pytest.raises(DataError, match=rf"got .*{name}: it is a .*, not a regular file"):
            open_source(tmp_path / name)
