"""benchmarks/gpu.py: what it counts, what it leaves out and says, and its rehearsal on the CPU."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import device_rates
import gpu
import gpu_report
import pytest
import stand_ins
import torch
from gpu_report import TINY, Report, Sizes
from macs import count_macs
from torch import nn

CPU = torch.device("cpu")


def report_of(sizes: Sizes, **options: Any) -> Report:
    return Report(SimpleNamespace(**{"out": None, **options}), sizes, CPU)


def test_operations_bytes_and_convolutions_are_counted() -> None:
    layer = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    x = torch.randn(2, 3, 16, 16)
    operations, work = device_rates.count(lambda: layer(x).sum().backward())
    forward = 2 * count_macs(layer, x)
    assert operations == 2 * forward  # no gradient of x is asked for
    assert [func._schema.name for func, _ in work.convolutions] == [
        "aten::convolution",
        "aten::convolution_backward",
    ]
    y = torch.zeros(1000)
    assert device_rates.count(lambda: y + y)[1].bytes == 3 * 4000
    assert device_rates.count(lambda: y.view(10, 100))[1].bytes == 0
    alone, share = device_rates.convolution_seconds(work, CPU, lambda: False)
    assert alone > 0 and share == 1
    assert device_rates.convolution_seconds(work, CPU, lambda: True) == (0, 0)


def test_a_library_that_is_not_there_may_be_named_but_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, stand_ins.StandIns(["no_such_library"])])
    library = importlib.import_module("no_such_library")
    part = importlib.import_module("no_such_library.part")
    for name in ("no_such_library", "no_such_library.part"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match="no_such_library.read is not installed"):
        library.read("picture.jpg")
    with pytest.raises(ImportError, match="no_such_library.Kind.read is not installed"):
        library.Kind.read("picture.jpg")
    try:
        raise ValueError
    except (part.Broken, ValueError):  # as code does that catches a library's errors
        pass
    assert stand_ins.missing(["json", "no_such_thing"]) == ["no_such_thing"]


def test_what_is_left_out_is_said_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(report: Report) -> None:
        raise RuntimeError("no such kernel\nwith details")

    monkeypatch.setattr(stand_ins, "ABSENT", ["av"])
    report = report_of(TINY, out=tmp_path / "gpu.json")
    report.run("one", 0.5, lambda report: {"answer": 42})
    report.run("films", 0.5, lambda report: pytest.fail("needs av"))
    report.run("two", 0.5, fail)
    report.began -= 60 * TINY.minutes
    report.run("three", 0.5, lambda report: pytest.fail("is late"))
    assert report.left_out == [
        "films: needs av, which this Python has not",
        "two: no such kernel",
        "three: no time left",
    ]
    assert all(f"LEFT OUT: {line}" in capsys.readouterr().out for line in report.left_out[:1])
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["one"] == {"answer": 42} and written["left out"] == report.left_out


def test_a_sweep_takes_the_best_batch_and_ends_where_memory_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def prepare(preset: str, size: int, batch: int, device: Any) -> Any:
        if batch > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch

    def seconds(batch: int, device: Any, least: float) -> float:
        tried.append(batch)
        return 1.0 + batch / 100

    monkeypatch.setattr(gpu, "prepare", prepare)
    monkeypatch.setattr(gpu, "seconds", seconds)
    monkeypatch.setattr(gpu, "shares", lambda *arguments: {})
    report = report_of(Sizes())
    report.ends = float("inf")
    best = gpu.sweep(report, "gan", 256)
    assert tried == [4, 8, 16] and best["batch"] == 16
    assert best["images/s"] == pytest.approx(16 / 1.16)
    monkeypatch.setattr(gpu, "seconds", lambda batch, *_: 1.0 * batch)  # nothing is gained
    assert gpu.sweep(report, "gan", 256)["batch"] == 4


@pytest.mark.slow
def test_the_rehearsal_measures_everything_that_it_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ["peaks", "training", "convolutions", "kernels", "network", "films"]
    sizes = dataclasses.replace(TINY, presets=("gan", "pix2pix"), batches=(2,))
    monkeypatch.setattr(gpu, "TINY", sizes)
    out = tmp_path / "gpu.json"
    command = ["gpu.py", "--tiny", "--parts", ",".join(parts), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(gpu.logging, "disable", lambda: None)
    gpu.main()
    found = json.loads(out.read_text())
    assert found["left out"] == [] and set(parts) < set(found)
    for row in found["training"]:
        assert row["images/s"] > 0 and 0 < row["of matmul, %"] and 0 < row["of memory, %"]
    assert 0 < found["convolutions"]["step of the convolutions' rate, %"] < 200
    assert len(found["kernels"]) == 10 and found["films"][0]["frames"] == 6
    assert set(found["targets on an H100"]) == set(gpu_report.TARGETS)
    assert "target on an H100" in capsys.readouterr().out


@pytest.mark.slow
def test_what_loaders_give_and_a_gpu_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import loaders

    monkeypatch.setenv("GANCOLOR_CACHE", str(tmp_path))  # put back at the end
    monkeypatch.setattr(loaders.logging, "disable", lambda: None)
    options = "--sizes 32 --count 10 --rounds 1 --batch 2 --original 96 128 --presets regression"
    monkeypatch.setattr(sys, "argv", ["loaders.py", *options.split()])
    loaders.main()
    said = capsys.readouterr().out
    for way in ("files of 2 MP", "prepare --resize", "--cache ram", "shards as", "pack --resize"):
        (row,) = (line for line in said.splitlines() if way in line)
        assert all(float(cell) > 0 for cell in row.split("|")[2:-1])
    needs = loaders.estimate("regression", 32)
    assert needs["images/s, estimate"] == min(needs["by operations"], needs["by bytes"])
    assert needs["by operations"] == pytest.approx(989e3 * 0.35 / needs["GFLOP"])
