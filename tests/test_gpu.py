"""The path through CUDA: training, resuming, colouring pictures and films, memory that runs out.

    pytest -m gpu tests/test_gpu.py             on a machine with a GPU
    pytest -m slow tests/test_gpu.py            the rehearsal: the same tests on the CPU

Without CUDA the tests of `cuda` are skipped; what they do is rehearsed on `cpu` wherever it means
something there. With CUDA the networks have all their channels.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import layouts
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import TORCHRUN
from torch import Tensor

from gancolor import presets
from gancolor.coloring import views
from gancolor.coloring.colorizer import Colorizer
from gancolor.config import TrainConfig
from gancolor.data.loader import Batch
from gancolor.data.still_life import composition
from gancolor.errors import TrainingError
from gancolor.images import arrays
from gancolor.storage import checkpoint
from gancolor.training import loop, plan, train
from gancolor.training.state import State

if TYPE_CHECKING:
    from click.testing import Result

HAS_CUDA = torch.cuda.is_available()
REASON = "needs a CUDA GPU; the rehearsal on the CPU is pytest -m slow tests/test_gpu.py"
if HAS_CUDA:
    pytestmark = pytest.mark.full_width

ON_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not HAS_CUDA, reason=REASON)]
CUDA = pytest.param("cuda", marks=ON_CUDA)
CPU = pytest.param("cpu", marks=pytest.mark.slow)
both = pytest.mark.parametrize("device", [CUDA, CPU])
PRECISIONS = [
    *(pytest.param("cuda", precision, marks=ON_CUDA) for precision in ("fp32", "bf16", "fp16")),
    *(pytest.param("cpu", precision, marks=pytest.mark.slow) for precision in ("fp32", "bf16")),
]
MEAN_LEVELS = {"fp32": 0.25, "bf16": 1.0, "fp16": 0.5}
"""Levels of 255 by which colours may differ from the CPU's in float32, on average. Convolutions in
"fp32" are TF32's on a GPU, with ten bits behind the point."""
MOST_LEVELS = {"fp32": 3, "bf16": 12, "fp16": 6}
"""The same for 99.9 of 100 values."""


def settings(device: str, **changes: Any) -> TrainConfig:
    small: dict[str, Any] = {"image_size": 64, "batch_size": 4, "width": 8, "frozen_blocks": 4}
    small |= {"backbone_weights": "none", "val_pictures": 4, "workers": 0, "log_every": 1}
    small |= {"warmup": 0.4, "discriminator_warmup": 0.1, "ramp": 0.2, "precision": "fp32"}
    return presets.build("gan", **{**small, "device": device, **changes})


