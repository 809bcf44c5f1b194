"""Batches: the same pictures whatever the workers, the resume point and the processes; broken
pictures replaced.
"""

from __future__ import annotations

import functools
import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import textwrap

import few_batches
import forkserver
import numpy as np
import pytest
import torch

from gancolor.config import TrainConfig
from gancolor.data import aging, dataset, example, folder, loader, picture_cache
from gancolor.data.still_life import composition
from gancolor.errors import ConfigError, DataError


class Noise:
    """Pictures of noise, some of them broken."""

    def __init__(self, count=7, broken=(), size=(40, 50)):
        self.count, self.broken, self.size = count, set(broken), size

    def __len__(self):
        return self.count

    def name(self, index):
        return f"picture {index}"

    def read(self, index):
        if index in self.broken:
            raise DataError(f"picture {index} is broken")
        return np.random.default_rng(index).integers(0, 256, (*self.size, 3), np.uint8)


class Flat(Noise):
    """Every pixel of picture i is i."""

    def read(self, index):
        if index in self.broken:
            raise DataError(f"picture {index} is broken")
        return np.full((*self.size, 3), index, np.uint8)


settings = functools.partial(few_batches.settings, image_size=32, batch_size=4)
take = functools.partial(few_batches.take, image_size=32, batch_size=4)


def rgb_of(batches):
    return torch.stack([batch.rgb for batch in batches])


def test_batch_is_uint8_channels_first():
    (batch,) = take(1, Noise())
    assert (
        batch.rgb.shape == (4, 3, 32, 32)
        and batch.rgb.dtype == torch.uint8
        and batch.rgb.is_contiguous()
    )
    assert batch.edges is None and list(batch.broken) == []


def test_real_settings_give_the_same_batches():
    config = TrainConfig(image_size=32, zoom=0.5, batch_size=4, seed=1, workers=0, device="cpu")
    (batch,) = itertools.islice(loader.batches(Noise(), config=config), 1)
    assert torch.equal(batch.rgb, take(1, Noise())[0].rgb)


def test_mixed_batches_have_a_shape_each_alike_in_all_processes():
    def shapes(**others):
        config = TrainConfig(
            framing="mixed", image_size=32, batch_size=4, seed=1, device="cpu", **others
        )
        kinds = {"rank": 1, "world": 2} if others["workers"] else {}
        batches = itertools.islice(loader.batches(Noise(), config=config, **kinds), 8)
        return [
            (batch.rgb.shape[2:], batch.squares.shape[2:], batch.aged.shape[2:])
            for batch in batches
        ]

    alone = shapes(workers=0, old_photos=0.5)
    assert all(rgb == squares == aged for rgb, squares, aged in alone)
    assert len(set(alone)) > 1
    assert shapes(workers=1, old_photos=0.5) == alone


def test_channels_stay_red_green_blue():
    class Red(Noise):
        def read(self, index):
            return np.full((40, 40, 3), (250, 20, 3), np.uint8)

    (batch,) = take(1, Red())
    assert batch.rgb[0].amax((1, 2)).tolist() == [250, 20, 3] == batch.rgb[0].amin((1, 2)).tolist()


def test_edges_come_with_the_crop_they_belong_to():
    (batch,) = take(1, Noise(), condition="edges")
    assert batch.edges.shape == (4, 1, 32, 32) and batch.edges.dtype == torch.uint8
    assert set(batch.edges.unique().tolist()) == {0, 255}
    from gancolor.images import arrays

    expected = arrays.edges(np.ascontiguousarray(batch.rgb[2].permute(1, 2, 0).numpy()))
    assert np.array_equal(batch.edges[2, 0].numpy(), expected)


