"""docs/architecture.md: what it names is where it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_what_the_page_finds_is_there() -> None:
    page = REPOSITORY / "docs" / "architecture.md"
    if not page.exists():
        pytest.skip("there is no docs/architecture.md")
    text = page.read_text(encoding="utf-8")
    section = text.split("## Where do I find ...")[1].split("\n## ")[0]
    rows = re.findall(r"^\| .+ \| `(\S+\.py)` \| `(\w+)` \|$", section, re.MULTILINE)
    assert len(rows) == 20
    for file, name in rows:
        tree = ast.parse((REPOSITORY / "gancolor" / file).read_text(encoding="utf-8"))
        named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        defined = {getattr(node, "name", None) for node in tree.body}
        assert name in defined | named, f"{file} has no {name}"


def test_every_module_that_the_page_names_is_there() -> None:
    page = REPOSITORY / "docs" / "architecture.md"
    if not page.exists():
        pytest.skip("there is no docs/architecture.md")
    for name in set(re.findall(r"`(?:gancolor/)?([\w/]+\.py)`", page.read_text(encoding="utf-8"))):
        places = (REPOSITORY / "gancolor" / name, REPOSITORY / name)
        assert any(place.is_file() for place in places), name
