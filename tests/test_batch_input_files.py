"""Files, folders, patterns and lists: what is found, where results go, what is refused."""

from __future__ import annotations

import codecs
import io
import os
import socket
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gancolor.batch import input_files
from gancolor.batch.input_files import Item, count, expand
from gancolor.errors import ConfigError
from gancolor.images import formats
from gancolor.video import opening

root_only = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="a superuser reads folders without permission",
)


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def pairs(items: Iterator[Item], old: Path, new: Path) -> list[tuple[str, str]]:
    """Sources and targets relative to their folders; there must be no problem."""
    found = list(items)
    assert [item.problem for item in found] == [None] * len(found)
    return [
        (i.source.relative_to(old).as_posix(), i.target.relative_to(new).as_posix()) for i in found
    ]


def same(*names: str) -> list[tuple[str, str]]:
    return [(name, name) for name in names]


def problems(items: Iterator[Item]) -> list[str]:
    return [item.problem for item in items if item.problem is not None]


def test_a_folder_is_mirrored(tmp_path: Path) -> None:
    names = [
        "b.png",
        "a.jpg",
        "sub/deep/c.TIF",
        "sub/d.webp",
        "notes.txt",
        ".hidden.jpg",
        ".h/e.jpg",
        "f.jpg.part",
    ]
    old, new = make(tmp_path / "old", *names), tmp_path / "new"
    found = expand([str(old)], new)
    assert pairs(found, old, new) == same("a.jpg", "b.png", "sub/d.webp", "sub/deep/c.TIF")
    assert not new.exists()  # finding makes nothing


def test_it_is_lazy(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "a.jpg", "sub/b.jpg")
    found = expand([str(old)], tmp_path / "new")
    assert next(found).source.name == "a.jpg"
    make(old, "sub/c.jpg")
    assert [item.source.name for item in found] == ["b.jpg", "c.jpg"]


def test_several_folders_keep_their_names_and_files_lie_flat(tmp_path: Path) -> None:
    make(tmp_path, "one/a.jpg", "two/a.jpg", "three/x/b.jpg")
    inputs = [str(tmp_path / name) for name in ("one", "two", "three/x/b.jpg")]
    found = [
        item.target.relative_to(tmp_path / "new").as_posix()
        for item in expand(inputs, tmp_path / "new")
    ]
    assert found == ["one/a.jpg", "two/a.jpg", "b.jpg"]


def test_films_are_told_by_their_suffix(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "a.MP4", "b.wmv", "c.mkv", "d.png")
    found = {
        i.source.name: (i.film, i.target.name)
        for i in expand([str(old)], tmp_path / "new", format="jpeg")
    }
    assert found == {
        "a.MP4": (True, "a.MP4"),
        "b.wmv": (True, "b.mkv"),
        "c.mkv": (True, "c.mkv"),
        "d.png": (False, "d.jpg"),
    }


def test_a_named_file_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    path = make(tmp_path, "scan.dat") / "scan.dat"
    (item,) = expand([str(path)], tmp_path / "new", format="png")
    assert item == Item(path, tmp_path / "new" / "scan.png")


@pytest.mark.parametrize(
    "name",
    [
        "two words.jpg",
        "-rf.jpg",
        "--out.jpg",
        "été.jpg",
        "写真 日本.jpg",
        "line\nbreak.jpg",
        "*.jpg",
        "[1].jpg",
    ],
)
def test_odd_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make(tmp_path / "old", name)
    for inputs in ([str(old)], [str(old / name)]):
        assert pairs(expand(inputs, tmp_path / "new"), old, tmp_path / "new") == same(name)
    monkeypatch.chdir(old)
    (item,) = expand([name], tmp_path / "new")
    assert (item.source, item.problem) == (Path(name), None)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        old = make(tmp_path / "old", name)
    except OSError:
        pytest.skip("this file system takes Unicode only")
    (item,) = expand([str(old)], tmp_path / "new")
    assert os.fsencode(item.target.name) == b"caf\xe9.jpg"
    (missing,) = expand([str(old / "x") + name], tmp_path / "new")
    assert missing.problem is not None and missing.problem.isprintable()


