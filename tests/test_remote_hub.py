"""Models on the Hub: fetched once and checked, and every way in which that can fail; against a
stand-in.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import small_models
from standin_hub import TOKEN, Hub, Repository
from support import refused_fetch as refused

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import CheckpointError, ConfigError, DownloadError
from gancolor.hub import addresses, retrieval
from gancolor.hub import repository as hub
from gancolor.storage import model_file

if TYPE_CHECKING:
    from click.testing import Result

Command = Callable[..., "Result"]

NAME = "hf://ann/old-town"

# huggingface_hub's own upload
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(retrieval, "BACKOFF", 0.001)
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    yield server
    server.stop()


@pytest.fixture
def repository(server: Hub, bodies: list[bytes]) -> Repository:
    """ann/old-town with a model and a card."""
    made = server.repositories["ann/old-town"] = Repository()
    made.commit(
        {".gitattributes": b"", "README.md": b"# Old town\n", "model.safetensors": bodies[0]}
    )
    return made


def kept() -> list[str]:
    """What of models lies in the cache."""
    return sorted(
        path.relative_to(addresses.root()).as_posix()
        for path in addresses.root().rglob("*")
        if path.is_file()
    )


# --- what works ---


def test_a_model_is_fetched_once_and_then_needs_nobody(
    server: Hub, repository: Repository, bodies: list[bytes]
) -> None:
    head = repository.heads["main"]
    fetched = retrieval.fetch(NAME)
    assert fetched.path.read_bytes() == bodies[0]
    assert fetched.name == f"ann/old-town@{head[:12]}"
    assert kept() == [
        f"hub/ann--old-town/ann--old-town@{head[:12]}.safetensors",
        "hub/ann--old-town/record.json",
    ]
    assert Colorizer.load(NAME).name == f"ann--old-town@{head[:12]} step 7"
    server.asked.clear()
    assert retrieval.fetch(NAME).path == fetched.path  # asks which commit is the newest, no more
    assert [path for _, path, _ in server.asked] == [
        "/api/models/ann/old-town/revision/main?blobs=true"
    ]
    server.asked.clear()
    assert (
        retrieval.fetch(f"{NAME}@{head}").path
        == retrieval.fetch(f"{NAME}@{head[:12]}").path
        == fetched.path
    )
    assert server.asked == []


def test_files_may_lie_on_another_server_that_never_sees_the_token(
    server: Hub, repository: Repository, bodies: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Hub()
    other.blobs = server.blobs
    server.elsewhere = other.address
    repository.private = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert retrieval.fetch(NAME).path.read_bytes() == bodies[0]
    assert {token for _, _, token in server.asked} == {f"Bearer {TOKEN}"}
    assert [token for _, _, token in other.asked] == [None]
    other.stop()


def test_branches_tags_and_commits_are_revisions(
    server: Hub, repository: Repository, bodies: list[bytes]
) -> None:
    first = repository.heads["v1"] = repository.heads["main"]
    second = repository.commit({"model.safetensors": bodies[1]})
    assert retrieval.fetch(f"{NAME}@v1").path.read_bytes() == bodies[0]
    assert retrieval.fetch(NAME).path.read_bytes() == bodies[1]
    assert retrieval.fetch(f"{NAME}@{first}").path.read_bytes() == bodies[0]
    assert retrieval.fetch(f"{NAME}@{second}").path.read_bytes() == bodies[1]


def test_a_commit_that_changes_only_the_card_is_the_same_model(
    server: Hub, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    fetched = retrieval.fetch(NAME)
    repository.commit({"README.md": b"# Better words\n"})
    server.asked.clear()
    assert retrieval.fetch(NAME).path == fetched.path
    assert len(server.asked) == 1


def test_without_network_the_kept_copy_is_used_and_that_is_said(
    server: Hub, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    fetched = retrieval.fetch(NAME)
    server.stop()
    assert retrieval.fetch(NAME).path == fetched.path
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert (
        "the Hub does not answer" in line
        and f"the copy of revision {repository.heads['main']} is used" in line
    )


# --- what has become another ---


def test_a_name_whose_model_changed_is_one_line_with_both_revisions(
    server: Hub, repository: Repository, bodies: list[bytes]
) -> None:
    first = retrieval.fetch(NAME)
    old, new = repository.heads["main"], repository.commit({"model.safetensors": bodies[1]})
    before = kept()
    message = refused(
        DownloadError, NAME, f"{NAME} has changed: revision {old} when it was accepted, {new} now"
    )
    assert f"{NAME}@{new}" in message and f"{NAME}@{old}" in message
    assert kept() == before
    assert retrieval.fetch(f"{NAME}@{old}").path == first.path
    refused(DownloadError, NAME, "has changed")
    assert retrieval.fetch(f"{NAME}@{new}").path.read_bytes() == bodies[1]
    assert retrieval.fetch(NAME).path.read_bytes() == bodies[1]  # accepted


def test_a_hub_that_states_no_checksums_is_learned_from(
    server: Hub, repository: Repository, bodies: list[bytes]
) -> None:
    server.says_sums = False
    path = retrieval.fetch(NAME).path
    assert retrieval.fetch(NAME).path == path
    repository.commit({"model.safetensors": bodies[1]})
    refused(DownloadError, NAME, "has changed")
    path.unlink()
    server.other = bodies[1]
    old = next(
        commit
        for commit, files in repository.commits.items()
        if files["model.safetensors"] == bodies[0]
    )
    refused(DownloadError, f"{NAME}@{old}", "wrong checksum")


def test_a_damaged_copy_is_said_and_fetched_again(
    server: Hub, repository: Repository, bodies: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    path = retrieval.fetch(NAME).path
    path.write_bytes(bodies[0][:-1] + b"!")
    assert retrieval.fetch(NAME).path.read_bytes() == bodies[0]
    assert "is damaged: another is fetched" in caplog.text


def test_a_damaged_record_is_one_line(server: Hub, repository: Repository, cli: Command) -> None:
    retrieval.fetch(NAME)
    note = addresses.folder_of(addresses.parse(NAME)) / "record.json"
    note.write_text("{")
    refused(DownloadError, NAME, str(note), "damaged", "remove")
    assert "record.json must say what was fetched" in cli("models", "list").stderr


# --- what fails ---


@pytest.mark.parametrize(
    "name",
    [
        *(
            "hf://",
            "hf://ann",
            "hf://ann/",
            "hf:ann/town",
            "hf://ann/town/more",
            "hf://../town",
            "hf://ann/a--b",
        ),
        *(
            "hf://ann/town.git",
            "hf://ann/to wn",
            "hf://ann/town@",
            "hf://ann/town@../x",
            "hf://ann/town@a b",
        ),
        *(
            "ftp://server/model.safetensors",
            "http://example.org/model.safetensors",
            "https://",
            "https:///m.pt",
        ),
        *(
            "https://user:word@example.org/m.pt",
            "https://example.org/m.pt#sha256=12",
            "https://example.org/m.pt#main",
        ),
    ],
)
def test_a_malformed_address_is_one_line(
    server: Hub, cli: Command, tmp_path: Path, name: str
) -> None:
    result = cli("sample", tmp_path, "--out", tmp_path / "new", "--run", name)
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 2 and line.startswith("Error: ") and "must" in line
    assert server.asked == [] and kept() == [] and not (tmp_path / "new").exists()


def test_a_private_repository_says_how(
    server: Hub, repository: Repository, monkeypatch: pytest.MonkeyPatch, bodies: list[bytes]
) -> None:
    repository.private = True
    refused(DownloadError, NAME, "if it is private, set HF_TOKEN", "/settings/tokens")
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    message = refused(DownloadError, NAME, "whether the token in HF_TOKEN may read it")
    assert "hf_bad" not in message
    monkeypatch.setenv("HF_TOKEN", "two words")
    assert "two words" not in refused(ConfigError, NAME, "HF_TOKEN must be a token")
    assert kept() == []
    monkeypatch.setenv("HF_TOKEN", f" {TOKEN}\n")
    assert retrieval.fetch(NAME).path.read_bytes() == bodies[0]


def test_what_is_not_there(server: Hub, repository: Repository) -> None:
    refused(DownloadError, "hf://ann/no-town", "must be a model on the Hub, got none")
    refused(DownloadError, f"{NAME}@v9", "must have the revision 'v9'")
    server.repositories["ann/words"] = Repository()
    server.repositories["ann/words"].commit({"README.md": b"", "pytorch_model.bin": b"pickle"})
    refused(
        DownloadError,
        "hf://ann/words",
        "must hold model.safetensors, got README.md, pytorch_model.bin",
    )
    assert kept() == []


def test_a_repository_that_became_private_names_the_copy(
    server: Hub, repository: Repository
) -> None:
    retrieval.fetch(NAME)
    repository.private = True
    refused(DownloadError, NAME, f"the copy that is kept here is {NAME}@{repository.heads['main']}")


def test_no_network_and_no_copy(server: Hub) -> None:
    server.stop()
    refused(DownloadError, NAME, "does not answer", "no copy is kept")
    assert kept() == []


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"sha": "x", "siblings": []}'])
def test_a_server_that_is_no_hub(server: Hub, repository: Repository, answer: bytes) -> None:
    server.answer = answer
    refused(DownloadError, NAME, "got another answer; check HF_ENDPOINT")


def test_an_endpoint_that_is_not_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example.org")
    refused(ConfigError, NAME, "HF_ENDPOINT must begin with https://")


def test_a_file_that_ends_too_early(
    server: Hub, repository: Repository, bodies: list[bytes]
) -> None:
    server.cut = 100
    refused(DownloadError, NAME, f"of {len(bodies[0])} bytes")
    assert not [name for name in kept() if name.endswith((".safetensors", "record.json"))]
    server.cut = 0
    assert retrieval.fetch(NAME).path.read_bytes() == bodies[0]


def test_a_file_with_another_checksum(
    server: Hub, repository: Repository, bodies: list[bytes]
) -> None:
    server.other = bodies[1]
    refused(DownloadError, NAME, "wrong checksum")
    assert not [name for name in kept() if name.endswith((".safetensors", "record.json"))]


def test_a_redirect_to_a_server_that_is_not_encrypted(server: Hub, repository: Repository) -> None:
    server.elsewhere = "http://files.example.org"
    refused(DownloadError, NAME, "redirects to http://files.example.org/", "not encrypted")
    assert kept() == []


def test_files_that_are_no_models(
    server: Hub, repository: Repository, tmp_path: Path, bodies: list[bytes]
) -> None:
    repository.commit({"model.safetensors": b"words"})
    refused(CheckpointError, NAME, NAME, "damaged or not a checkpoint")
    changed = bodies[0].replace(b'"format":"1"', b'"format":"9"')
    assert changed != bodies[0]
    repository.commit({"model.safetensors": changed})
    refused(CheckpointError, NAME, f"{NAME} must have format 1, got '9' written by gancolor")
    import safetensors.numpy

    repository.commit({"model.safetensors": safetensors.numpy.save({"a": np.zeros(3, np.float32)})})
    refused(CheckpointError, NAME, "must be a gancolor model")
    assert kept() == []


def test_a_folder_that_cannot_be_written(
    server: Hub, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GANCOLOR_CACHE", str(tmp_path / "file"))
    refused(DownloadError, NAME, "must be a folder that can be written", "$GANCOLOR_CACHE")


# --- the commands ---


def test_commands_take_a_model_of_the_hub(
    server: Hub,
    repository: Repository,
    cli: Command,
    painted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    picture = painted / "lakes" / "00.png"
    result = cli("sample", picture, "--out", "new", "--run", NAME)
    assert result.exit_code == 0, result.stderr
    head = repository.heads["main"]
    assert result.stdout.startswith(
        f"colouring with ann/old-town@{head[:12]}: fetched from {NAME}, SHA-256 "
    )
    result = cli(
        "evaluate", NAME, "--dataset", painted, "--split", "all", "--limit", 1, "--no-perceptual"
    )
    assert result.exit_code == 0, result.stderr
    assert f"run ann--old-town@{head[:12]}: " in result.stdout
    server.stop()
    result = cli("train", "--init", "hf://ann/other", "--dataset", painted)
    assert result.exit_code == 1 and "no copy is kept here" in result.stderr.splitlines()[-1]
    assert not Path("runs").exists()


def test_list_and_show(
    server: Hub,
    repository: Repository,
    cli: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    repository.commit({"README.md": b"---\nlicense: mit\n---\n# Old \x1b[31mtown\n"})
    result = cli("models", "show", NAME)
    assert result.stdout == "---\nlicense: mit\n---\n# Old \\x1b[31mtown\n\n"
    assert kept() == []  # the model itself was not needed
    retrieval.fetch(NAME)
    run = small_models.make_run(Path("runs"), "0001-mine", "holidays")
    (Path("runs") / "0002-broken").mkdir()
    (Path("runs") / "0002-broken" / "best.pt").write_text("words")
    result = cli("models", "list")
    assert result.exit_code == 0, result.stderr
    head = repository.heads["main"]
    lines = {line.split("  ")[0].strip(): line for line in result.stdout.splitlines()}
    assert "regression, holidays at 32 px" in lines["0001-mine"] and str(run) in lines["0001-mine"]
    assert "   7  " in lines["0001-mine"]
    assert "damaged or not a checkpoint" in lines["0002-broken"]
    assert "fetched: regression, pictures at 32 px" in lines[f"{NAME}@{head[:12]}"]
    assert "general" in lines
    assert "general" in {row["name"] for row in json.loads(cli("models", "list", "--json").stdout)}
    assert (
        "A colorizer trained by gancolor (preset `regression`, 7 steps"
        in cli("models", "show", "1").stdout
    )
    (run / "card.md").write_text("# mine, at its end\n")
    assert cli("models", "show", "0001-mine").stdout == "# mine, at its end\n\n"
    server.stop()
    assert "# A card" in cli("models", "show", NAME).stdout
    assert "could not be fetched" in cli("models", "show", "hf://ann/other").stderr


# --- pushing ---


@pytest.fixture
def pusher(server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A run to push, and a token that may."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in speaks LFS only
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    run = small_models.make_run(Path("runs"), "0007-mine", "/home/ann/secret place/holidays")
    (run / "card.md").write_text(
        "# 0007-mine\n\n- Pictures: `/home/ann/secret place/holidays`, 12 to train on\n"
    )
    return run


def test_a_run_is_pushed_with_its_card_and_colours_elsewhere(
    server: Hub, cli: Command, pusher: Path
) -> None:
    result = cli("models", "push", 7, "hf://ann/mine", "--private", "--license", "cc-by-4.0")
    assert result.exit_code == 0, result.stderr
    made = server.repositories["ann/mine"]
    head = made.heads["main"]
    assert result.stdout.startswith(
        f"hf://ann/mine is at revision {head}; colour with it: gancolor sample"
    )
    assert made.private
    files = made.commits[head]
    assert sorted(files) == [".gitattributes", "README.md", "config.json", "model.safetensors"]
    card = files["README.md"].decode()
    header = [
        "---",
        'library_name: "gancolor"',
        'pipeline_tag: "image-to-image"',
        'license: "cc-by-4.0"',
    ]
    assert card.splitlines()[:4] == header
    assert "- Pictures: `holidays`, 12 to train on" in card and "--run hf://ann/mine" in card
    assert not [name for name, body in files.items() if b"secret place" in body]
    assert b'"dataset": "holidays"' in files["config.json"]
    picture = np.full((40, 40, 3), 99, np.uint8)
    assert np.array_equal(Colorizer.load("hf://ann/mine")(picture), Colorizer.load(pusher)(picture))
    assert "12 to train on" in model_file.read_header(retrieval.fetch("hf://ann/mine").path)["card"]


def test_a_second_push_goes_on_top_and_nobody_elses_is_replaced(
    server: Hub, cli: Command, pusher: Path, bodies: list[bytes]
) -> None:
    assert cli("models", "push", 7, "hf://ann/mine").exit_code == 0
    small_models.make_run(Path("runs"), "0008-better", seed=4)
    assert cli("models", "push", 8, "hf://ann/mine").exit_code == 0  # our own last push lies there
    made = server.repositories["ann/mine"]
    theirs = made.commit({"model.safetensors": bodies[0]})
    result = cli("models", "push", 7, "hf://ann/mine")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.exit_code == 1 and f"got the revision {theirs} of somebody else" in line
    assert f"--over {theirs}" in line and made.heads["main"] == theirs
    assert cli("models", "push", 7, "hf://ann/mine", "--over", "0" * 40).exit_code == 2
    assert cli("models", "push", 7, "hf://ann/mine", "--over", theirs).exit_code == 0
    assert made.heads["main"] != theirs


def test_a_change_at_the_same_moment_is_refused_by_the_hub(
    server: Hub, cli: Command, pusher: Path, bodies: list[bytes]
) -> None:
    assert cli("models", "push", 7, "hf://ann/mine").exit_code == 0
    made = server.repositories["ann/mine"]
    small_models.make_run(Path("runs"), "0008-better", seed=4)
    server.before_commit = lambda: made.commit({"model.safetensors": bodies[0]})
    result = cli("models", "push", 8, "hf://ann/mine")
    assert result.exit_code == 1 and "changed at the same moment" in result.stderr.splitlines()[-1]
    assert made.commits[made.heads["main"]]["model.safetensors"] == bodies[0]


def test_what_cannot_be_pushed(
    server: Hub, repository: Repository, cli: Command, pusher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def push(*arguments: object) -> str:
        result = cli("models", "push", *arguments)
        assert result.exit_code in (1, 2) and result.stdout == ""
        return str(result.stderr.splitlines()[-1])

    assert "somebody else (nothing was pushed or fetched from here before)" in push(7, NAME)
    assert "--private must be left out for a repository that is public" in push(
        7, NAME, "--private"
    )
    assert "got https://example.org/m" in push(7, "https://example.org/m")
    assert "leave out @" in push(7, "hf://ann/mine@v1")
    assert "a path, a name or a number" in push(9, "hf://ann/mine")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "the token in HF_TOKEN is not accepted" in push(7, "hf://ann/mine")
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN must hold a token that may write to ann" in push(7, "hf://ann/mine")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.status["repos/create"] = 403
    assert "may not write to ann" in push(7, "hf://ann/mine")
    server.stop()
    assert "hf://ann/mine could not be made: " in push(7, "hf://ann/mine")
    assert set(server.repositories) == {"ann/old-town"}
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'gancolor[hub]'" in push(7, "hf://ann/mine")


def test_the_standin_answers_as_the_hub_does_to_its_own_client(
    server: Hub, repository: Repository
) -> None:
    import huggingface_hub

    info = huggingface_hub.HfApi(server.address, token=False).model_info(
        "ann/old-town", files_metadata=True
    )
    snapshot = hub.look(hub.HubAddress("ann", "old-town"))
    assert (info.sha, tuple(file.rfilename for file in info.siblings or ())) == (
        snapshot.commit,
        snapshot.files,
    )
    (model,) = [file for file in info.siblings or () if file.rfilename == hub.MODEL]
    assert model.lfs is not None and model.lfs.sha256 == snapshot.sha256
