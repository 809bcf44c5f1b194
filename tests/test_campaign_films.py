"""A small campaign of malformed films: see `campaign_films`."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("av")

import campaign_films


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_malformed_films_are_coloured_or_refused(seed: int, tmp_path: Path) -> None:
    films = campaign_films.sources(tmp_path)
    fates = []
    for number in range(30):
        name, damage, data = campaign_films.mutant(films, seed, number)
        out = tmp_path / str(number)
        out.mkdir()
        path = tmp_path / f"case{Path(name).suffix}"
        path.write_bytes(data)
        fate, why = campaign_films.judge(path, out)
        assert fate in ("coloured", "refused"), (number, name, damage, why)
        fates.append(fate)
    assert fates.count("coloured") > 15


def test_a_case_is_the_same_each_time(tmp_path: Path) -> None:
    films = [tmp_path / "a.mkv", tmp_path / "b.mkv"]
    for number, film in enumerate(films):
        film.write_bytes(bytes(range(256)) * (20 + number))
    cases = [campaign_films.mutant(films, 1, number) for number in range(60)]
    assert cases == [campaign_films.mutant(films, 1, number) for number in range(60)]
    assert {damage for _, damage, _ in cases} == set(campaign_films.DAMAGES)
    whole = [film.read_bytes() for film in films]
    assert sum(data in whole for _, _, data in cases) < 15  # a byte may be replaced by itself
