"""Training from shards: each picture once a pass, whatever the workers, the processes, the start
and the network.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import logging
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import few_batches
import forkserver
import numpy as np
import pytest
import torch
from shard_sets import ShardServer, jpeg, number_of, packed, write_tar

from gancolor import presets
from gancolor.data import example, loader, picture_cache, shard_packer
from gancolor.data import shard_stream as streaming
from gancolor.data.shard_lookup import ShardSource, open_shards
from gancolor.data.shard_stream import ShardStream
from gancolor.data.source import split_of
from gancolor.errors import ConfigError, DataError, MissingExtra
from gancolor.training import plan, train

settings = functools.partial(few_batches.settings, image_size=16, batch_size=5)
take = functools.partial(few_batches.take, image_size=16, batch_size=5)


def numbers(batches):
    return [number_of(rgb) for batch in batches for rgb in batch.rgb]


def complaint(call):
    """What a DataError says. Its frames are let go of: workers among them end at once."""
    try:
        call()
    except DataError as error:
        return str(error)
    pytest.fail("nothing was raised")


@pytest.fixture
def sixty(tmp_path):
    return open_shards(str(packed(tmp_path, 60, 13)), "train")


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(streaming, "CHUNK", 4)


def test_every_pass_shows_each_picture_once_in_another_order(sixty):
    passes = [numbers(take(12, sixty, start_step=12 * number)) for number in range(4)]
    assert all(sorted(one) == list(range(60)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4 and sorted(passes[0]) != passes[0]


@pytest.mark.parametrize(("count", "world"), [(7, 1), (13, 2), (3, 5), (1, 2), (29, 1)])
def test_passes_stay_together_where_lanes_do_not_divide_the_pictures(
    tmp_path, small_chunks, count, world
):
    source = open_shards(str(packed(tmp_path, count, 3)), "train")
    streams = [ShardStream(source, 1, rank, world) for rank in range(world)]
    passes = streams[0].lanes * world
    shown = collections.Counter(
        stream.read(place).name for stream in streams for place in range(count * stream.lanes)
    )
    assert len(shown) == count and set(shown.values()) == {passes}
    assert all(len(lane.pictures) <= 4 for stream in streams for lane in stream._lanes)


def test_the_seed_changes_the_order(sixty):
    assert numbers(take(12, sixty, seed=1)) != numbers(take(12, sixty, seed=2))


@pytest.mark.parametrize("workers", [0, 3])
def test_starting_in_the_middle_of_a_pass_equals_going_on(sixty, small_chunks, workers):
    whole = take(20, sixty)
    later = take(13, sixty, start_step=7, workers=workers)
    assert all(torch.equal(one.rgb, two.rgb) for one, two in zip(later, whole[7:], strict=True))


@pytest.mark.slow
def test_pictures_of_shards_come_with_hints_too_whatever_the_workers_and_the_start(
    sixty, small_chunks
):
    wanted = torch.stack([batch.squares for batch in take(12, sixty, hints=0.5)])
    assert 0 < float((wanted.flatten(2).amax(2) > 0).float().mean()) < 1
    for others in (take(12, sixty, hints=0.5, workers=2), take(5, sixty, hints=0.5, start_step=7)):
        assert torch.equal(torch.stack([batch.squares for batch in others]), wanted[-len(others) :])


@pytest.mark.slow
def test_pictures_of_shards_are_aged_too_whatever_the_workers_and_the_start(sixty, small_chunks):
    whole = take(12, sixty, old_photos=0.5)
    assert all(
        torch.equal(one.rgb, two.rgb) for one, two in zip(whole, take(12, sixty), strict=True)
    )
    assert 15 < sum(int(batch.is_aged.sum()) for batch in whole) < 45  # of 60
    helped, later = (
        take(12, sixty, old_photos=0.5, workers=2),
        take(5, sixty, old_photos=0.5, start_step=7),
    )
    for others, start in ((helped, 0), (later, 7)):
        for one, two in zip(others, whole[start:], strict=True):
            assert torch.equal(one.aged, two.aged) and torch.equal(one.is_aged, two.is_aged)


@pytest.mark.slow
def test_a_later_start_reads_from_the_chunk_and_not_from_the_beginning(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "CHUNK", 8)
    source = open_shards(str(packed(tmp_path, 600, 600)), "train")
    opened = []
    original = streaming.open_bytes
    monkeypatch.setattr(
        streaming,
        "open_bytes",
        lambda shard, start: opened.append(start) or original(shard, start),
    )
    # in the last lane, of the pictures 550 to 600
    name = ShardStream(source, 1, 0, 1).read(12 * 30 + 11).name
    first = opened[0]
    assert (
        first == source.shards[0].starts[576 // 64] or first == source.shards[0].starts[512 // 64]
    )
    assert name in {
        open_shards(str(tmp_path / "shards-600"), "train").name(i) for i in range(570, 590)
    }


@pytest.mark.slow
def test_more_workers_than_share_the_lanes_evenly_are_fewer(sixty, caplog):
    with caplog.at_level(logging.INFO, "gancolor"):
        helped = take(6, sixty, workers=5)
    assert "4 workers read the shards: 5 cannot share 12 lanes evenly" in caplog.text
    assert numbers(helped) == numbers(take(6, sixty))


SCRIPT = """
import itertools, json, sys
sys.path[:0] = [TESTS]
from types import SimpleNamespace
from shard_sets import number_of
from gancolor.data import loader
from gancolor.data.shard_lookup import open_shards
settings = dict(image_size=16, zoom=0.5, flip=True, condition="gray", batch_size=4, seed=1, workers=3, device="cpu")
settings |= {"framing": "random", "cache": "none", "old_photos": 0.0, "hints": 0.0}
if __name__ == "__main__":
    source = open_shards(sys.argv[1], "train")
    made = loader.batches(source, config=SimpleNamespace(**settings), rank=int(sys.argv[2]), world=2)
    print(json.dumps([number_of(rgb) for batch in itertools.islice(made, 2 * 60) for rgb in batch.rgb]))