def test_workers_change_nothing():
    alone = take(6, Noise(broken=[2]), condition="edges")
    helped = take(6, Noise(broken=[2]), condition="edges", workers=2)
    assert torch.equal(rgb_of(alone), rgb_of(helped))
    assert all(torch.equal(a.edges, b.edges) for a, b in zip(alone, helped, strict=True))
    assert [list(batch.broken) for batch in alone] == [list(batch.broken) for batch in helped]


def test_workers_take_nothing_from_the_global_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(1)
    for workers in (0, 1):
        torch.manual_seed(0)
        take(1, Noise(), workers=workers)
        assert torch.equal(torch.rand(1), expected)


def test_more_workers_than_cores_is_no_warning():
    batches = take(3, Noise(), workers=len(os.sched_getaffinity(0)) + 1)
    assert torch.equal(rgb_of(batches), rgb_of(take(3, Noise())))


@pytest.mark.slow
def test_spawned_workers_see_the_same_pictures():
    expected = rgb_of(take(2, Noise()))
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        assert torch.equal(rgb_of(take(2, Noise(), workers=1)), expected)
    finally:
        multiprocessing.set_start_method(before, force=True)


def squares_of(batches):
    return torch.stack([batch.squares for batch in batches])


def test_squares_of_hints_come_with_a_share_of_the_pictures():
    batches = take(50, Noise(), hints=0.5)
    squares = squares_of(batches)
    assert squares.shape == (50, 4, 1, 32, 32) and squares.dtype == torch.uint8
    assert 0.35 < float((squares.flatten(2).amax(2) > 0).float().mean()) < 0.6
    plain = take(50, Noise())
    assert all(batch.squares is None for batch in plain)
    assert torch.equal(rgb_of(batches), rgb_of(plain))  # the crops do not know of them
    # other ones each
    assert (
        len({tuple(one.flatten().tolist()) for one in squares.flatten(0, 1)} - {(0,) * 1024}) > 60
    )
    assert not torch.equal(squares_of(take(3, Noise(), hints=0.5, seed=2)), squares[:3])


@pytest.mark.slow
def test_squares_of_hints_are_the_same_whatever_the_workers_the_start_and_the_processes():
    wanted = squares_of(take(6, Noise(), hints=0.5))
    for workers in (1, 3):
        assert torch.equal(squares_of(take(6, Noise(), hints=0.5, workers=workers)), wanted)
    assert torch.equal(squares_of(take(4, Noise(), hints=0.5, start_step=2)), wanted[2:])
    parts = [squares_of(take(6, Noise(), hints=0.5, rank=rank, world=2)) for rank in range(2)]
    assert torch.equal(torch.cat(parts, 1), wanted)
    other = {"condition": "edges", "framing": "center", "flip": False}
    # of the position alone
    assert torch.equal(squares_of(take(6, Noise(broken=[2]), hints=0.5, **other)), wanted)


def aged_of(batches):
    return [(batch.aged, batch.is_aged) for batch in batches]


def same_aged(batches, expected):
    pairs = zip(aged_of(batches), aged_of(expected), strict=True)
    return all(torch.equal(one, two) for parts in pairs for one, two in zip(*parts, strict=True))


def test_half_of_the_pictures_are_aged_and_the_truth_stays():
    batches = take(30, Noise(), old_photos=0.5)
    assert torch.equal(rgb_of(batches), rgb_of(take(30, Noise())))
    for aged, is_aged in aged_of(batches):
        assert aged.shape == (4, 1, 32, 32) and aged.dtype == torch.uint8
        assert is_aged.shape == (4,) and is_aged.dtype == torch.bool
        assert torch.equal(aged.flatten(1).any(1), is_aged)  # zeros where it is not
    drawn = torch.stack([batch.is_aged for batch in batches])
    assert 40 < drawn.sum() < 80  # of 120
    assert 0 < sum(bool(few.any()) and not few.all() for few in drawn)  # both in one batch
    assert all(batch.is_aged.all() for batch in take(5, Noise(), old_photos=1.0))


