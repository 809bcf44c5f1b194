"""Reading manifests."""

from __future__ import annotations

import os

import pytest

from gancolor.data import manifest
from gancolor.errors import DataError


def write(path, *rows, head="path,split,reject"):
    path.write_bytes("\n".join([head, *rows, ""]).encode("utf-8", "surrogateescape"))
    return path


def test_rows_say_split_reject_or_nothing(tmp_path):
    path = write(
        tmp_path / "manifest.csv",
        "a/1.png,train,",
        " b.png ,test,",
        "c.png,val,gray",
        "d.png",
        "",
        "e.png,,",
    )
    expected = {"a/1.png": 0, "b.png": 2, "c.png": manifest.REJECTED, "d.png": manifest.UNDECIDED}
    assert manifest.read(path) == expected | {"e.png": manifest.UNDECIDED}


def test_columns_may_come_in_any_order_and_others_are_ignored(tmp_path):
    path = write(tmp_path / "manifest.csv", 'x,val,"a, b.png"', head="width,split,path")
    assert manifest.read(path) == {"a, b.png": 1}


def test_the_last_row_of_a_picture_counts(tmp_path):
    path = write(
        tmp_path / "manifest.csv",
        "a.png,train,gray",
        "b.png,val,",
        "a.png,test,",
        "b.png,val,small",
    )
    assert manifest.read(path) == {"a.png": 2, "b.png": manifest.REJECTED}


def test_paths_may_be_written_with_detours(tmp_path):
    rows = ["./a.png,val,", "b//c.png,test,", "d/../e.png,val,gray", f"{tmp_path}//x/./y.png,test,"]
    path = write(tmp_path / "manifest.csv", *rows)
    assert manifest.read(path) == {
        "a.png": 1,
        "b/c.png": 2,
        "e.png": manifest.REJECTED,
        "x/y.png": 2,
    }


@pytest.mark.parametrize(
    "listed", ["caf\u00e9/1.png", "cafe\u0301/1.png", "cafe\u0301\\1.png", ".\\caf\u00e9\\1.png"]
)
@pytest.mark.parametrize("there", ["caf\u00e9/1.png", "cafe\u0301/1.png"])
def test_another_spelling_means_the_same_picture(tmp_path, listed, there):
    rows = manifest.read(write(tmp_path / "manifest.csv", f"{listed},val,"))
    assert manifest.match(rows, ["caf.png", there]) == [] and rows[there] == 1
    assert "caf.png" not in rows


def test_the_very_name_comes_before_another_spelling(tmp_path):
    rows = manifest.read(write(tmp_path / "manifest.csv", "a\\b.png,val,", "caf\u00e9.png,test,"))
    found = ["a/b.png", "a\\b.png", "cafe\u0301.png", "caf\u00e9.png"]
    assert manifest.match(rows, found) == [] and rows == {"a\\b.png": 1, "caf\u00e9.png": 2}


def test_rows_of_no_picture_are_told(tmp_path):
    rows = manifest.read(
        write(
            tmp_path / "manifest.csv",
            "a.png,val,",
            "A.png,test,",
            "/else/b.png,,",
            "c\\d.png,,gray",
        )
    )
    assert manifest.match(rows, ["a.png"]) == ["A.png", "c\\d.png"]


def test_no_manifest_says_nothing(tmp_path):
    assert manifest.read(tmp_path / "manifest.csv") == {}


def test_absolute_paths_into_the_folder_become_relative_also_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    rows = [
        f"{tmp_path}/link/a/1.png,val,",
        f"{tmp_path}/real/2.png,test,",
        f"{tmp_path}/really/3.png,train,",
    ]
    write(tmp_path / "real" / "manifest.csv", *rows)
    expected = {"a/1.png": 1, "2.png": 2, f"{tmp_path}/really/3.png": 0}
    assert manifest.read(tmp_path / "link" / "manifest.csv") == expected


def test_a_prepared_set_keeps_names_byte_for_byte(tmp_path):
    head = "path,sha256,width,height,colorfulness,split,reject"
    path = write(
        tmp_path / "manifest.csv",
        " a .png,,,,,val,",
        "bad\udcff.png,,,,,test,",
        '"two\nlines.png",,,,,,',
        head=head,
    )
    assert manifest.read(path) == {
        " a .png": 1,
        "bad\udcff.png": 2,
        "two\nlines.png": manifest.UNDECIDED,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a column named path, got the columns: none"),
        (b"file,split\n", "got the columns: file, split"),
        (
            b"path,split\na.png,\nb.png,Train\n",
            "split must be train, val or test, got 'Train'; mend line 3",
        ),
        (b"path,split,reject\na.png,nope,gray\n", "got 'nope'"),
        (b"path\n\xff.png\n", "CSV file in UTF-8"),
        ("path\na.png\n".encode("utf-16"), "CSV file in UTF-8"),
        (b"path\na\0.png\n", "path must be a file's name|line contains NUL"),
        (b'path\n"' + b"a" * 200_000, "field limit"),
    ],
)
def test_bad_manifest_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        manifest.read(tmp_path / "manifest.csv")
    assert "manifest.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_a_manifest_that_is_a_folder_says_nothing(tmp_path):
    (tmp_path / "manifest.csv").mkdir()
    assert manifest.read(tmp_path / "manifest.csv") == {}


@pytest.mark.skipif(os.name == "nt", reason="pipes in folders")
def test_a_manifest_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "manifest.csv")
    with pytest.raises(
        DataError, match="must be a readable CSV file.* it is a pipe, not a regular file"
    ):
        manifest.read(tmp_path / "manifest.csv")
