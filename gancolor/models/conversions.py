"""The conventions under which weights of VGG and Inception-ResNet-v2 are passed around, read as one.

VGG's files differ in the names of their layers, the order of their axes, the order of the colours, and in what is
subtracted from the picture. Everything here ends in torchvision's names and axes, for a network that takes RGB and
normalizes it by its own mean and standard deviation:

    layers of the file           axes            colours   picture
    features.N, classifier.N     torch's         RGB       as the network's own
    conv1_1, fc6 (MatConvNet)    torch's         RGB       0-255 minus the mean
    conv_1_1, fc6 (Torch7)       torch's         BGR       0-255 minus the mean
    conv1_1/kernel, fc6 (Keras)  HWIO, HWC       BGR       0-255 minus the mean
    block1_conv1, fc1 (Keras)    by the key      BGR       0-255 minus the mean

The mean is VGG-Face's (R 129.1863, G 104.7624, B 93.5940) for 2622 classes and ImageNet's (123.68, 116.779, 103.939)
for 1000. Without a classifier it is ImageNet's for block1_conv1 and VGG-Face's for the rest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

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


class Converted(NamedTuple):
    """A file's tensors under the network's names, the file's names of those for messages, and the convention."""

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
    """Return the tensors of a VGG of `widths` (torchvision's table) from a file of any convention above, float32.

    `mean` and `std` are the network's own, of RGB in [0, 1]. They and the order of the colours go into the first
    layer: exactly, but for the outermost pixels of the picture, which see the network's own mean beyond the border.
    Without `classifier`, its tensors are left out. What is not understood stays as it is, for the check to name.
    """
    convention = _recognize(loaded, widths)
    if convention is None:
        kept = {k: v for k, v in loaded.items() if classifier or not k.startswith("classifier.")}
        return Converted(_float(kept), {}, "torchvision's names: RGB, normalized as the network does")
    channels = [width for width in widths if isinstance(width, int)][-1]
    state: dict[str, Any] = {}
    names = {f"{ours}.{kind}": f"{theirs}.{kind}" for theirs, ours in convention.layers.items() for kind in _KINDS}
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
    values = " ".join(str(value) for value in (convention.mean[::-1] if convention.bgr else convention.mean))
    return Converted(state, names, f"{convention.title}: {colours}, 0-255 minus {values}")


def _recognize(loaded: Mapping[str, Any], widths: Sequence[int | str]) -> _Convention | None:
    """Return the convention of the first convolution with a name that is not torchvision's, None if there is none."""
    if any(key.startswith("features.") for key in loaded):
        return None
    found = next((match for key in loaded if (match := _KEY.fullmatch(key)) and match["style"]), None)
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
    """Return torchvision's name for the file's `key`, None if it has none, and whether its axes are Keras's."""
    match = _KEY.fullmatch(key)
    layer = convention.layers.get(match["layer"]) if match else None
    if match is None or layer is None:
        return None, False
    is_bias = match["kind"] == "bias" or match["letter"] == "b"
    return f"{layer}.{'bias' if is_bias else 'weight'}", _is_kernel(match)


def _torch_axes(value: Any, target: str, is_kernel: bool, channels: int) -> Any:
    """Return a tensor with torch's axes: out, in, height, width, and (out, in) in the classifier.

    Keras flattens a picture's features as height, width, channels; torch as channels, height, width.
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


def _fold(state: dict[str, Any], convention: _Convention, mean: Sequence[float], std: Sequence[float]) -> None:
    """Make the first layer take RGB, normalized by `mean` and `std`, in place of what the file's network takes."""
    weight, bias = state.get("features.0.weight"), state.get("features.0.bias")
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        return
    if weight.ndim != 4 or weight.shape[1] != 3 or bias.shape != weight.shape[:1]:
        return
    exact = weight.double().flip(1) if convention.bgr else weight.double()
    shift = torch.tensor([255 * ours - theirs for ours, theirs in zip(mean, convention.mean, strict=True)]).double()
    scale = torch.tensor([255 * value for value in std], dtype=torch.float64)
    state["features.0.bias"] = (bias.double() + exact.sum((2, 3)) @ shift).float()
    state["features.0.weight"] = (exact * scale.view(3, 1, 1)).float()


def to_timm(loaded: Mapping[str, Any], *, classes: int) -> Converted:
    """Return the tensors of timm's Inception-ResNet-v2 from its own file, float32.

    A file ported from TensorFlow has one class more than `classes`: its first is the background, and is left out.
    Counters of batches, which only training uses and old files lack, are set to 0.
    """
    state = _float(dict(loaded))
    words = "timm's names: RGB in [-1, 1]"
    kinds = [f"classif.{kind}" for kind in _KINDS]
    if all(isinstance(state.get(key), Tensor) and state[key].shape[:1] == (classes + 1,) for key in kinds):
        state |= {key: state[key][1:] for key in kinds}
        words += f", the first of {classes + 1} classes (background) left out"
    for key in [key for key in state if key.endswith(".running_var")]:
        state.setdefault(key.replace(".running_var", ".num_batches_tracked"), torch.zeros((), dtype=torch.long))
    return Converted(state, {}, words)


def _float(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of any floating dtype as float32, the rest as it is."""
    return {k: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in state.items()}
