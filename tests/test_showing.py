"""Texts from outside are shown with what a terminal might obey made visible, and no longer than a
message may be.
"""

from __future__ import annotations

import io
import json
import logging
import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result
from tiny_settings import TINY

from gancolor import errors, tables
from gancolor.cli import options
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, DataError, shown, visible
from gancolor.storage import checkpoint
from gancolor.training import rundir, train

# title, colour, line begun again, turned, no text, C1
EVIL = "\x1b]0;owned\x07\x1b[31mred\r\u202ea\udcff\x9b31m"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain name.jpg", "plain name.jpg"),
        ("Übung 夏 ночь.jpg", "Übung 夏 ночь.jpg"),
        ("no-break\u00a0and\u3000wide", "no-break\u00a0and\u3000wide"),
        ("a\x1b[31mb", "'a\\x1b[31mb'"),
        ("two\nlines", "'two\\nlines'"),
        ("\u202egpj.exe", "'\\u202egpj.exe'"),
        ("\x9b31m", "'\\x9b31m'"),
        ("\udcff.jpg", "'\\udcff.jpg'"),
        ("zero\u200bwidth", "'zero\\u200bwidth'"),
    ],
)
def test_what_is_shown_of_a_name(text: str, seen: str) -> None:
    assert shown(text) == seen
    assert visible(text) == seen.strip("'")
    assert shown(Path(text)) == seen if "\0" not in text else True


def test_long_texts_keep_their_beginning_and_end() -> None:
    text = shown("a" * 5000 + "/name.jpg")
    assert (
        len(text) == 400
        and text.startswith("aaaa")
        and "..." in text
        and text.endswith("/name.jpg")
    )
    assert shown("x" * 30, 20) == "xxxxxxxxxxx...xxxxxx"
    assert shown(torch.zeros(3), 20).isprintable()
    assert errors.reason_of(ValueError("first\x1b\nsecond")) == "'first\\x1b'"
    assert errors.reason_of(ValueError()) == "ValueError"


def test_errors_lines_logs_and_tables_obey_nothing(
    capsys: pytest.CaptureFixture[str], cli: Callable[..., Result]
) -> None:
    error = DataError(f"got {EVIL}")
    assert str(error).isprintable() and str(pickle.loads(pickle.dumps(error))) == str(error)
    options.say(f"one {EVIL}\ntwo")
    options.say_above(None, f"three {EVIL}\nfour")
    cli("--help")  # it puts the log on the terminal
    # Without lone surrogates: pytest keeps the log, and its processes cannot send each other such
    # texts.
    logging.getLogger("gancolor").warning("five %s", EVIL.encode("utf-8", "ignore").decode())
    captured = capsys.readouterr()
    lines = [*captured.out.splitlines(), *captured.err.splitlines()]
    assert len(lines) >= 3 and all(line.isprintable() for line in lines)
    assert tables.terminal([{"name": EVIL}]).replace("\n", "").isprintable()
    assert len(options.one_line("x" * 10**6)) == 3000


