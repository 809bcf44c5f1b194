"""Which datasets are shards, what their lists may say, and single pictures from them."""

from __future__ import annotations

import json
import logging
import os
import sys

import numpy as np
import pytest
from shard_sets import ShardServer, folder_of, jpeg, number_of, packed, write_tar

from gancolor.data import loader, shard_listing, shard_lookup
from gancolor.data.shard_listing import is_shards
from gancolor.data.shard_lookup import open_shards
from gancolor.data.shard_packer import pack
from gancolor.data.source import split_of
from gancolor.errors import DataError, MissingExtra
from gancolor.images import arrays


@pytest.fixture
def shards(tmp_path):
    return packed(tmp_path, 30, 8)


def numbers(source):
    return [number_of(source.read(index)) for index in range(len(source))]


def identities(source):
    return {source.identity(index) for index in range(len(source))}


def test_what_is_meant_as_shards(shards, tmp_path):
    (tmp_path / "pictures.tar").mkdir()
    (tmp_path / "{odd}").mkdir()
    yes = [
        shards,
        shards / "0000.tar",
        shards / "{0000..0003}.tar",
        shards / "shards.json",
        tmp_path / "gone.tar",
    ]
    assert all(is_shards(str(path)) for path in yes) and is_shards("https://example.org/set")
    assert not any(
        is_shards(str(path))
        for path in (tmp_path, tmp_path / "pictures.tar", tmp_path / "{odd}", "food")
    )


def test_splits_are_those_of_the_packed_set(shards, tmp_path):
    found = {split: open_shards(str(shards), split) for split in ("train", "val", "test", "all")}
    assert {split: len(source) for split, source in found.items()} == {
        "train": 30,
        "val": 2,
        "test": 2,
        "all": 34,
    }
    assert sorted(numbers(found["train"])) == list(range(30)) and sorted(numbers(found["val"])) == [
        30,
        31,
    ]
    for source in found.values():
        for index in range(len(source)):
            assert source.name(index) == f"{number_of(source.read(index)):03d}.jpg"
    assert np.array_equal(
        found["val"].read(0), arrays.decode_rgb(jpeg(numbers(found["val"])[0]), "a")
    )
    with pytest.raises(IndexError):
        found["val"].read(2)
    with pytest.raises(IndexError):
        found["val"].name(-1)


def test_identities_tell_pictures_apart_without_reading(shards):
    sources = [open_shards(str(shards), split) for split in ("train", "val", "test")]
    everything = identities(open_shards(str(shards), "all"))
    for shard in shards.glob("*.tar"):
        shard.unlink()
    one = {
        split: identities(source)
        for split, source in zip(("train", "val", "test"), sources, strict=True)
    }
    assert sum(map(len, one.values())) == len(set.union(*one.values())) == 34
    assert everything == set.union(*one.values())


def test_held_out_pictures(shards):
    held = loader.held_out(open_shards(str(shards), "val"), 8)
    assert sorted(held.names) == ["030.jpg", "031.jpg"] and held.rgb.shape == (2, 3, 8, 8)


@pytest.mark.parametrize("pattern", ["{0000..0001}.tar", "000[0]", "0001.tar"])
def test_a_pattern_names_some_of_the_shards(shards, pattern):
    if pattern.endswith("]"):
        with pytest.raises(DataError):
            open_shards(str(shards / (pattern + ".tar")), "train")
        return
    assert len(open_shards(str(shards / pattern), "train")) == (16 if "{" in pattern else 8)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (
            "{0000..0099}.tar",
            (
                r"got 0006.tar, which is not; it lists 0000.tar to 0005.tar: name those, or their"
                r" folder"
            ),
        ),
        (
            "*.tar",
            (
                r"must be written with braces, got .*\*\.tar; write \{0000\.\.0099\}\.tar, or name"
                r" a folder"
            ),
        ),
        ("000?.tar", "must be written with braces"),
    ],
)
def test_what_a_wrong_pattern_should_be_is_said(shards, pattern, words):
    with pytest.raises(DataError, match=words) as caught:
        open_shards(str(shards / pattern), "train")
    assert "\n" not in str(caught.value)


def test_a_pattern_of_one_split_says_where_the_others_are(shards, caplog):
    with caplog.at_level(logging.WARNING, "gancolor"):
        assert open_shards(str(shards / "{0000..0003}.tar"), "val").split == "train"
    assert "it uses those of train; val pictures are in 0004.tar beside them" in caplog.text
    with pytest.raises(
        DataError, match="got none in .*0004.tar; train pictures are in 0000.tar to 0003.tar beside"
    ):
        open_shards(str(shards / "0004.tar"), "train")


