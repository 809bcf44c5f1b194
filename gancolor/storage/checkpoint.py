"""Checkpoints: written whole or not at all, read without running code from the file."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gancolor import __version__
from gancolor.config import TrainConfig
from gancolor.errors import (
    CheckpointError,
    ConfigError,
    DamagedCheckpoint,
    is_out_of_memory,
    passing,
    reason_of,
    shown,
)
from gancolor.models import pretrained
from gancolor.models.backbones import ENCODERS
from gancolor.runtime.files import written
from gancolor.storage import model_file, onnx_file

FORMAT = 1  # raised when an older reader would misread the file

_CHECKPOINTS = ("best.pt", "last.pt", "last-1.pt")  # of a run; the first that is there colours

_log = logging.getLogger("gancolor")


def save(
    path: Path, content: dict[str, Any], config: TrainConfig, *, keep: Path | None = None
) -> None:
    """Write `content` and `config` to `path`, whole or not at all; the file it replaces moves to
    `keep`.

    CheckpointError when it cannot be written (a full disk, say); what was there before stays.
    """
    whole = {"format": FORMAT, "version": __version__, "config": config.to_json(), **content}
    try:
        with written(path, keep=keep) as file:
            torch.save(whole, file)
    except (OSError, RuntimeError) as error:
        # torch wraps some write errors in RuntimeError.
        if is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"{shown(path)} could not be written"
            f" ({_write_reason(error)}){_what_is_left(path, keep)}"
        ) from error


def load(path: Path) -> dict[str, Any]:
    """What `save` or `model_file.write` wrote, with tensors on the CPU and `config` as a
    TrainConfig.

    Its values are of the kinds of `KINDS`.

    DamagedCheckpoint when its structure or a checksum (every byte has one) shows that it is not as
    it was written. CheckpointError when it is missing, of another version or no checkpoint, and
    when it could not be read this once.
    """
    try:
        _require_file(path)
        is_safetensors, is_onnx = model_file.is_one(path), onnx_file.is_one(path)
    except OSError as error:
        raise CheckpointError(f"{shown(path)} could not be read now ({passing(error)})") from error
    if is_safetensors:
        return model_file.read(path)
    if is_onnx:
        raise CheckpointError(
            f"{shown(path)} is an ONNX model, which can only colour; use the run or its safetensors"
            " file"
        )
    return _read(path, whole=True)


def check(path: Path) -> None:
    """Raise CheckpointError unless all of a file is a model of this version, of whichever format."""
    if onnx_file.is_one(path):
        onnx_file.read_header(path)
    else:
        load(path)


def suffix_of(path: Path) -> str:
    """The suffix of a model's file, by its content."""
    if model_file.is_one(path):
        return model_file.SUFFIX
    return onnx_file.SUFFIX if onnx_file.is_one(path) else ".pt"


def peek(path: Path) -> dict[str, Any]:
    """As `load`, but the tensors' bytes are neither read nor checked: for what a file says of
    itself.
    """
    if onnx_file.is_one(path):
        return onnx_file.read_header(path)
    return model_file.read_header(path) if model_file.is_one(path) else _read(path, whole=False)


def _read(path: Path, whole: bool) -> dict[str, Any]:
    try:
        _check_archive(path, whole)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=not whole)
    except CheckpointError:
        raise
    except Exception as error:  # of a foreign file the unpickler raises anything
        if words := passing(error):
            raise CheckpointError(f"{shown(path)} could not be read now ({words})") from error
        raise CheckpointError(
            f"{shown(path)} must be a gancolor checkpoint, got another file"
            f" ({pretrained.refusal(error)})"
        ) from None  # torch's own words tell how to run the code in it
    return _understood(content, path)


def _require_file(path: Path) -> None:
    """CheckpointError unless it is a regular file; OSError where that cannot be seen."""
    got = "nothing there"
    if _exists(path):
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return
        got = "a folder" if stat.S_ISDIR(mode) else "no regular file"
    raise CheckpointError(
        f"{shown(path)} must be a checkpoint, got {got}; name another run, or train this one until"
        " it has saved one"
    )


