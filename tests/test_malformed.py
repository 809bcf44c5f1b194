"""Files made by hand or by accident: each is read, or refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import campaign_checkpoints
import campaign_stops
import forkserver
import pytest
import torch

from gancolor.coloring.colorizer import Colorizer
from gancolor.config import TrainConfig
from gancolor.data import catalog, shard_listing
from gancolor.errors import CheckpointError, DamagedCheckpoint, DataError, WeightsError
from gancolor.evaluation import page
from gancolor.models import embeddings, pretrained
from gancolor.models.pretrained import read_state
from gancolor.runtime.files import json_of, toml_of
from gancolor.storage import checkpoint
from gancolor.training import logbook, rundir, train
from gancolor.training.health import Health
from gancolor.training.state import State


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step; read only."""
    return train(campaign_checkpoints.tiny(), runs_root=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def whole(trained: Path) -> dict[str, Any]:
    return torch.load(trained / "last.pt", weights_only=True)


@pytest.fixture(scope="module")
def read(trained: Path) -> dict[str, Any]:
    """What the reader makes of it; only to be looked at."""
    return checkpoint.load(trained / "last.pt")


def go_on(path: Path) -> State:
    return begin(checkpoint.load(path))


def begin(content: dict[str, Any]) -> State:
    return State(content["config"], torch.device("cpu"), content)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> None:
    assert str(error.value).isprintable() and len(str(error.value)) < 1000


WRONG_KINDS = {
    "generator a list": {"generator": []},
    "generator of numbers": {"generator": {"last.weight": 5}},
    "generator by number": {"generator": {1: torch.zeros(1)}},
    "sparse": {"generator": {"a": torch.zeros(2).to_sparse()}},
    "nowhere": {"ema": {"a": torch.empty(2, device="meta")}},
    "no head": {"head": None},
    "step a text": {"step": "5"},
    "step below": {"step": -1},
    "step beyond": {"seen": 10**400},
    "step yes": {"step": True},
    "seconds a tensor": {"seconds": torch.ones(())},
    "origin a number": {"origin": 3},
    "version a list": {"version": [1]},
    "shares none": {"shares": None},
    "val of texts": {"val": {"ciede2000": "1"}},
    "optimizers a tensor": {"optimizers": torch.zeros(3)},
    "set a list": {"set": [1]},
}


@pytest.mark.parametrize("name", WRONG_KINDS)
def test_what_a_checkpoint_holds_is_of_its_kind(
    tmp_path: Path, whole: dict[str, Any], name: str
) -> None:
    torch.save({**whole, **WRONG_KINDS[name]}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"last.pt must hold .* as its ") as caught:
        checkpoint.load(tmp_path / "last.pt")
    one_line(caught)
    assert not isinstance(caught.value, DamagedCheckpoint)


@pytest.mark.parametrize(
    "given", [torch.zeros(3), torch.ones(()), [1], None, "1", True, 1.0, 10**400]
)
def test_a_format_that_is_no_number_is_another_format(
    tmp_path: Path, whole: dict[str, Any], given: Any
) -> None:
    torch.save({**whole, "format": given}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="must have checkpoint format 1, got") as caught:
        checkpoint.load(tmp_path / "last.pt")
    one_line(caught)


def first(state: dict[str, Any]) -> tuple[str, torch.Tensor]:
    return next((key, value) for key, value in state.items() if value.ndim > 1)


@pytest.mark.slow
def test_tensors_that_are_missing_or_of_another_shape_do_not_fit(
    tmp_path: Path, whole: dict[str, Any], read: dict[str, Any]
) -> None:
    path = tmp_path / "last.pt"
    key, value = first(whole["generator"])
    for part in ("generator", "ema"):
        lost = {name: tensor for name, tensor in whole[part].items() if name != key}
        for other in (
            lost,
            {**whole[part], key: value[..., None]},
            {**whole[part], "more": value},
            {},
        ):
            with pytest.raises(CheckpointError, match="does not fit its own config") as caught:
                begin({**read, part: other})
            one_line(caught)
    for other in ({}, {"a": value}):
        torch.save({**whole, "generator": other, "ema": other}, path)
        with pytest.raises(
            CheckpointError, match="must hold a generator that fits its settings"
        ) as caught:
            Colorizer.load(path, device="cpu")
        one_line(caught)
    for part in (
        "generator",
        "ema",
        "head",
        "backbone",
        "optimizers",
        "health",
        "shares",
        "step",
        "best",
    ):
        torch.save({name: item for name, item in whole.items() if name != part}, path)
        with pytest.raises(
            CheckpointError, match="last.pt|does not fit its own config|must hold a whole run"
        ):
            go_on(path)


def changed_optimizers(whole: dict[str, Any]) -> list[Any]:
    """Optimizers of the checkpoint, each wrong in another way."""
    saved = whole["optimizers"]["generator"]
    group, number = saved["param_groups"][0], next(iter(saved["state"]))
    moments = saved["state"][number]
    others: list[Any] = [
        {**saved, "param_groups": [{**group, "lr": "fast"}]},
        {**saved, "param_groups": [{**group, "betas": (0.9,)}]},
        {**saved, "param_groups": [{**group, "params": [0]}]},
        {**saved, "param_groups": []},
        {**saved, "param_groups": None},
        {**saved, "state": {number: {**moments, "exp_avg": torch.zeros(1)}}},
        {**saved, "state": {number: {"step": moments["step"]}}},
        {**saved, "state": {number: 5}},
        {**saved, "state": {10**6: moments}},
        {**saved, "state": []},
        {"state": {}},
        None,
    ]
    return [{**whole["optimizers"], "generator": other} for other in others] + [{}]


@pytest.mark.slow
def test_optimizers_of_another_kind_are_found_before_a_step(read: dict[str, Any]) -> None:
    for optimizers in changed_optimizers(read):
        with pytest.raises(CheckpointError, match="does not fit its own config") as caught:
            begin({**read, "optimizers": optimizers})
        one_line(caught)
    assert begin(read).step == 1


@pytest.mark.parametrize(
    "state",
    [
        {"sums": {"a": 1.0}, "counts": {"a": 0}, "streaks": {}},
        {"sums": {"a": "x"}, "counts": {"a": 1}, "streaks": {}},
        {"sums": {"a": 1.0}, "counts": {}, "streaks": {}},
        {"sums": {}, "counts": {}, "streaks": {"gray": "2"}},
    ],
)
def test_numbers_of_the_health_check_are_numbers(state: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="health check"):
        Health(rescue=False).load_state_dict(state)


@pytest.mark.parametrize("key", ["weights", "seed", "fingerprint", "identity", "origin"])
@pytest.mark.parametrize("value", ["../../elsewhere", 10**400, -1, [None], {1: 2}, "x" * 300])
def test_an_embedding_leads_nowhere_else(key: str, value: Any) -> None:
    """Its identity becomes the name of a folder."""
    saved: dict[str, Any] = {
        "name": "vgg16",
        "weights": None,
        "seed": 0,
        "fingerprint": None,
        "identity": "none-seed0",
        "origin": "x",
    }
    assert embeddings._check(saved, "vgg16") == saved
    if key == "origin" and isinstance(value, str):
        return
    with pytest.raises(CheckpointError, match=f"got another {key}"):
        embeddings._check({**saved, key: value}, "vgg16")


# --- archives ---


def packed(path: Path, content: Any, how: int, **changed: bytes) -> None:
    """Write a checkpoint whose members are packed, or replaced."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as old:
        held = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", how) as new:
        for name, data in held.items():
            new.writestr(name, changed.get(name.rpartition("/")[2].partition(".")[0], data))


@pytest.mark.slow
@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bomb_is_found_before_it_is_unpacked(
    tmp_path: Path, whole: dict[str, Any], how: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    packed(path, whole, how, data=bytes(8 << 20))
    assert path.stat().st_size < 4 << 20
    for name in ("open", "testzip", "read"):
        monkeypatch.setattr(zipfile.ZipFile, name, None)  # nothing is unpacked
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(DamagedCheckpoint, match="its members are packed"):
        checkpoint.load(path)
    with pytest.raises(WeightsError, match="its members are packed"):
        read_state(path, "VGG16")


def test_members_that_share_their_bytes_are_a_bomb_too(tmp_path: Path) -> None:
    """Every entry of the directory may point to the same bytes."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", bytes(1000))
        entry = archive.infolist()[0]
        for number in range(50):
            twin = zipfile.ZipInfo(f"a{number}")
            for name in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(twin, name, getattr(entry, name))
            archive.filelist.append(twin)
    with (
        zipfile.ZipFile(path) as archive,
        pytest.raises(zipfile.BadZipFile, match="its members are of 51,000 bytes"),
    ):
        pretrained.check_stored(archive, path.stat().st_size)


