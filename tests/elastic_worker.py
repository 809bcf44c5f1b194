"""`gancolor ARGUMENTS...` in a worker of torchrun whose machine dies where a test says.

`GANCOLOR_TEST_DEATHS` is a folder of files named PLACE-STEP-RANK, each of which is one death: when
the process of that rank, of two, comes to that place of that step, it takes the file away and kills its
agent and itself. Places: `step` (when the gradients are made and on their way; `worker` is the same
and leaves the agent alive), `validation` (when the pictures are measured), `save` (when last.pt has
its other name and there is no new one yet).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gancolor.cli import main
from gancolor.runtime import files
from gancolor.training import loop
from gancolor.training.validation import Validation

DEATHS = "GANCOLOR_TEST_DEATHS"
_step = 0  # that is trained, or was trained last


def _perhaps_die(place: str, step: int) -> None:
    planned = Path(os.environ[DEATHS], f"{place}-{step}-{os.environ['RANK']}")
    if planned.exists() and os.environ["WORLD_SIZE"] == "2":
        planned.unlink()
        if place != "worker":
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def _die_where_planned() -> None:
    train_step, average = loop.train_step, loop.gradients.averaged
    measure, replace = Validation.measure, os.replace

    def noted_step(state: Any, *arguments: Any, **more: Any) -> Any:
        global _step
        _step = state.step
        return train_step(state, *arguments, **more)

    @contextlib.contextmanager
    def dying_average(*arguments: Any) -> Iterator[None]:
        with average(*arguments):
            yield
            _perhaps_die("step", _step)
            _perhaps_die("worker", _step)

    def dying_measure(self: Validation, generator: Any) -> Any:
        values = measure(self, generator)
        _perhaps_die("validation", _step + 1)
        return values

    def dying_replace(source: Any, target: Any) -> None:
        if Path(target).name == "last.pt":
            _perhaps_die("save", _step + 1)
        replace(source, target)

    loop.train_step = noted_step
    loop.gradients.averaged = dying_average
    Validation.measure = dying_measure  # type: ignore[method-assign]
    files.os.replace = dying_replace  # type: ignore[attr-defined]


if __name__ == "__main__":
    for kind in (signal.SIGTERM, signal.SIGHUP):  # forked, it has its agent's answers to them
        signal.signal(kind, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _die_where_planned()
    main()
