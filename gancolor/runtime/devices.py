"""Where and in which precision networks run.

Only the CPU has been tried so far. CUDA has a suite of tests that waits for it (tests/test_gpu.py).
XPU (Intel's GPUs) and MPS (Apple's) are kept from what they are known to lack: float64, a scaler.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from functools import partial

import torch

from gancolor.config import DEVICE_NAMES, DEVICES
from gancolor.errors import ConfigError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_ACCELERATORS = ("cuda", "xpu", "mps")  # in the order in which `auto` takes them


def pick_device(name: str) -> torch.device:
    """The torch device for one of `config.DEVICES`; plain cuda or xpu is this process's own GPU
    under torchrun.

    ConfigError when it is not there.
    """
    if name == "auto":
        name = next((kind for kind in _ACCELERATORS if _count(kind)), "cpu")
    if not re.fullmatch(DEVICE_NAMES, name):
        raise ConfigError(f"--device must be {DEVICES}, got {name}")
    device = torch.device(name)
    if device.type == "cpu":
        return device
    count = _count(device.type)
    if not count:
        raise ConfigError(
            f"--device must be present, got {name} without a usable GPU of this kind; use --device"
            " cpu"
        )
    if device.type == "mps":
        return device
    index = device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", "0"))
    if index >= count:
        raise ConfigError(f"--device must be one of {count} GPUs, got {device.type}:{index}")
    return torch.device(device.type, index)


def _count(kind: str) -> int:
    """How many GPUs of a kind there are that this torch can use."""
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, kind)
    return int(module.device_count()) if module.is_available() else 0


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The networks' dtype for `auto | fp32 | bf16 | fp16`; `auto` takes bf16 where this device
    computes in it.
    """
    if precision not in ("auto", *_DTYPES):
        raise ConfigError(f"--precision must be one of auto, {', '.join(_DTYPES)}, got {precision}")
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if native else torch.float16
        if device.type == "xpu":
            native = torch.xpu.is_bf16_supported(including_emulation=False)
        else:
            native = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError(
            "--precision must be fp32 or bf16 on the CPU, got fp16; use --precision bf16"
        )
    return _DTYPES[precision]


def pick_autocast(
    dtype: torch.dtype, device: torch.device
) -> Callable[[], contextlib.AbstractContextManager[object]]:
    """A maker of the context in which networks run."""
    if dtype == torch.float32:
        return contextlib.nullcontext
    return partial(torch.autocast, device.type, dtype=dtype)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which float32 stays float32, also on a device that has no autocast."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def pick_scaler(dtype: torch.dtype, device: torch.device) -> torch.amp.GradScaler:
    """What scales a training's losses in float16, and does nothing in other precisions.

    ConfigError for float16 on anything but CUDA: torch's scaler computes in float64, which MPS and
    some GPUs of Intel lack.
    """
    enabled = dtype == torch.float16
    if enabled and device.type != "cuda":
        raise ConfigError(
            f"--precision must be fp32 or bf16 to train on {device.type}, got fp16; use --precision"
            " fp32"
        )
    return torch.amp.GradScaler(device.type, enabled=enabled)


def can_fuse(device: torch.device) -> bool:
    """Whether Adam is one kernel there, which can also leave its step out by itself."""
    return device.type in ("cpu", "cuda")


def choose(device: torch.device) -> None:
    """Let this process's own allocations go to its GPU."""
    if device.type in ("cuda", "xpu"):
        getattr(torch, device.type).set_device(device)


def free_memory(device: torch.device) -> None:
    """Give back what torch keeps of a GPU's memory for later."""
    if device.type in _ACCELERATORS:
        getattr(torch, device.type).empty_cache()


def peak_memory(device: torch.device) -> float | None:
    """The most bytes that tensors took on the device; None where torch does not count them."""
    if device.type in ("cuda", "xpu"):
        return float(getattr(torch, device.type).max_memory_allocated(device))
    return None
