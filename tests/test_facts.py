"""What is known of sets in shards, here and elsewhere; of others: test_cli_data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from shard_sets import ShardServer, jpeg, write_tar

from gancolor.data import facts
from gancolor.data.shard_listing import Listing, Shard


def listed(folder: Path, licence: str = "CC BY 4.0") -> Path:
    """A folder with one shard, and what says so."""
    tar = write_tar(folder / "0000.tar", [(f"{number}.jpg", jpeg(number)) for number in range(3)])
    shard = Shard(
        file="0000.tar", split="train", pictures=3, bytes=tar.stat().st_size, sha256="0" * 64
    )
    (folder / "shards.json").write_text(
        Listing(name="slides", licence=licence, shards=(shard,)).to_json()
    )
    return folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShardServer]:
    monkeypatch.setenv("no_proxy", "*")
    facts._ask.cache_clear()
    server = ShardServer(listed(tmp_path / "there"))
    yield server
    server.stop()


def test_remote_shards_tell_their_name_and_licence_and_are_asked_once(server: ShardServer) -> None:
    for address in (server.url, f"{server.url}/0000.tar"):
        for _ in range(3):
            known = facts.find(address)
            assert (known.name, known.licence, known.folder, known.troubles) == (
                "slides",
                "CC BY 4.0",
                None,
                (),
            )
    assert [name for name, _ in server.requests] == ["shards.json"] * 2


def test_remote_shards_without_a_listing_are_unknown_and_it_is_said(
    server: ShardServer, tmp_path: Path
) -> None:
    (tmp_path / "there" / "shards.json").unlink()
    known = facts.find(f"{server.url}/0000.tar")
    assert (known.name, known.licence) == (f"{server.url}/0000.tar", facts.UNKNOWN)
    assert "remote shards must have a shards.json beside them" in known.troubles[0]


@pytest.mark.parametrize(
    "how", ["there", "there/0000.tar", "there/{0000..0000}.tar", "there/shards.json"]
)
def test_local_shards_however_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    listed(tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    known = facts.find(how)
    assert (known.name, known.licence, known.troubles) == ("slides", "CC BY 4.0", ())
    assert known.folder == Path("there")


@pytest.mark.parametrize("licence", ["", None])
def test_shards_of_others_have_an_unknown_licence(tmp_path: Path, licence: str | None) -> None:
    (listed(tmp_path / "birds", licence or "") / "shards.json").rename(
        tmp_path / "birds" / "other.json"
    )
    if licence is not None:
        (tmp_path / "birds" / "other.json").rename(tmp_path / "birds" / "shards.json")
    # of the pictures there
    (tmp_path / "birds" / "set.json").write_text('{"name": "others", "licence": "CC0"}')
    known = facts.find(str(tmp_path / "birds" / "{0000..0000}.tar"))
    assert (known.name, known.licence) == ("birds" if licence is None else "slides", facts.UNKNOWN)