def test_an_aged_picture_is_that_of_its_square_at_its_position():
    batches = take(6, Noise(), old_photos=0.5)
    pairs = [pair for batch in batches for pair in zip(batch.rgb, batch.aged, strict=True)]
    for position, (rgb, aged) in enumerate(pairs):
        expected = aging.draw(np.ascontiguousarray(rgb.permute(1, 2, 0).numpy()), 0.5, 1, position)
        assert np.array_equal(aged[0].numpy(), np.zeros((32, 32)) if expected is None else expected)


def test_without_old_photos_batches_hold_none():
    (batch,) = take(1, Noise())
    assert batch.aged is None and batch.is_aged is None


@pytest.mark.slow
def test_aged_pictures_are_the_same_whatever_the_workers_the_start_and_the_processes():
    asked = {"old_photos": 0.5, "batch_size": 8}
    whole = take(6, Noise(broken=[2]), **asked)
    assert same_aged(take(6, Noise(broken=[2]), workers=2, **asked), whole)
    assert same_aged(take(3, Noise(broken=[2]), start_step=3, **asked), whole[3:])
    parts = [take(6, Noise(broken=[2]), rank=rank, world=2, **asked) for rank in range(2)]
    for step, batch in enumerate(whole):
        for name in ("rgb", "aged", "is_aged"):
            assert torch.equal(
                torch.cat([getattr(part[step], name) for part in parts]), getattr(batch, name)
            )
    other = take(6, Noise(broken=[2]), seed=2, **asked)
    assert [batch.is_aged.tolist() for batch in other] != [
        batch.is_aged.tolist() for batch in whole
    ]


@pytest.mark.parametrize("framing", ["random", "center", "white", "stretch"])
def test_copies_come_with_their_keys_whatever_the_workers_and_the_start(framing):
    asked = {"framing": framing, "embedding_size": 48}
    batches = take(4, Noise(), **asked)
    assert all(
        batch.copies.shape == (4, 3, 48, 48) and batch.copies.dtype == torch.uint8
        for batch in batches
    )
    for batch in batches:
        made = [example.content_key(copy.permute(1, 2, 0).numpy()) for copy in batch.copies]
        assert list(batch.keys) == made
    for others in (
        take(4, Noise(), workers=2, **asked),
        take(2, Noise(), **asked) + take(2, Noise(), start_step=2, **asked),
    ):
        assert [list(batch.keys) for batch in others] == [list(batch.keys) for batch in batches]
        assert all(
            torch.equal(one.copies, two.copies) for one, two in zip(others, batches, strict=True)
        )
    small = Noise(size=(30, 44))  # nothing is reduced beforehand, to the one size or the other
    plain = take(4, small, framing=framing)
    assert (
        torch.equal(rgb_of(plain), rgb_of(take(4, small, **asked)))
        and plain[0].copies is None
        and not plain[0].keys
    )


