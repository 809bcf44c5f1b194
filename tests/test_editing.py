"""What a user tells of a photograph on the page: kept, taken back, and written down."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gancolor.errors import ConfigError
from gancolor.hints import Hint
from gancolor.server import editing
from gancolor.server.editing import Edit, History, Mark, Sweep

RED = Mark((Hint(4, 5, (200, 10, 20), 2.0),))
STROKE = Mark((Hint(1, 1, (0, 0, 9)), Hint(3, 1, (0, 0, 9))), ((1, 1), (3, 1)), 2)


def test_steps_are_undone_and_redone() -> None:
    first = Edit().with_mark(RED)
    second = first.with_mark(STROKE)
    history = History().done(first).done(second)
    assert history.present.hints == (*RED.hints, *STROKE.hints)
    assert history.undone().present == first and history.undone().undone().present == Edit()
    assert history.undone().redone() == history and history.redone() == history
    assert History().undone() == History()
    assert history.done(second) is history  # nothing changed
    branched = history.undone().done(first.replaced(0))
    assert branched.future == () and branched.past == (Edit(), first)


def test_steps_are_bounded() -> None:
    history = History()
    for number in range(editing.MOST_STEPS + 5):
        history = history.done(Edit(variant=number + 1))
    assert len(history.past) == editing.MOST_STEPS and history.past[0].variant == 5


def test_marks_are_moved_recoloured_and_removed() -> None:
    moved = STROKE.moved(11, 21)
    assert [(hint.x, hint.y) for hint in moved.hints] == [(11, 21), (13, 21)]
    assert moved.path == ((11, 21), (13, 21)) and moved.radius == 2
    assert STROKE.recolored("#0a0b0c").hints[1].rgb == (10, 11, 12)
    edit = Edit((RED, STROKE))
    assert edit.replaced(0).marks == (STROKE,)
    assert edit.replaced(1, moved).marks == (RED, moved)
    for number in (-1, 2):
        with pytest.raises(ConfigError, match="one of the 2 that are there"):
            edit.replaced(number)
    with pytest.raises(ConfigError, match="8x6 pixels, got x=4, y=50"):
        Edit((RED.moved(4, 50),)).checked(6, 8)


@pytest.mark.parametrize(
    ("text", "rgb"),
    [
        ("#963228", (150, 50, 40)),
        ("rgb(150, 50, 40)", (150, 50, 40)),
        ("rgba(149.6, 50.2, 300, 1)", (150, 50, 255)),
    ],
)
def test_colours_of_pickers_are_understood(text: str, rgb: tuple[int, int, int]) -> None:
    assert editing.rgb_of(text) == rgb


@pytest.mark.parametrize("text", ["", "red", "#12345", "#zzzzzz", "rgb(1, 2)", "hsl(1, 2, 3)"])
def test_other_colours_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="a colour must be like #963228"):
        editing.rgb_of(text)


@pytest.mark.parametrize("said", [None, 3, [], [[1]], [[1, "x"]], [[1, float("inf")]], "ab"])
def test_a_stroke_that_is_none_is_refused(said: object) -> None:
    with pytest.raises(ConfigError, match="a stroke must"):
        editing.path_of(said)


def test_a_region_is_painted_at_any_size() -> None:
    sweep = Sweep(((20, 20), (60, 20)), 10)
    assert Edit().mask(40, 80) is None
    mask = Edit(sweeps=(sweep,)).mask(40, 80)
    assert mask is not None and mask[20, 40] == 255 and mask[20, 12] == 255
    assert mask[5, 40] == 0 and mask[20, 75] == 0
    small = Edit(sweeps=(sweep,)).mask(20, 40, 0.5)
    assert small is not None
    assert np.mean(mask[::2, ::2] != small) < 0.05
    erased = Edit(sweeps=(Sweep(((20, 20),), 10, erases=True),)).mask(40, 80)
    assert erased is not None and erased[20, 20] == 0 and erased[20, 60] == 255


def test_hints_are_written_as_they_are_read() -> None:
    told = json.loads(editing.text_of(RED.hints))
    assert told == [{"x": 4, "y": 5, "color": "#c80a14", "radius": 2.0}]
