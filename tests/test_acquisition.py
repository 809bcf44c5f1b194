"""Catalog sets from a local server, whole or not at all, whatever goes wrong."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import forkserver
import numpy as np
import pytest
from serving import Server

import gancolor._torchvision  # noqa: F401  # before torchvision: see there
from gancolor.data import acquisition, catalog
from gancolor.data.acquisition import describe_catalog, obtain
from gancolor.data.folder import open_folder
from gancolor.errors import DataError, DownloadError
from gancolor.runtime.download import fetch

ENTRY = (
    'title = "Mini"\nwhat = "A few pictures."\nsource = "here"\nlicence = "CC0"\ncitation = "Me"\n'
)


def jpeg(seed: int) -> bytes:
    picture = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    return cv2.imencode(".jpg", picture)[1].tobytes()


def pack_zip(names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as pack:
        for number, name in enumerate(names):
            pack.writestr(name, jpeg(number) if name.endswith(".jpg") else b"text")
    return buffer.getvalue()


def pack_tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as pack:  # type: ignore[call-overload]
        for name, data in files.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            pack.addfile(item, io.BytesIO(data))
    return buffer.getvalue()


PICTURES = [f"set/{number:02d}.jpg" for number in range(12)]
ARCHIVE = pack_zip([*PICTURES, "set/labels.txt"])
SHA = hashlib.sha256(ARCHIVE).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(
        acquisition, "fetch", functools.partial(fetch, timeout=2.0, retries=2, backoff=0.01)
    )
    server = Server(ARCHIVE)
    yield server
    server.stop()


@pytest.fixture
def root(server: Server, tmp_path: Path) -> Path:
    """A datasets root with the entry `mini`: one zip with a checksum, from two mirrors."""
    describe(tmp_path / "root", server, f'sha256 = "{SHA}"')
    return tmp_path / "root"


def describe(
    root: Path, server: Server, more: str = "", name: str = "mini", file: str = "mini.zip"
) -> None:
    root.mkdir(exist_ok=True)
    urls = json.dumps([f"{server.address}/one/{file}", f"{server.address}/two/{file}"])
    text = f'{ENTRY}bytes = 1000\n[[files]]\nname = "{file}"\nurls = {urls}\n{more}\n'
    (root / f"{name}.toml").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))


def check_nothing_but(root: Path, *kept: str) -> None:
    """No set, nothing half unpacked, and these files among the downloads."""
    assert visible(root) == ["mini.toml"] and not list(root.glob(".mini*"))
    assert names(root / ".downloads") == sorted(kept)


def test_set_arrives_whole_and_its_archive_goes(server: Server, root: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    report = obtain("mini", root, progress=lambda *what: told.append(what))
    assert names(root / "mini") == [".download.json", *PICTURES, "set/labels.txt"]
    assert (report.state, report.pictures, report.folder) == ("done", 12, root / "mini")
    assert {what for what, _, _ in told} == {"downloading mini.zip", "unpacking mini.zip"}
    assert ("downloading mini.zip", len(ARCHIVE), len(ARCHIVE)) in told
    assert not (root / ".downloads").exists() and visible(root) == ["mini", "mini.toml"]
    assert len(open_folder(catalog.locate("mini", root), "all")) == 12
    record = json.loads((root / "mini" / ".download.json").read_text())
    assert record["licence"] == "CC0" and record["files"][0]["checksum"] == f"sha256:{SHA}"


def test_set_that_is_there_is_left_alone(server: Server, root: Path) -> None:
    obtain("mini", root)
    (root / "mini" / "manifest.csv").write_text("path,split\n")
    assert obtain("mini", root).state == "there" and len(server.requests) == 1
    assert (root / "mini" / "manifest.csv").read_text() == "path,split\n"


def test_archive_is_kept_when_asked_for_and_serves_again(server: Server, root: Path) -> None:
    obtain("mini", root, keep_archives=True)
    assert names(root / ".downloads") == ["mini/mini.zip"]
    shutil.rmtree(root / "mini")
    assert obtain("mini", root).state == "done" and len(server.requests) == 1


def test_dry_run_only_says_what_would_be_done(server: Server, root: Path) -> None:
    (root / ".downloads" / "mini").mkdir(parents=True)
    (root / ".downloads" / "mini" / "mini.zip.part").write_bytes(b"x" * 100)
    before = names(root)
    report = obtain("mini", root, dry_run=True)
    assert names(root) == before and server.requests == []
    assert (
        report.state == "planned"
        and report.entry.licence == "CC0"
        and report.folder == root / "mini"
    )
    assert [(item.file.name, item.here, item.whole) for item in report.files] == [
        ("mini.zip", 100, False)
    ]
    # the archive, whose size nobody told, and its contents
    assert report.needed == 900 + 1000 and report.free > 0


def test_dry_run_needs_no_root(tmp_path: Path) -> None:
    report = obtain("food", tmp_path / "no" / "such", dry_run=True)
    assert report.needed == 2 * 4996278331 and report.files[0].here == 0
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_the_users_own_are_not_mixed_with(server: Server, root: Path) -> None:
    (root / "mini").mkdir()
    obtain("mini", root, dry_run=True)  # an empty folder is fine
    (root / "mini" / "mine.jpg").write_bytes(b"mine")
    for dry_run in (True, False):
        with pytest.raises(
            DataError, match=r"must be empty or missing.*did not download \(mine.jpg\)"
        ):
            obtain("mini", root, dry_run=dry_run)
    assert server.requests == [] and names(root / "mini") == ["mine.jpg"]
    (root / "mini" / "mine.jpg").unlink()
    assert obtain("mini", root).pictures == 12


def test_folder_may_be_a_link_to_another_disk(server: Server, root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "big").mkdir(parents=True)
    (root / "mini").symlink_to(tmp_path / "elsewhere" / "big")
    obtain("mini", root)
    assert (root / "mini").is_symlink() and "set/00.jpg" in names(tmp_path / "elsewhere" / "big")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["big"]


def test_cut_download_goes_on_in_the_next_call(server: Server, root: Path) -> None:
    server.cuts = [100, 100, 100, 100, 100, 100]  # three tries of each mirror
    with pytest.raises(DownloadError, match="of .* bytes"):
        obtain("mini", root)
    check_nothing_but(root, "mini/mini.zip.part", "mini/mini.zip.part.json")
    assert obtain("mini", root).state == "done"
    assert server.requests[-1]["range"] == "bytes=600-" and server.sent == len(ARCHIVE)


def test_server_gone_and_back(server: Server, root: Path) -> None:
    server.cuts = [100] * 6
    with pytest.raises(DownloadError):
        obtain("mini", root)
    server.stop()
    with pytest.raises(
        DownloadError, match="(?i)refused.*download it by hand and save it as.*mini.zip"
    ):
        obtain("mini", root)
    (root / ".downloads" / "mini" / "mini.zip").write_bytes(ARCHIVE)  # by hand, then
    assert obtain("mini", root).pictures == 12


def test_missing_on_one_mirror_and_then_on_both(server: Server, root: Path) -> None:
    server.statuses = [404, 404]
    with pytest.raises(DownloadError, match="HTTP 404.*two/mini.zip: HTTP 404"):
        obtain("mini", root)
    check_nothing_but(root)
    server.statuses = [404]
    obtain("mini", root)
    assert server.paths[-1] == "/two/mini.zip"


def test_wrong_checksum_is_kept_aside_and_nothing_unpacked(server: Server, root: Path) -> None:
    server.body = pack_zip(["evil.jpg"])
    with pytest.raises(DownloadError, match="wrong checksum.*kept as mini.zip.wrong-checksum"):
        obtain("mini", root)
    check_nothing_but(root, "mini/mini.zip.wrong-checksum")


def test_redirected_slow_server_without_ranges(server: Server, root: Path) -> None:
    server.redirects = {"/one/mini.zip": f"{server.address}/three"}
    server.ranges, server.cuts, server.piece = False, [100], 2000
    assert obtain("mini", root).pictures == 12
    assert server.paths == ["/one/mini.zip", "/three"] * 2 and server.sent == 100 + len(ARCHIVE)


def test_silent_server_is_given_up(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acquisition, "fetch", functools.partial(fetch, timeout=0.1, retries=0))
    server.stall_after = [50, 50]
    with pytest.raises(DownloadError, match="timed out"):
        obtain("mini", root)
    check_nothing_but(root, "mini/mini.zip.part", "mini/mini.zip.part.json")


def link(kind: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as pack:
        item = tarfile.TarInfo("a.jpg")
        item.type, item.linkname = kind, "/etc/passwd"
        pack.addfile(item)
    return buffer.getvalue()


OUTSIDE = {"good.jpg": jpeg(0), "../../evil.jpg": jpeg(1)}
BAD: dict[str, tuple[Callable[[], bytes], str]] = {  # packed when a test asks: the bomb takes long
    "outside": (lambda: pack_tar(OUTSIDE), "inside the folder"),
    "absolute": (lambda: pack_tar({"/tmp/evil.jpg": jpeg(1)}), "inside the folder"),
    "symbolic link": (lambda: link(tarfile.SYMTYPE), "link or a device"),
    "hard link": (lambda: link(tarfile.LNKTYPE), "link or a device"),
    "device": (lambda: link(tarfile.CHRTYPE), "link or a device"),
    "bomb": (lambda: pack_tar({"zeros.jpg": bytes(120_000_000)}), "bomb"),
    "regrets": (lambda: b"<html><body>Sorry, gone.</body></html>", "zip or a tar"),
    "cut": (lambda: ARCHIVE[:-100], "damaged"),
    "no pictures": (lambda: pack_zip(["readme.txt"]), "must hold a picture"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_archive_leaves_nothing_and_does_not_stand_in_the_way(
    kind: str, server: Server, tmp_path: Path
) -> None:
    pack, words = BAD[kind]
    server.body = pack()
    describe(tmp_path, server)  # no checksum: everything that comes is taken
    with pytest.raises(DataError, match=words) as caught:
        obtain("mini", tmp_path)
    assert "\n" not in str(caught.value)
    assert visible(tmp_path) == ["mini.toml"] and not list(tmp_path.glob(".mini*"))
    if kind == "no pictures":  # whole, but of no use: it is the catalog that is wrong
        return
    check_nothing_but(tmp_path, "mini/mini.zip.unreadable")
    server.body = ARCHIVE
    assert obtain("mini", tmp_path).pictures == 12


def test_bad_archive_with_the_right_checksum_is_kept(server: Server, tmp_path: Path) -> None:
    server.body = pack_tar(OUTSIDE)
    describe(
        tmp_path, server, f'md5 = "{hashlib.md5(server.body, usedforsecurity=False).hexdigest()}"'
    )
    with pytest.raises(DataError, match="inside the folder"):
        obtain("mini", tmp_path)
    check_nothing_but(tmp_path, "mini/mini.zip")


def test_several_archives_in_one_folder_with_a_split_by_globs(
    server: Server, tmp_path: Path
) -> None:
    server.bodies = {
        "/a.zip": pack_zip([f"train/{number}.jpg" for number in range(40)]),
        "/b.tar": pack_tar({f"val/{number}.jpg": jpeg(number) for number in range(5)}, "w"),
        "/c.jpg": jpeg(99),
    }
    files = [("a.zip", ""), ("b.tar", ""), ("c.jpg", 'unpack = false\ninto = "extra"')]
    text = ENTRY + "".join(
        f'[[files]]\nname = "{name}"\nurls = ["{server.address}/{name}"]\n{more}\n'
        for name, more in files
    )
    (tmp_path / "mini.toml").write_text(
        text + '[split]\nglobs = { train = "train/*", test = "val/*" }\n'
    )
    report = obtain("mini", tmp_path)
    assert report.pictures == 46 and report.splits["test"] == 5 and report.splits["by hash"] == 1
    assert report.splits["train"] + report.splits["val"] == 40 and 1 <= report.splits["val"] <= 10
    with (tmp_path / "mini" / "manifest.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["path", "sha256", "width", "height", "colorfulness", "split", "reject"]
    assert table[1] == ["extra/c.jpg", "", "", "", "", "", ""] and len(table) == 47
    test = open_folder(tmp_path / "mini", "test")
    assert {test.name(index) for index in range(len(test))} >= {
        f"val/{number}.jpg" for number in range(5)
    }


def test_the_same_file_in_two_archives_is_refused(server: Server, tmp_path: Path) -> None:
    files = "".join(
        f'[[files]]\nname = "{name}"\nurls = ["{server.url}"]\n' for name in ("a.zip", "b.zip")
    )
    (tmp_path / "mini.toml").write_text(ENTRY + files)
    with pytest.raises(DataError, match="the same file twice, got"):
        obtain("mini", tmp_path)
    assert visible(tmp_path) == ["mini.toml"]


def test_food_in_miniature_opens_with_torchvisions_own_class(
    server: Server, tmp_path: Path
) -> None:
    from torchvision.datasets import Food101

    parts = {
        part: {c: [f"{c}/{part}{n}" for n in range(8)] for c in ("pie", "soup")}
        for part in ("train", "test")
    }
    files = {
        f"food-101/meta/{part}.json": json.dumps(lists).encode() for part, lists in parts.items()
    }
    stems = [stem for lists in parts.values() for group in lists.values() for stem in group]
    files |= {f"food-101/images/{stem}.jpg": jpeg(number) for number, stem in enumerate(stems)}
    server.body = pack_tar({**files, "food-101/README.txt": b"read", "other/strange.bin": b"x"})
    shipped = (Path(catalog.__file__).parent / "food.toml").read_text()
    begin, end = shipped.index("urls = "), shipped.index("keep = ")
    (tmp_path / "food.toml").write_text(
        f'{shipped[:begin]}urls = ["{server.url}"]\n{shipped[end:]}'
    )
    report = obtain("food", tmp_path, dry_run=True)
    assert report.files[0].file.urls == (server.url,)
    text = (tmp_path / "food.toml").read_text().replace("bytes = 4996278331\n", "")
    (tmp_path / "food.toml").write_text(text)
    report = obtain("food", tmp_path)
    assert report.pictures == 32 and report.splits["test"] == 16
    for part in ("train", "test"):
        official = Food101(tmp_path / "food", split=part, download=False)
        assert len(official) == 16 and official[0][0].size == (32, 24)
    ours = open_folder(tmp_path / "food", "test")
    relative = {path.relative_to(tmp_path / "food").as_posix() for path in official._image_files}
    assert {ours.name(index) for index in range(len(ours))} == relative
    assert not (tmp_path / "food" / "other").exists()


def test_addresses_and_checksums_are_torchvisions() -> None:
    from torchvision.datasets import Food101, Places365

    food = catalog.find("food").files[0]
    assert Food101._URL in food.urls and food.md5 == Food101._MD5
    known = dict(Places365._IMAGES_META.values())
    files = [*catalog.find("places").files, *catalog.find("places-small").files]
    assert len(files) == 3
    for item in files:
        assert Places365._BASE_URL + item.name in item.urls and item.md5 == known[item.name]


def test_unknown_name_is_told_the_names_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be one of coco.*still-life, got 'nosuch'") as caught:
        obtain("nosuch", tmp_path)
    assert "folder" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"), [("imagenet", "torchvision.datasets.ImageNet"), ("pipa", "Flickr")]
)
def test_sets_to_be_got_by_hand_say_how(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"must be got by hand, into .*{name}.*{words}") as caught:
        obtain(name, tmp_path)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_painted_set_needs_no_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs no download"):
        obtain("still-life", tmp_path)


def test_disk_that_is_too_small(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=999))
    with pytest.raises(DataError, match="must have .* GB free for mini.*--datasets-root"):
        obtain("mini", root)
    assert server.requests == [] and names(root) == ["mini.toml"]
    assert obtain("mini", root, dry_run=True).free == 999


def test_root_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    describe(tmp_path, server)
    (tmp_path / ".downloads").write_text("in the way")
    with pytest.raises(DataError, match="cannot write mini"):
        obtain("mini", tmp_path)


def test_second_at_once_is_refused_and_the_first_finishes(server: Server, root: Path) -> None:
    server.stall = 0.5
    first = threading.Thread(target=obtain, args=("mini", root))
    first.start()
    while not server.requests:
        time.sleep(0.01)
    with pytest.raises(DataError, match="only one process at a time must download mini"):
        obtain("mini", root)
    first.join()
    assert len(names(root / "mini")) == 14 and obtain("mini", root).state == "there"


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_goes_on_in_the_next_call(
    server: Server, root: Path, end: signal.Signals
) -> None:
    server.stall_after = [5000]
    code = "import sys; from gancolor.data.acquisition import obtain; obtain('mini', sys.argv[1])"
    process = forkserver.Popen(["-c", code, str(root)], stderr=subprocess.DEVNULL)
    part = root / ".downloads" / "mini" / "mini.zip.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size >= 4096) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(end)
    process.wait(30)
    assert visible(root) == ["mini.toml"]
    assert obtain("mini", root).pictures == 12
    assert "range" in server.requests[-1]


def test_what_a_kill_while_unpacking_left_is_removed(server: Server, root: Path) -> None:
    (root / ".mini.incoming" / "whole").mkdir(parents=True)
    (root / ".mini.incoming" / "whole" / "half.jpg").write_bytes(b"half")
    obtain("mini", root)
    assert not (root / ".mini.incoming").exists() and "half.jpg" not in names(root / "mini")


def test_interrupted_while_unpacking_leaves_the_archive_only(server: Server, root: Path) -> None:
    def interrupt(what: str, done: int, total: int | None) -> None:
        if what.startswith("unpacking"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain("mini", root, progress=interrupt)
    check_nothing_but(root, "mini/mini.zip")
    assert obtain("mini", root).state == "done" and len(server.requests) == 1


def test_rows_tell_all_sets(server: Server, root: Path) -> None:
    table = {row["name"]: row for row in describe_catalog(root)}
    assert set(table) == {*catalog.names(), "mini"}
    assert table["mini"]["there"] is False and table["mini"]["addresses"][1].endswith(
        "/two/mini.zip"
    )
    assert table["still-life"]["there"] is True and table["still-life"]["path"] == ""
    assert table["food"]["pictures"] == 101000 and table["food"]["path"] == str(root / "food")
    assert json.loads(json.dumps(list(table.values()))) == list(table.values())
    obtain("mini", root)
    assert {row["name"]: row["there"] for row in describe_catalog(root)}["mini"] is True
