"""Names of copies: inside the set, found by training, never in each other's way."""

from __future__ import annotations

import os

import pytest

from gancolor.data.doctor.copy_names import copy_name, other_name


@pytest.mark.parametrize(
    ("label", "name", "kind", "resized", "copy"),
    [
        ("", "a.jpg", "jpeg", True, "a.jpg"),
        ("", "a.JPEG", "jpeg", True, "a.JPEG"),
        ("", "a.png", "png", True, "a.png.jpg"),
        ("", "a.jfif", "jpeg", True, "a.jfif.jpg"),
        ("", "no suffix", "webp", False, "no suffix.webp"),
        ("", "a.png", "png", False, "a.png"),
        ("two", "deep/a.b/c.jpg", "jpeg", True, "two/deep/a.b/c.jpg"),
        ("", "../../etc/a.jpg", "jpeg", True, "_../_../etc/a.jpg"),
        ("", "/home/me/a.jpg", "jpeg", True, "home/me/a.jpg"),
        ("", "..\\..\\a.jpg", "jpeg", True, "_../_../a.jpg"),
        ("", ".hidden/.a.jpg", "jpeg", True, "_.hidden/_.a.jpg"),
        ("", os.fsdecode(b"caf\xe9.jpg"), "jpeg", True, "caf%e9.jpg"),
        ("x.jpg", "a.PNG/b.jpg", "jpeg", True, "x.jpg_/a.PNG_/b.jpg"),
    ],
)
def test_copy_names(label: str, name: str, kind: str, resized: bool, copy: str) -> None:
    assert copy_name(label, name, kind, resized) == copy


def test_long_names_are_cut_and_stay_apart() -> None:
    made = [copy_name("", f"deep/{'é' * 124}{end}.png", "png", True) for end in ("ab", "ac")]
    assert all(len(name.split("/")[1].encode()) <= 255 and name.endswith(".jpg") for name in made)
    assert made[0] != made[1]
    others = [other_name(made[0], id) for id in (1, 2)]
    assert all(len(name.split("/")[1].encode()) <= 255 and name.endswith(".jpg") for name in others)
    assert len({*made, *others}) == 4
