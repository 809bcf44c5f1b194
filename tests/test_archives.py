"""Unpacking good archives whole, and bad ones not at all."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import random
import shutil
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gancolor.data import archives
from gancolor.data.archives import BadArchive, Limits, unpack
from gancolor.errors import DataError

FILES = {"top/a.jpg": b"first", "top/deep/er/b.jpg": b"second" * 1000, "top/notes.txt": b""}


def tar_bytes(
    *members: tuple[str | tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as pack:
        for name, data in members:
            item = tarfile.TarInfo(name) if isinstance(name, str) else name
            if item.isreg():
                item.size = len(data)
            pack.addfile(item, io.BytesIO(data))
    return buffer.getvalue()


def zip_bytes(
    *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as pack:
        for name, data in members:
            pack.writestr(name, data)
    return buffer.getvalue()


def special(kind: bytes, target: str = "", name: str = "special.jpg") -> tarfile.TarInfo:
    item = tarfile.TarInfo(name)
    item.type, item.linkname = kind, target
    return item


def zip_link(target: str) -> bytes:
    item = zipfile.ZipInfo("link.jpg")
    item.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zip_bytes(("a.jpg", b"x"), (item, target.encode()))


def contents(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Unpack bytes that must be refused; return the message after checking that nothing is left."""

    def check(data: bytes, **options: object) -> str:
        archive = tmp_path / "bad"
        archive.write_bytes(data)
        with pytest.raises(BadArchive) as caught:
            unpack(archive, tmp_path / "out", **options)  # type: ignore[arg-type]
        assert [path.name for path in tmp_path.iterdir()] == [
            "bad"
        ] and archive.read_bytes() == data
        assert not list(tmp_path.parent.glob("escaped*"))
        message = str(caught.value)
        assert (
            "\n" not in message
            and message.startswith("archive must ")
            and "nothing was unpacked" in message
        )
        return message

    return check


TAR = tar_bytes((special(tarfile.DIRTYPE, name="./top"), b""), *FILES.items())
GOOD = {
    "tar": TAR,
    "tar of gnu": tar_bytes(*FILES.items(), form=tarfile.GNU_FORMAT),
    "gz": gzip.compress(TAR),
    "bz2": bz2.compress(TAR),
    "xz": lzma.compress(TAR),
    "zip": zip_bytes(("top/", b""), *FILES.items()),
    "stored zip": zip_bytes(*FILES.items(), method=zipfile.ZIP_STORED),
}


@pytest.mark.parametrize("kind", GOOD)
def test_good_archives_of_all_kinds(kind: str, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(GOOD[kind])
    told: list[tuple[int, int | None]] = []
    done = unpack(
        tmp_path / "archive",
        tmp_path / "a" / "out",
        progress=lambda now, total: told.append((now, total)),
    )
    assert contents(tmp_path / "a" / "out") == FILES
    assert (done.files, done.bytes) == (3, sum(map(len, FILES.values())))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]
    assert (
        told and told[-1][1] == len(GOOD[kind]) and all(now <= len(GOOD[kind]) for now, _ in told)
    )


def test_only_what_is_wanted(tmp_path: Path, refused: Callable[..., str]) -> None:
    for number, kind in enumerate(("gz", "zip")):
        (tmp_path / "archive").write_bytes(GOOD[kind])
        assert (
            unpack(
                tmp_path / "archive", tmp_path / str(number), keep=["*/er/*", "top/notes.*"]
            ).files
            == 2
        )
        assert sorted(contents(tmp_path / str(number))) == ["top/deep/er/b.jpg", "top/notes.txt"]
        shutil.rmtree(tmp_path / str(number))
        (tmp_path / "archive").unlink()
        assert "hold a file that is wanted" in refused(GOOD[kind], keep=["*.png"])


def test_modes_and_owners_are_not_taken_over(tmp_path: Path) -> None:
    item = tarfile.TarInfo("a.jpg")
    item.mode, item.uid = 0o6777, 12345
    (tmp_path / "archive").write_bytes(tar_bytes((item, b"x")))
    unpack(tmp_path / "archive", tmp_path / "out")
    assert (tmp_path / "out" / "a.jpg").stat().st_mode & 0o7111 == 0


