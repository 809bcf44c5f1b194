"""`gancolor data info`, `list`, `download` and `pack`, and the facts of a set that they share."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import scenes
from serving import Server

from gancolor.data import facts
from gancolor.data.dataset import open_source

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a datasets root with a set of 12 pictures, `mine`."""
    (tmp_path / "sets" / "mine").mkdir(parents=True)
    for number in range(12):
        (tmp_path / "sets" / "mine" / f"{number}.jpg").write_bytes(
            scenes.file(scenes.scene(number, 96, 128))
        )
    return tmp_path / "sets"


@pytest.fixture
def served(place: Path) -> Iterator[Server]:
    """Return a server with a zip of pictures, of which the set `own` is made."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted((place / "mine").iterdir()):
            archive.write(path, f"pictures/{path.name}")
    server = Server(packed.getvalue())
    digest = hashlib.sha256(server.body).hexdigest()
    (place / "own.toml").write_text(
        'title = "Own"\nwhat = "Scenes."\nlicence = "CC0"\nsource = "a test"\nfolder ='
        f' "own"\n[[files]]\nname = "own.zip"\nurls = ["{server.address}/own.zip"]\nsha256 ='
        f' "{digest}"\nbytes = {len(server.body)}\n'
    )
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_info_says_and_shows_what_is_in_a_set(
    cli: Command, place: Path, tmp_path: Path, undrawn: None
) -> None:
    target = tmp_path / "shown.png"
    result = cli("data", "info", "mine", "--datasets-root", place, "--out", target)
    assert result.exit_code == 0, result.output
    assert "mine" in result.stdout and "12" in result.stdout and str(target) in result.stdout
    assert target.read_bytes() == b"\x89PNG"
    silent = cli("data", "info", place / "mine", "--no-picture")
    assert silent.exit_code == 0 and ".png" not in silent.stdout
    missing = cli("data", "info", "nothing", "--datasets-root", place)
    assert (
        missing.exit_code == 1
        and "'nothing'" in missing.output
        and "Traceback" not in missing.output
    )


def test_list_names_every_set(cli: Command, place: Path, served: Server) -> None:
    short = cli("data", "list", "--datasets-root", place)
    assert short.exit_code == 0
    for name in (
        "food",
        "natural",
        "people",
        "imagenet",
        "coco",
        "places",
        "helen",
        "pipa",
        "still-life",
        "own",
    ):
        assert any(line.startswith(f"{name} ") for line in short.stdout.splitlines()), name
    long = cli("data", "list", "own", "--datasets-root", place)
    assert f"{served.address}/own.zip" in long.stdout and "CC0" in long.stdout
    known = {
        row["name"]: row
        for row in json.loads(cli("data", "list", "--json", "--datasets-root", place).stdout)
    }
    assert (
        known["own"]["licence"] == "CC0"
        and known["own"]["there"] is False
        and known["pipa"]["status"] == "dead"
    )
    assert "'fod'" in cli("data", "list", "fod").output


def test_download_then_train_on_it(cli: Command, place: Path, served: Server) -> None:
    planned = cli("data", "download", "own", "--datasets-root", place, "--dry-run")
    assert (
        planned.exit_code == 0
        and "CC0" in planned.stdout
        and "SHA256" in planned.stdout
        and not served.requests
    )
    assert not (place / "own").exists()
    result = cli("data", "download", "own", "--datasets-root", place)
    assert result.exit_code == 0, result.output
    assert "12 pictures in" in result.stdout
    assert len(open_source("own", "all", datasets_root=place)) == 12
    again = cli("data", "download", "own", "--datasets-root", place)
    assert again.exit_code == 0 and "it is there" in again.stdout and len(served.requests) == 1


def test_a_wrong_checksum_is_one_line_and_no_set(cli: Command, place: Path, served: Server) -> None:
    served.body = served.body[:-1] + b"x"
    result = cli("data", "download", "own", "--datasets-root", place)
    assert (
        result.exit_code == 1 and "checksum" in result.output and "Traceback" not in result.output
    )
    assert not (place / "own").exists() and list(place.rglob("*.wrong-checksum"))


def test_pack_writes_shards_that_the_others_read(cli: Command, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    words = [
        "data",
        "pack",
        "mine",
        "--datasets-root",
        place,
        "--out",
        out,
        "--resize",
        48,
        "--shard-pictures",
        5,
    ]
    result = cli(*words)
    assert result.exit_code == 0, result.output
    assert "shards written" in result.stdout and f"--dataset {out}" in result.stdout
    with tarfile.open(out / "0000.tar") as tar:
        kinds = {Path(name).suffix for name in tar.getnames()}
    assert kinds == {".jpg", ".json"}
    sizes = {min(open_source(str(out), "train").read(place).shape[:2]) for place in range(3)}
    assert sizes == {48}
    assert facts.find(str(out)).name == "mine"
    assert "0 shards written" in cli(*words).stdout
    shown = cli("data", "info", out, "--no-picture")
    assert shown.exit_code == 0 and "mine" in shown.stdout


def test_pack_tells_of_broken_pictures(cli: Command, place: Path, tmp_path: Path) -> None:
    (place / "mine" / "cut.jpg").write_bytes((place / "mine" / "0.jpg").read_bytes()[:700])
    result = cli("data", "pack", "mine", "--datasets-root", place, "--out", tmp_path / "shards")
    assert result.exit_code == 0 and "cut.jpg" in result.stderr


def test_facts_of_the_catalog_of_a_set_and_of_a_plain_folder(place: Path, tmp_path: Path) -> None:
    assert (
        facts.find("still-life", place).folder is None and facts.find("still-life", place).licence
    )
    assert "Food-101" in facts.find("food", place).licence
    plain = facts.find("mine", place)
    assert (plain.name, plain.licence, plain.folder, plain.troubles) == (
        "mine",
        facts.UNKNOWN,
        place / "mine",
        (),
    )
    (place / "mine" / "set.json").write_text(
        '{"name": "slides", "licence": "CC BY 4.0", "sources": ["/scans"]}'
    )
    known = facts.find(str(place / "mine"))
    assert (known.name, known.licence, known.sources) == ("slides", "CC BY 4.0", ("/scans",))
    (place / "mine" / "set.json").write_text('{"name": ')
    assert "set.json cannot be read" in facts.find("mine", place).troubles[0]
    assert facts.find(str(tmp_path / "nowhere")).folder is None


def test_help_loads_no_numpy() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom gancolor.cli import main\n"
        "for name in ('prepare', 'info', 'list', 'download', 'pack'):\n"
        "    assert CliRunner().invoke(main, ['data', name, '--help']).exit_code == 0\n"
        "assert not {'numpy', 'cv2', 'torch'} & set(sys.modules), set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
