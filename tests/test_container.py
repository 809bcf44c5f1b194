"""The files that make and start a container: what can be seen of them without an engine."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import small_models
import yaml

pytest.importorskip("fastapi", reason="needs the extra 'studio'")
pytest.importorskip("python_multipart", reason="needs the extra 'studio'")

from listening import listening
from packaging.specifiers import SpecifierSet

from gancolor.coloring.colorizer import Colorizer
from gancolor.server.application import create_app
from gancolor.server.server_settings import ServerSettings


class Stage(NamedTuple):
    """A stage of the Dockerfile: its instructions, and what stands behind each."""

    lines: list[tuple[str, str]]

    def of(self, word: str) -> list[str]:
        return [rest for each, rest in self.lines if each == word]


@pytest.fixture(scope="module")
def stages(repository: Path) -> list[Stage]:
    """The stages; the first holds what stands before them."""
    text = re.sub(r"^\s*#.*\n", "", (repository / "Dockerfile").read_text(), flags=re.MULTILINE)
    found = [Stage([])]
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append(Stage([]))
        if word:
            found[-1].lines.append((word, rest))
    return found


@pytest.fixture(scope="module")
def service(repository: Path) -> dict[str, Any]:
    """The service of compose.yaml."""
    content = yaml.safe_load((repository / "compose.yaml").read_text())
    ((_, found),) = content["services"].items()
    assert {volume.partition(":")[0] for volume in found["volumes"]} == set(content["volumes"])
    return dict(found)


@pytest.fixture(scope="module")
def metadata(repository: Path) -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(repository / "setup.cfg")
    return found


def test_the_base_has_a_version_that_the_package_runs_on(
    stages: list[Stage], metadata: configparser.ConfigParser
) -> None:
    (base,) = stages[0].of("ARG")
    found = re.fullmatch(r"BASE=python:(\d+\.\d+\.\d+)-slim-\w+", base)
    assert found is not None
    assert found[1] in SpecifierSet(metadata["options"]["python_requires"])
    assert [stage.of("FROM")[0].split()[0] for stage in stages[1:]] == ["${BASE}"] * 2


def test_what_is_copied_exists_and_reaches_the_build(stages: list[Stage], repository: Path) -> None:
    ignored = (repository / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    sources = {part for copy in stages[1].of("COPY") for part in copy.split()[:-1]}
    assert "*" in ignored and kept == sources
    assert all((repository / source).exists() for source in sources)
    (copied,) = stages[2].of("COPY")
    assert copied == "--from=build /opt/gancolor /opt/gancolor"


def test_what_is_installed_is_known(
    stages: list[Stage], metadata: configparser.ConfigParser, repository: Path
) -> None:
    values = dict(arg.partition("=")[::2] for arg in stages[1].of("ARG"))
    extras = values["EXTRAS"].split(",")
    assert "studio" in extras and set(extras) <= set(metadata["options.extras_require"])
    script = " ".join(stages[1].of("RUN"))
    assert set(re.findall(r"\$\{?([A-Z_]+)", script)) == set(values)
    (pattern, replacement) = re.search(r"sed 's/(.*?)/(.*?)/'", script).groups()  # type: ignore[union-attr]
    constraints = (repository / "constraints.txt").read_text()
    assert replacement == "&+cpu" and len(re.findall(pattern, constraints, re.MULTILINE)) == 1


def test_nobody_is_root_and_the_folders_are_volumes(
    stages: list[Stage], service: dict[str, Any]
) -> None:
    last = stages[-1]
    (user,) = last.of("USER")
    number, _, group = user.partition(":")
    assert int(number) > 0 and int(group) > 0
    order = [word for word, _ in last.lines]
    assert order.index("USER") > max(at for at, word in enumerate(order) if word == "RUN")
    volumes = json.loads(last.of("VOLUME")[0])
    environment = dict(part.split("=", 1) for part in shlex.split(" ".join(last.of("ENV"))))
    assert {environment["GANCOLOR_CACHE"], environment["GANCOLOR_RUNS"]} == set(volumes)
    assert {volume.split(":")[1] for volume in service["volumes"]} == set(volumes)


def test_the_service_is_for_this_machine_alone_and_bounded(
    stages: list[Stage], service: dict[str, Any]
) -> None:
    (port,) = service["ports"]
    (exposed,) = stages[-1].of("EXPOSE")
    assert port == f"127.0.0.1:{ServerSettings.port}:{exposed}"
    assert service["read_only"] is True and service["tmpfs"][0].startswith("/tmp:size=")
    assert service["cap_drop"] == ["ALL"] and service["mem_limit"] and service["pids_limit"]
    assert service["restart"] == "unless-stopped"
    asked = {arg.partition("=")[0] for arg in stages[1].of("ARG")}
    assert set(service["build"]["args"]) <= asked


def test_its_command_is_one(
    stages: list[Stage], service: dict[str, Any], metadata: configparser.ConfigParser
) -> None:
    from gancolor.cli.serve import command

    (script,) = json.loads(stages[-1].of("ENTRYPOINT")[0])
    assert script in metadata["options.entry_points"]["console_scripts"].split()
    for name, *arguments in (json.loads(stages[-1].of("CMD")[0]), service["command"]):
        assert name == command.name
        context = command.make_context(name, arguments)
        assert context.params["host"] == "0.0.0.0"
        assert str(context.params["port"]) == stages[-1].of("EXPOSE")[0]
    # Of a container that only this machine reaches, names that are made to point here get nothing.
    assert context.params["server_name"] == "localhost"


def test_its_health_is_asked_for_where_it_is_told(stages: list[Stage], tmp_path: Path) -> None:
    """Also where the server wants passwords, and not where it does not answer."""
    (asked,) = stages[-1].of("HEALTHCHECK")
    python, option, code = json.loads(asked.partition("CMD ")[2])
    assert (python, option) == ("python", "-c")
    (tmp_path / "users").write_text("ann:secret\n")
    model = Colorizer.load(small_models.write(tmp_path / "m.safetensors"))
    app = create_app(model, ServerSettings(auth_file=tmp_path / "users", api_only=True))
    with listening(app) as address:
        there = code.replace(f"http://127.0.0.1:{stages[-1].of('EXPOSE')[0]}", address)
        assert address in there
        exec(compile(there, "HEALTHCHECK", "exec"), {})
        with pytest.raises(OSError, match="HTTP Error 401"):
            exec(compile(there.replace("/healthz", "/v1/models"), "HEALTHCHECK", "exec"), {})
    with pytest.raises(OSError, match="refused"):
        exec(compile(there, "HEALTHCHECK", "exec"), {})
