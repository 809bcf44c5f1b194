"""What the page says, in both languages."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="needs the extra 'studio'")

import gancolor.server
from gancolor.server import wording
from gancolor.server.run_list import COLUMNS

KINDS = ("column", "preset", "state", "film_doing")
"""How keys begin whose end is what they name."""


def test_every_sentence_is_said_in_both_languages_with_the_same_gaps() -> None:
    def gaps(words: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(words) if name is not None}

    for key, (english, german) in wording.WORDS.items():
        assert english and german and gaps(english) == gaps(german), key


def test_no_sentence_is_left_that_nobody_says() -> None:
    folder = Path(gancolor.server.__file__).parent
    files = [path for path in folder.iterdir() if path.suffix in (".py", ".js", ".html")]
    texts = [path.read_text() for path in files if path.name != "wording.py"]
    said = set(re.findall(r"""["']([\w*' ]+)["']""", "\n".join(texts)))
    for key in wording.WORDS:
        assert key in said or key.startswith(tuple(f"{kind}_" for kind in KINDS)), key
    columns = {key.removeprefix("column_") for key in wording.WORDS if key.startswith("column_")}
    assert columns <= set(COLUMNS)