def test_pictures_are_reduced_to_what_the_crops_need_first():
    class Wide(Noise):
        def read(self, index):
            return np.random.default_rng(index).integers(0, 256, (200, 300, 3), np.uint8)

    augmentation = example.Augment(32, 0.5, True, "random", 48)
    small = picture_cache.reduce(Wide().read(0), example.needed_side(32, 0.5, "random", 48))
    assert small.shape == (79, 118, 3)  # 48 * sqrt(4 / 3 / 0.5) = 78.4
    (batch,) = take(1, Wide(1), embedding_size=48)
    square, copy = augmentation.views(small, 1, 3)
    assert np.array_equal(batch.rgb[3].permute(1, 2, 0).numpy(), square)
    assert np.array_equal(batch.copies[3].permute(1, 2, 0).numpy(), copy)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cache", "asked"),
    [
        ("ram", {"condition": "edges"}),
        ("disk", {"framing": "white", "embedding_size": 48}),
        ("ram", {"old_photos": 0.5}),
    ],
    ids=str,
)
def test_the_cache_changes_nothing_whatever_the_workers_and_the_start(
    painted, monkeypatch, tmp_path, cache, asked
):
    monkeypatch.setattr(picture_cache, "MEMORY", tmp_path)
    source = folder.open_folder(painted, "all")
    wanted = take(18, source, **asked)  # three times through 24 pictures

    def same(batches, expected):
        for one, two in zip(batches, expected, strict=True):
            assert torch.equal(one.rgb, two.rgb) and list(one.keys) == list(two.keys)
            for first, second in (
                (one.edges, two.edges),
                (one.copies, two.copies),
                (one.aged, two.aged),
            ):
                assert (first is None) == (second is None)
                assert first is None or torch.equal(first, second)

    same(take(18, source, cache=cache, **asked), wanted)
    held = loader.batches(
        source, config=settings(cache=cache, **asked), embedding_size=asked.get("embedding_size")
    )
    same(itertools.islice(held, 6), wanted[:6])
    # they are forked while this process has it open
    same(take(18, source, cache=cache, workers=2, **asked), wanted)
    same(take(7, source, cache=cache, workers=1, start_step=11, **asked), wanted[11:])
    same(itertools.islice(held, 12), wanted[6:])


@pytest.mark.slow
def test_the_second_epoch_reads_no_file(painted, tmp_path, monkeypatch):
    class Counted(folder.FolderSource):
        def read(self, index):
            with (tmp_path / f"read-{index}").open("a") as file:
                file.write("x")
            return super().read(index)

    def reads():
        return sorted(path.stat().st_size for path in tmp_path.glob("read-*"))

    monkeypatch.setattr(picture_cache, "DELAY", 0.0)
    source = Counted(painted, folder.find_pictures(painted))
    take(18, source, cache="disk", workers=2)
    # one worker may begin the second epoch while the other still reads the end of the first
    first = reads()
    assert len(first) == 24 and sum(first) <= 24 + 8
    for workers in (0, 2):
        take(18, source, cache="disk", workers=workers)
        assert reads() == first


def test_generated_pictures_are_kept_too(monkeypatch):
    def first(cache, **about):
        return take(
            1,
            dataset.open_source("still-life", "val", **({"image_size": 32, "seed": 3} | about)),
            cache=cache,
        )

    monkeypatch.setattr(picture_cache, "DELAY", 0.0)
    wanted = first("none")[0].rgb
    assert torch.equal(first("disk")[0].rgb, wanted)
    monkeypatch.setattr(composition, "paint", None)
    assert torch.equal(first("disk")[0].rgb, wanted)
    for other in ({"seed": 4}, {"image_size": 33}):  # another set of the same names
        with pytest.raises(TypeError):
            first("disk", **other)


def test_pictures_as_they_are_have_one_key_each_and_another_when_flipped():
    def keys(flip):
        return {
            key
            for batch in take(14, Noise(7), framing="center", flip=flip, embedding_size=32)
            for key in batch.keys
        }

    assert len(keys(False)) == 7 and len(keys(True)) == 14 and keys(False) < keys(True)
    # random crops
    assert len({key for batch in take(14, Noise(7), embedding_size=32) for key in batch.keys}) == 56


def test_the_key_tells_shapes_apart():
    flat = np.zeros((2, 8, 3), np.uint8)
    assert example.content_key(flat) != example.content_key(flat.reshape(4, 4, 3))
    assert example.content_key(flat) == example.content_key(flat.copy()[:, ::-1])


def test_held_out_copies_come_from_the_full_picture():
    held = loader.held_out(Noise(3, size=(96, 128)), 16, embedding_size=96)
    centre = Noise(3, size=(96, 128)).read(1)[:, 16:112]
    assert np.array_equal(held.copies[1].permute(1, 2, 0).numpy(), centre)
    assert held.rgb.shape == (3, 3, 16, 16) and list(held.keys)[1] == example.content_key(centre)