def test_a_picture_that_is_damaged_but_can_be_decoded_is_noticed(tmp_path):
    shards = packed(tmp_path, 4)
    data = bytearray((shards / "0000.tar").read_bytes())
    table = data.index(b"\xff\xdb") + 6
    data[table] ^= 1
    (shards / "0000.tar").write_bytes(data)
    source = open_shards(str(shards), "train")
    _, path, member = source._find(0)
    arrays.decode_rgb(data[member.offset : member.offset + member.size], "no error")
    with pytest.raises(
        DataError,
        match=r"must be readable, got .*0000.tar/00000000.jpg: it is not as it was packed",
    ):
        source.read(0)
    assert len({number_of(source.read(index)) for index in (1, 2, 3)}) == 3
    foreign = write_tar(
        tmp_path / "in" / "0.tar",
        [("a.jpg", jpeg(7)), ("a.json", b'{"sha256": "of the original"}')],
    )
    assert number_of(open_shards(str(foreign), "all").read(0)) == 7


def test_a_split_that_the_named_shards_lack_is_borrowed_but_never_for_training(shards, caplog):
    with caplog.at_level(logging.WARNING, "gancolor"):
        source = open_shards(str(shards / "0000.tar"), "val")
    assert len(source) == 8 and "it uses those of train" in caplog.text
    with pytest.raises(DataError, match="split train must have a picture, got none in"):
        open_shards(str(shards / "0004.tar"), "train")


def test_broken_pictures_and_missing_shards_are_one_line(tmp_path):
    shards = packed(tmp_path, 10, 5, broken=(3,))
    source = open_shards(str(shards), "train")
    place = next(i for i in range(10) if source.name(i) == "003.jpg")
    with pytest.raises(
        DataError, match=r"picture must be readable, got .*000\d.tar/0000000\d.jpg: "
    ):
        source.read(place)
    os.truncate(shards / "0001.tar", 5120)
    with pytest.raises(DataError, match=r"must have the \d+ bytes.*got 5120 in .*0001.tar"):
        open_shards(str(shards), "train")
    (shards / "0001.tar").unlink()
    with pytest.raises(DataError, match="0001.tar: No such file"):
        open_shards(str(shards), "train")
    (shards / "0000.tar").unlink()
    shard_lookup.open_shard.cache_clear()
    with pytest.raises(DataError, match="0000.tar: .*No such file"):
        source.read(0)


def theirs(folder, count=40):
    keys = [f"n{number % 3}/{number:03d}" for number in range(count)]
    for part in range(2):
        members = [
            (f"{keys[i]}.{kind}", jpeg(i) if kind == "jpg" else b"{}")
            for i in range(part, count, 2)
            for kind in ("jpg", "json")
        ]
        write_tar(folder / f"{part}.tar", members)
    return keys


def test_shards_of_others_are_split_by_their_keys(tmp_path, monkeypatch):
    keys = theirs(tmp_path / "in")
    for split in ("train", "val", "test"):
        wanted = [number for number in range(40) if split_of(keys[number]) == split]
        source = open_shards(str(tmp_path / "in" / "{0,1}.tar"), split)
        assert sorted(numbers(source)) == wanted != []
        assert {source.name(i) for i in range(len(source))} == {
            f"{number % 2}.tar/{keys[number]}.jpg" for number in wanted
        }
        everything = open_shards(str(tmp_path / "in" / "{0,1}.tar"), "all")
        assert len(identities(source)) == len(source) and identities(source) < identities(
            everything
        )
        monkeypatch.chdir(tmp_path)
        assert identities(open_shards("in/{0,1}.tar", split)) == identities(source)
    assert sorted(numbers(open_shards(str(tmp_path / "in" / "0.tar"), "all"))) == list(
        range(0, 40, 2)
    )


def test_what_is_known_of_a_foreign_shard_is_kept_until_it_changes(tmp_path, monkeypatch):
    theirs(tmp_path / "in")
    scans = []
    original = shard_listing._scan
    monkeypatch.setattr(
        shard_listing, "_scan", lambda path, size: scans.append(path.name) or original(path, size)
    )
    for _ in range(2):
        found = shard_listing.find_members(tmp_path / "in" / "0.tar")
    assert scans == ["0.tar"] and len(found) == 20
    theirs(tmp_path / "in", 30)
    assert len(shard_listing.find_members(tmp_path / "in" / "0.tar")) == 15
    for kept in shard_listing.shard_cache().glob("*.json"):
        kept.write_text(kept.read_text()[:-40])  # damaged: found again
    assert len(shard_listing.find_members(tmp_path / "in" / "0.tar")) == 15 and len(scans) == 3


