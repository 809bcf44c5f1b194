"""Devices: what is chosen where, and what a training step may ask of one.

No GPU is needed. What torch says of the machine is replaced, and steps are taken on torch's device
"meta", which knows shapes but no numbers: whatever would make the host wait for a GPU raises there,
and so does whatever mixes the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import layouts
import pytest
import torch
from tiny_settings import TINY
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gancolor import presets
from gancolor.coloring.networks import TorchNetwork
from gancolor.coloring.views import View
from gancolor.config import TrainConfig
from gancolor.data.loader import Batch
from gancolor.errors import ConfigError
from gancolor.models import bins
from gancolor.models.embeddings import EMBEDDINGS
from gancolor.runtime import devices, processes
from gancolor.training import loop, plan
from gancolor.training.loop import StopRule
from gancolor.training.state import State

META = torch.device("meta")


@dataclass
class Machine:
    """What torch is made to say of a machine."""

    cuda: int = 0
    xpu: int = 0
    mps: bool = False
    bf16: bool = False

    def pretend(self, patch: pytest.MonkeyPatch) -> None:
        for kind in ("cuda", "xpu"):
            module, count = getattr(torch, kind), getattr(self, kind)
            patch.setattr(module, "is_available", lambda count=count: count > 0)
            patch.setattr(module, "device_count", lambda count=count: count)
            patch.setattr(module, "is_bf16_supported", lambda including_emulation=True: self.bf16)
        patch.setattr(torch.backends.mps, "is_available", lambda: self.mps)


@pytest.mark.parametrize(
    ("machine", "asked", "rank", "found"),
    [
        (Machine(), "auto", None, "cpu"),
        (Machine(cuda=1, mps=True), "auto", None, "cuda:0"),
        (Machine(xpu=1, mps=True), "auto", None, "xpu:0"),
        (Machine(mps=True), "auto", None, "mps"),
        (Machine(cuda=1, mps=True), "cpu", None, "cpu"),
        (Machine(cuda=4), "cuda", "3", "cuda:3"),
        (Machine(cuda=4), "cuda:1", "3", "cuda:1"),
        (Machine(cuda=1, xpu=2), "xpu", "1", "xpu:1"),
    ],
)
def test_the_device_that_is_there(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, asked: str, rank: str | None, found: str
) -> None:
    machine.pretend(monkeypatch)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert str(devices.pick_device(asked)) == found


@pytest.mark.parametrize(
    ("machine", "asked", "words"),
    [
        (Machine(mps=True), "cuda", "got cuda without a usable GPU of this kind; use --device cpu"),
        (Machine(cuda=1), "mps", "got mps without a usable GPU of this kind; use --device cpu"),
        (Machine(cuda=1), "xpu:0", "got xpu:0 without a usable GPU"),
        (Machine(cuda=2), "cuda:2", "one of 2 GPUs, got cuda:2"),
        (Machine(cuda=1), "tpu", "must be auto, cpu, cuda, cuda:N, xpu, xpu:N or mps, got tpu"),
    ],
)
def test_a_device_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, asked: str, words: str
) -> None:
    machine.pretend(monkeypatch)
    with pytest.raises(ConfigError, match=words):
        devices.pick_device(asked)


@pytest.mark.parametrize(
    ("kind", "bf16", "precision", "found"),
    [
        ("cuda", True, "auto", torch.bfloat16),
        ("cuda", False, "auto", torch.float16),
        ("xpu", True, "auto", torch.bfloat16),
        ("xpu", False, "auto", torch.float32),
        ("mps", True, "auto", torch.float32),
        ("mps", True, "fp16", torch.float16),
        ("cpu", False, "bf16", torch.bfloat16),
    ],
)
def test_the_precision_that_pays(
    monkeypatch: pytest.MonkeyPatch, kind: str, bf16: bool, precision: str, found: torch.dtype
) -> None:
    Machine(cuda=1, xpu=1, mps=True, bf16=bf16).pretend(monkeypatch)
    assert devices.pick_dtype(precision, torch.device(kind)) == found


@pytest.mark.parametrize("kind", ["cpu", "cuda", "xpu", "mps"])
def test_networks_run_under_autocast_of_their_own_device_and_colours_without(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    Machine(cuda=1, bf16=True).pretend(monkeypatch)
    device = torch.device(kind)
    with devices.pick_autocast(torch.bfloat16, device)():
        assert torch.is_autocast_enabled(kind)
        assert torch.get_autocast_dtype(kind) == torch.bfloat16
        with devices.without_autocast(device):
            assert not torch.is_autocast_enabled(kind)
    with devices.pick_autocast(torch.float32, device)():
        assert not torch.is_autocast_enabled(kind)
    with devices.without_autocast(META):  # which has none
        pass


@pytest.mark.parametrize("kind", ["cpu", "xpu", "mps"])
def test_float16_trains_on_cuda_alone(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"to train on {kind}, got fp16; use --precision fp32"):
        devices.pick_scaler(torch.float16, torch.device(kind))
    assert not devices.pick_scaler(torch.bfloat16, torch.device(kind)).is_enabled()


@pytest.mark.parametrize("kind", ["mps", "xpu:0"])
def test_several_processes_need_cpus_or_cuda(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="auto, cpu or cuda for several processes, got auto"):
        processes.join(torch.device(kind), presets.build("gan", batch_size=2))


def test_memory_is_asked_of_gpus_alone() -> None:
    devices.free_memory(torch.device("cpu"))
    devices.choose(torch.device("cpu"))
    assert devices.peak_memory(torch.device("cpu")) is None
    assert devices.peak_memory(torch.device("mps")) is None


class NoDoubles(TorchDispatchMode):
    """Refuses float64 on the device, which MPS and some GPUs of Intel lack."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.device.type == "meta":
                self.calls += 1
                assert leaf.dtype != torch.float64, func
        return result