def test_packed_bytes_of_last_go_back_to_the_one_before(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    torch.save({**whole, "step": 0}, tmp_path / "last-1.pt")
    packed(tmp_path / "last.pt", whole, zipfile.ZIP_DEFLATED)
    assert checkpoint.load_last(tmp_path, mend=True)["step"] == 0
    assert (tmp_path / "last.pt.damaged").exists()


def test_a_whole_file_of_another_version_does_not_go_back(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    torch.save(whole, tmp_path / "last-1.pt")
    torch.save({**whole, "format": 2, "version": "9.9"}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="written by gancolor 9.9; use that version"):
        checkpoint.load_last(tmp_path, mend=True)
    assert not (tmp_path / "last.pt.damaged").exists()


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_a_refused_pickle_shows_no_way_to_load_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**whole, "x": Payload()}, tmp_path / "last.pt")
    torch.save({"x": Payload()}, tmp_path / "weights.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"x": Payload()}))
    readers: list[Callable[[], Any]] = [
        lambda: checkpoint.load(tmp_path / "last.pt"),
        lambda: read_state(tmp_path / "weights.pth", "VGG16"),
        lambda: read_state(tmp_path / "old.pth", "VGG16"),
    ]
    for read in readers:
        with pytest.raises((CheckpointError, WeightsError)) as caught:
            read()
        one_line(caught)
        words = str(caught.value)
        assert not any(
            advice in words for advice in ("weights_only", "trust", "still be loaded", "allowlist")
        )
        assert caught.value.__suppress_context__  # nor does a traceback
    assert not (tmp_path / "executed").exists()


def test_the_checkpoint_before_is_intact_only_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "last.pt"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            CheckpointError, match=r"could not be written \(No space left on device\)$"
        ):
            checkpoint.save(path, {"step": 1}, TrainConfig(), keep=tmp_path / "last-1.pt")
    checkpoint.save(path, {"step": 1}, TrainConfig())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="on device.; the checkpoint before it is intact"):
            checkpoint.save(path, {"step": 2}, TrainConfig(), keep=tmp_path / "last-1.pt")
    with pytest.raises(CheckpointError, match="its folder is gone: was it deleted or moved"):
        checkpoint.save(tmp_path / "gone" / "last.pt", {"step": 1}, TrainConfig())
    assert [each.name for each in tmp_path.iterdir()] == ["last.pt"]


