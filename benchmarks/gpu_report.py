"""What gpu.py has found, what it left out, and when its time is up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stand_ins
import torch
from train_step import describe_machine

from gancolor.errors import reason_of

Rows = list[dict[str, Any]]
TARGETS = {
    "step of the convolutions' rate, %": 60.0,
    "photographs/s": 200.0,
    "film frames/s": 60.0,
}


@dataclass
class Sizes:
    """How large everything is."""

    minutes: float = 8.0
    least: float = 0.5  # seconds that a measurement takes
    matmul: int = 8192
    copied: int = 1 << 30  # bytes
    sizes: tuple[int, ...] = (256, 512)
    batches: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256)
    presets: tuple[str, ...] = ("gan", "fast", "regression", "pix2pix")
    picture: tuple[int, int] = (1224, 1632)
    pictures: int = 400
    film: tuple[int, int] = (1080, 1920)
    frames: int = 240
    view: int = 256


TINY = Sizes(8.0, 0.0, 64, 1 << 16, (32,), (2, 4), picture=(48, 64), pictures=3, frames=6, view=32)
TINY.film = (48, 64)


@dataclass
class Report:
    """What has been found, what was left out, and when time is up."""

    options: Any
    sizes: Sizes
    device: torch.device
    began: float = field(default_factory=time.monotonic)
    found: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    ends: float = 0.0  # of the part that runs

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.ends

    def run(self, name: str, share: float, part: Callable[[Report], Any]) -> None:
        """Run a part in its share of the time that is left, of all that is still to come."""
        left = self.began + 60 * self.sizes.minutes - time.monotonic()
        self.ends = time.monotonic() + share * left
        absent = [each for each in stand_ins.NEEDED.get(name, ()) if each in stand_ins.ABSENT]
        print(f"\n== {name} (after {time.monotonic() - self.began:.0f} s)\n", flush=True)
        if absent:
            self.leave_out(f"{name}: needs {', '.join(absent)}, which this Python has not")
        elif left <= 5:
            self.leave_out(f"{name}: no time left")
        else:
            try:
                self.found[name] = part(self)
            except Exception as error:  # the other parts are worth having
                self.leave_out(f"{name}: {reason_of(error)}")
        if self.options.out:
            self.write(Path(self.options.out))

    def leave_out(self, what: str) -> None:
        self.left_out.append(what)
        print(f"LEFT OUT: {what}", flush=True)

    def write(self, path: Path) -> None:
        content = {
            "machine": describe_machine(),
            "device": name_of(self.device),
            "seconds": time.monotonic() - self.began,
            "targets on an H100": TARGETS,
            **self.found,
            "left out": self.left_out,
        }
        path.write_text(json.dumps(content, indent=2) + "\n")


def name_of(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    free, total = torch.cuda.mem_get_info(device)
    return (
        f"{torch.cuda.get_device_name(device)}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
    )
