"""What a run writes while it goes: `log.jsonl`, TensorBoard, previews, and a line or a bar on the
terminal.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from tqdm import tqdm

from gancolor.config import TrainConfig
from gancolor.errors import visible
from gancolor.images import arrays
from gancolor.images.arrays import Picture
from gancolor.runtime.files import json_of, write_whole

_log = logging.getLogger("gancolor")


class Logbook:
    """Opened by the leading process only. Lines after `step`, left by a killed process, are
    dropped.
    """

    def __init__(self, run: Path, config: TrainConfig, step: int, total: int | None) -> None:
        self.run, self.total = run, total
        self.path = run / "log.jsonl"
        _drop_after(self.path, step, ended=total is not None and step >= total)
        self.file = open(self.path, "a", encoding="utf-8")
        self.hook, threading.excepthook = threading.excepthook, _Quiet(threading.excepthook)
        self.board = SummaryWriter(str(run), purge_step=step + 1 if step else None)
        if step == 0:
            self.board.add_text(
                "config", "```json\n" + json.dumps(config.to_json(), indent=2) + "\n```"
            )
        self.bar = None
        if sys.stderr.isatty():
            whole = "{percentage:3.0f}% {bar:12} {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}"
            shape = whole if total else "{n_fmt} steps {elapsed}{postfix}"
            self.bar = tqdm(
                total=total, initial=step, bar_format=shape, dynamic_ncols=True, smoothing=0.05
            )

    def scalars(self, step: int, values: dict[str, float], words: str) -> None:
        """One line of numbers, in the file, on TensorBoard, and as `words` on the terminal."""
        self._write({"step": step, **values})
        for name, value in values.items():
            self.board.add_scalar(name if "/" in name else f"train/{name}", value, step)
        if self.bar is not None:
            self.bar.set_postfix_str(words)
        else:
            of = f"/{self.total}" if self.total else ""
            self.say(f"step {step}{of}  {words}")

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(step - self.bar.n)

    def validation(
        self,
        step: int,
        values: dict[str, float],
        gray: dict[str, float],
        grid: Picture,
    ) -> None:
        """Held-out metrics with the gray picture's, and the fixed grid as a picture."""
        self._write({"step": step, "val": values, "gray": gray})
        for name, value in values.items():
            self.board.add_scalar(f"val/{name}", value, step)
            self.board.add_scalar(f"gray/{name}", gray[name], step)
        self.board.add_image("validation", grid, step, dataformats="HWC")
        self.board.flush()
        arrays.write_rgb(self.run / "preview" / f"step-{step:06d}.png", grid)
        self.say(
            f"step {step}: held out CIEDE2000 {values['ciede2000']:.2f} (gray"
            f" {gray['ciede2000']:.2f}), MAE a*b* {values['mae_ab']:.2f} (gray"
            f" {gray['mae_ab']:.2f}), PSNR {values['psnr']:.2f}, colorfulness"
            f" {values['colorfulness']:.1f} of {values['colorfulness_truth']:.1f}, spread of a*"
            f" {values['spread_a']:.2f} of the truth's"
        )

    def verdict(self, step: int, words: str) -> None:
        """A sentence of the health check."""
        self._write({"step": step, "verdict": words})
        self.board.add_text("health", words, step)
        _log.warning("step %d: %s", step, words)

    def restart(self, step: int, words: str) -> None:
        """What happened to a run that was started again, and from where it goes on."""
        self._write({"step": step, "restart": words})
        self.board.add_text("restart", visible(words), step)
        self.say(words)

    def say(self, words: str) -> None:
        """A line for people, above the bar. A terminal that is gone ends nothing."""
        words = visible(words)
        with contextlib.suppress(OSError):
            if self.bar is not None:
                self.bar.write(words, file=sys.stderr)
            else:
                print(words, file=sys.stderr, flush=True)

    def compare(self, config: TrainConfig, values: dict[str, float]) -> None:
        """TensorBoard's table of settings against final metrics, so that runs can be compared."""
        settings: dict[str, Any] = {
            k: v for k, v in config.to_json().items() if isinstance(v, bool | int | float | str)
        }
        settings["discriminator_units"] = ",".join(map(str, config.discriminator_units))
        metrics = {f"final/{name}": value for name, value in values.items()}
        for summary in hparams(settings, metrics):
            self.board._get_file_writer().add_summary(summary)
        for name, value in metrics.items():
            self.board.add_scalar(name, value, 0)

    def close(self) -> None:
        """Flush and close everything."""
        if self.bar is not None:
            self.bar.close()
        try:
            self.board.close()
        finally:
            self.file.close()
            threading.excepthook = self.hook

    def _write(self, line: dict[str, Any]) -> None:
        # A gradient norm may be infinite under fp16, where the scaler leaves the step out; JSON
        # knows no such number.
        known = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()
        }
        self.file.write(json.dumps(known) + "\n")
        self.file.flush()


class _Quiet:
    """A hook for errors of threads that leaves out those of TensorBoard's: they are raised again
    where it is used.
    """

    def __init__(self, others: Callable[[threading.ExceptHookArgs], Any]) -> None:
        self.others = others

    def __call__(self, what: threading.ExceptHookArgs) -> None:
        if not type(what.thread).__module__.startswith("tensorboard."):
            self.others(what)


def _drop_after(path: Path, step: int, *, ended: bool) -> None:
    """Also this step's validation when the run had `ended`: it is measured again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            told = json_of(line)
            if told["step"] < step or (told["step"] == step and not (ended and "val" in told)):
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):  # a line cut off by a kill
            continue
    write_whole(path, "".join(kept))