"""


def test_two_processes_with_three_workers_each_show_each_picture_once_a_pass(tmp_path):
    shards = packed(tmp_path, 240, 50)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("TESTS", repr(str(Path(__file__).parent))))
    processes = [
        forkserver.Popen([str(script), str(shards), str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    shown = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert [len(one) for one in shown] == [240, 240]  # two passes
    for number in range(2):
        halves = [one[number * 120 : (number + 1) * 120] for one in shown]
        assert sorted(halves[0] + halves[1]) == list(range(240))
    # the processes do not keep to a half of the shards
    assert set(shown[0][:120]) != set(shown[0][120:])


def test_pictures_are_augmented_as_those_of_folders(tmp_path):
    source = open_shards(str(packed(tmp_path, 24)), "train")
    asked = {"condition": "edges", "embedding_size": 24}
    (batch,) = take(1, source, **asked)
    names = [source.name(i) for i in range(len(source))]
    square = example.Augment(16, 0.5, True, "random", 24)
    for place, rgb in enumerate(batch.rgb):
        picture = source.read(names.index(f"{number_of(rgb):03d}.jpg"))
        expected, copy = square.views(picture, 1, place)
        assert np.array_equal(rgb.permute(1, 2, 0).numpy(), expected)
        assert np.array_equal(batch.copies[place].permute(1, 2, 0).numpy(), copy)
        assert batch.keys[place] == example.content_key(copy)
    assert batch.edges.shape == (5, 1, 16, 16)


def test_large_pictures_are_reduced_first(tmp_path):
    write_tar(tmp_path / "large.tar", [(f"{i}.jpg", jpeg(i, 300)) for i in range(40)])
    source = open_shards(str(tmp_path / "large.tar"), "train")
    pictures, _, _ = streaming.open_stream(
        source, example.Augment(16, 0.5, True), 20, settings(), 0, 0, 1, 0
    )
    assert pictures.read_good(0)[0].shape == (20, 20, 3)


def test_chunks_of_large_pictures_have_fewer_of_them(sixty, monkeypatch):
    mean = sum(shard.bytes for shard in sixty.shards) / 60
    monkeypatch.setattr(streaming, "CHUNK_BYTES", int(mean * 3.5))
    assert ShardStream(sixty, 0, 0, 1).chunk == 3
    assert sorted(numbers(take(12, sixty))) == list(range(60))


def test_another_process_can_be_given_the_pictures(sixty):
    pictures, keys, _ = streaming.open_stream(
        sixty, example.Augment(16, 0.5, True), 20, settings(), 0, 0, 1, 2
    )
    again = pickle.loads(pickle.dumps(pictures))
    for key in next(iter(keys)):
        assert torch.equal(again[key]["rgb"], pictures[key]["rgb"])


@pytest.mark.parametrize("workers", [0, 3])
def test_broken_pictures_are_replaced_by_the_next_good_one_and_named(
    tmp_path, small_chunks, caplog, workers
):
    source = open_shards(str(packed(tmp_path, 60, 20, broken=(5, 6, 40))), "train")
    with caplog.at_level(logging.WARNING, "gancolor"):
        batches = take(24, source, workers=workers)
    shown = collections.Counter(numbers(batches))
    assert sum(shown.values()) == 120 and not {5, 6, 40} & set(shown)
    assert {name for batch in batches for name in batch.broken} == {"005.jpg", "006.jpg", "040.jpg"}
    assert sum(len(batch.reasons) for batch in batches) >= 6  # in both passes
    assert caplog.text.count("got 040.jpg: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_no_readable_picture_is_one_line_without_traceback(tmp_path, workers):
    source = open_shards(str(packed(tmp_path, 3, broken=(0, 1, 2))), "train")
    said = complaint(lambda: take(1, source, workers=workers))
    assert "got none in 1000 tries" in said and "\n" not in said


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_cut_off_during_the_training_is_one_line(tmp_path, workers):
    shards = packed(tmp_path, 60, 20)
    source = open_shards(str(shards), "train")
    for shard in source.shards:
        os.truncate(shard.file, 9000)
    said = complaint(lambda: take(40, source, workers=workers))
    assert (
        said.startswith("shard must ") and ".tar" in said and "\n" not in said and " @ " not in said
    )
    Path(source.shards[0].file).unlink()
    with pytest.raises(DataError, match="No such file"):
        ShardStream(ShardSource(source.shards[:1], "train"), 0, 0, 1).read(0)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_of_others(tmp_path, small_chunks, monkeypatch, format):
    monkeypatch.setattr("gancolor.data.shard_listing.STRIDE", 3)
    monkeypatch.setattr(streaming, "STRIDE", 3)
    keys = [f"{'deep' * 20}/{'er' * 20}/{number:03d}" for number in range(60)]
    for part in range(3):
        members = []
        for number in range(20 * part, 20 * part + 20):
            members += [(f"{keys[number]}.cls", b"7"), (f"{keys[number]}.JPEG", jpeg(number))]
            members += [
                (f"{keys[number]}.json", b"[1]"),
                (f"text{number}.txt", b"no picture"),
                ("noname", b""),
            ]
        write_tar(tmp_path / "theirs" / f"part-{part}.tar", members, format)
    source = open_shards(str(tmp_path / "theirs" / "part-{0..2}.tar"), "train")
    wanted = [number for number in range(60) if split_of(keys[number]) == "train"]
    assert len(source) == len(wanted)
    stream = ShardStream(source, 0, 0, 1)
    shown = collections.Counter(
        stream.read(place).name for place in range(stream.lanes * len(wanted))
    )
    assert {name.rpartition("/")[2]: times for name, times in shown.items()} == {
        f"{number:03d}.jpeg": stream.lanes for number in wanted
    }


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(streaming, "BACKOFF", 0.001)
    servers = []

    def begin(folder, **options):
        servers.append(ShardServer(folder, **options))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"cut": 9000}, {"ranges": False}], ids=["good", "cut", "no ranges"]
)
def test_remote_shards_give_the_same_batches(tmp_path, serve, monkeypatch, options):
    for module in (shard_packer, streaming):
        monkeypatch.setattr(module, "STRIDE", 8)
    shards = packed(tmp_path, 60, 20)
    server = serve(shards, **options)
    expected = take(24, open_shards(str(shards), "train"))
    given = take(
        24, open_shards(server.url + "/{0000..0002}.tar", "train"), workers=0 if options else 3
    )
    assert all(torch.equal(one.rgb, two.rgb) for one, two in zip(given, expected, strict=True))
    first = [number for name, number in server.requests if name.endswith(".tar")]
    assert len(first) > 20 or not options.get("cut")
    assert any(0 < number for number in first) == options.get("ranges", True)


def test_what_is_measured_first_fetches_one_remote_shard(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(plan, "SAMPLE", 1000)
    shards = packed(tmp_path, 60, 20)
    server = serve(shards)
    config = presets.build("gan", image_size=32)
    far = plan.read_sample(config, open_shards(server.url, "train"))
    assert len(far) == 20 and {name for name, _ in server.requests if name.endswith(".tar")} == {
        "0000.tar"
    }
    here = plan.read_sample(config, open_shards(str(shards), "train"))
    assert sorted(map(number_of, here)) == list(range(60))  # what lies here is spread over all
    monkeypatch.setattr(plan, "SAMPLE", 6)
    assert (
        len({number_of(rgb) for rgb in plan.read_sample(config, open_shards(str(shards), "train"))})
        == 6
    )


def test_a_server_in_trouble_is_asked_again(tmp_path, serve, caplog):
    server = serve(packed(tmp_path, 60, 20))
    source = open_shards(server.url, "train")
    server.statuses = [503, 500]
    with caplog.at_level(logging.INFO, "gancolor"):
        assert len(numbers(take(1, source))) == 5
    assert "HTTP 503" in caplog.text and "HTTP 500" in caplog.text


def test_remote_shards_that_cannot_be_had_are_one_line(tmp_path, serve):
    shards = packed(tmp_path, 60, 20)
    server = serve(shards)
    source = open_shards(server.url, "train")
    with (shards / "0001.tar").open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(DataError, match="bytes that its list tells|bytes, not the") as caught:
        take(24, source)
    assert "\n" not in str(caught.value) and "@" not in str(caught.value)
    for shard in shards.glob("*.tar"):
        shard.unlink()
    with pytest.raises(DataError, match="HTTP 404"):
        take(24, source)
    server.stop()
    with pytest.raises(DataError, match=r"tried 6 times.*is the server there\?"):
        take(1, source)


def test_shards_are_not_cached(sixty):
    with pytest.raises(ConfigError, match="--cache must be none with shards, got ram"):
        take(1, sixty, cache="ram")


@pytest.mark.parametrize("missing", ["cache", "library"])
def test_what_shards_cannot_do_is_said_before_a_run_begins(tiny, tmp_path, monkeypatch, missing):
    def read(*_):
        pytest.fail("the held-out pictures were read first")

    monkeypatch.setattr(ShardSource, "read", read)
    config = dataclasses.replace(
        tiny, dataset=str(packed(tmp_path, 12)), cache="disk" if missing == "cache" else "none"
    )
    if missing == "library":
        monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ConfigError if missing == "cache" else MissingExtra):
        train(config, runs_root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_picture_that_is_damaged_but_can_be_decoded_is_left_out(tmp_path, caplog):
    shards = packed(tmp_path, 24)
    data = bytearray((shards / "0000.tar").read_bytes())
    data[data.index(b"\xff\xdb") + 6] ^= 1  # in a table of the first picture
    (shards / "0000.tar").write_bytes(data)
    source = open_shards(str(shards), "train")
    with caplog.at_level(logging.WARNING, "gancolor"):
        batches = take(12, source, batch_size=2)
    assert [len(batch.broken) for batch in batches].count(
        1
    ) == 1 and "it is not as it was packed" in caplog.text


def test_what_killed_runs_left_in_memory_is_removed(sixty, tmp_path, monkeypatch):
    monkeypatch.setattr(picture_cache, "MEMORY", tmp_path)
    left = picture_cache.memory_folder() / "mine-16"
    left.mkdir()
    (left / "data.mdb").write_bytes(bytes(5000))
    take(1, sixty)
    assert not left.exists()


def test_without_the_library_the_error_says_how_to_get_it(sixty, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(MissingExtra, match=r"pip install 'gancolor\[shards\]'"):
        take(1, sixty)


def test_the_order_of_folders_is_the_generators_permutation():
    order = loader._Keys(1000, 7, 4, 0, 0, 1)._order(3)
    assert order.dtype == np.int32
    assert np.array_equal(order, np.random.default_rng([7, 3, 1]).permutation(1000))
