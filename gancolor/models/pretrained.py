"""Weights of pretrained networks: fetched, read without running code from them, checked, or drawn
at random.

What a user chooses with --backbone-weights or --encoder-weights is the same for every network:
`imagenet`, `none` or the path of a file. `option` is which of the two an error should name.

VGG's files differ in the names of their layers, the order of their axes, the order of the colours,
and in what is subtracted from the picture. All end here in torchvision's names and axes, for a
network that takes RGB and normalizes it by its own mean and standard deviation:

    layers of the file           axes            colours   picture
    features.N, classifier.N     torch's         RGB       as the network's own
    conv1_1, fc6 (MatConvNet)    torch's         RGB       0-255 minus the mean
    conv_1_1, fc6 (Torch7)       torch's         BGR       0-255 minus the mean
    conv1_1/kernel, fc6 (Keras)  HWIO, HWC       BGR       0-255 minus the mean
    block1_conv1, fc1 (Keras)    by the key      BGR       0-255 minus the mean

The mean is VGG-Face's (R 129.1863, G 104.7624, B 93.5940) for 2622 classes and ImageNet's (123.68,
116.779, 103.939) for 1000. Without a classifier it is ImageNet's for block1_conv1 and VGG-Face's
for the rest.
"""

from __future__ import annotations

import hashlib
import logging
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gancolor.errors import DownloadError, WeightsError, passing, reason_of, shown
from gancolor.runtime.download import fetch, log_tenths

log = logging.getLogger("gancolor")

BACKBONE_OPTION = "--backbone-weights"
ENCODER_OPTION = "--encoder-weights"
FACE_MEAN = (129.1863, 104.7624, 93.5940)  # RGB, of 0-255
IMAGENET_MEAN = (123.68, 116.779, 103.939)

_KEY = re.compile(
    r"(?P<layer>(?P<style>block|conv_|conv)(?P<block>\d)_(?:conv)?(?P<place>\d)|fc[1-8]|predictions)(?:/(?P=layer))?"
    r"(?:[./](?P<kind>weight|kernel|bias)|_(?P<letter>[Wb])(?:_1)?)(?::0)?"
)

_KINDS = ("weight", "bias")
_HEADS = ("classifier.0", "classifier.3", "classifier.6")
_CAFFE_HEADS = ("fc6", "fc7", "fc8")
_KERAS_HEADS = ("fc1", "fc2", "predictions")
_Module = TypeVar("_Module", bound=nn.Module)


def check_stored(archive: zipfile.ZipFile, size: int) -> None:
    """BadZipFile unless an archive of `size` bytes holds its members as they are, as torch writes
    them.

    So it unpacks to no more than it is. Packed ones may grow to a thousand times of it.
    """
    members = archive.infolist()
    if any(each.compress_type != zipfile.ZIP_STORED or each.flag_bits & 1 for each in members):
        raise zipfile.BadZipFile("its members are packed, which torch does not write")
    if (told := sum(each.file_size for each in members)) > size:
        raise zipfile.BadZipFile(f"its members are of {told:,} bytes, it has {size:,}")


def refusal(error: BaseException) -> str:
    """Why torch does not take a file, in a few words, without its advice to load it in spite of
    that.
    """
    if named := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it would run code: {shown(named[1], 80)}"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds other things than numbers and texts"
    return reason_of(error)


def way_out(title: str, option: str = BACKBONE_OPTION) -> str:
    """Return the end of an error about the weights of the network called `title`: what a user can
    do instead.
    """
    return f"give {title}'s own file with {option} PATH, or go without with {option} none"


def named_source(url: str, title: str, option: str = BACKBONE_OPTION) -> tuple[str, str]:
    """Return `url` and the beginning of its file's SHA-256, with which the name ends
    (`vgg16-397923af.pth`).

    Raises WeightsError if it does not.
    """
    found = re.search(r"-([0-9a-f]{8,})\.pth$", url)
    if found is None:
        raise WeightsError(
            f"address of {title}'s weights must hold their checksum, got {url};"
            f" {way_out(title, option)}"
        )
    return url, found.group(1)


def download_weights(source: tuple[str, str], title: str, option: str = BACKBONE_OPTION) -> Path:
    """Return the file of `source` in torch's hub folder, fetched once and its checksum verified.

    Raises WeightsError with the reason and the ways out.
    """
    url, sha256 = source
    target = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    try:
        return fetch(url, target, sha256, progress=log_tenths(f"{title}'s weights"))
    except DownloadError as error:
        raise WeightsError(f"{error}; or {way_out(title, option)}") from error