def test_both_spellings_of_a_letter_are_files_of_their_own(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    old = make(tmp_path / "old", *names)
    assert len(list(expand([str(old)], tmp_path / "new"))) == len(list(old.iterdir()))


def test_loops_of_links_end_and_links_rename_nothing(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "z/a.jpg", "elsewhere.txt")
    other = make(tmp_path / "other", "b.jpg")
    (old / "z" / "up").symlink_to(old)
    (old / "z" / "self").symlink_to(old / "z")
    (old / "again").symlink_to(old / "z")  # sorted before the folder itself
    (old / "linked").symlink_to(other)
    (other / "back").symlink_to(old)
    (old / "linked.jpg").symlink_to(other / "b.jpg")
    (old / "ring").symlink_to(old / "ring")
    found = pairs(expand([str(old)], tmp_path / "new"), old, tmp_path / "new")
    assert found == same("linked.jpg", "z/a.jpg", "linked/b.jpg")
    deep = {
        i.source.relative_to(old).as_posix() for i in expand([f"{old}/**/*.jpg"], tmp_path / "new")
    }
    assert deep == {"linked.jpg", "z/a.jpg", "linked/b.jpg"}


def test_a_dangling_link_is_an_item(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "a.jpg")
    (old / "b.jpg").symlink_to("nowhere")
    assert [item.source.name for item in expand([str(old)], tmp_path / "new")] == ["a.jpg", "b.jpg"]
    (item,) = expand([str(old / "b.jpg")], tmp_path / "new")
    assert item.problem is not None and "No such file" in item.problem


def test_out_inside_the_input_is_left_out(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "a.jpg", "new/a.jpg", "new/sub/b.jpg", "newer/c.jpg")
    (tmp_path / "link").symlink_to(old / "new")
    for out in (old / "new", tmp_path / "link"):
        assert pairs(expand([str(old)], out), old, out) == same("a.jpg", "newer/c.jpg")
        assert pairs(expand([f"{old}/**/*.jpg"], out), old, out) == same("a.jpg", "newer/c.jpg")


@pytest.mark.parametrize("through_link", [False, True])
def test_out_must_not_be_an_input_folder(tmp_path: Path, through_link: bool) -> None:
    old = make(tmp_path / "old", "a.jpg")
    out = old / ".." / "old"
    if through_link:
        (out := tmp_path / "link").symlink_to(old)
    with pytest.raises(ConfigError, match="--out must not be the input folder"):
        expand([str(old)], out)


def test_out_must_be_a_folder(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "new")
    with pytest.raises(ConfigError, match="--out must be a folder, got the file"):
        expand([str(tmp_path / "a.jpg")], tmp_path / "new")


def test_results_never_land_on_or_among_the_inputs(tmp_path: Path) -> None:
    make(tmp_path, "new/a.jpg", "old/a.jpg", "old/new/x.jpg", "photos/photos/b.jpg")
    cases = [
        ([tmp_path / "new" / "a.jpg"], tmp_path / "new"),  # itself
        (
            [tmp_path / "old" / "a.jpg", tmp_path / "new" / "a.jpg"],
            tmp_path / "new",
        ),  # another input
        ([tmp_path / "photos"], tmp_path),  # photos/photos/b.jpg -> photos/b.jpg
        ([tmp_path / "old", tmp_path / "photos"], tmp_path),  # each onto itself
    ]
    for inputs, out in cases:
        found = list(expand([str(path) for path in inputs], out))
        assert found
        assert all(
            i.problem is not None and "must not lie among the inputs" in i.problem for i in found
        ), (inputs, out)


@pytest.mark.parametrize(
    ("inputs", "out", "refused"),
    [
        (["scans/*"], "scans", [True] * 4),
        (["scans/*"], "link", [True] * 4),
        (["scans/**/*.jpg"], "scans/sub/..", [True] * 3),
        (["s*/*.jpg"], ".", [True]),  # each onto itself
        (["-"], ".", [True] * 2),
        (
            ["scans/**/*.jpg"],
            ".",
            [False, True, False],
        ),  # scans/scans/b.jpg would become scans/b.jpg
    ],
)
def test_nothing_lands_beside_what_a_pattern_or_a_list_names(
    tmp_path: Path,
    inputs: list[str],
    out: str,
    refused: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(tmp_path, "scans/a.jpg", "scans/a.png", "scans/sub/scans/b.jpg", "scans/scans/b.jpg")
    (tmp_path / "link").symlink_to("scans")
    monkeypatch.chdir(tmp_path)
    listing = io.BytesIO(b"scans/a.jpg\nscans/a.png\n")
    found = list(expand(inputs, Path(out), format="png", listed=listing))
    assert ["change --out" in str(item.problem) for item in found] == refused
    monkeypatch.chdir(tmp_path / "scans")
    bare = list(
        expand(["-"], tmp_path / "scans", format="png", listed=io.BytesIO(b"a.jpg\n./a.png\n"))
    )
    assert ["change --out" in str(i.problem) for i in bare] == [True, True]


def test_another_input_may_not_land_in_a_patterns_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "scans/a.jpg", "other/b.jpg", "linked/scans.txt")
    monkeypatch.chdir(tmp_path)
    found = list(expand(["scans/*", "other/*"], Path("scans")))
    assert [i.source.name for i in found if i.problem] == ["a.jpg", "b.jpg"]
    # its variants too could be sources
    found = list(expand(["other/b.jpg", "scans/a.jpg"], Path("scans")))
    assert [i.source.name for i in found if i.problem] == ["b.jpg", "a.jpg"]
    make(tmp_path, "x/y/c.jpg", "x/z/c.jpg")
    (tmp_path / "x" / "new").mkdir()
    # a link in --out that leads back to the sources
    (tmp_path / "x" / "new" / "y").symlink_to("../z")
    for pattern in ("x", "x/*/*.jpg", "x/**/*.jpg"):
        found = list(expand([pattern], Path("x/new"), format="png"))
        assert {i.source.parent.name: i.problem is None for i in found} == {"y": False, "z": True}


def test_results_are_no_sources_of_a_second_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "old/x/a.jpg", "new/x/a.jpg", "new/old/x/a.jpg")
    (tmp_path / "latest").symlink_to("new/x")
    monkeypatch.chdir(tmp_path)
    for out in (Path("new"), tmp_path / "new"):
        for pattern in ("*/*/*.jpg", "**/a.jpg", "*/x", "*"):
            assert [i.source.as_posix() for i in expand([pattern], out)] == ["old/x/a.jpg"], pattern
        for lines in (
            b"./new/x/a.jpg\nold/x/a.jpg\nnew/x\nlatest/a.jpg\n",
            b"%b/new/x/a.jpg\nold/x/a.jpg",
        ):
            listing = io.BytesIO(lines.replace(b"%b", os.fsencode(tmp_path)))
            assert [i.source.as_posix() for i in expand(["-"], out, listed=listing)] == [
                "old/x/a.jpg"
            ]
        (only,) = problems(expand(["-"], out, listed=io.BytesIO(b"new/x/a.jpg\n")))
        assert only.startswith("list must name files outside --out") and only.endswith("new")


