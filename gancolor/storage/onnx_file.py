"""Models as ONNX files: what they say of themselves, read without any library, and their opening
with onnxruntime.

Their metadata are those of `model_file`; their SHA-256 is over them and the graph's bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, MissingExtra, shown
from gancolor.storage import model_file

OPSET = 17
"""Of ONNX's operators, in every file that is written and read here."""

PRODUCER = "gancolor"
SUFFIX = ".onnx"

_WHAT = "ONNX file"
_VERSION, _PRODUCER, _GRAPH, _OPSETS, _METADATA = 1, 2, 7, 8, 14  # fields of ONNX's ModelProto
_MOST_FIELD = 1 << 24  # bytes of a field that is read: all but the graph are small


class Parts(NamedTuple):
    """A file taken apart. `opset`: of ONNX's own operators. `graph`: where its bytes begin and end."""

    producer: str
    opset: int
    told: dict[str, str]
    graph: tuple[int, int]


def names(config: TrainConfig) -> tuple[str, str]:
    """What a graph's condition and its colours are called."""
    return ("edges", "lightness_ab") if config.condition == "edges" else ("gray", "ab")


def is_one(path: Path) -> bool:
    """Whether a file is an ONNX model by its content, or a damaged one by its name."""
    if path.suffix.lower() == SUFFIX:
        return path.is_file()
    try:
        return path.is_file() and bool(_take_apart(path))
    except (OSError, ValueError):
        return False


def read_header(path: Path) -> dict[str, Any]:
    """What `model_file.parse` returns of the file's metadata, which are checked together with the
    graph.

    CheckpointError when it is missing, damaged, another's or of another opset.
    """
    try:
        parts = _take_apart(path)
        with open(path, "rb") as file:
            file.seek(parts.graph[0])
            found = digest(parts.told, file.read(parts.graph[1] - parts.graph[0]))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{shown(path)} is damaged or no ONNX file ({error}); export it again"
        ) from error
    if parts.producer != PRODUCER:
        raise CheckpointError(
            f"{shown(path)} must be a model that gancolor export wrote, got one by"
            f" {parts.producer[:40] or 'nobody'!r}"
        )
    content = model_file.parse(path, parts.told, _WHAT)
    if parts.opset != OPSET:
        raise CheckpointError(
            f"{shown(path)} must have ONNX's opset {OPSET}, got {parts.opset}; export it again with"
            " gancolor export"
        )
    if parts.told["sha256"] != found:
        raise CheckpointError(
            f"{shown(path)} is damaged (its checksum is another); export it again"
        )
    return content


def digest(told: Mapping[str, str], graph: bytes) -> str:
    """The SHA-256 of the other metadata and of the graph."""
    found = hashlib.sha256(
        model_file.dump({key: told[key] for key in told if key != "sha256"}).encode()
    )
    found.update(graph)
    return found.hexdigest()


def open_session(path: Path, threads: int) -> Any:
    """An onnxruntime.InferenceSession on the CPU. MissingExtra without onnxruntime, CheckpointError
    for a bad graph.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra(
            "ONNX models need onnxruntime; install it: pip install 'gancolor[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # inputs with defaults are on purpose
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes have no common base
        raise CheckpointError(
            f"{shown(path)} cannot be opened by onnxruntime {onnxruntime.__version__} "
            f"({(str(error).splitlines() or ['?'])[0][:160]}); export it again"
        ) from error


def _take_apart(path: Path) -> Parts:
    """The fields of a file that are wanted here. ValueError for what is no whole ONNX model."""
    producer, opset, told = "", 0, dict[str, str]()
    graph: tuple[int, int] | None = None
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        for number, value, (begin, end) in _fields(file, 0, size):
            if number == _VERSION and not isinstance(value, int):
                raise ValueError("it does not begin as one")
            if number == _GRAPH:
                graph = (begin, end)
            elif number == _PRODUCER and isinstance(value, bytes):
                producer = value.decode("utf-8", "replace")
            elif number == _OPSETS and isinstance(value, bytes):
                domain, version = _pair(file, begin, end)
                if domain in (b"", b"ai.onnx") and isinstance(version, int):
                    opset = version
            elif number == _METADATA and isinstance(value, bytes):
                key, text = _pair(file, begin, end)
                if isinstance(key, bytes) and isinstance(text, bytes):
                    told[key.decode("utf-8", "replace")] = text.decode("utf-8", "replace")
    if graph is None or not opset:
        raise ValueError("it has no graph")
    return Parts(producer, opset, told, graph)


def _pair(file: Any, begin: int, end: int) -> tuple[bytes | int, bytes | int]:
    """The first two fields of a small message."""
    found: dict[int, bytes | int] = {1: b"", 2: b""}
    found.update({number: value for number, value, _ in _fields(file, begin, end)})
    return found[1], found[2]


def _fields(file: Any, begin: int, end: int) -> Iterator[tuple[int, bytes | int, tuple[int, int]]]:
    """The fields of a protobuf message: number, value, and where the value lies; b"" for what is
    too large to read.
    """
    at = begin
    while at < end:
        tag, at = _varint(file, at, end)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 64:
            raise ValueError("it is no protobuf of ONNX's")
        if kind == 0:
            value, after = _varint(file, at, end)
            yield number, value, (at, after)
        elif kind == 2:
            length, at = _varint(file, at, end)
            after = at + length
            if after > end:
                raise ValueError("it ends too early")
            file.seek(at)
            yield (
                number,
                file.read(length) if length <= _MOST_FIELD and number != _GRAPH else b"",
                (at, after),
            )
        else:
            raise ValueError("it is no protobuf of ONNX's")
        at = after


def _varint(file: Any, at: int, end: int) -> tuple[int, int]:
    """A number of protobuf's at a place, and where it ends."""
    file.seek(at)
    value = 0
    for place, byte in enumerate(file.read(min(10, end - at))):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError("it ends too early")
