"""Where and in which precision networks run."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from functools import partial

import torch

from gancolor.config import DEVICE_NAMES
from gancolor.errors import ConfigError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The torch device for `auto | cpu | cuda | cuda:N | mps`; plain cuda is this process's own GPU
    under torchrun.

    ConfigError when it is not there.
    """
    if name == "auto":
        usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        name = next((each for each, there in usable.items() if there), "cpu")
    if not re.fullmatch(DEVICE_NAMES, name):
        raise ConfigError(f"--device must be auto, cpu, cuda, cuda:N or mps, got {name}")
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                f"--device must be present, got {name} without a usable GPU; use --device cpu"
            )
        index = device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", "0"))
        if index >= torch.cuda.device_count():
            raise ConfigError(
                f"--device must be one of {torch.cuda.device_count()} GPUs, got cuda:{index}"
            )
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(
            "--device must be present, got mps on a machine without it; use --device cpu"
        )
    return device


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