FUSION = "portrait-vgg19"
SETTINGS: dict[str, dict[str, Any]] = {
    "gan": {"r1": 1.0, "instance_noise": 0.1},
    "fast": {"encoder_weights": "none"},
    "poster": {},
    "regression": {"backbone": "vgg16", "train_backbone": True},
    FUSION: {"image_size": 32, "batch_size": 2, "workers": 0},
}


def settings(preset: str) -> TrainConfig:
    tiny = {"backbone_weights": "none"} if preset == FUSION else TINY
    if preset == "fast":
        tiny = {key: value for key, value in tiny.items() if key != "frozen_blocks"}
    return presets.build(preset, **{**tiny, "precision": "fp32", **SETTINGS[preset]})


def begin(preset: str, monkeypatch: pytest.MonkeyPatch) -> tuple[State, Batch]:
    """A run on the device without numbers, whose optimizers believe that they are fused."""
    state = State(settings(preset), META)
    state.shares = torch.full((len(bins.centers()),), 1 / len(bins.centers()))
    state.progress = 1.0
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            group["fused"] = True
        monkeypatch.setattr(optimizer, "step", lambda: None)  # torch has no such kernel
    rgb = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    squares = torch.zeros(2, 1, 32, 32, dtype=torch.uint8) if state.config.hints > 0 else None
    return state, Batch(rgb=rgb, squares=squares)


slow = pytest.mark.slow
others = [pytest.param(preset, marks=slow) for preset in SETTINGS if preset != "gan"]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["gan", *others])
def test_a_step_waits_for_the_device_once_at_its_end(
    monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    state, batch = begin(preset, monkeypatch)
    read: list[int] = []

    def count(values: list[Tensor]) -> list[float]:
        read.append(len(values))
        assert all(value.is_meta for value in values)
        return [0.0] * len(values)

    embedding = (
        torch.zeros(2, EMBEDDINGS[state.config.embedding].width, device=META)
        if state.config.takes_embedding
        else None
    )
    monkeypatch.setattr(loop, "_read", count)
    with NoDoubles() as mode:
        report = loop.train_step(state, batch, embedding=embedding)
    assert len(read) == 1 and state.step == 1
    # a total and a norm of each phase, beside what is told
    updates = 1 if state.config.objective == "regression" else 2
    assert read[0] == len(report.terms) + len(report.statistics) + 2 * updates
    assert mode.calls > 100


def test_the_device_without_numbers_tells_a_wait() -> None:
    """What the test above relies on."""
    there = torch.ones(2, device=META)
    for wait in (lambda: bool(there.sum()), lambda: there.sum().item(), lambda: there.cpu()):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta tensor"):
            wait()
    with pytest.raises(RuntimeError), NoDoubles():
        there + torch.ones(2)  # mixed
    with pytest.raises(AssertionError), NoDoubles():
        there.double()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["gan", "fast"])
def test_colouring_hands_the_network_all_it_needs_at_once(
    monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    state, _ = begin(preset, monkeypatch)
    network = TorchNetwork(state.averaged, state.config, None, META, torch.float32)
    hints = torch.zeros(1, 3, 32, 32, device=META)
    view: Any = View(rgb=torch.zeros(32, 32, 3, dtype=torch.uint8).numpy())
    with torch.inference_mode(), NoDoubles():
        output = network.look(torch.zeros(1, 1, 32, 32, device=META), view)(hints)
    assert output.colors.shape == (1, 2, 32, 32) and output.colors.is_meta


def test_the_clock_needs_no_device() -> None:
    """A float64 tensor cannot be made on MPS."""
    state = StopRule(None, 60.0, torch.device("mps"), spent=60.0)
    assert 0.5 <= state.progress(0) < 0.6


@pytest.mark.parametrize("preset", ["gan", *others[:-1]])
def test_maps_keep_channels_last_through_both_networks(preset: str) -> None:
    state = State(settings(preset), torch.device("cpu"))
    rgb = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    if plan.needs_sample(state.config):
        state.calibrate(rgb)
    state.progress = 1.0
    seen = layouts.watch(state)
    squares = torch.zeros(2, 1, 32, 32, dtype=torch.uint8) if state.config.hints > 0 else None
    loop.train_step(state, Batch(rgb=rgb, squares=squares))
    assert len(seen) > 20
    layouts.check_gradients(state)