def test_a_bar_and_a_lost_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from tqdm import tqdm

    file = io.StringIO()
    with tqdm(total=1, file=io.StringIO()) as bar:
        options.say_above(bar, f"above {EVIL}", file=file)
    assert "above" in file.getvalue() and file.getvalue().rstrip("\n").isprintable()

    class Gone(io.StringIO):
        def write(self, words: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    options.say_above(None, "nobody hears it")


# --- through the commands ---


def obeys_nothing(result: Result, *words: str) -> None:
    """One or more lines without anything but letters, no traceback, and these words among them."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.output and all(line.isprintable() for line in result.output.split("\n")), repr(
        result.output
    )
    assert all(word in result.output for word in words), result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from gancolor import presets

    config = presets.build(
        "regression",
        **TINY,
        steps=1,
    )
    return train(config, runs_root=tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_names_of_sets_runs_and_pictures(
    cli: Callable[..., Result], tmp_path: Path, pictures: Path
) -> None:
    folder = pictures.rename(tmp_path / "a\x1b[31mset")
    (folder / "b\x1b[2Jroken.jpg").write_bytes(b"no picture")
    obeys_nothing(cli("train", "--dataset", tmp_path / "no\x1b[31mset"), "no\\x1b[31mset")
    obeys_nothing(cli("sample", "--run", "\x1b[31mnone"), "\\x1b[31mnone")
    obeys_nothing(cli("train", "--\x1b[31mwrong"), "\\x1b[31mwrong")
    obeys_nothing(cli("data", "info", folder, "--out", tmp_path / "info.png"))
    small = [
        "--image-size",
        32,
        "--batch-size",
        2,
        "--steps",
        1,
        "--backbone-weights",
        "none",
        "--frozen-blocks",
        3,
    ]
    more = [
        "--width",
        4,
        "--val-pictures",
        2,
        "--workers",
        0,
        "--device",
        "cpu",
        "--preset",
        "regression",
    ]
    result = cli("train", "--dataset", folder, "--runs-root", tmp_path / "runs", *small, *more)
    obeys_nothing(result)
    (run,) = (tmp_path / "runs").iterdir()
    assert all(line.isprintable() for line in (run / "card.md").read_text().splitlines())


def test_keys_of_checkpoints_and_configs(
    cli: Callable[..., Result], tmp_path: Path, trained: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "0001-it"))
    content = torch.load(run / "last.pt", weights_only=True)
    weights = {f"{EVIL[:8]}{key}": value for key, value in content["generator"].items()}
    for changes in (
        {"generator": weights, "ema": weights},
        {"config": {**content["config"], EVIL[:-5]: 1}},
        {"config": {**content["config"], "preset": EVIL[:-5], "loss": EVIL[:-5]}},
        {"format": EVIL[:-5]},
        {"version": "\x1b[31m1", "format": 2},
    ):
        torch.save({**content, **changes}, run / "last.pt")
        obeys_nothing(cli("sample", "--run", run / "last.pt", "--device", "cpu"), "Error: ")
    settings = json.loads((run / "config.json").read_text())
    settings["settings"]["\x1b[31m"] = 1
    settings["versions"]["gancolor"] = "\x1b[31m"
    (run / "config.json").write_text(json.dumps(settings))
    obeys_nothing(cli("train", "--resume", run), "unknown '\\x1b[31m'")


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_columns_of_manifests_and_texts_of_sets(
    cli: Callable[..., Result], tmp_path: Path, pictures: Path
) -> None:
    (pictures / "manifest.csv").write_text("\x1b[31mpath,split\na.jpg,train\n")
    obeys_nothing(cli("train", "--dataset", pictures), "\\x1b[31mpath")
    (pictures / "manifest.csv").write_text("path,split\na.jpg,\x1b[31m\n")
    obeys_nothing(cli("train", "--dataset", pictures), "\\x1b[31m")
    (pictures / "manifest.csv").unlink()
    root = tmp_path / "sets"
    root.mkdir()
    texts = {
        "title": "title\x1b[31m",
        "what": "what\x07",
        "source": "s\x9b",
        "licence": "\u202el",
        "note": "n\x1b",
    }
    (root / "mine.toml").write_text(
        "".join(f"{key} = {json.dumps(text)}\n" for key, text in texts.items())
    )
    for command in (["list"], ["list", "mine"]):
        obeys_nothing(cli("data", *command, "--datasets-root", root), "what\\x07")
    (root / "mine.toml").write_text('"\\u001b[31m" = 1\n')
    obeys_nothing(cli("data", "list", "mine", "--datasets-root", root), "x1b[31m")
    (pictures / "set.json").write_text(
        json.dumps({"name": "\x1b[31mname", "title": "\x9bt", "licence": "\x07"})
    )
    chart = ("--out", tmp_path / "info.png")
    obeys_nothing(cli("data", "info", pictures, *chart), "\\x1b[31mname")


def test_what_a_library_says(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"step": 1}, TrainConfig())
    content = torch.load(path, weights_only=True)
    torch.save({**content, "x": Path("\x1b[31m")}, path)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert str(caught.value).isprintable() and "it would run code: pathlib" in str(caught.value)
    assert "weights_only" not in str(caught.value) and "still be loaded" not in str(caught.value)


def test_a_profile_with_escapes_in_its_description(
    shared: Path, cli: Callable[..., Result], tmp_path: Path, trained: Path
) -> None:
    source = shared / "cases" / "icc_escape.png"
    if not source.is_file():
        pytest.skip(f"needs {source}")
    result = cli(
        "sample",
        source,
        "--out",
        tmp_path / "out",
        "--run",
        trained,
        "--device",
        "cpu",
        "--workers",
        0,
    )
    obeys_nothing(result)
    assert (tmp_path / "out" / "report.jsonl").read_text().rstrip("\n").isprintable()


def test_a_card_holds_the_licence_of_a_set_on_its_lines(tmp_path: Path, tiny: TrainConfig) -> None:
    report = {"step": 1, "seen": 2, "seconds": 3.0, "val": {}, "gray": {}}
    rundir.write_card(
        tmp_path, replace(tiny, dataset=EVIL[:-5]), report, "best", "weights", f"pictures {EVIL}"
    )
    assert all(line.isprintable() for line in (tmp_path / "card.md").read_text().splitlines())
