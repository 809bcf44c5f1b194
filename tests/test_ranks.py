"""Many ranks on many shards: every picture once an epoch, within bounded memory."""

from __future__ import annotations

import collections
import tracemalloc
from unittest import mock

import pytest
import ranks

from gancolor.data import shard_stream
from gancolor.data.shard_lookup import open_shards
from gancolor.data.shard_stream import CHUNK, ShardStream


@pytest.fixture
def no_files(monkeypatch):
    """Pictures of no bytes, of shards that are nowhere."""
    monkeypatch.setattr(shard_stream, "_pictures", ranks.without_files)


@pytest.mark.slow
def test_64_ranks_share_1000_shards_each_picture_once_an_epoch(no_files):
    source = ranks.planned(1000, 96)
    names = iter(ranks.read_epochs(source, 64, 2))
    half = len(source) // 64
    epochs = [collections.Counter(), collections.Counter()]
    for _ in range(64):  # of each rank its first epoch, then its second
        for epoch in epochs:
            epoch.update(next(names) for _ in range(half))
    assert next(names, None) is None
    for epoch in epochs:
        assert len(epoch) == 96_000 and set(epoch.values()) == {1}


def test_8_ranks_share_100_shards_each_picture_once_an_epoch(no_files):
    seen = collections.Counter(ranks.read_epochs(ranks.planned(100, 24), 8, 1))
    assert len(seen) == 2400 and set(seen.values()) == {1}


def test_real_shards_are_read_as_the_plan_says(tmp_path):
    source = open_shards(str(ranks.write_shards(tmp_path, 16, 12)), "train")
    found = list(ranks.read_epochs(source, 8, 1))
    with mock.patch.object(shard_stream, "_pictures", ranks.without_files):
        planned = list(ranks.read_epochs(source, 8, 1))
    assert len(set(found)) == 192

    def place(name):
        return name.rpartition("/")[0].rpartition("/")[2], int(
            name.rpartition("/")[2].split(".")[0]
        )

    assert [place(name) for name in found] == [place(name) for name in planned]


@pytest.mark.slow
def test_a_plan_takes_the_same_memory_for_a_hundred_times_the_pictures(monkeypatch):
    monkeypatch.setattr(ranks, "STEPS", 100)
    ranks.plan_memory(10, 100, 64)  # what is imported at the first time
    small, large = (ranks.plan_memory(1000, pictures, 64) for pictures in (100, 10_000))
    assert small < 4e6 and large < 1.5 * small + 5e5


@pytest.mark.slow
def test_a_rank_holds_a_chunk_a_lane_however_long_it_reads(no_files):
    stream = ShardStream(ranks.planned(100, 1000), 1, 3, 8)
    tracemalloc.start()
    for index in range(600):
        stream.read(index)
    tracemalloc.reset_peak()
    early = tracemalloc.get_traced_memory()[0]
    for index in range(600, 8_000):
        stream.read(index)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(len(lane.pictures) <= CHUNK for lane in stream._lanes)
    assert peak < 2.5 * early + 1e6