def test_sources_inside_a_folder_that_gets_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "old/a.jpg", "old/sub/b.jpg")
    monkeypatch.chdir(tmp_path)
    for inputs in (["old"], ["old/**/*.jpg"]):
        found = pairs(expand(inputs, Path(".")), Path("old"), Path("."))
        assert found == same("a.jpg", "sub/b.jpg")
    (item,) = expand(["-"], tmp_path, listed=io.BytesIO(os.fsencode(tmp_path / "old/a.jpg")))
    assert item.problem is None


def test_what_is_missing_is_one_item_with_a_problem(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    inputs = [str(tmp_path / name) for name in ("gone.jpg", "a.jpg", "none*.jpg")] + [
        "",
        "x" * 5000,
    ]
    found = list(expand(inputs, tmp_path / "new"))
    assert [item.problem is None for item in found] == [False, True, False, False, False]
    assert found[0].problem is not None and str(tmp_path / "gone.jpg") in found[0].problem
    assert found[2].problem is not None and "pattern must match" in found[2].problem


def test_a_folder_without_pictures_and_a_pipe(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "notes.txt")
    os.mkfifo(old / "pipe.jpg")
    assert [
        "folder must hold a picture or film" in problem
        for problem in problems(expand([str(old)], tmp_path / "new"))
    ] == [True]
    assert "it is a pipe" in problems(expand([str(old / "pipe.jpg")], tmp_path / "new"))[0]


@root_only
def test_an_unreadable_folder_is_told_and_passed(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "a.jpg", "locked/b.jpg", "z/c.jpg")
    (old / "locked").chmod(0)
    try:
        found = list(expand([str(old)], tmp_path / "new"))
    finally:
        (old / "locked").chmod(0o755)
    assert [item.source.name for item in found if item.problem is None] == ["a.jpg", "c.jpg"]
    assert "locked: Permission denied" in problems(iter(found))[0]


def test_a_folder_that_vanishes_and_one_that_grows(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "a.jpg", "b/b.jpg", "c/c.jpg")
    found = expand([str(old)], tmp_path / "new")
    names = []
    for item in found:
        names.append((item.source.name, item.problem is None))
        if item.source.name == "a.jpg":
            (old / "b").rename(tmp_path / "b")
        if len(names) < 50:
            # behind the walk: it must end
            make(old, f"new-{len(names)}.jpg", f"c/more-{len(names)}.jpg")
    assert names[:2] == [("a.jpg", True), ("b", False)]
    assert ("c.jpg", True) in names and len(names) < 10


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("?.png", ["c.png"]),
        ("[ab].*", ["a.jpg", "b.jpg"]),
        ("sub*/*.jpg", ["sub1/d.jpg", "sub2/e.jpg"]),
        ("sub*", ["sub1/d.jpg", "sub2/deep/f.jpg", "sub2/e.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "sub1/d.jpg", "sub2/deep/f.jpg", "sub2/e.jpg"]),
        ("**/deep/**", ["sub2/deep/f.jpg"]),
        ("*.txt", ["b.png"]),  # the suffix is named: taken, and written as what can be written
        ("*.t*", []),
    ],
)
def test_patterns(
    tmp_path: Path, pattern: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [
        "a.jpg",
        "b.jpg",
        "b.txt",
        "c.png",
        ".h.jpg",
        "sub1/d.jpg",
        "sub2/e.jpg",
        "sub2/deep/f.jpg",
    ]
    old, new = make(tmp_path / "old", *names), tmp_path / "new"
    monkeypatch.chdir(old)
    for inputs in ([pattern], [f"{tmp_path}/o[l]d/{pattern}"]):
        found = [i.target.relative_to(new) for i in expand(inputs, new) if i.problem is None]
        # mirrored from where the pattern begins to vary
        inside = "old/" if "[l]" in inputs[0] else ""
        assert sorted(path.as_posix() for path in found) == [inside + name for name in expected]
    assert problems(expand(["nothing/" + pattern], new)) != []


def test_a_list_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(
        tmp_path / "old", "a.jpg", "two words.jpg", "sub/a.jpg", "folder/x/b.jpg", "line\nbreak.jpg"
    )
    monkeypatch.chdir(tmp_path / "old")
    lines = b"a.jpg\r\ntwo words.jpg\n\nsub/a.jpg\n../old/folder\ngone.jpg"
    found = list(expand(["-"], Path("../new"), listed=io.BytesIO(lines), folders=True))
    assert [i.target.as_posix() for i in found if i.problem is None] == [
        "../new/a.jpg",
        "../new/two words.jpg",
        "../new/sub/a.jpg",
        "../new/old/folder/x/b.jpg",
    ]
    assert "gone.jpg" in problems(iter(found))[0]
    nul = list(
        expand(["-"], Path("../new"), listed=io.BytesIO(b"line\nbreak.jpg\0sub/a.jpg\0"), null=True)
    )
    assert [i.source.as_posix() for i in nul if i.problem is None] == [
        "line\nbreak.jpg",
        "sub/a.jpg",
    ]
    everything = io.BytesIO(f"{tmp_path}/old/a.jpg\n".encode())
    (absolute,) = expand(["-"], tmp_path / "new", listed=everything)
    assert absolute.target == tmp_path / "new" / (tmp_path / "old" / "a.jpg").relative_to(
        tmp_path.anchor
    )


def encoded(names: list[str], encoding: str, mark: bytes, end: str = "\r\n") -> io.BytesIO:
    return io.BytesIO(mark + "".join(name + end for name in names).encode(encoding))


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-32-le", codecs.BOM_UTF32_LE),
        ("utf-32-be", codecs.BOM_UTF32_BE),
    ],
)
def test_a_byte_order_mark_decides(tmp_path: Path, encoding: str, mark: bytes) -> None:
    names = [f"{tmp_path}/old/{name}" for name in ("a.jpg", "./é写.jpg", "two words.jpg")]
    make(tmp_path / "old", "a.jpg", "é写.jpg", "two words.jpg")
    found = list(expand(["-"], tmp_path / "new", listed=encoded(names, encoding, mark)))
    assert [(item.source, item.problem) for item in found] == [(Path(name), None) for name in names]