def test_pinning_covers_everything(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    batch = take(1, Noise(), condition="edges", embedding_size=32)[0]
    assert batch.pin_memory().keys == batch.keys
    assert [id(tensor) for tensor in pinned] == [id(batch.rgb), id(batch.edges), id(batch.copies)]
    pinned.clear()
    batch = take(1, Noise(), old_photos=0.5, hints=0.5)[0]
    assert torch.equal(batch.pin_memory().aged, batch.aged)
    assert [id(tensor) for tensor in pinned] == [
        id(x) for x in (batch.rgb, batch.squares, batch.aged, batch.is_aged)
    ]


@pytest.mark.parametrize("start", [1, 3, 5])
def test_starting_later_equals_skipping(start):
    assert torch.equal(
        rgb_of(take(3, Noise(), start_step=start)), rgb_of(take(start + 3, Noise())[start:])
    )


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_batch(world):
    whole = take(4, Noise())
    parts = [take(4, Noise(), rank=rank, world=world) for rank in range(world)]
    joined = [torch.cat([part[step].rgb for part in parts]) for step in range(4)]
    assert torch.equal(torch.stack(joined), rgb_of(whole))
    whole = take(2, Noise(), framing="white", embedding_size=40)
    parts = [
        take(2, Noise(), framing="white", embedding_size=40, rank=rank, world=world)
        for rank in range(world)
    ]
    for step in range(2):
        assert [key for part in parts for key in part[step].keys] == list(whole[step].keys)
        assert torch.equal(torch.cat([part[step].copies for part in parts]), whole[step].copies)


def test_batch_must_divide_by_the_processes():
    with pytest.raises(ConfigError, match="multiple of the 3 processes, got 4"):
        take(1, Noise(), world=3)


def test_every_pass_shows_each_picture_once_in_another_order():
    pictures = rgb_of(take(7 * 3, Flat(7)))[:, :, 0, 0, 0].flatten().tolist()
    passes = [pictures[i * 7 : (i + 1) * 7] for i in range(12)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(one) for one in passes}) > 8


def test_seed_changes_order_and_crops():
    assert not torch.equal(rgb_of(take(2, Noise(), seed=1)), rgb_of(take(2, Noise(), seed=2)))
    orders = [
        rgb_of(take(5, Flat(20), seed=seed))[:, :, 0, 0, 0].flatten().tolist() for seed in (1, 2)
    ]
    assert orders[0] != orders[1]


def test_one_picture_smaller_than_the_batch_and_the_size():
    batches = take(3, Noise(1, size=(5, 9)))
    assert rgb_of(batches).shape == (3, 4, 3, 32, 32)
    assert not torch.equal(batches[0].rgb[0], batches[0].rgb[1])  # other crops of it