# --- texts ---

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"versions": [1, 2], "settings": {"image_size": 1}}, "got none for"),
        ({"versions": None, "settings": {"new": 1}}, "written by gancolor None: .*unknown new"),
        ({"settings": None}, "got other JSON"),
        ({"settings": [1]}, "got other JSON"),
    ],
)
def test_versions_and_settings_of_any_kind(
    trained: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({**json.loads((trained / "config.json").read_text()), **change})
    )
    with pytest.raises(CheckpointError, match=words) as caught:
        rundir.read_config(tmp_path)
    one_line(caught)


@pytest.mark.parametrize(
    "text",
    [DEEP, '{"settings": ' + DEEP, "[]", "5", "null", "", "\udcff", '{"a": ' + "9" * 5000 + "}"],
)
def test_settings_that_are_no_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match="must be a run's settings, got") as caught:
        rundir.read_config(tmp_path)
    one_line(caught)


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), None, [], {}, "x", True, float("inf"), float("nan"), [1, "a"]]
)
def test_any_value_of_any_setting_is_taken_or_refused(
    trained: Path, tmp_path: Path, value: Any
) -> None:
    content = json.loads((trained / "config.json").read_text())
    for name in content["settings"]:
        settings = {**content["settings"], name: value}
        (tmp_path / "config.json").write_text(json.dumps({**content, "settings": settings}))
        try:
            assert isinstance(
                rundir.merge_settings(rundir.read_config(tmp_path), {"steps": 3}), TrainConfig
            )
        except CheckpointError as error:
            assert str(error).isprintable() and len(str(error)) < 1000