def test_a_list_that_windows_has_written(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = shared / "cases"
    if not cases.is_dir():
        pytest.skip(f"needs {cases}")
    monkeypatch.chdir(cases)
    with open("list_utf8_bom.txt", "rb") as listed:
        found = list(expand(["-"], tmp_path / "new", listed=listed))
    assert [(item.source.name, item.problem) for item in found] == [
        ("plain.jpg", None),
        ("lossless.webp", None),
    ]


def test_a_list_of_wide_characters_without_a_mark_asks_for_nothing(tmp_path: Path) -> None:
    """Its letters with a NUL after each, among them `.` and `/`, were names once."""
    listed = encoded(["./a.jpg", "/old/b.jpg"], "utf-16-le", b"")
    (item,) = expand(["-"], tmp_path / "new", listed=listed)
    assert item.problem is not None and "a name a line, got a NUL; use --null" in item.problem
    listed = encoded(["./a.jpg", "/old/b.jpg"], "utf-16-le", codecs.BOM_UTF16_LE)
    # one name that holds all lines
    (item,) = expand(["-"], tmp_path / "new", listed=listed, null=True)
    assert item.problem is not None


@pytest.mark.parametrize("name", ["/", ".", "..", "./", "//", "old"])
def test_a_folder_in_a_list_must_be_asked_for(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "old/a.jpg")
    monkeypatch.chdir(tmp_path)
    items = list(
        expand(["-"], tmp_path / "new", listed=io.BytesIO(f"{name}\nold/a.jpg\n".encode()))
    )
    assert [item.problem is None for item in items] == [False, True]
    assert "must name files, got the folder" in str(items[0].problem) and "--list-folders" in str(
        items[0].problem
    )


@pytest.mark.parametrize("null", [False, True])
def test_what_is_no_list_is_refused_at_its_first_long_line(tmp_path: Path, null: bool) -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            assert self.given < 1 << 20
            return b"x" * size

    (item,) = expand(["-"], tmp_path / "new", listed=Endless(), null=null)  # type: ignore[arg-type]
    assert item.problem is not None and f"at most {input_files.LONGEST} characters" in item.problem


def test_what_came_before_an_unusable_line_is_done(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    text = f"{tmp_path}/a.jpg\n" + "x" * 40_000 + f"\n{tmp_path}/a.jpg\n"
    items = list(expand(["-"], tmp_path / "new", listed=io.BytesIO(text.encode())))
    assert items[0].problem is None
    assert any("characters" in str(item.problem) for item in items)
    broken = codecs.BOM_UTF16_LE + b"\x00\xd8\x00\x00"
    (item,) = expand(["-"], tmp_path / "new", listed=io.BytesIO(broken))
    assert "must be utf-16-le as its first bytes say" in str(item.problem)


def test_devices_pipes_and_sockets_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        place = tmp_path / "s.jpg"
        listening.bind(os.path.relpath(place))
        names = ["/dev/zero", str(tmp_path / "pipe.jpg"), str(place)]
        for inputs, listed in ((names, None), (["-"], io.BytesIO("\n".join(names).encode()))):
            said = [str(item.problem) for item in expand(inputs, tmp_path / "new", listed=listed)]
            assert (
                "it is a device" in said[0]
                and "it is a pipe" in said[1]
                and "it is a socket" in said[2]
            )


def test_a_list_is_read_as_it_comes(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.jpg")
    ours, theirs = os.pipe()
    with open(ours, "rb") as listing, open(theirs, "wb", buffering=0) as source:
        found = expand(["-"], tmp_path / "new", listed=listing)
        source.write(os.fsencode(tmp_path / "a.jpg") + b"\n" + os.fsencode(tmp_path)[:3])
        assert next(found).source.name == "a.jpg"
        source.write(os.fsencode(tmp_path / "b.jpg")[3:])
        source.close()
        assert [item.source.name for item in found] == ["b.jpg"]


def test_count(tmp_path: Path) -> None:
    old = make(tmp_path / "old", *(f"{n}/{n}.jpg" for n in range(30)), "x.txt")
    assert count([str(old)], tmp_path / "new") == 30
    assert count([str(old), "-"], tmp_path / "new") is None


def test_suffixes_are_told_apart() -> None:
    assert not (opening.SUFFIXES | opening.UNSURE) & formats.SUFFIXES


def test_kinds_are_told_by_content_and_the_rest_is_counted(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "a.jpg", "notes.txt", "more.txt", "b.psb", "list", "c.nef.xmp")
    (old / "scan").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (old / "tape.dat").write_bytes(b"P5\n4 4\n255\n" + bytes(16))
    make(old, "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", ".thumbnails/b.jpg", "Thumbs.db", "._a.jpg")
    passed = Counter[str]()
    found = [item.source.name for item in expand([str(old)], tmp_path / "new", passed=passed)]
    assert found == ["a.jpg", "scan", "tape.dat"]
    assert passed == {".txt": 2, ".psb": 1, "": 1, ".xmp": 1}
    assert formats.passed_over(passed) == "2 .txt, 1 without a suffix, 1 .psb, 1 .xmp"


def test_patterns_leave_names_out(tmp_path: Path) -> None:
    old = make(
        tmp_path / "old", "a.jpg", "a-thumb.jpg", "private/b.jpg", "sub/private/c.jpg", "sub/d.jpg"
    )
    passed = Counter[str]()
    found = expand([str(old)], tmp_path / "new", exclude=["*-thumb.*", "private"], passed=passed)
    assert pairs(found, old, tmp_path / "new") == same("a.jpg", "sub/d.jpg") and not passed
    assert count([str(old)], tmp_path / "new", ["*-thumb.*", "private"]) == 2
    pattern = str(old / "**" / "*.jpg")
    found = expand([pattern], tmp_path / "new", exclude=["private"])
    assert pairs(found, old, tmp_path / "new") == same("a-thumb.jpg", "a.jpg", "sub/d.jpg")


def test_the_file_that_keeps_its_name_wins(tmp_path: Path) -> None:
    old, new = (
        make(tmp_path / "old", "a.gif", "a.png", "b.gif", "b.avif", "c.gif", "d.PNG", "d.gif"),
        tmp_path / "new",
    )
    names = {item.source.name: item.target.name for item in expand([str(old)], new)}
    assert names == {
        "a.gif": "a.gif.png",
        "a.png": "a.png",
        "b.avif": "b.png",  # of two that are renamed the first
        "b.gif": "b.gif.png",
        "c.gif": "c.png",
        "d.PNG": "d.PNG",
        "d.gif": "d.png",
    }
    make(old, "a.jpg", "a.tif")
    names = {item.source.name: item.target.name for item in expand([str(old)], new, format="jpeg")}
    assert [names[name] for name in ("a.jpg", "a.gif", "a.png", "a.tif")] == [
        "a.jpg",
        "a.gif.jpg",
        "a.png.jpg",
        "a.tif.jpg",
    ]
    assert len(set(names.values())) == len(names)