def read_state(path: Path, title: str, option: str = BACKBONE_OPTION) -> Mapping[str, Any]:
    """Load a state_dict without running code from it; only what is used is read from disk.

    Raises WeightsError if `path` holds none.
    """
    require_file(path, title, option)
    try:
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                check_stored(archive, path.stat().st_size)
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # a file of another kind makes the unpickler raise anything, IndexError for some texts
        if words := passing(error):
            raise WeightsError(f"{shown(path)} could not be read now ({words})") from error
        raise WeightsError(
            f"{shown(path)} must be a state_dict saved by torch.save, got: {refusal(error)};"
            f" {way_out(title, option)}"
        ) from None  # torch's own words tell how to run the code in it
    if not isinstance(loaded, Mapping) or not all(isinstance(key, str) for key in loaded):
        raise WeightsError(
            f"{shown(path)} must hold a state_dict, got {type(loaded).__name__};"
            f" {way_out(title, option)}"
        )
    return loaded


def require_file(path: Path, title: str, option: str = BACKBONE_OPTION) -> None:
    """Raise WeightsError unless `path` is a file."""
    if not path.is_file():
        what = option.removeprefix("--").replace("-", " ")
        raise WeightsError(
            f"{what} must be imagenet, none or a file, got {shown(path)}, which is no file;"
            f" {way_out(title, option)}"
        )


def find_problems(
    given: Mapping[str, Any], wanted: Mapping[str, Tensor], names: Mapping[str, str] | None = None
) -> str | None:
    """Say in one line what keeps `given` from being `wanted`'s tensors, or None if names and shapes
    fit exactly.

    `names` gives the names that messages use where the file's differ from `wanted`'s (and perhaps
    its axes did).
    """
    names = names or {}
    found = _list("missing", [names.get(key, key) for key in wanted if key not in given])
    found += _list("unknown", [key for key in given if key not in wanted])
    for key in (key for key in wanted if key in given):
        value, name = given[key], names.get(key, key)
        plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
        shape = tuple(value.shape) if plain else type(value).__name__
        if shape != tuple(wanted[key].shape):
            axes = " in torch's order of axes" if name != key and isinstance(shape, tuple) else ""
            found.append(f"{name} is {shape} instead of {tuple(wanted[key].shape)}{axes}")
        elif not torch.isfinite(value).all():
            found.append(f"{name} holds values that are not finite")
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return "; ".join(found[:4]) + more if found else None


def _list(what: str, keys: list[str]) -> list[str]:
    if not keys:
        return []
    named = ", ".join(shown(key, 80) for key in keys[:3])
    return [f"{len(keys)} {what} ({named}{', ...' if len(keys) > 3 else ''})"]


def require_fit(
    given: Mapping[str, Any],
    wanted: Mapping[str, Tensor],
    path: Path,
    title: str,
    names: Mapping[str, str] | None = None,
    option: str = BACKBONE_OPTION,
) -> None:
    """Raise WeightsError unless `given`, what the file `path` holds, is `wanted`'s tensors; see
    `find_problems`.
    """
    if found := find_problems(given, wanted, names):
        raise WeightsError(
            f"{shown(path)} must hold {title}'s tensors and no others, got: {found};"
            f" {way_out(title, option)}"
        )


def load_strictly(
    network: nn.Module,
    given: Mapping[str, Any],
    path: Path,
    title: str,
    names: Mapping[str, str] | None = None,
    option: str = BACKBONE_OPTION,
) -> None:
    """Copy `given` into `network`, in the network's own dtype; raise WeightsError unless it fits
    exactly.
    """
    require_fit(given, network.state_dict(), path, title, names, option)
    network.load_state_dict(given)


def build_empty(build: Callable[[], _Module]) -> _Module:
    """Return what `build` builds with its tensors in memory but not set, and without using up
    random numbers.
    """
    with torch.device("meta"):
        network = build()
    # As to_empty, which asks Python code of torch's for the look of each tensor: ten times as long.
    network._apply(  # type: ignore[no-untyped-call]
        lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype)
    )
    return network