def _check_archive(path: Path, whole: bool) -> None:
    """Raise DamagedCheckpoint unless the file is an archive as `save` writes them, and its
    checksums right if `whole`.

    Its members are stored as they are. So what it would unpack to is known to be no more than the
    file itself.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pretrained.check_stored(archive, path.stat().st_size)
            damaged = archive.testzip() if whole else None
    except (
        Exception
    ) as error:  # damaged bytes fail in many ways: BadZipFile, UnicodeDecodeError, EOFError, ...
        if passing(error):
            raise
        raise DamagedCheckpoint(
            f"{shown(path)} is damaged or not a checkpoint ({reason_of(error)}); use another one"
        ) from error
    if damaged:
        raise DamagedCheckpoint(
            f"{shown(path)} is damaged (checksum of {shown(damaged)}); use another checkpoint of"
            " the run"
        )


def _understood(content: Any, path: Path) -> dict[str, Any]:
    """The content of a file that is whole, with its settings restored. CheckpointError unless it is
    a checkpoint's.
    """
    if (
        not isinstance(content, dict)
        or "format" not in content
        or not isinstance(content.get("config"), dict)
    ):
        raise CheckpointError(f"{shown(path)} must be a gancolor checkpoint, got another file")
    version = shown(content.get("version"), 40)
    if type(content["format"]) is not int or content["format"] != FORMAT:
        raise CheckpointError(
            f"{shown(path)} must have checkpoint format {FORMAT}, got"
            f" {shown(content['format'], 40)} written by gancolor {version}; use that version"
        )
    for key, kind in KINDS.items():
        if key in content and not _IS[kind](content[key]):
            raise CheckpointError(
                f"{shown(path)} must hold {kind} as its {key}, got {type(content[key]).__name__}; "
                "use another checkpoint of the run"
            )
    try:
        content["config"] = TrainConfig.restore(content["config"])
    except ConfigError as error:
        raise CheckpointError(f"{shown(path)}, written by gancolor {version}: {error}") from error
    return content


KINDS = {
    **dict.fromkeys(("generator", "ema", "head", "backbone", "encoder"), "tensors by name"),
    **dict.fromkeys(("optimizers", "scaler", "health", "embedding", "set"), "values by name"),
    **dict.fromkeys(("val", "gray"), "numbers by name"),
    **dict.fromkeys(("step", "seen", "ema_updates"), "a count"),
    **dict.fromkeys(("seconds", "best"), "a number"),
    **dict.fromkeys(("version", "origin"), "a text"),
    "shares": "a tensor",
}
"""What is under a checkpoint's keys where it has them. Readers rely on it; other keys mean nothing
to them.
"""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_plain(value: Any) -> bool:
    """Whether a value is a tensor of numbers in memory, as every tensor of a checkpoint is."""
    return (
        isinstance(value, torch.Tensor)
        and value.device.type == "cpu"
        and value.layout == torch.strided
    )


def _is_named(value: Any, kind: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and kind(item) for key, item in value.items()
    )


_IS: dict[str, Callable[[Any], bool]] = {
    "tensors by name": lambda value: _is_named(value, _is_plain),
    "values by name": lambda value: _is_named(value, lambda _: True),
    "numbers by name": lambda value: _is_named(value, _is_number),
    "a count": lambda value: type(value) is int and 0 <= value < 2**63,
    "a number": _is_number,
    "a text": lambda value: isinstance(value, str),
    "a tensor": _is_plain,
}


def load_last(run: Path, *, mend: bool = False) -> dict[str, Any]:
    """The run's `last.pt`, or `last-1.pt` with a warning when the first is proven damaged or
    missing.

    `mend`: put the damaged one aside as `last.pt.damaged`, so that the next `save` does not replace
    the good one by it, and remove what a killed process left half written. What only could not be
    read this once (short memory, a disk's error) stays, and is an error.
    """
    first, second = run / "last.pt", run / "last-1.pt"
    there = _exists(first)
    if mend:
        for torn in run.glob(".*-????????.part"):
            with contextlib.suppress(OSError):
                torn.unlink()
    try:
        return load(first)
    except CheckpointError as error:
        if not second.exists() or (there and not isinstance(error, DamagedCheckpoint)):
            raise
        _log.warning("%s; going on from %s", error, second.name)
        content = load(second)
    if mend and there:
        with contextlib.suppress(OSError):
            os.replace(first, first.with_name(first.name + ".damaged"))
    return content


def coloring_file(path: Path) -> Path:
    """The checkpoint with which a model colours: of a run its best.pt, else its last.pt; a file
    itself.
    """
    if not path.is_dir():
        return path
    return next((path / name for name in _CHECKPOINTS if (path / name).exists()), path / "last.pt")


def open_to_color(path: Path) -> dict[str, Any]:
    """The content of `coloring_file`; of a damaged last.pt the one before it, with a warning."""
    file = coloring_file(path)
    return load_last(path) if file != path and file.name != "best.pt" else load(file)


def for_coloring(content: dict[str, Any]) -> dict[str, Any]:
    """What colouring and `--init` need of a run's checkpoint, as best.pt holds it; best.pt's own
    content as it is.

    `generator`: the averaged one's tensors, with those of the frozen encoder's blocks that it uses.
    KeyError for what is missing.
    """
    config: TrainConfig = content["config"]
    state = dict(content.get("ema") or content["generator"])
    if not config.takes_embedding and not any(key.startswith("encoder.") for key in state):
        with torch.device("meta"):
            used = set(ENCODERS[config.backbone].build(config.frozen_blocks).state_dict())
        frozen = content["backbone" if config.backbone == "vgg16" else "encoder"]
        state |= {f"encoder.{key}": value for key, value in frozen.items() if key in used}
    kept = ("name", "origin", "step", "seen", "seconds", "embedding")
    return {"config": config, "generator": state} | {
        key: content[key] for key in kept if key in content
    }


def _exists(path: Path) -> bool:
    """Whether it is there, also where it cannot be looked at."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def _write_reason(error: BaseException) -> str:
    """The system's reason where there is one: torch, closing its archive, covers a failed write
    with its own error.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    return reason_of(error)


def _what_is_left(path: Path, keep: Path | None) -> str:
    if not _exists(path.parent):
        return "; its folder is gone: was it deleted or moved?"
    return (
        "; the checkpoint before it is intact"
        if any(_exists(one) for one in (path, keep) if one)
        else ""
    )


def runs_root(given: str | Path | None = None) -> Path:
    """Where runs live: `given`, else $GANCOLOR_RUNS, else ./runs."""
    return Path(given or os.environ.get("GANCOLOR_RUNS") or "runs")


def find_run(run: str | None, root: Path) -> Path:
    """A run directory by path, or by name or number under `root`; for None the newest one that has
    a checkpoint.

    CheckpointError when there is none.
    """
    known = all_runs(root)
    if run is None:
        if not (trained := trained_runs(root)):
            raise CheckpointError(
                f"{root} must hold a trained run, got none; train one first or choose with --run or"
                " --runs-root; to colour files, name them: gancolor sample old/ --out new/"
            )
        return trained[-1]
    if (path := Path(run)).is_dir():
        return path
    named = [path for path in known if path.name == run or path.name.split("-", 1)[1] == run]
    if re.fullmatch(r"[0-9]+", run):
        named += [path for path in known if int(path.name.split("-")[0]) == int(run)]
    if not named:
        names = ", ".join(path.name for path in known[-5:])
        there = f"the newest there: {names}" if names else "there is no run yet"
        raise CheckpointError(
            f"the run must be a path, a name or a number under {root}, got {run!r}; {there}"
        )
    return named[-1]


def trained_runs(root: Path) -> list[Path]:
    """The run directories under `root` that have a checkpoint, the newest last."""
    return [path for path in all_runs(root) if any((path / name).exists() for name in _CHECKPOINTS)]


def all_runs(root: Path) -> list[Path]:
    """The run directories under `root`, the newest last."""
    numbered = [
        path for path in root.glob("[0-9]*-*") if re.match(r"[0-9]+-", path.name) and path.is_dir()
    ]
    return sorted(numbered, key=lambda path: (int(path.name.split("-")[0]), path.name))
