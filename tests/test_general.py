"""The model that comes with gancolor: it is there, small, and nearer to the truth than the gray
picture.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from numpy.typing import NDArray
from torch import Tensor

from gancolor import Colorizer, metrics
from gancolor.hub import choice
from gancolor.images import arrays


def tensor(rgb: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 255


def test_it_is_small_enough_for_a_package() -> None:
    size = (choice.GENERAL_FOLDER / choice.GENERAL_FILE).stat().st_size
    assert 1 << 20 < size <= 20 << 20


def test_its_card_says_what_one_must_know(cli: Callable[..., Result]) -> None:
    shown = cli("models", "show", "general")
    assert shown.exit_code == 0, shown.stderr
    for words in (
        "guesses, not facts",
        "## How it was trained",
        "## How far it errs",
        "## What it is bad at",
        "terms as",
    ):
        assert words in shown.stdout
    assert (choice.GENERAL_FOLDER / choice.GENERAL_CARD).read_text(
        encoding="utf-8"
    ).strip() in shown.stdout


@pytest.mark.slow
def test_loading_it_loads_no_compiler_and_nothing_that_trains() -> None:
    code = (
        "import sys; from gancolor import Colorizer; Colorizer.load('general'); import"
        " gancolor.batch.dispatch; "
    )
    code += (
        "print(*{'torch._dynamo', 'sympy', 'tensorboard', 'gancolor.training.run'} &"
        " sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "", done.stdout


def test_photographs_that_it_never_saw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data")
    monkeypatch.chdir(tmp_path)  # where there are no runs
    colorizer = Colorizer.load(precision="fp32")
    assert colorizer.name.startswith("general")
    assert colorizer.sight.hints and colorizer.sight.distribution
    found = {"gray": [], "general": []}  # type: dict[str, list[dict[str, Tensor]]]
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        truth = arrays.center_square(getattr(data, name)(), 160)
        found["gray"].append(metrics.measure(metrics.gray_picture(tensor(truth)), tensor(truth)))
        found["general"].append(metrics.measure(tensor(colorizer(truth)), tensor(truth)))
    gray, ours = (metrics.summarize(found[name]) for name in ("gray", "general"))
    assert ours["ciede2000"] < 0.75 * gray["ciede2000"]
    assert ours["colorfulness"] > 0.4 * ours["colorfulness_truth"]