def randomize(network: nn.Module, seed: int, first: float = 1.0) -> None:
    """Draw Kaiming normal weights over fan_in for ReLU, biases 0, BatchNorm neutral, from `seed`
    alone.

    The first layer's weights are multiplied by `first`, for a network whose input is not about 1 in
    size. Raises TypeError for parameters of other layers than convolutions, Linear and BatchNorm.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if first != 1:
                layer.weight.data.mul_(first)
                first = 1.0
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, _BatchNorm):
            layer.reset_parameters()
        elif any(True for _ in layer.parameters(recurse=False)):
            raise TypeError(f"no rule for the random weights of {type(layer).__name__}")


def describe_origin(
    weights: str,
    find_source: Callable[[], tuple[str, str] | None] | None,
    publisher: str,
    part: str = "",
) -> str:
    """Say in words where weights come from, and whether they are ImageNet's as `publisher` gives
    them where `find_source` tells; random weights do not ask, for libraries load slowly.
    """
    if weights == "none":
        return "random, never trained (not ImageNet)"
    source = find_source() if find_source else None
    if weights == "imagenet" and source is not None:
        return f"ImageNet ({publisher}'s {source[0].rsplit('/', 1)[-1]}{part})"
    digest = file_sha256(Path(weights))
    if source is None:
        origin = "from a file"
    else:
        original = digest.startswith(source[1])
        origin = f"ImageNet, {publisher}'s file" if original else "from a file, not ImageNet's own"
    return f"{Path(weights).name} ({origin}; sha256 {digest[:12] or 'unknown'})"


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal, or "" if it cannot be read (any more)."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


class Converted(NamedTuple):
    """A file's tensors under the network's names, the file's names of those for messages, and the
    convention.
    """

    state: dict[str, Any]
    names: dict[str, str]
    words: str


class _Convention(NamedTuple):
    """Where a file's layers go, and how its first layer sees a picture."""

    title: str
    layers: dict[str, str]  # the file's name of a layer -> torchvision's
    bgr: bool
    mean: tuple[float, ...]


def to_torchvision(
    loaded: Mapping[str, Any],
    *,
    widths: Sequence[int | str],
    mean: Sequence[float],
    std: Sequence[float],
    classifier: bool = True,
) -> Converted:
    """Return the tensors of a VGG of `widths` (torchvision's table) from a file of any convention
    above, float32.

    `mean` and `std` are the network's own, of RGB in [0, 1]. They and the order of the colours go
    into the first layer: exactly, but for the outermost pixels of the picture, which see the
    network's own mean beyond the border. Without `classifier`, its tensors are left out. What is
    not understood stays as it is, for the check to name.
    """
    convention = _recognize(loaded, widths)
    if convention is None:
        kept = {k: v for k, v in loaded.items() if classifier or not k.startswith("classifier.")}
        return Converted(
            _float(kept), {}, "torchvision's names: RGB, normalized as the network does"
        )
    channels = [width for width in widths if isinstance(width, int)][-1]
    state: dict[str, Any] = {}
    names = {
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for theirs, ours in convention.layers.items()
        for kind in _KINDS
    }
    for key, value in loaded.items():
        target, is_kernel = _target(key, convention)
        if target is None or target in state:
            state[key] = value
        elif classifier or not target.startswith("classifier."):
            names[target] = key
            state[target] = _torch_axes(value, target, is_kernel, channels)
    state = _float(state)
    _fold(state, convention, mean, std)
    colours = "BGR" if convention.bgr else "RGB"
    values = " ".join(
        str(value) for value in (convention.mean[::-1] if convention.bgr else convention.mean)
    )
    return Converted(state, names, f"{convention.title}: {colours}, 0-255 minus {values}")


def _recognize(loaded: Mapping[str, Any], widths: Sequence[int | str]) -> _Convention | None:
    """Return the convention of the first convolution with a name that is not torchvision's, None if
    there is none.
    """
    if any(key.startswith("features.") for key in loaded):
        return None
    found = next(
        (match for key in loaded if (match := _KEY.fullmatch(key)) and match["style"]), None
    )
    if found is None:
        return None
    style = str(found["style"])
    kernels = any(_is_kernel(match) for key in loaded if (match := _KEY.fullmatch(key)))
    if style == "conv":
        title = "keras-vggface's names" if kernels else "MatConvNet's names"
    else:
        title = "Keras's names" if style == "block" else "the Torch7 port's names"
    heads = _KERAS_HEADS if style == "block" else _CAFFE_HEADS
    layers = {_conv_name(style, *place): name for place, name in _features(widths).items()}
    layers |= dict(zip(heads, _HEADS, strict=True))
    return _Convention(title, layers, style != "conv" or kernels, _mean(loaded, heads[-1], style))


