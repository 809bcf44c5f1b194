"""Models for elsewhere: a run as one safetensors or ONNX file, and the mean of several runs'
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gancolor import color, models
from gancolor.coloring.colorizer import rebuild
from gancolor.config import TrainConfig
from gancolor.data.still_life import composition
from gancolor.errors import CheckpointError, ConfigError, DataError, MissingExtra, shown
from gancolor.hub import choice
from gancolor.hub.choice import Choice
from gancolor.hub.repository import portable, portable_card
from gancolor.images import arrays
from gancolor.models import Generator
from gancolor.storage import checkpoint, model_file, onnx_file

FORMATS = {"safetensors": model_file.SUFFIX, "onnx": onnx_file.SUFFIX}
"""What can be written, with the suffix by which it is known."""

TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2}
"""How far an ONNX graph's colours (of ab) and probabilities may lie from torch's."""

_OWN_PRECISION = {"safetensors": "fp16", "onnx": "fp32"}
_LARGEST = 256  # pixels: side of the largest picture on which a graph is checked
_ODD = (2, 33, 47)  # of the smallest: pictures, height and width


class Exported(NamedTuple):
    """What was written. `difference`: the largest from torch that was found, None where nothing was
    computed.
    """

    size: int
    format: str
    precision: str
    difference: float | None


def export(
    model: Choice,
    out: Path,
    *,
    format: str | None = None,
    precision: str | None = None,
    card: Path | None = None,
    name: str | None = None,
    hints: bool | None = None,
    saturation: float | None = None,
) -> Exported:
    """Write the model of a run or a file to `out`, for colouring and as a start of trainings.

    `format`: one of `FORMATS`, None for the suffix's. `precision`: of the weights in the file, fp16
    or fp32, None for fp16 in safetensors and fp32 in ONNX. `card`: a Markdown file (default: the
    run's card.md). `name`: of the model (default: the run's). `hints`: whether an ONNX graph has an
    input for known colours (default: if the run takes them). `saturation`: a factor of its colours,
    0.5 to 2, that is kept in the file (default: the run's); a graph's own answers are without it.
    ConfigError for what does not go
    together, CheckpointError when it cannot be read, written, or when the graph computes something
    else than torch; then there is no file.
    """
    kind = _format_of(out, format)
    precision = precision or _OWN_PRECISION[kind]
    if name is not None and not (name.strip() and name.isprintable()):
        raise ConfigError(f"--name must be a line of text, got {name!r}")
    whole = checkpoint.open_to_color(model.path)
    generator = rebuild(whole, model.path)  # what does not fit is said before anything is written
    text = choice.card_of(model, whole) if card is None else _read_card(card)
    config, text = portable(whole["config"]), portable_card(text, whole["config"])
    if saturation is not None:
        config = replace(config, saturation=saturation)
    content = checkpoint.for_coloring(whole) | {
        "config": config,
        "name": name or _name_of(model, whole),
    }
    if kind == "safetensors":
        if hints is not None:
            raise ConfigError(
                "--hints must be left out with --format safetensors, which holds the whole network"
            )
        weights = model_file.halve(content) if precision == "fp16" else _in_float32(content)
        model_file.write(out, weights, config, card=text)
        return Exported(out.stat().st_size, kind, precision, None)
    if not isinstance(generator, Generator):
        raise ConfigError(
            f"--format must be safetensors with {model.name}, got onnx: the embedding of --network"
            f" {config.network} is a network of its own, for which no graph is written"
        )
    if hints and generator.hints is None:
        raise ConfigError(
            f"--hints must be left out with {model.name}, which never saw any; train with --hints"
        )
    with_hints = generator.hints is not None if hints is None else hints
    generator.eval().requires_grad_(False)
    difference = _write_onnx(out, generator, content, text, precision, with_hints)
    return Exported(out.stat().st_size, kind, precision, difference)


def average(given: Sequence[Choice], out: Path, *, precision: str = "fp16") -> Exported:
    """Write the mean of several models' weights as safetensors: for runs that began from the same
    weights.

    CheckpointError, naming the first tensor, unless all have the same network.
    """
    if len(given) < 2:
        raise ConfigError(f"runs to average must be at least 2, got {len(given)}")
    _format_of(out, "safetensors")
    opened = [checkpoint.open_to_color(model.path) for model in given]
    for model, whole in zip(given, opened, strict=True):
        rebuild(whole, model.path)
    contents = [checkpoint.for_coloring(whole) for whole in opened]
    first = contents[0]
    for model, other in zip(given[1:], contents[1:], strict=True):
        _check_alike(model, other, given[0], first)
    mean = {
        key: (
            _mean([content["generator"][key] for content in contents])
            if value.is_floating_point()
            else value
        )
        for key, value in first["generator"].items()
    }
    names = " and ".join(_name_of(model, whole) for model, whole in zip(given, opened, strict=True))
    content = {**first, "generator": mean, "name": f"mean of {names}"}
    content = model_file.halve(content) if precision == "fp16" else content
    model_file.write(out, content, portable(first["config"]))
    return Exported(out.stat().st_size, "safetensors", precision, None)


def _format_of(out: Path, given: str | None) -> str:
    by_suffix = {suffix: kind for kind, suffix in FORMATS.items()}.get(out.suffix.lower())
    if (kind := given or by_suffix) is None:
        raise ConfigError(
            f"--format must be one of {', '.join(FORMATS)} for --out {shown(out)}, got none"
        )
    if by_suffix not in (None, kind):
        raise ConfigError(
            f"--out must end in {FORMATS[kind]} with --format {kind}, got {shown(out)}"
        )
    if out.is_dir():
        raise ConfigError(f"--out must name a file, got the folder {shown(out)}")
    return kind


def _name_of(model: Choice, content: dict[str, Any]) -> str:
    """What a model is called in its file: as it calls itself, a run by its directory, else a file
    by its name.
    """
    path = model.path.absolute()
    run = path if path.is_dir() else path.parent
    return str(content.get("name") or (run.name if (run / "config.json").exists() else path.stem))


def _read_card(card: Path) -> str:
    try:
        return card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise DataError(
            f"{shown(card)} must be a text in UTF-8, got '{reason}'; choose another with --card"
        ) from error


def _in_float32(content: dict[str, Any]) -> dict[str, Any]:
    """The content with the generator's weights in float32."""
    state = content["generator"]
    whole = {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }
    return {**content, "generator": whole}


def _check_alike(
    model: Choice, content: dict[str, Any], first: Choice, wanted: dict[str, Any]
) -> None:
    """CheckpointError unless two models have tensors of the same names and shapes, and say the
    same.
    """
    state, other = wanted["generator"], content["generator"]
    odd = sorted(state.keys() ^ other.keys()) or [
        key for key in state if state[key].shape != other[key].shape
    ]
    if odd:
        sizes = [
            tuple(held[odd[0]].shape) if odd[0] in held else "nothing" for held in (state, other)
        ]
        raise CheckpointError(
            f"models to average must have the same network, got {odd[0]} {sizes[0]} in {first.name}"
            f" and {sizes[1]} in {model.name}; gancolor sample with --run for each of them takes"
            " the mean of what they say"
        )


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([value.float() for value in values]).mean(0)


def _write_onnx(
    out: Path, generator: Generator, content: dict[str, Any], card: str, precision: str, hints: bool
) -> float:
    """Write the graph unless it differs too much from torch; returns the largest difference."""
    try:
        from gancolor.storage import onnx_graph
    except ImportError as error:
        if error.name != "onnx":
            raise
        raise MissingExtra(
            "--format onnx needs onnx; install it: pip install 'gancolor[onnx]'"
        ) from None
    config: TrainConfig = content["config"]
    model = onnx_graph.build(
        generator, onnx_file.names(config), hints=hints, half=precision == "fp16"
    )
    plain = {key: value for key, value in content.items() if key not in ("config", "generator")}
    told = model_file.describe(plain, config, card)
    told["sha256"] = onnx_file.digest(told, model.graph.SerializeToString())
    for key, value in told.items():
        model.metadata_props.add(key=key, value=value)
    with model_file.written(out) as file:
        file.write(model.SerializeToString())
        file.flush()
        unchecked = Path(file.name)
        onnx_file.read_header(unchecked)
        difference = _compare(unchecked, generator, config, hints)
        if not difference <= TOLERANCES[precision]:  # also not-a-number
            raise CheckpointError(
                f"{shown(out)} was not written: onnxruntime's colours differ from torch's by"
                f" {difference:.2g}, more than {TOLERANCES[precision]:g}; use --format safetensors"
            )
    return difference


def _compare(path: Path, generator: Generator, config: TrainConfig, hints: bool) -> float:
    """The largest difference between a file's colours and probabilities and torch's, at three
    sizes.
    """
    session = onnx_file.open_session(path, torch.get_num_threads())
    side = min(config.image_size, _LARGEST)
    largest = 0.0
    for count, height, width in ((1, side, side), (1, side * 3 // 4 + 1, side + 3), _ODD):
        condition = torch.cat(
            [_condition(config, number, height, width) for number in range(count)]
        )
        known = torch.zeros(count, 3, height, width)
        known[:, :, height // 2 : height // 2 + 2, width // 3] = torch.tensor([0.3, -0.2, 1.0])[
            :, None
        ]
        given = {onnx_file.names(config)[0]: condition.numpy()} | (
            {"hints": known.numpy()} if hints else {}
        )
        got = [torch.from_numpy(answer) for answer in session.run(None, given)]
        with torch.inference_mode():
            wanted = generator.say(condition, known if hints else None)
        differences = [got[0] - wanted.colors]
        if wanted.logits is not None:
            differences.append(got[1].softmax(1) - wanted.logits.softmax(1))
        largest = max(
            [largest, *(float(each.abs().max().nan_to_num(torch.inf)) for each in differences)]
        )
    return largest


def _condition(config: TrainConfig, number: int, height: int, width: int) -> Tensor:
    """What a generator is given of a generated picture, (1, 1, height, width)."""
    rgb = composition.paint(0, number, max(height, width))[:height, :width]
    if config.condition == "edges":
        return torch.from_numpy(arrays.edges(rgb))[None, None].float() / 255
    pixels = color.to_tensor(rgb)
    return models.see(config, color.split(pixels)[0])