def test_depth_is_a_value_error() -> None:
    for read, text in ((json_of, DEEP), (json_of, '{"a":' * 100_000), (toml_of, f"a = {DEEP}")):
        with pytest.raises(ValueError, match="nested too deeply"):
            read(text)
    assert json_of(b'{"a": [1]}') == {"a": [1]} and toml_of("a = 1") == {"a": 1}


def test_a_set_that_is_nested_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f"a = {DEEP}")
    with pytest.raises(
        DataError, match="mine.toml must describe a dataset, got: it is nested too deeply"
    ):
        catalog.find("mine", tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"starts": [10**30, 10**31]},
        {"starts": [0]},
        {"starts": [65536, 0]},
        {"starts": [0, 2_000_000]},
        {"pictures": 10**30, "starts": []},
        {"bytes": 10**30},
        {"pictures": 10_000, "starts": []},
    ],
)
def test_places_that_no_shard_has(changes: dict[str, Any]) -> None:
    row: dict[str, Any] = {
        "file": "0.tar",
        "split": "train",
        "pictures": 70,
        "bytes": 10**6,
        "sha256": "0" * 64,
    }
    head = {"gancolor shards": 1, "name": "n", "licence": "l", "plan": "p"}

    def parse(row: dict[str, Any]) -> shard_listing.Listing:
        return shard_listing.parse(json.dumps({**head, "shards": [row]}), "shards.json")

    assert parse({**row, "starts": [0, 65536]}).shards[0].starts == (0, 65536)
    with pytest.raises(DataError, match="shards.json must list shards, got") as caught:
        parse({**row, "starts": [0, 65536], **changes})
    one_line(caught)


def test_lines_of_a_log_may_be_anything(tmp_path: Path) -> None:
    lines = [
        "{",
        "[1]",
        "5",
        "null",
        '{"step": "x"}',
        '{"step": [1]}',
        DEEP,
        '{"step": 1}',
        '{"step": 9}',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    logbook._drop_after(tmp_path / "log.jsonl", 5, ended=False)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n'
    lines = [{"step": 1, "epoch": epoch, "generator/l1": 2.5} for epoch in (10**400, 1)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    curve = page.read_curves(tmp_path / "log.jsonl")["reconstruction"]
    assert (curve.epochs, curve.values) == ([1], [2.5])


# --- campaigns ---


@pytest.mark.slow
def test_a_small_campaign_of_checkpoints_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign_checkpoints.main(["--count", "40", "--seed", "3"]) == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_a_small_campaign_of_kills(tmp_path: Path) -> None:
    assert forkserver.ADDRESS in os.environ
    counts, wrong = campaign_stops.campaign(tmp_path, 5, seed=3)
    assert not wrong and counts["killed"] == 5, (counts, wrong)