def _conv_name(style: str, block: int, place: int) -> str:
    return f"block{block}_conv{place}" if style == "block" else f"{style}{block}_{place}"


def _features(widths: Sequence[int | str]) -> dict[tuple[int, int], str]:
    """Return torchvision's name of each convolution by its block and its place there, both from 1."""
    names = {}
    block = place = 1
    index = 0
    for width in widths:
        if isinstance(width, int):
            names[block, place] = f"features.{index}"
            place += 1
            index += 2  # and its ReLU
        else:
            block, place = block + 1, 1
            index += 1
    return names


def _mean(loaded: Mapping[str, Any], last: str, style: str) -> tuple[float, ...]:
    """Return what is subtracted from a picture, which the number of classes tells."""
    for key, value in loaded.items():
        match = _KEY.fullmatch(key)
        if match and match["layer"] == last and isinstance(value, Tensor) and value.ndim:
            classes = value.shape[-1 if _is_kernel(match) else 0]
            if classes in (1000, 2622):
                return IMAGENET_MEAN if classes == 1000 else FACE_MEAN
    return IMAGENET_MEAN if style == "block" else FACE_MEAN


def _is_kernel(match: re.Match[str]) -> bool:
    return match["kind"] == "kernel" or match["letter"] == "W"


def _target(key: str, convention: _Convention) -> tuple[str | None, bool]:
    """Return torchvision's name for the file's `key`, None if it has none, and whether its axes are
    Keras's.
    """
    match = _KEY.fullmatch(key)
    layer = convention.layers.get(match["layer"]) if match else None
    if match is None or layer is None:
        return None, False
    is_bias = match["kind"] == "bias" or match["letter"] == "b"
    return f"{layer}.{'bias' if is_bias else 'weight'}", _is_kernel(match)


def _torch_axes(value: Any, target: str, is_kernel: bool, channels: int) -> Any:
    """Return a tensor with torch's axes: out, in, height, width, and (out, in) in the classifier.

    Keras flattens a picture's features as height, width, channels; torch as channels, height,
    width.
    """
    if not isinstance(value, Tensor):
        return value
    if is_kernel and value.ndim == 4:
        value = value.permute(3, 2, 0, 1)
    elif is_kernel and value.ndim == 2:
        value = value.T
        side = math.isqrt(value.shape[1] // channels)
        if target == "classifier.0.weight" and side**2 * channels == value.shape[1]:
            value = value.reshape(-1, side, side, channels).permute(0, 3, 1, 2)
    return value.flatten(1) if target.startswith("classifier.") and value.ndim == 4 else value


def _fold(
    state: dict[str, Any], convention: _Convention, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Make the first layer take RGB, normalized by `mean` and `std`, in place of what the file's
    network takes.
    """
    weight, bias = state.get("features.0.weight"), state.get("features.0.bias")
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        return
    if weight.ndim != 4 or weight.shape[1] != 3 or bias.shape != weight.shape[:1]:
        return
    exact = weight.double().flip(1) if convention.bgr else weight.double()
    shift = torch.tensor(
        [255 * ours - theirs for ours, theirs in zip(mean, convention.mean, strict=True)]
    ).double()
    scale = torch.tensor([255 * value for value in std], dtype=torch.float64)
    state["features.0.bias"] = (bias.double() + exact.sum((2, 3)) @ shift).float()
    state["features.0.weight"] = (exact * scale.view(3, 1, 1)).float()


def to_timm(loaded: Mapping[str, Any], *, classes: int) -> Converted:
    """Return the tensors of timm's Inception-ResNet-v2 from its own file, float32.

    A file ported from TensorFlow has one class more than `classes`: its first is the background,
    and is left out. Counters of batches, which only training uses and old files lack, are set to 0.
    """
    state = _float(dict(loaded))
    words = "timm's names: RGB in [-1, 1]"
    kinds = [f"classif.{kind}" for kind in _KINDS]
    if all(
        isinstance(state.get(key), Tensor) and state[key].shape[:1] == (classes + 1,)
        for key in kinds
    ):
        state |= {key: state[key][1:] for key in kinds}
        words += f", the first of {classes + 1} classes (background) left out"
    for key in [key for key in state if key.endswith(".running_var")]:
        state.setdefault(
            key.replace(".running_var", ".num_batches_tracked"), torch.zeros((), dtype=torch.long)
        )
    return Converted(state, {}, words)


def _float(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of any floating dtype as float32, the rest as it is."""
    return {
        k: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v
        for k, v in state.items()
    }