def logged(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


# On a CPU without bfloat16 fifty steps in it would take minutes; others rehearse single steps.
@pytest.mark.parametrize(("device", "precision"), PRECISIONS[:-1])
def test_fifty_steps_learn_colours(tmp_path: Path, device: str, precision: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(12):
        arrays.write_rgb(folder / f"{index}.png", composition.paint(1, index, (48, 48)))
    changes = {"steps": 50, "validate_every": 25, "lr": 3e-3, "image_size": 32}
    config = settings(device, precision=precision, dataset=str(folder), **changes)
    run = train(config, runs_root=tmp_path / "runs")
    assert checkpoint.load(run / "last.pt")["step"] == 50 and (run / "best.pt").exists()
    distances, deceits = (
        [line[name] for line in logged(run) if name in line]
        for name in ("generator/l1", "generator/adversarial")
    )
    assert (len(distances), len(deceits)) == (45, 25)  # five are the discriminator's alone
    assert np.mean(distances[-10:]) < np.mean(distances[:10]) and np.isfinite(deceits).all()
    report = json.loads((run / "report.json").read_text())
    assert report["step"] == 50
    assert report["val"]["mae_ab"] < 0.9 * report["gray"]["mae_ab"]


@both
def test_a_resumed_run_goes_on_where_it_was(tmp_path: Path, device: str) -> None:
    """Bit for bit on the CPU. A GPU adds in another order each time, so there it may drift by a
    part of what the steps moved."""
    config = settings(device, steps=8, checkpoint_every=4)
    whole = checkpoint.load(train(config, runs_root=tmp_path / "whole") / "last.pt")
    real, calls = loop.train_step, [0]

    def stop(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == 6:
            raise TrainingError("stopped")
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingError, match="stopped"):
        patch.setattr(loop, "train_step", stop)
        train(config, runs_root=tmp_path / "parts")
    (run,) = (tmp_path / "parts").iterdir()
    assert checkpoint.load(run / "last.pt")["step"] == 4
    train(config, resume=run)
    parts = checkpoint.load(run / "last.pt")
    assert parts["step"] == 8 and parts["seen"] == whole["seen"]
    for name, value in whole["generator"].items():
        other = parts["generator"][name]
        if device == "cpu":
            assert torch.equal(value, other), name
        elif value.is_floating_point():
            apart = (value.float() - other.float()).abs().mean()
            assert apart <= 0.5 * 4 * config.lr + 1e-3 * value.float().abs().mean(), name


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs, for nccl")
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    options = "--image-size 64 --batch-size 4 --width 8 --frozen-blocks 4 --backbone-weights none"
    options += (
        " --val-pictures 4 --steps 4 --workers 0 --precision fp32 --device cuda --log-every 1"
    )
    command = ["-m", "gancolor", "train", "--dataset", "still-life", *options.split()]
    runs = []
    for start in (TORCHRUN, [*TORCHRUN[:-1], "1"]):
        root = tmp_path / str(len(runs))
        subprocess.run([*start, *command, "--runs-root", str(root)], check=True, timeout=300)
        runs.append(logged(next(root.iterdir())))
    for two, one in zip(*runs, strict=True):
        for name in ("generator/l1", "generator/bins"):
            if name in one:
                assert two[name] == pytest.approx(one[name], rel=2e-2)


def batch_of(config: TrainConfig) -> Batch:
    size, count = config.image_size, config.batch_size
    pictures = [composition.paint(0, index, size) for index in range(count)]
    rgb = torch.stack([torch.from_numpy(each).permute(2, 0, 1) for each in pictures])
    squares = torch.zeros(count, 1, size, size, dtype=torch.uint8)
    squares[:, :, 4:9, 10:13] = 1
    return Batch(rgb=rgb.contiguous(), squares=squares)


def begin(device: str, precision: str = "fp32", **changes: Any) -> tuple[State, Batch]:
    """A run in its last phases, whose first step has been taken: torch has its kernels."""
    config = settings(device, precision=precision, **changes)
    state = State(config, torch.device(device))
    batch = batch_of(config)
    if plan.needs_sample(config):
        state.calibrate(batch.rgb)
    state.progress = 1.0
    return state, batch


@both
def test_the_losses_of_a_step_are_those_of_the_cpu(device: str) -> None:
    reports = []
    for where in ("cpu", device):
        state, batch = begin(where)
        reports.append([loop.train_step(state, batch) for _ in range(2)])
    for ours, theirs in zip(*reports, strict=True):
        assert ours.terms == pytest.approx(theirs.terms, rel=1e-2, abs=1e-4)
        norms = {name: x for name, x in theirs.statistics.items() if name.startswith("grad_norm")}
        found = {name: ours.statistics[name] for name in norms}
        assert found == pytest.approx(norms, rel=5e-2)


def refuse_waiting(device: str, refuse: bool) -> None:
    """Let whatever makes the host wait for the GPU be an error, or not any more."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error" if refuse else "default")


@pytest.mark.parametrize(("device", "precision"), PRECISIONS)
def test_a_step_never_waits_for_the_device_but_at_its_end(
    monkeypatch: pytest.MonkeyPatch, device: str, precision: str
) -> None:
    state, batch = begin(device, precision)
    batch = batch.pin_memory() if device == "cuda" else batch
    loop.train_step(state, batch)
    real, read = loop._read, [0]

    def at_the_end(values: list[Tensor]) -> list[float]:
        refuse_waiting(device, False)
        read[0] += 1
        return real(values)

    monkeypatch.setattr(loop, "_read", at_the_end)
    for _ in range(3):
        refuse_waiting(device, True)
        try:
            loop.train_step(state, batch)
        finally:
            refuse_waiting(device, False)
    assert read == [3] and state.step == 4


@pytest.mark.parametrize(("device", "precision"), PRECISIONS)
def test_maps_keep_channels_last(device: str, precision: str) -> None:
    state, batch = begin(device, precision)
    seen = layouts.watch(state)
    loop.train_step(state, batch)
    assert len(seen) > 20
    layouts.check_gradients(state)


@both
def test_what_a_training_needs_is_measured(device: str) -> None:
    said = plan.describe(settings(device, steps=10))
    name = "cuda:0" if device == "cuda" else "cpu"
    assert f"device: {name}, float32" in said
    (memory,) = (line.split()[1] for line in said.splitlines() if line.startswith("memory: "))
    assert 0 < float(memory) < 64


def levels_apart(ours: NDArray[Any], theirs: NDArray[Any], precision: str) -> None:
    apart = np.abs(ours.astype(int) - theirs)
    assert apart.mean() <= MEAN_LEVELS[precision]
    assert np.quantile(apart, 0.999) <= MOST_LEVELS[precision]


@pytest.mark.parametrize(("device", "precision"), PRECISIONS)
def test_pictures_are_coloured_as_on_the_cpu(
    tmp_path: Path, cli: Callable[..., Result], device: str, precision: str
) -> None:
    source, out = tmp_path / "old", tmp_path / "new"
    source.mkdir()
    for index in range(3):
        arrays.write_rgb(source / f"{index}.png", composition.paint(1, index, (150, 200)))
    command = ("sample", source, "--out", out, "--run", "general", "--workers", 0)
    done = cli(*command, "--device", device, "--precision", precision)
    assert done.exit_code == 0, done.output
    own = Colorizer.load("general", device="cpu", precision="fp32")
    for index in range(3):
        made = arrays.read_rgb(out / f"{index}.png")
        assert np.ptp(made.astype(int), axis=2).max() > 10
        levels_apart(made, own(source / f"{index}.png"), precision)


@both
def test_a_film_is_coloured_as_on_the_cpu(
    tmp_path: Path, cli: Callable[..., Result], device: str
) -> None:
    pytest.importorskip("av")
    import clips

    from gancolor.video.decoding import FilmReader

    film, frames = tmp_path / "old.mkv", []
    clips.film(film, frames=24, width=160, height=96, gray=True)
    for where in ("cpu", device):
        out = tmp_path / f"new{len(frames)}"
        command = ("sample", film, "--out", out, "--run", "general", "--precision", "fp32")
        done = cli(*command, "--device", where)
        assert done.exit_code == 0, done.output
        with FilmReader(out / "old.mkv", chroma=True) as made:
            frames.append([frame.chroma for frame in made])
    assert len(frames[1]) == 24 and np.ptp(frames[1][0][0]) > 0
    for theirs, ours in zip(*frames, strict=True):
        for before, after in zip(theirs, ours, strict=True):
            levels_apart(after, before, "fp32")


@contextlib.contextmanager
def little_memory(device: str, colorizer: Colorizer, left: int) -> Iterator[None]:
    """Leave `left` bytes of a GPU's memory; on the CPU let views of more than 150 x 150 fail."""
    if device == "cuda":
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        held = torch.empty(free - left, dtype=torch.uint8, device=device)
        yield
        del held
        torch.cuda.empty_cache()
        return
    generator: Any = colorizer.generator
    look = generator.look

    def look_at_little(condition: Tensor) -> Any:
        if condition.numel() > 150 * 150:
            raise torch.OutOfMemoryError("as if")
        return look(condition)

    generator.look = look_at_little
    yield
    del generator.look


@both
def test_memory_that_runs_out_makes_views_smaller(device: str) -> None:
    colorizer = Colorizer.load("general", device=device, precision="fp32")
    picture = composition.paint(1, 0, (256, 256))
    colorizer.predict(picture)  # what the libraries themselves take is taken
    side = 4096 if device == "cuda" else 256
    view = views.look(colorizer.sight, arrays.resize(picture, (side, side)), side)
    with little_memory(device, colorizer, left=512 << 20):
        said = colorizer.predict_view(view)
    where = colorizer.device
    first = f"out of memory on {where} at {side}x{side}: seen at {side // 2}x{side // 2}"
    assert said.notes[0] == first and np.isfinite(said.colors).all()
    again = colorizer.predict_view(views.look(colorizer.sight, picture, 128))
    assert again.notes == ()  # there is memory again


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason=REASON)
def test_without_any_memory_the_cpu_colours() -> None:
    colorizer = Colorizer.load("general", device="cuda", precision="fp32")
    picture = composition.paint(1, 0, (256, 256))
    expected = Colorizer.load("general", device="cpu", precision="fp32").predict(picture, 256)
    with little_memory("cuda", colorizer, left=4 << 20):
        said = colorizer.predict_view(views.look(colorizer.sight, picture, 256))
    assert said.notes[-1].endswith("the CPU was used instead, at full size")
    assert np.abs(said.colors - expected).max() < 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason=REASON)
def test_a_training_without_memory_says_what_to_reduce(tmp_path: Path) -> None:
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(free - (256 << 20), dtype=torch.uint8, device="cuda")
    config = settings("cuda", steps=2, image_size=512, batch_size=64)
    with pytest.raises(TrainingError, match=r"memory of cuda:0 must hold a step.*--batch-size 64"):
        train(config, runs_root=tmp_path)
    del held
    torch.cuda.empty_cache()
