"""Files in object storage: what is found, read on after a break, written whole, and said."""

from __future__ import annotations

import hashlib
import logging
import sys

import pytest

from gancolor.errors import ConfigError, DataError, DownloadError, MissingExtra, masked, shown
from gancolor.runtime import remote_files
from gancolor.runtime.download import RemoteFile, fetch

DATA = bytes(range(256)) * 400


pytestmark = pytest.mark.usefixtures("sound_storage")


@pytest.fixture(scope="module", autouse=True)
def _town(storage):
    storage.bucket("town")


def test_what_was_written_is_listed_read_and_removed(storage, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(DATA)
    for name in ("old/b #1?.bin", "old/2020/ä%20c.bin", "old/.hidden", "older/x.bin"):
        remote_files.upload(path, f"s3://town/{name}")
    found = list(remote_files.walk("s3://town/old/"))
    assert [(name, entry.size) for name, entry in found] == [
        ("b #1?.bin", len(DATA)),
        ("2020/ä%20c.bin", len(DATA)),
    ]
    assert storage.get("s3://town/old/b #1?.bin") == DATA
    fetched = fetch("s3://town/old/2020/ä%20c.bin", tmp_path / "fetched", None)
    assert fetched.read_bytes() == DATA
    for name, _ in found:
        remote_files.remove(f"s3://town/old/{name}")
        remote_files.remove(f"s3://town/old/{name}")  # again: it is gone
    assert [entry.name for entry in remote_files.entries("s3://town/old")] == [".hidden"]
    assert remote_files.find("s3://town/old/.hidden").size == len(DATA)
    assert remote_files.find("s3://town/old/b") is None
    assert remote_files.entries("s3://town/nothing") == []


def test_a_transfer_that_breaks_off_goes_on_where_it_was(storage, tmp_path, caplog):
    caplog.set_level(logging.INFO, "gancolor")
    storage.put("s3://town/large.bin", DATA * 100)  # 10 MB: three blocks
    digest = hashlib.sha256(DATA * 100).hexdigest()
    whole = 1 << 30
    storage.proxy.cuts += [whole, 1 << 20]  # the first block arrives, the second does not
    with pytest.raises(DownloadError, match="the connection was lost"):
        fetch("s3://town/large.bin", tmp_path / "large", None, retries=0)
    there = (tmp_path / "large.part").stat().st_size
    assert there > 4 << 20 and not (tmp_path / "large").exists()
    storage.proxy.asked.clear()
    storage.proxy.cuts += [1 << 20]
    fetch("s3://town/large.bin", tmp_path / "large", None, backoff=0)  # as after a kill
    assert hashlib.sha256((tmp_path / "large").read_bytes()).hexdigest() == digest
    gets = [first for method, _, first in storage.proxy.asked if method == "GET"]
    assert gets and all(int(each.removeprefix("bytes=").split("-")[0]) >= there for each in gets)
    assert "trying again" in caplog.text


def test_a_small_file_comes_in_one_request(storage, caplog):
    storage.put("s3://town/small.bin", DATA)
    storage.proxy.cuts += [1000, 0]
    assert remote_files.read_bytes("s3://town/small.bin", len(DATA)) == DATA
    assert [method for method, _, _ in storage.proxy.asked] == ["GET"] * 3
    assert caplog.text.count("trying again") == 2
    assert remote_files.read_bytes("s3://town/small.bin", 5) == DATA[:6]  # it has grown
    storage.put("s3://town/empty.bin", b"")
    assert remote_files.read_bytes("s3://town/empty.bin", 0) == b""
    with pytest.raises(remote_files.Refused, match="^nothing is there$"):
        remote_files.read_bytes("s3://town/none.bin", 5)


def test_a_file_that_changed_meanwhile_is_begun_anew(storage):
    storage.put("s3://town/changing.bin", b"a" * 9_000_000)
    with RemoteFile("s3://town/changing.bin", backoff=0) as file:
        assert file.read(1 << 18) == b"a" * (1 << 18)
        storage.put("s3://town/changing.bin", b"b" * 8_000_000)
        rest = b""
        while block := file.read(1 << 20):
            rest = block if file.position - len(block) == 0 else rest + block
        assert file.length == 8_000_000 and rest == b"b" * 8_000_000


def test_an_upload_is_tried_again_and_appears_whole_or_not_at_all(storage, tmp_path, caplog):
    path = tmp_path / "b.bin"
    path.write_bytes(DATA)
    storage.proxy.broken_puts = 2
    remote_files.upload(path, "s3://town/new/b.bin")
    assert storage.get("s3://town/new/b.bin") == DATA
    assert "trying again" in caplog.text
    assert any("crc" in each.lower() for each in storage.proxy.checksums)  # S3 compares them
    storage.proxy.broken_puts = 100
    with pytest.raises(DataError, match=r"s3://town/new/c.bin could not be written: .*tried 5"):
        remote_files.upload(path, "s3://town/new/c.bin")
    assert storage.keys("s3://town") == [k for k in storage.keys("s3://town") if "c.bin" not in k]


@pytest.mark.slow
def test_a_large_upload_that_fails_leaves_no_parts_behind(storage, tmp_path):
    path = tmp_path / "huge.bin"
    with path.open("wb") as file:
        file.truncate(101 << 20)
    storage.proxy.refuse["partNumber=3"] = 403
    with pytest.raises(DataError, match="access is denied"):
        remote_files.upload(path, "s3://town/huge.bin")
    assert storage.open_uploads("s3://town") == 0
    assert remote_files.find("s3://town/huge.bin") is None
    storage.proxy.refuse.clear()
    remote_files.upload(path, "s3://town/huge.bin")
    assert remote_files.find("s3://town/huge.bin").size == 101 << 20


@pytest.mark.slow
def test_what_cannot_be_had_is_one_line(storage, tmp_path):
    with pytest.raises(DownloadError, match="s3://town/none.bin failed: nothing is there; "):
        fetch("s3://town/none.bin", tmp_path / "x", None)
    with pytest.raises(DataError, match="s3://nowhere/a could not be listed: there is no such buc"):
        remote_files.entries("s3://nowhere/a")
    storage.proxy.refuse["/town"] = 403
    with pytest.raises(DataError, match=r"listed: access is denied \(.*\); look at the rights"):
        remote_files.entries("s3://town/old")
    with pytest.raises(DownloadError, match="failed: access is denied"):
        fetch("s3://town/none.bin", tmp_path / "x", None)
    assert not (tmp_path / "x").exists()


def test_a_missing_extra_is_named(monkeypatch):
    with pytest.raises(MissingExtra, match=r"need gcsfs; install it: pip install gcsfs"):
        remote_files.entries("gs://bucket/a")  # it is not installed here
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(MissingExtra, match=r"need s3fs; install it: pip install 'gancolor\[s3\]'"):
        remote_files.entries("s3://town")


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/a",
        "file:///etc/passwd",
        "zip://a::s3://b/c",
        "hf://owner/model",
        "s3://",
        "S3://b",
    ],
)
def test_other_addresses_are_refused(address):
    with pytest.raises(ConfigError, match="--dataset must"):
        remote_files.check(address, "--dataset")


def test_secrets_of_addresses_are_masked():
    signed = "https://host/a.jpg?X-Amz-Signature=abc123&X-Amz-Credential=AKIA%2Fx&size=4"
    assert masked(signed) == "https://host/a.jpg?X-Amz-Signature=***&X-Amz-Credential=***&size=4"
    assert shown("got s3://key:secret@bucket/a") == "got s3://***@bucket/a"
    assert "secret" not in str(DataError("no https://me:secret@host/a?sig=0815"))
    assert "0815" not in str(DataError("no https://me:secret@host/a?sig=0815"))
    plain = "hf://datasets/owner/name@main/a https://host/a?page=2"
    assert masked(plain) == plain
    with pytest.raises(ConfigError, match="must hold no credentials") as caught:
        remote_files.check("s3://key:secret@bucket/a", "INPUT")
    assert "secret" not in str(caught.value)
