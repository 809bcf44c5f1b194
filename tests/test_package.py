"""The package as a user gets it: quick to import, complete in the wheel, declared and pinned, with
its chores.
"""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import gancolor

HEAVY = {"albumentations", "cv2", "numpy", "tensorboard", "torch", "torchvision"}


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return it with its output as text."""
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload]


def imported(*arguments: str) -> set[str]:
    """Return the top-level modules that `python ARGUMENTS...` imports; fail if it does not exit
    with 0.
    """
    done = run(sys.executable, "-X", "importtime", *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().partition(".")[0] for line in lines}


# --- import ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "import gancolor"],
        ["-c", "import gancolor; dir(gancolor); gancolor.__version__"],
        ["-m", "gancolor", "--help"],
        ["-m", "gancolor", "--version"],
        ["-m", "gancolor", "train", "--help"],
        ["-m", "gancolor", "sample", "--help"],
        ["-m", "gancolor", "models", "push", "--help"],
        ["-m", "gancolor", "export", "--help"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_for_nothing(arguments: list[str]) -> None:
    modules = imported(*arguments)
    assert "gancolor" in modules
    assert not modules & HEAVY


def test_the_import_check_sees_a_heavy_module() -> None:
    assert "numpy" in imported("-c", "import gancolor, numpy")


def test_all_is_sorted_and_equals_what_is_importable() -> None:
    assert list(gancolor.__all__) == sorted(gancolor.__all__)
    values = {name: getattr(gancolor, name) for name in gancolor.__all__}
    assert not [name for name, value in values.items() if isinstance(value, types.ModuleType)]
    members = {name: getattr(gancolor, name) for name in dir(gancolor) if not name.startswith("_")}
    own = {
        name
        for name, value in members.items()
        if getattr(value, "__module__", "").startswith("gancolor")
    }
    assert own == {name for name in gancolor.__all__ if not name.startswith("_")}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = gancolor.no_such_name  # type: ignore[attr-defined]


# --- the wheel ---


@pytest.fixture(scope="module")
def wheel_folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, install it into a folder of its own and return
    that folder.
    """
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"
    source.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(repository / "gancolor", source / "gancolor", ignore=ignore)
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(repository / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    done = run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(root),
        str(source),
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    (wheel,) = root.glob("gancolor-*-py3-none-any.whl")
    target = root / "target"
    done = run(*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    assert done.returncode == 0, done.stderr[-2000:]
    return target


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(repository: Path, wheel_folder: Path) -> None:
    kept = (".py", ".toml", ".typed", ".html", ".css", ".js", ".md", ".safetensors")
    sources = {
        path
        for path in (repository / "gancolor").rglob("*")
        if path.suffix in kept or path.name == "py.typed"
    }
    expected = {
        path.relative_to(repository).as_posix()
        for path in sources
        if "__pycache__" not in path.parts
    }
    installed = {path for path in (wheel_folder / "gancolor").rglob("*") if path.is_file()}
    found = {
        path.relative_to(wheel_folder).as_posix()
        for path in installed
        if "__pycache__" not in path.parts
    }
    assert found == expected
    assert "gancolor/py.typed" in found
    assert [name for name in found if name.startswith("gancolor/data/") and name.endswith(".toml")]
    others = {path.name for path in wheel_folder.iterdir()} - {"gancolor", "bin"}
    assert others == {f"gancolor-{gancolor.__version__}.dist-info"}


@pytest.mark.slow
def test_the_wheel_works_from_an_empty_folder(wheel_folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(wheel_folder)}
    done = run(sys.executable, "-m", "gancolor", "--help", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout and "sample" in done.stdout
    code = (
        "import gancolor, gancolor.data.catalog as catalog; print(gancolor.__file__,"
        " *catalog.names())"
    )
    done = run(sys.executable, "-c", code, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    file, *names = done.stdout.split()
    assert Path(file).is_relative_to(wheel_folder)
    assert {"food", "natural", "people"} <= set(names)
    assert not list(tmp_path.iterdir())


def test_the_changelog_knows_the_version(repository: Path) -> None:
    assert f"## [{gancolor.__version__}]" in (repository / "CHANGELOG.md").read_text()


# --- requirements ---


def requirements(repository: Path) -> Iterator[Requirement]:
    """Yield what setup.cfg asks for, extras included."""
    parser = configparser.ConfigParser()
    parser.read(repository / "setup.cfg")
    blocks = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    for line in "\n".join(blocks).splitlines():
        if line.strip() and not line.strip().startswith("#"):
            yield Requirement(line)


def pins(repository: Path) -> dict[str, Version]:
    """Return the exact version of each package in constraints.txt."""
    found = {}
    for line in (repository / "constraints.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, version = line.split("==")
            assert "+" not in version, (
                f"{line}: a local build can be installed on some machines only"
            )
            found[canonicalize_name(name)] = Version(version)
    return found


def test_setup_asks_for_lower_bounds_that_the_constraints_satisfy(repository: Path) -> None:
    pinned = pins(repository)
    asked = list(requirements(repository))
    assert {"torch", "opencv-python", "pytest"} <= {requirement.name for requirement in asked}
    for requirement in asked:
        assert {part.operator for part in requirement.specifier} == {">="}, requirement
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_constraints_cover_what_the_requirements_require(repository: Path) -> None:
    pinned, seen = pins(repository), set()
    pending = [canonicalize_name(requirement.name) for requirement in requirements(repository)]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        assert name in pinned, f"constraints.txt must pin {name}"
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            # its dependent pins it
            exact = any(part.operator == "==" for part in requirement.specifier)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and not exact:
                pending.append(canonicalize_name(requirement.name))


def test_both_opencv_builds_are_the_same_version(repository: Path) -> None:
    pinned = pins(repository)
    assert pinned["opencv-python"] == pinned["opencv-python-headless"]


# --- chores ---


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("target", ["setup", "demo", "test", "lint", "bench", "docs", "clean"])
def test_make_knows_the_chore(repository: Path, target: str) -> None:
    done = run("make", "--dry-run", target, cwd=repository)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_says_in_one_line_that_python_is_too_old(repository: Path, tmp_path: Path) -> None:
    for name in ("Makefile", "setup.cfg", "constraints.txt"):
        shutil.copy(repository / name, tmp_path)
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    done = run("make", "setup", f"PYTHON={old}", cwd=tmp_path)
    assert done.returncode != 0
    assert (
        done.stderr.splitlines()[0]
        == "make: Python must be 3.11 or newer, got Python 3.9.2; try make PYTHON=python3.11"
    )
    assert not (tmp_path / ".venv").exists()


# Stands in for Python: its venv is a copy of itself, and its pip works once the file pip-works
# exists.
PRETENDER = """#!/bin/sh
case "$1-$2" in
  -V-) echo Python 3.11.0 ;;
  -m-venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  -m-pip) [ -e pip-works ] ;;
esac
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_starts_afresh_after_a_failure_and_again_only_after_a_change(
    repository: Path, tmp_path: Path
) -> None:
    for name in ("Makefile", "constraints.txt", "setup.cfg"):
        shutil.copy(repository / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PRETENDER)
    python.chmod(0o755)
    venv = tmp_path / ".venv"

    def setup() -> subprocess.CompletedProcess[str]:
        return run("make", "setup", f"PYTHON={python}", cwd=tmp_path)

    assert setup().returncode != 0
    assert not (venv / ".complete").exists()
    (venv / "left-over").touch()
    (tmp_path / "pip-works").touch()
    done = setup()
    assert done.returncode == 0, done.stderr
    assert "creating .venv" in done.stdout
    assert not (venv / "left-over").exists()
    assert {path.name for path in venv.iterdir()} == {"bin", ".complete"}

    assert "Nothing to be done" in setup().stdout
    later = (venv / ".complete").stat().st_mtime + 10
    os.utime(tmp_path / "constraints.txt", (later, later))
    done = setup()
    assert "installing" in done.stdout and "creating" not in done.stdout

    (venv / ".complete").write_text("/where/it/was/before")
    assert "creating" in setup().stdout