def test_broken_picture_is_replaced_by_the_next_good_one_and_named(caplog):
    source = Flat(6, broken=[2, 3])
    with caplog.at_level(logging.WARNING, "gancolor"):
        batches = take(6, source, batch_size=2)
    shown = rgb_of(batches)[:, :, 0, 0, 0].flatten().tolist()
    wanted = rgb_of(take(6, Flat(6), batch_size=2))[:, :, 0, 0, 0].flatten().tolist()
    assert shown == [{2: 4, 3: 4}.get(index, index) for index in wanted]
    named = [name for batch in batches for name in batch.broken]
    # 2 runs into 3; two passes
    assert named.count("picture 3") == 4 and named.count("picture 2") == 2
    assert (
        caplog.text.count("picture 2 is broken") == 1
        and caplog.text.count("picture 3 is broken") == 1
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_no_readable_picture_is_one_line_without_traceback(workers):
    before = set(multiprocessing.active_children())
    with pytest.raises(DataError, match="got none of 3") as caught:
        take(1, Noise(3, broken=[0, 1, 2]), workers=workers)
    assert "\n" not in str(caught.value)
    # also while the error is kept
    assert set(multiprocessing.active_children()) <= before


def test_truncated_jpeg_among_good_ones_in_a_folder(tmp_path, caplog):
    import cv2

    for number in range(8):
        good, data = cv2.imencode(".jpg", Noise().read(number))
        assert good
        (tmp_path / f"{number}.jpg").write_bytes(data.tobytes()[: 400 if number == 5 else None])
    source = dataset.open_source(str(tmp_path), "all")
    batches = take(3, source)
    assert {name for batch in batches for name in batch.broken} == {"5.jpg"}
    assert "5.jpg" in caplog.text


def test_odd_kinds_of_pictures_train(tmp_path):
    import cv2

    noise = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "gray.png"), noise.integers(0, 256, (40, 40), np.uint8))
    cv2.imwrite(str(tmp_path / "alpha.png"), noise.integers(0, 256, (40, 40, 4), np.uint8))
    cv2.imwrite(str(tmp_path / "deep.png"), noise.integers(0, 65536, (40, 40, 3), np.uint16))
    cv2.imwrite(str(tmp_path / "tiny.bmp"), noise.integers(0, 256, (3, 2, 3), np.uint8))
    batches = take(2, dataset.open_source(str(tmp_path), "all"))
    assert rgb_of(batches).shape == (2, 4, 3, 32, 32)
    assert all(list(batch.broken) == [] for batch in batches)


def test_held_out_is_spread_evenly_and_centred():
    held = loader.held_out(Flat(10), 32, 5)
    rgb, edges, names = held.rgb, held.edges, held.names
    assert held.copies is None and not held.keys
    assert names == ["picture 0", "picture 2", "picture 4", "picture 6", "picture 8"]
    assert rgb.shape == (5, 3, 32, 32) and rgb.dtype == torch.uint8 and edges is None
    assert rgb[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8]


def test_held_out_takes_all_without_a_limit_and_leaves_broken_ones_out(caplog):
    held = loader.held_out(Noise(4, broken=[1]), 16, None, "edges", embedding_size=24)
    rgb, edges, names = held.rgb, held.edges, held.names
    assert names == ["picture 0", "picture 2", "picture 3"]
    assert rgb.shape == (3, 3, 16, 16) and edges.shape == (3, 1, 16, 16)
    assert held.copies.shape == (3, 3, 24, 24) and len(set(held.keys)) == 3
    assert list(held.keys) == [
        example.content_key(copy.permute(1, 2, 0).numpy()) for copy in held.copies
    ]
    assert "picture 1 is broken" in caplog.text


def test_held_out_of_only_broken_pictures():
    with pytest.raises(DataError, match="^held-out pictures must .* got 2 broken ones"):
        loader.held_out(Noise(2, broken=[0, 1]), 16, 10)


SCRIPT = """
import itertools, os, signal, sys, time
from types import SimpleNamespace
from gancolor.data import dataset, loader
settings = dict(image_size=32, zoom=0.5, flip=True, condition="gray", batch_size=2, seed=0, workers=2, device="cpu")
settings |= {"framing": "random", "cache": "none", "old_photos": 0.0, "hints": 0.5}
if __name__ == "__main__":
    stopped = []
    signal.signal(getattr(signal, sys.argv[1]), lambda *_: stopped.append(True))
    made = loader.batches(dataset.open_source("still-life", "train", image_size=32), config=SimpleNamespace(**settings))
    next(made)
    print("ready", flush=True)
    while not stopped:
        time.sleep(0.01)
    list(itertools.islice(made, 20))  # more than was prefetched: the workers still work
    del made
    print("finished", flush=True)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signal_to_the_whole_group_lets_the_step_finish_without_noise(tmp_path, name):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    process = forkserver.Popen(
        [str(tmp_path / "script.py"), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline().strip() == "ready"
    os.killpg(process.pid, getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), err) == (0, "finished", "")