@pytest.mark.parametrize("make", [tar_bytes, zip_bytes], ids=["tar", "zip"])
@pytest.mark.parametrize(
    "name",
    [
        "../escaped.jpg",
        "a/../../escaped.jpg",
        "/tmp/escaped.jpg",
        "..\\escaped.jpg",
        "C:\\escaped.jpg",
        "c:/x.jpg",
        "..",
    ],
)
def test_names_that_lead_outside_are_refused(
    make: Callable[..., bytes], name: str, refused: Callable[..., str]
) -> None:
    data = make(("good.jpg", b"x"), (name, b"evil"))
    assert "inside the folder" in refused(data)


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "good.jpg"),
        (tarfile.LNKTYPE, "good.jpg"),
        (tarfile.LNKTYPE, "../../etc/passwd"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices_are_refused(
    kind: bytes, target: str, refused: Callable[..., str]
) -> None:
    data = tar_bytes(("good.jpg", b"x"), (special(kind, target), b""))
    assert "special.jpg is a link or a device" in refused(data)
    assert "special.jpg is a link or a device" in refused(gzip.compress(data))


def test_file_written_through_a_link_is_impossible(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    link = special(tarfile.SYMTYPE, str(tmp_path.parent), name="way")
    refused(tar_bytes((link, b""), ("way/escaped.jpg", b"evil")))


def test_link_in_a_zip_is_refused(refused: Callable[..., str]) -> None:
    assert "link.jpg is a link or a device" in refused(zip_link("/etc/passwd"))


def test_what_is_not_wanted_may_be_anything(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(
        tar_bytes((special(tarfile.SYMTYPE, "x"), b""), ("good.jpg", b"x"))
    )
    assert unpack(tmp_path / "archive", tmp_path / "out", keep=["good*"]).files == 1


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_bomb_of_one_file_in_a_tar(
    compress: Callable[[bytes], bytes], refused: Callable[..., str]
) -> None:
    data = compress(tar_bytes(("zeros.jpg", bytes(20_000_000))))
    assert "bomb" in refused(data, limits=Limits(spare=1_000_000))
    # it is not even wanted
    assert "bomb" in refused(data, limits=Limits(spare=1_000_000), keep=["nothing"])


def test_bomb_that_says_its_size_in_a_zip(refused: Callable[..., str]) -> None:
    assert "bomb" in refused(
        zip_bytes(("zeros.jpg", bytes(20_000_000))), limits=Limits(spare=1_000_000)
    )


def test_bomb_that_lies_about_its_size(refused: Callable[..., str]) -> None:
    data = zip_bytes(("zeros.jpg", bytes(20_000_000)))
    size = (20_000_000).to_bytes(4, "little")
    assert data.count(size) == 2
    assert "damaged" in refused(
        data.replace(size, (10).to_bytes(4, "little")), limits=Limits(spare=1_000_000)
    )


def test_bomb_of_many_files(refused: Callable[..., str]) -> None:
    members = [(f"{number}.jpg", b"") for number in range(100)]
    assert "bomb" in refused(zip_bytes(*members), limits=Limits(files=99))
    assert "bomb" in refused(tar_bytes(*members), limits=Limits(files=99))


def test_archive_of_compressible_files_is_no_bomb(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(zip_bytes(("labels.txt", bytes(20_000_000))))
    assert unpack(tmp_path / "archive", tmp_path / "out").bytes == 20_000_000


@pytest.mark.parametrize("kind", GOOD)
def test_cut_archives_are_refused(kind: str, refused: Callable[..., str]) -> None:
    data = GOOD[kind]
    for share in (0.3, 0.6, 0.9):
        refused(data[: int(len(data.rstrip(b"\0")) * share)])


def test_tar_cut_between_two_files_is_refused(refused: Callable[..., str]) -> None:
    whole = tar_bytes(("a.jpg", b"x" * 512), ("b.jpg", b"y" * 512), form=tarfile.USTAR_FORMAT)
    assert "cut off" in refused(whole[:1024])


def test_damaged_header_is_not_the_end(refused: Callable[..., str]) -> None:
    whole = tar_bytes(("a.jpg", b"x" * 512), ("b.jpg", b"y" * 512), form=tarfile.USTAR_FORMAT)
    assert "header is damaged" in refused(whole[:1024] + b"B" + whole[1025:])
    assert "header is damaged" in refused(whole[:1200])


def test_damaged_byte_is_found_by_the_archives_own_checksum(refused: Callable[..., str]) -> None:
    for kind in ("gz", "bz2", "xz", "stored zip"):
        data = bytearray(GOOD[kind])
        place = (
            data.index(b"secondsecond")
            if kind == "stored zip"
            else len(data) - 9
            if kind == "gz"
            else len(data) // 2
        )
        data[place + 2] ^= 0x40
        assert "be whole" in refused(bytes(data))


@pytest.mark.slow
def test_bytes_changed_at_random_never_escape_as_another_error(tmp_path: Path) -> None:
    archive, out, generator, refused = tmp_path / "archive", tmp_path / "out", random.Random(0), 0
    for _ in range(300):
        data = bytearray(generator.choice(list(GOOD.values())))
        for _ in range(generator.randint(1, 5)):
            # the beginning or the end: where an archive says what it is
            near = generator.randrange(min(400, len(data)))
            data[generator.choice([near, -1 - near])] = generator.randrange(256)
        archive.write_bytes(data)
        try:
            unpack(archive, out)
            shutil.rmtree(out)
        except BadArchive as error:
            assert "\n" not in str(error)
            refused += 1
        assert [path.name for path in tmp_path.iterdir()] == ["archive"]
    assert refused > 100


def test_encrypted_zip_is_refused(refused: Callable[..., str]) -> None:
    data = bytearray(zip_bytes(("secret.jpg", b"x")))
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    assert "without a password" in refused(bytes(data))


@pytest.mark.parametrize(
    "data", [b"", b"<html>404</html>" * 100, b"7z\xbc\xaf\x27\x1c" + bytes(100), b"\x1f\x8b"]
)
def test_other_files_are_refused(data: bytes, refused: Callable[..., str]) -> None:
    assert "must be a zip or a tar" in refused(data) or data == b"\x1f\x8b"


def test_name_that_no_disk_takes_is_refused(refused: Callable[..., str]) -> None:
    assert "name too long" in refused(tar_bytes(("x" * 300 + ".jpg", b"x"))).lower()


def test_same_name_twice_is_refused(refused: Callable[..., str]) -> None:
    assert "a.jpg twice" in refused(tar_bytes(("a.jpg", b"x"), ("./a.jpg", b"y")))
    assert "a/b.jpg twice" in refused(tar_bytes(("a", b"x"), ("a/b.jpg", b"y")))
    assert "a twice" in refused(zip_bytes(("a/b.jpg", b"y"), ("a", b"x")))


def test_disk_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "archive").write_bytes(zip_bytes(("a.jpg", bytes(2_000_000))))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(DataError, match="2.0 MB are needed, 1.0 MB are free"):
        unpack(tmp_path / "archive", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(GOOD["zip"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(DataError, match="must be empty"):
        unpack(tmp_path / "archive", tmp_path / "out")
    assert contents(tmp_path / "out") == {"mine.jpg": b"mine"}
    (tmp_path / "out" / "mine.jpg").unlink()
    unpack(tmp_path / "archive", tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


def test_interrupted_by_the_user_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(GOOD["gz"])

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(tmp_path / "archive", tmp_path / "out", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_missing_archive_and_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        unpack(tmp_path / "archive", tmp_path / "out")
    (tmp_path / "archive").write_bytes(GOOD["zip"])
    with pytest.raises(DataError, match="cannot unpack.*Not a directory"):
        unpack(tmp_path / "archive", tmp_path / "archive" / "out")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    ours = tracemalloc.Filter(True, "*/archives.py"), tracemalloc.Filter(True, "*/tarfile.py")

    def held(files: int) -> int:
        """What the two modules hold when the last file arrives; other threads do not count."""
        members = [(f"a/{number}.jpg", b"") for number in range(files)]
        (tmp_path / "archive").write_bytes(
            gzip.compress(tar_bytes(*members, form=tarfile.USTAR_FORMAT))
        )
        calls, seen = itertools.count(1), [0]

        def progress(done: int, total: int | None) -> None:
            if next(calls) == files:
                traces = tracemalloc.take_snapshot().filter_traces(ours)
                seen.append(sum(trace.size for trace in traces.statistics("filename")))

        tracemalloc.start()
        try:
            unpack(tmp_path / "archive", tmp_path / str(files), progress=progress)
        finally:
            tracemalloc.stop()
        return seen[-1]

    few = held(300)
    assert few > 0  # it was measured
    assert held(1500) - few < 200_000  # 1200 headers, kept, take more than 500,000 bytes
