"""Shards in object storage: the same pictures as from local ones, whatever breaks off."""

from __future__ import annotations

import functools
import logging

import few_batches
import pytest
import standin_datasets
import torch
from shard_sets import folder_of, number_of, packed

from gancolor.data import facts, information, shard_packer
from gancolor.data.shard_lookup import open_shards
from gancolor.errors import ConfigError, DataError
from gancolor.runtime import remote_files

take = functools.partial(few_batches.take, image_size=16, batch_size=5)


pytestmark = pytest.mark.usefixtures("sound_storage")


@pytest.fixture(scope="module", autouse=True)
def _sets(storage):
    storage.bucket("sets")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("sets"), 30, 13)


@pytest.fixture(scope="module")
def address(storage, _sets, local):
    return storage.put_folder(local, "s3://sets/a set")


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_training_sees_the_same_pictures_as_from_local_shards(local, address, workers):
    here, there = open_shards(str(local), "train"), open_shards(address, "train")
    assert len(there) == 30
    expected = take(7, here, workers=0)
    found = take(7, there, workers=workers)  # in forked workers too, after this process has asked
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.rgb, other.rgb)


def test_a_pattern_a_slash_and_single_pictures(local, address, storage):
    some = open_shards(f"{address}/{{0000..0001}}.tar", "train")
    assert [shard.file for shard in some.shards] == [f"{address}/000{n}.tar" for n in (0, 1)]
    held_out = open_shards(f"{address}/", "val")
    assert [number_of(held_out.read(i)) for i in range(2)] == [
        number_of(open_shards(str(local), "val").read(i)) for i in range(2)
    ]
    gets = [path for method, path, _ in storage.proxy.asked if ".tar" in path and method == "GET"]
    assert len(gets) == 1  # fetched once, into the cache
    assert facts.find(address).name == facts.find(str(local)).name
    assert "30" in information.describe(address, None, 10).text()


def test_training_goes_on_where_a_connection_broke_off(local, address, storage, caplog):
    caplog.set_level(logging.INFO, "gancolor")
    there = open_shards(address, "train")
    storage.proxy.cuts += [700, 0, 5000]
    found = take(6, there, workers=0)
    for one, other in zip(take(6, open_shards(str(local), "train"), workers=0), found, strict=True):
        assert torch.equal(one.rgb, other.rgb)
    assert not storage.proxy.cuts and "trying again" in caplog.text


def test_what_is_no_set_is_one_line(storage):
    with pytest.raises(DataError, match="must have a shards.json beside them, got none at s3://se"):
        open_shards("s3://sets/nothing", "train")
    with pytest.raises(DataError, match="no such bucket"):
        open_shards("s3://nowhere/set", "train")
    with pytest.raises(ConfigError, match="must be a path, or begin with s3://, gs://, hf://data"):
        open_shards("ftp://host/set", "train")
    storage.proxy.refuse["/sets"] = 403
    with pytest.raises(DataError, match="access is denied"):
        open_shards("s3://sets/a set", "train")


def bytes_of(storage, address):
    keys = [key for key in storage.keys("s3://sets") if key.startswith(address[10:] + "/")]
    return {key.rpartition("/")[2]: storage.get(f"s3://sets/{key}") for key in keys}


@pytest.mark.slow
def test_packing_to_an_address_writes_what_packing_here_does(storage, local, tmp_path):
    folder = folder_of(tmp_path / "set-30", 30)
    packed = shard_packer.pack(str(folder), "s3://sets/packed", shard_pictures=13)
    assert packed.made == 5
    here = {path.name: path.read_bytes() for path in local.iterdir()}
    there = bytes_of(storage, "s3://sets/packed")
    tars = [name for name in here if name.endswith(".tar")]
    assert len(tars) == 5 and all(here[name] == there[name] for name in tars)
    assert set(here) == set(there)
    assert not list((tmp_path / "gancolor-cache" / "packing").rglob("*.tar"))
    again = shard_packer.pack(str(folder), "s3://sets/packed", shard_pictures=13)
    assert again.made == 0 and again.listing == packed.listing
    with pytest.raises(DataError, match="must be empty or hold the same pictures, .*s3://sets/pa"):
        shard_packer.pack(str(folder), "s3://sets/packed", shard_pictures=12)


@pytest.mark.slow
def test_packing_goes_on_where_an_upload_failed(storage, tmp_path):
    folder = folder_of(tmp_path / "set-30", 30)
    storage.proxy.refuse["PUT /sets/broken/0001.tar"] = 403
    with pytest.raises(DataError, match="s3://sets/broken/0001.tar could not be written: access"):
        shard_packer.pack(str(folder), "s3://sets/broken", shard_pictures=13)
    assert set(bytes_of(storage, "s3://sets/broken")) == {"0000.tar", ".packing.jsonl"}
    assert not list((tmp_path / "gancolor-cache" / "packing").rglob("*.tar"))
    storage.proxy.refuse.clear()
    assert shard_packer.pack(str(folder), "s3://sets/broken", shard_pictures=13).made == 4
    assert len(open_shards("s3://sets/broken", "train")) == 30


@pytest.mark.parametrize("address", ["https://example.org/shards", "hf://datasets/a/b", "s3://"])
def test_packing_refuses_what_cannot_be_written_to(tmp_path, address):
    with pytest.raises(ConfigError, match="--out must"):
        shard_packer.pack(str(folder_of(tmp_path / "set", 3)), address)


def test_packing_into_no_bucket_is_one_line(storage, tmp_path):
    with pytest.raises(DataError, match="s3://nowhere/set.* could not be .*no such bucket"):
        shard_packer.pack(str(folder_of(tmp_path / "set", 3)), "s3://nowhere/set")


@pytest.mark.slow
def test_data_sets_of_the_hub_are_read_and_listed(local, monkeypatch, tmp_path):
    pytest.importorskip("huggingface_hub")
    files = {f"data/{path.name}": path.read_bytes() for path in local.glob("[!.]*")}
    hub = standin_datasets.DatasetHub({**files, "old/a.jpg": b"a", "README.md": b"#"})
    try:
        monkeypatch.setitem(remote_files._OPTIONS, "hf", {"endpoint": hub.address})
        there = open_shards("hf://datasets/owner/name/data", "train")
        found = take(6, there, workers=0)
        for one, other in zip(
            take(6, open_shards(str(local), "train"), workers=0), found, strict=True
        ):
            assert torch.equal(one.rgb, other.rgb)
        walked = [name for name, _ in remote_files.walk("hf://datasets/owner/name@main")]
        assert walked[0] == "README.md" and "old/a.jpg" in walked and "data/0000.tar" in walked
        assert remote_files.find("hf://datasets/owner/name/old/none.jpg") is None
        with pytest.raises(DataError, match="none.tar|nothing is there|beside them"):
            open_shards("hf://datasets/owner/name/none", "train")
    finally:
        hub.stop()
