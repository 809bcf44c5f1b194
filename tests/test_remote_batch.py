"""`gancolor sample` on addresses: fetched, coloured and sent, each file whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import clips
import cv2
import numpy as np
import pytest
import small_models
from serving import Server

from gancolor.batch import mirror, sent_report
from gancolor.batch.records import Record


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_models.write(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture
def bucket(sound_storage, request, monkeypatch, tmp_path):
    """An empty bucket."""
    monkeypatch.chdir(tmp_path)
    return sound_storage.bucket(f"b{abs(hash(request.node.name)) % 10**9}")


@pytest.fixture
def old(tmp_path):
    """A folder of gray pictures."""
    for number, name in enumerate(("a.jpg", "sub/b.png", "sub/c.jpg")):
        path = tmp_path / "old" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.full((30, 40), 90 + 20 * number, np.uint8))
    (tmp_path / "old" / "notes.txt").write_text("no picture")
    return tmp_path / "old"


def report_of(storage, address):
    lines = storage.get(f"{address}/report.jsonl").decode().splitlines()
    return [json.loads(line) for line in lines]


def left_here(tmp_path):
    """What a batch has left in the cache folder."""
    return list((tmp_path / "gancolor-cache").rglob("*.*"))


@pytest.mark.slow
def test_a_folder_in_storage_becomes_another_as_one_here_does(
    cli, storage, bucket, model, old, tmp_path
):
    storage.put_folder(old, f"{bucket}/old")
    here = cli("sample", old, "--out", "new", "--run", model)
    there = cli("sample", f"{bucket}/old/", "--out", f"{bucket}/new/", "--run", model)
    assert here.exit_code == there.exit_code == 0, there.output
    assert f"3 of 3 files coloured; {bucket}/new/report.jsonl lists them" in there.stdout
    assert "1 .txt" in there.stdout
    for path in (tmp_path / "new").rglob("*.[jp]*g"):
        name = path.relative_to(tmp_path / "new").as_posix()
        assert storage.get(f"{bucket}/new/{name}") == path.read_bytes()
    records = report_of(storage, f"{bucket}/new")
    assert [(each["source"], each["targets"], each["status"]) for each in records] == [
        (f"{bucket}/old/{name}", [f"{bucket}/new/{name}"], "done")
        for name in ("a.jpg", "sub/b.png", "sub/c.jpg")
    ]
    assert not left_here(tmp_path)


@pytest.mark.slow
def test_what_is_there_is_left_or_refused_or_replaced(cli, storage, bucket, model, old, tmp_path):
    storage.put_folder(old, f"{bucket}/old")
    arguments = ("sample", f"{bucket}/old", "--out", f"{bucket}/old/new", "--run", model)
    storage.put(f"{bucket}/old/new/sub/b.png", b"mine")
    refused = cli(*arguments)
    assert refused.exit_code == 1
    words = f"result must not exist yet, got {bucket}/old/new/sub/b.png"
    assert words in refused.stderr and "2 of 3 files coloured" in refused.stdout
    again = cli(*arguments, "--skip-existing")
    assert again.exit_code == 0 and "0 of 3 files coloured, 3 had a result already" in again.stdout
    assert storage.get(f"{bucket}/old/new/sub/b.png") == b"mine"
    assert cli(*arguments, "--overwrite").exit_code == 0
    assert storage.get(f"{bucket}/old/new/sub/b.png") != b"mine"
    records = report_of(storage, f"{bucket}/old/new")  # of three batches
    assert [each["status"] for each in records].count("done") == 5 and len(records) == 9
    assert cli("sample", f"{bucket}/old", "--out", f"{bucket}/old").exit_code == 2


@pytest.mark.slow
def test_files_here_go_to_an_address_and_back(cli, storage, bucket, model, old, tmp_path):
    sent = cli(
        *("sample", old, "--out", f"{bucket}/new", "--run", model, "--format", "png"),
        *("--confidence", "--workers", 2),
    )
    if sent.exit_code == 2:  # a model that says no distribution
        sent = cli("sample", old, "--out", f"{bucket}/new", "--run", model, "--format", "png")
    assert sent.exit_code == 0, sent.output
    assert "new/sub/c.png" in storage.keys(bucket)
    storage.put_folder(old, f"{bucket}/old")
    fetched = cli(
        "sample", f"{bucket}/old/sub", f"{bucket}/old/a.jpg", "--out", "back", "--run", model
    )
    assert fetched.exit_code == 0, fetched.output
    found = sorted(path.name for path in Path("back").rglob("*.*"))
    assert found == ["a.jpg", "b.png", "c.jpg", "report.jsonl"]
    records = [json.loads(line) for line in Path("back/report.jsonl").read_text().splitlines()]
    assert records[0]["source"] == f"{bucket}/old/sub/b.png"
    assert records[0]["targets"] == ["back/b.png"] and not left_here(tmp_path)


@pytest.mark.slow
def test_a_transfer_that_fails_costs_one_file_and_leaves_nothing_half_written(
    cli, storage, bucket, model, old, tmp_path
):
    storage.put_folder(old, f"{bucket}/old")
    storage.proxy.refuse["PUT /" + bucket[5:] + "/new/sub/b.png"] = 403
    storage.proxy.refuse["GET /" + bucket[5:] + "/old/sub/c.jpg"] = 503
    arguments = ("sample", f"{bucket}/old", "--out", f"{bucket}/new", "--run", model)
    failed = cli(*arguments)
    assert failed.exit_code == 1 and "1 of 3 files coloured" in failed.stdout
    assert f"{bucket}/new/sub/b.png could not be written: access is denied" in failed.stderr
    assert f"download of {bucket}/old/sub/c.jpg failed: " in failed.stderr
    assert "tried 5 times" in failed.stderr and str(tmp_path) not in failed.stderr
    assert [key for key in storage.keys(bucket) if key.startswith("new/")] == [
        *("new/a.jpg", "new/report.jsonl")
    ]
    storage.proxy.refuse.clear()
    storage.proxy.cuts += [100]  # a picture's bytes break off once
    assert cli(*arguments, "--skip-existing").exit_code == 0
    assert not storage.proxy.cuts and not left_here(tmp_path)


@pytest.mark.slow
def test_no_rights_and_no_bucket_are_told_before_anything_is_coloured(
    cli, storage, bucket, model, old
):
    for out, words in (
        ("s3://nowhere/new", "s3://nowhere/new could not be listed: there is no such bucket"),
        ("https://host/new", "--out must be a path, or begin with s3:// or gs://, got https://"),
        ("hf://datasets/a/b", "--out must be a path, or begin with s3:// or gs://"),
    ):
        result = cli("sample", old, "--out", out, "--run", model)
        assert result.exit_code != 0 and words in result.stderr, result.output
    storage.proxy.refuse["PUT"] = 403
    result = cli("sample", old, "--out", f"{bucket}/new", "--run", model)
    assert f"{bucket}/new/report.jsonl could not be written: access is denied" in result.stderr
    assert not storage.keys(bucket)
    for given, words in (
        ("ftp://host/a.jpg", "INPUT must be a path, or begin with s3://, gs://, hf://datasets/ or"),
        ("s3://nowhere/old/", "could not be listed: there is no such bucket"),
        (f"{bucket}/none/", "input must be the address of a file or folder"),
    ):
        result = cli("sample", given, "--out", "new", "--run", model)
        assert result.exit_code != 0 and words in result.stderr, result.output
    kept = cli("sample", old, "--out", f"{bucket}/new", "--run", model, "--keep-dates")
    assert kept.exit_code == 2 and "--keep-dates must be left out" in kept.stderr


def test_a_report_that_cannot_be_sent_for_a_while_loses_nothing(
    storage, bucket, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(sent_report, "INTERVAL", -1.0)
    found = mirror.Mirror(tmp_path / "m", f"{bucket}/new")
    with sent_report.SentReport(found.results, found) as report:
        storage.proxy.refuse["PUT"] = 403
        report.write(Record(str(found.source_of(f"{bucket}/old/a.jpg"))))
        assert "report.jsonl could not be written: access is denied" in caplog.text
        storage.proxy.refuse.clear()
    with sent_report.SentReport(found.results, found) as report:  # another batch
        report.write(Record(str(found.source_of(f"{bucket}/old/b.jpg"))))
        assert len(report_of(storage, f"{bucket}/new")) == 2  # sent already
    sources = [each["source"] for each in report_of(storage, f"{bucket}/new")]
    assert sources == [f"{bucket}/old/a.jpg", f"{bucket}/old/b.jpg"]


def test_a_signed_address_is_fetched_and_never_told(cli, bucket, model, old):
    server = Server((old / "a.jpg").read_bytes())
    try:
        signed = f"{server.address}/x/a%20b.jpg?X-Amz-Signature=0815&X-Amz-Credential=AKIA"
        result = cli("sample", signed, "--out", "new", "--run", model)
        assert result.exit_code == 0, result.output
        gone = cli("sample", f"{server.address}/?sig=4711", "--out", "new2", "--run", model)
        assert gone.exit_code == 1
    finally:
        server.stop()
    report = Path("new/report.jsonl").read_text() + Path("new2/report.jsonl").read_text()
    assert json.loads(report.splitlines()[0])["source"] == f"{server.address}/x/a b.jpg"
    for text in (report, result.output, gone.output):
        assert not any(secret in text for secret in ("0815", "AKIA", "4711"))
    assert Path("new/a b.jpg").is_file() and "address of a file" in gone.stderr


def test_addresses_in_a_list_are_fetched_only_if_that_is_asked_for(
    cli, storage, bucket, model, old
):
    storage.put_folder(old, f"{bucket}/old")
    storage.proxy.asked.clear()
    listed = f"{bucket}/old/a.jpg\nold/sub/b.png\n"
    arguments = ("sample", "-", "--out", "new", "--run", model)
    refused = cli(*arguments, input=listed)
    assert refused.exit_code == 1 and "use --list-addresses" in refused.stderr
    assert not storage.proxy.asked and Path("new/old/sub/b.png").is_file()
    fetched = cli(*arguments, "--list-addresses", "--skip-existing", input=listed)
    assert fetched.exit_code == 0, fetched.output
    assert Path("new", bucket[5:], "old", "a.jpg").is_file()


def test_a_dry_run_fetches_and_writes_nothing(cli, storage, bucket, model, old):
    storage.put_folder(old, f"{bucket}/old")
    storage.proxy.asked.clear()
    told = cli("sample", f"{bucket}/old", "--out", f"{bucket}/new", "--run", model, "--dry-run")
    assert told.exit_code == 0, told.output
    assert f"{bucket}/old/sub/c.jpg -> {bucket}/new/sub/c.jpg" in told.stdout
    assert "3 at addresses, which were not looked into" in told.stdout
    assert {method for method, _, _ in storage.proxy.asked} <= {"GET", "HEAD"}
    assert not any("old/a.jpg" in path for _, path, _ in storage.proxy.asked)


@pytest.mark.slow
def test_pictures_of_a_folder_are_coloured_alike_wherever_they_lie(
    cli, storage, bucket, old, tmp_path
):
    model = small_models.write(tmp_path / "hinted.safetensors", hints=0.5)
    storage.put_folder(old, f"{bucket}/old")
    here = cli("sample", old, "--out", "new", "--run", model, "--consistent")
    there = cli("sample", f"{bucket}/old", "--out", f"{bucket}/new", "--run", model, "--consistent")
    assert here.exit_code == there.exit_code == 0, there.output
    for path in (tmp_path / "new").rglob("*.[jp]*g"):
        name = path.relative_to(tmp_path / "new").as_posix()
        assert storage.get(f"{bucket}/new/{name}") == path.read_bytes()


@pytest.mark.slow
def test_worker_processes_fetch_and_send(cli, storage, bucket, model, old, tmp_path):
    storage.put_folder(old, f"{bucket}/old")
    arguments = ("sample", f"{bucket}/old", "--out", f"{bucket}/new", "--run", model)
    assert cli(*arguments, "--workers", 2).exit_code == 0
    assert sorted(key for key in storage.keys(bucket) if key.startswith("new/")) == [
        *("new/a.jpg", "new/report.jsonl", "new/sub/b.png", "new/sub/c.jpg")
    ]
    assert not left_here(tmp_path)


@pytest.mark.slow
def test_a_film_in_storage_is_coloured_into_storage(cli, storage, bucket, model, tmp_path):
    pytest.importorskip("av")
    film = clips.film(tmp_path / "in.mkv", frames=8)
    storage.put(f"{bucket}/old/in.mkv", film.read_bytes())
    storage.proxy.refuse["PUT /" + bucket[5:] + "/new/in.mkv"] = 403
    arguments = ("sample", f"{bucket}/old", "--out", f"{bucket}/new", "--run", model)
    failed = cli(*arguments)
    assert failed.exit_code == 1 and "could not be written: access is denied" in failed.stderr
    assert "new/in.mkv" not in storage.keys(bucket)
    storage.proxy.refuse.clear()
    done = cli(*arguments, "--skip-existing")
    assert done.exit_code == 0, done.output
    made = tmp_path / "made.mkv"
    made.write_bytes(storage.get(f"{bucket}/new/in.mkv"))
    assert made.stat().st_size > 1000 and not left_here(tmp_path)
    assert report_of(storage, f"{bucket}/new")[-1]["targets"] == [f"{bucket}/new/in.mkv"]


def test_a_mirror_tells_addresses_for_paths(tmp_path):
    found = mirror.Mirror(tmp_path / "m", "s3://bucket/new/")
    source = found.source_of("s3://bucket/old/ä b.jpg")
    target = found.results / "sub" / "ä b.jpg"
    assert found.address_of(target) == "s3://bucket/new/sub/ä b.jpg"
    assert found.told(f"{source} -> {target}: {found.results}") == (
        "s3://bucket/old/ä b.jpg -> s3://bucket/new/sub/ä b.jpg: s3://bucket/new"
    )
    one, other = (found.source_of(f"https://host/view.jpg?id={number}") for number in (1, 2))
    assert (
        one != other and found.told(str(one)) == found.told(str(other)) == "https://host/view.jpg"
    )
