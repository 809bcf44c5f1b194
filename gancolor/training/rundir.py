"""A run directory, as `runs/0007-gan-food/`: its number, its settings, its log and its card."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from gancolor import __version__
from gancolor.config import TrainConfig, flag_of, settings
from gancolor.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    passing,
    reason_of,
    shown,
    visible,
)
from gancolor.runtime import files
from gancolor.runtime.files import json_of, write_whole


def create(root: Path, config: TrainConfig, job: dict[str, Any] | None = None) -> Path:
    """A new directory under `root` with the next number and `config.json` in it; `job` as
    `write_config` has it. CheckpointError if not writable; DataError when another torchrun has begun
    such a run under the same name of a job.
    """
    name = config.name or f"{config.preset}-{Path(config.dataset).name or 'pictures'}"
    name = re.sub(r"[^\w.+-]+", "-", name)
    run = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        with files.locked(root / ".lock", None):  # no other process takes the number, or the job
            if job and (other := find_of_job(root, job["id"], config)):
                raise DataError(
                    f"a job must be started by one torchrun, got another one that has just begun"
                    f" {shown(other)} as {shown(job['id'], 80)}; give both the same --rdzv-endpoint,"
                    " or each a --rdzv-id of its own"
                )
            run = root / f"{_next_number(root):04d}-{name}"
            run.mkdir()
            (run / "preview").mkdir()
            write_config(run, config, job)
    except OSError as error:
        if run is not None:
            shutil.rmtree(run, ignore_errors=True)
        raise CheckpointError(
            f"{root} must be a writable folder, got '{error.strerror}'; choose another with"
            " --runs-root"
        ) from error
    return run


def write_config(run: Path, config: TrainConfig, job: dict[str, Any] | None = None) -> None:
    """`config.json`: the settings, with what they run, and the `job` of torchrun that runs them: its
    `id`, and the number of processes by the names of their `machines`. Without one, the one that is
    there stays.
    """
    job = job or read_job(run)
    content = {"settings": config.to_json(), **_origin(), **({"job": job} if job else {})}
    write_whole(run / "config.json", json.dumps(content, indent=2) + "\n")


def read_job(run: Path) -> dict[str, Any]:
    """The torchrun job in the run's `config.json`, as `write_config` has it; {} where there is none."""
    try:
        content = json_of((run / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    job = content.get("job") if isinstance(content, dict) else None
    if not isinstance(job, dict) or not isinstance(job.get("id"), str):
        return {}
    machines = job.get("machines")
    known = isinstance(machines, dict) and all(type(n) is int for n in machines.values())
    return {"id": job["id"], "machines": machines if known else {}}


def find_of_job(root: Path, job: str, config: TrainConfig) -> Path | None:
    """The newest run under `root` that a torchrun job of that id began with these settings."""
    for run in sorted(root.glob("[0-9]*-*"), key=_number, reverse=True):
        if read_job(run).get("id") == job:
            with contextlib.suppress(ConfigError, CheckpointError):
                merge_settings(read_config(run), config.to_json())
                return run
    return None


def read_config(run: Path) -> TrainConfig:
    """The settings in the run's `config.json`. CheckpointError when there is none or it is of
    another version.
    """
    path = run / "config.json"
    try:
        content = json_of(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{shown(run)} must be a run directory, got no config.json in it"
        ) from None
    except (OSError, ValueError) as error:
        if words := passing(error):
            raise CheckpointError(f"{shown(path)} could not be read now ({words})") from error
        raise CheckpointError(
            f"{shown(path)} must be a run's settings, got an unreadable file ({reason_of(error)})"
        ) from error
    values = content.get("settings") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise CheckpointError(f"{shown(path)} must be a run's settings, got other JSON")
    try:
        return TrainConfig.restore(values)
    except ConfigError as error:
        versions = content.get("versions")
        version = versions.get("gancolor") if isinstance(versions, dict) else None
        raise CheckpointError(
            f"{shown(path)}, written by gancolor {shown(version, 40)}: {error}"
        ) from error


def merge_settings(saved: TrainConfig, given: dict[str, Any]) -> TrainConfig:
    """The saved settings with the changeable ones of `given`. ConfigError names the others that
    differ.
    """
    values = saved.to_json()
    known = settings()
    differing = [
        f"{flag_of(key)} (saved {values[key]}, given {value})"
        for key, value in given.items()
        if not known[key].changeable
        and TrainConfig.from_json({**values, key: value}).to_json()[key] != values[key]
    ]
    if differing:
        raise ConfigError(
            f"a resumed run must keep its settings, got other values for {', '.join(differing)};"
            " leave them out"
        )
    return TrainConfig.from_json({**values, **given})


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's `log.jsonl`; none of a file that cannot be read.

    Lines that are no JSON objects are left out, as one that a kill has cut off.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json_of(line))
    return [line for line in lines if isinstance(line, dict)]


def write_card(
    run: Path, config: TrainConfig, report: dict[str, Any], best: str, weights: str, data: str
) -> None:
    """`card.md`: what the model is, what it was trained on, under which licence, from which
    weights, how good it is.
    """
    rows = "\n".join(
        f"| {key} | {value:.4g} | {report['gray'][key]:.4g} |"
        for key, value in report["val"].items()
    )
    text = (
        f"# {run.name}\n\nA colorizer trained by gancolor {__version__} (preset `{config.preset}`,"
        f" {report['step']} steps, {report['seen']} pictures at {config.image_size} px,"
        f" {report['seconds'] / 60:.1f} minutes).\n\n- Pictures: {data}\n- {weights}\n- Condition:"
        f" {config.condition}; colours are guesses, not facts.\n- {best}\n\n| held-out metric at"
        f" the last step | this model | gray picture |\n|---|---|---|\n{rows}\n"
    )
    write_whole(run / "card.md", visible(text, keep="\n"))


def _next_number(root: Path) -> int:
    return max(map(_number, root.iterdir()), default=0) + 1


def _number(path: Path) -> int:
    """The number that a run's name begins with, 0 for other names."""
    found = re.match(r"(\d+)-", path.name)
    return int(found[1]) if found else 0


def _origin() -> dict[str, Any]:
    import cv2
    import numpy
    import torch

    versions = {
        "gancolor": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    versions |= {"numpy": numpy.__version__, "opencv": cv2.__version__}
    return {
        "versions": versions,
        "git": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _commit() -> str | None:
    """Commit of the source tree that gancolor runs from, '+' when it was changed; None for an
    installed package.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None
