"""Checkpoints: written whole or not at all, read without running code from the file."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from gancolor import __version__, onnx_file, safetensors_file
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, ConfigError
from gancolor.models.encoders import ENCODERS

FORMAT = 1  # raised when an older reader would misread the file

_CHECKPOINTS = ("best.pt", "last.pt", "last-1.pt")  # of a run; the first that is there colours

_log = logging.getLogger("gancolor")


def save(path: Path, content: dict[str, Any], config: TrainConfig, *, keep: Path | None = None) -> None:
    """Write `content` and `config` to `path`: aside, fsync, rename; the file it replaces moves to `keep`.

    CheckpointError when it cannot be written (a full disk, say); what was there before stays.
    """
    aside = path.with_name(path.name + ".tmp")
    whole = {"format": FORMAT, "version": __version__, "config": config.to_json(), **content}
    try:
        with open(aside, "wb") as file:
            torch.save(whole, file)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(aside, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch wraps some write errors in RuntimeError
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path} could not be written ({_write_reason(error)}); the checkpoint before it is intact"
        ) from error


def load(path: Path) -> dict[str, Any]:
    """What `save` or `safetensors_file.write` wrote, with tensors on the CPU and `config` as a TrainConfig.

    CheckpointError when it is missing, damaged (every byte is checked against its CRC), of another version, or no
    checkpoint at all.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} must be a checkpoint, got {'a folder' if path.is_dir() else 'nothing there'}; "
            "name another run, or train this one until it has saved one"
        )
    if safetensors_file.is_one(path):
        return safetensors_file.read(path)
    if onnx_file.is_one(path):
        raise CheckpointError(f"{path} is an ONNX model, which can only colour; use the run or its safetensors file")
    return _read(path, whole=True)


def check(path: Path) -> None:
    """Raise CheckpointError unless all of a file is a model of this version, of whichever format."""
    if onnx_file.is_one(path):
        onnx_file.read_header(path)
    else:
        load(path)


def suffix_of(path: Path) -> str:
    """The suffix of a model's file, by its content."""
    if safetensors_file.is_one(path):
        return safetensors_file.SUFFIX
    return onnx_file.SUFFIX if onnx_file.is_one(path) else ".pt"


def peek(path: Path) -> dict[str, Any]:
    """As `load`, but the tensors' bytes are neither read nor checked: for what a file says of itself."""
    if onnx_file.is_one(path):
        return onnx_file.read_header(path)
    return safetensors_file.read_header(path) if safetensors_file.is_one(path) else _read(path, whole=False)


def _read(path: Path, whole: bool) -> dict[str, Any]:
    try:
        if whole:
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise CheckpointError(
                        f"{path} is damaged (checksum of {damaged}); use another checkpoint of the run"
                    )
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=not whole)
    except CheckpointError:
        raise
    except (
        Exception
    ) as error:  # damaged bytes fail in many ways: BadZipFile, UnicodeDecodeError, zlib.error, KeyError, ...
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint ({_first_line(error)}); use another one"
        ) from error
    if not isinstance(content, dict) or "format" not in content or not isinstance(content.get("config"), dict):
        raise CheckpointError(f"{path} must be a gancolor checkpoint, got another file")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{path} must have checkpoint format {FORMAT}, got {content['format']} "
            f"written by gancolor {content.get('version')}; use that version"
        )
    try:
        content["config"] = TrainConfig.restore(content["config"])
    except ConfigError as error:
        raise CheckpointError(f"{path}, written by gancolor {content.get('version')}: {error}") from error
    return content


def load_last(run: Path, *, mend: bool = False) -> dict[str, Any]:
    """The run's `last.pt`, or `last-1.pt` with a warning when the first is damaged or missing.

    `mend`: put the damaged one aside as `last.pt.damaged`, so that the next `save` does not replace the good one by it.
    """
    first, second = run / "last.pt", run / "last-1.pt"
    try:
        return load(first)
    except CheckpointError as error:
        if not second.exists():
            raise
        _log.warning("%s; going on from %s", error, second.name)
        content = load(second)
    if mend and first.exists():
        with contextlib.suppress(OSError):
            os.replace(first, first.with_name(first.name + ".damaged"))
    return content


def coloring_file(path: Path) -> Path:
    """The checkpoint with which a model colours: of a run its best.pt, else its last.pt; a file itself."""
    if not path.is_dir():
        return path
    return next((path / name for name in _CHECKPOINTS if (path / name).exists()), path / "last.pt")


def open_to_color(path: Path) -> dict[str, Any]:
    """The content of `coloring_file`; of a damaged last.pt the one before it, with a warning."""
    file = coloring_file(path)
    return load_last(path) if file != path and file.name != "best.pt" else load(file)


def for_coloring(content: dict[str, Any]) -> dict[str, Any]:
    """What colouring and `--init` need of a run's checkpoint, as best.pt holds it; best.pt's own content as it is.

    `generator`: the averaged one's tensors, with those of the frozen encoder's blocks that it uses. KeyError for what
    is missing.
    """
    config: TrainConfig = content["config"]
    state = dict(content.get("ema") or content["generator"])
    if config.network == "unet" and not any(key.startswith("encoder.") for key in state):
        with torch.device("meta"):
            used = set(ENCODERS[config.backbone].build(config.frozen_blocks).state_dict())
        frozen = content["backbone" if config.backbone == "vgg16" else "encoder"]
        state |= {f"encoder.{key}": value for key, value in frozen.items() if key in used}
    kept = ("name", "origin", "step", "seen", "seconds", "embedding")
    return {"config": config, "generator": state} | {key: content[key] for key in kept if key in content}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def _write_reason(error: BaseException) -> str:
    """The system's reason where there is one: torch, closing its archive, covers a failed write with its own error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    return _first_line(error)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable (POSIX only; elsewhere the rename alone must do)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def runs_root(given: str | Path | None = None) -> Path:
    """Where runs live: `given`, else $GANCOLOR_RUNS, else ./runs."""
    return Path(given or os.environ.get("GANCOLOR_RUNS") or "runs")


def find_run(run: str | None, root: Path) -> Path:
    """A run directory by path, or by name or number under `root`; for None the newest one that has a checkpoint.

    CheckpointError when there is none.
    """
    known = _runs(root)
    if run is None:
        if not (trained := trained_runs(root)):
            raise CheckpointError(
                f"{root} must hold a trained run, got none; train one first or choose with --run or --runs-root"
            )
        return trained[-1]
    if (path := Path(run)).is_dir():
        return path
    named = [path for path in known if path.name == run or path.name.split("-", 1)[1] == run]
    if re.fullmatch(r"[0-9]+", run):
        named += [path for path in known if int(path.name.split("-")[0]) == int(run)]
    if not named:
        names = ", ".join(path.name for path in known[-5:]) or "none"
        raise CheckpointError(
            f"the run must be a path, a name or a number under {root}, got {run!r}; the newest there: {names}"
        )
    return named[-1]


def trained_runs(root: Path) -> list[Path]:
    """The run directories under `root` that have a checkpoint, the newest last."""
    return [path for path in _runs(root) if any((path / name).exists() for name in _CHECKPOINTS)]


def _runs(root: Path) -> list[Path]:
    numbered = [path for path in root.glob("[0-9]*-*") if re.match(r"[0-9]+-", path.name) and path.is_dir()]
    return sorted(numbered, key=lambda path: (int(path.name.split("-")[0]), path.name))