def test_damaged_and_foreign_files_are_one_line(tmp_path):
    theirs(tmp_path / "in")
    os.truncate(tmp_path / "in" / "0.tar", 3000)
    (tmp_path / "in" / "text.tar").write_text("no tar file" * 100)
    for name in ("0.tar", "text.tar", "gone.tar", "{0..2}.tar.gz", "{0..2.tar", "{a,b}/0.tar"):
        with pytest.raises(DataError) as caught:
            open_shards(str(tmp_path / "in" / name), "train")
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_patterns_need_the_library(shards, monkeypatch):
    monkeypatch.setitem(sys.modules, "braceexpand", None)
    with pytest.raises(MissingExtra, match=r"pip install 'gancolor\[shards\]'"):
        open_shards(str(shards / "{0000..0001}.tar"), "train")
    assert len(open_shards(str(shards), "train")) == 30


ROW = {
    "file": "0.tar",
    "split": "train",
    "pictures": 1,
    "bytes": 1,
    "sha256": "0" * 64,
    "starts": [0],
}


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../0.tar"},
        {"file": "/etc/0.tar"},
        {"file": "pipe:rm 0.tar"},
        {"file": "http://elsewhere/0.tar"},
        {"file": "0.zip"},
        {"file": "a\n.tar"},
        {"file": 3},
        {"split": "mine"},
        {"pictures": -1},
        {"bytes": "1"},
        {"sha256": ""},
        {"starts": [0.5]},
    ],
)
def test_lists_that_lead_elsewhere_or_make_no_sense_are_refused(change):
    text = json.dumps(
        {"gancolor shards": 1, "name": "a", "licence": "", "shards": [{**ROW, **change}]}
    )
    with pytest.raises(DataError, match="shards.json must list shards, got here: ") as caught:
        shard_listing.parse(text, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"gancolor shards": 2}', '{"gancolor shards": 1, "shards": []}']
)
def test_other_files_are_no_lists(text):
    with pytest.raises(DataError, match="shards.json must list shards"):
        shard_listing.parse(text, "here")


@pytest.fixture
def server(shards, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = ShardServer(shards)
    yield server
    server.stop()


@pytest.mark.parametrize(
    "ending", ["", "/", "/shards.json", "/{0000..0005}.tar", "/shards.json?key=1"]
)
def test_remote_sets_by_their_address(shards, server, ending):
    source = open_shards(server.url + ending, "val")
    assert len(source) == 2 and len(server.requests) == 1  # the list alone
    assert sorted(numbers(source)) == [30, 31]
    assert sorted(source.name(i) for i in range(2)) == ["030.jpg", "031.jpg"]
    assert [name for name, _ in server.requests] == ["shards.json", "0004.tar"]


def test_remote_pictures_are_fetched_once_and_checked(shards, server):
    shard_lookup.open_shard.cache_clear()
    assert sorted(numbers(open_shards(server.url, "val"))) == [30, 31]
    shard_lookup.open_shard.cache_clear()
    server.requests.clear()
    assert sorted(numbers(open_shards(server.url, "val"))) == [30, 31]
    assert [name for name, _ in server.requests] == ["shards.json"]
    (shards / "0005.tar").write_bytes(bytes(3000))
    with pytest.raises(Exception, match="checksum"):
        open_shards(server.url, "test").read(0)


def test_remote_shards_without_a_list(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    theirs(tmp_path / "in")
    server = ShardServer(tmp_path / "in")
    try:
        with pytest.raises(
            DataError, match=r"must have a shards.json.*HTTP 404.*gancolor data pack"
        ) as caught:
            open_shards(server.url + "/{0,1}.tar", "train")
        assert "\n" not in str(caught.value)
    finally:
        server.stop()


def test_packing_what_was_packed_in_another_order_keeps_the_splits(tmp_path):
    folder = folder_of(tmp_path / "mine", 9, 3, 3)
    (folder / "manifest.csv").unlink()
    pack(str(folder), tmp_path / "out")
    for split in ("train", "val", "test"):
        wanted = [n for n in range(15) if split_of(f"{n:03d}.jpg") == split]
        if wanted:
            assert sorted(numbers(open_shards(str(tmp_path / "out"), split))) == wanted
