"""A generator as an ONNX graph: every layer that a U-Net is made of, written as ONNX's operators.

The graph is written here and not traced: it takes pictures of any size, batch norms are folded into
the convolutions, and torch's exporters are neither needed nor waited for. `interchange` compares
what it computes with torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from gancolor.models import bins
from gancolor.models.backbones import Backbone, InvertedBottleneck
from gancolor.models.generator import BINS_STRIDE, GAIN, BinsHead, Generator, HintEncoder
from gancolor.models.layers import SLOPE, ConvReLU, MaxPool, SameConv, enlarging
from gancolor.storage import onnx_file

_LARGEST_HALF = torch.finfo(torch.float16).max
_IR = 8  # the file format's version that came with the opset
_FLOAT = TensorProto.FLOAT


def build(
    generator: Generator, names: Sequence[str], *, hints: bool, half: bool = False
) -> onnx.ModelProto:
    """Return the graph of a generator in eval(), in float32, with batch, height and width free.

    `names`: of the condition (B, 1, H, W) and of the colours, (B, 2 or 3, H, W). `hints`: have the
    input `hints` too, (B, 3, H, W), for a generator that takes them. With the head `bins` there are
    the output `logits`, (B, Q, h, w), at every fourth pixel of the padded condition, and the input
    `temperature` (1), at which colours are taken from them, which has a default. `half`: keep the
    kernels in half precision; all is computed in float32.
    """
    graph = Nodes(half)
    with torch.no_grad():
        _write(graph, generator, names, hints)
    ends = ("batch", "height", "width")
    inputs = [_shaped(names[0], [ends[0], 1, *ends[1:]])]
    outputs = [_shaped(names[1], [ends[0], generator.out_channels, *ends[1:]])]
    if hints:
        inputs.append(_shaped("hints", [ends[0], 3, *ends[1:]]))
    if isinstance(generator.last, BinsHead):
        count = len(bins.centers())
        inputs.append(_shaped("temperature", [1]))
        outputs.append(_shaped("logits", [ends[0], count, "rows", "columns"]))
    whole = helper.make_graph(graph.nodes, "generator", inputs, outputs, graph.constants)
    return helper.make_model(
        whole,
        opset_imports=[helper.make_opsetid("", onnx_file.OPSET)],
        ir_version=_IR,
        producer_name=onnx_file.PRODUCER,
    )


def _write(graph: Nodes, generator: Generator, names: Sequence[str], hints: bool) -> None:
    """Write all of `Generator.say`."""
    condition, colors = names
    padding = Padding(graph, condition, generator.stride)
    x = padding.pad(condition)
    known = padding.pad("hints") if hints else None
    beside = (
        None if known is None or generator.hints is None else _hear(graph, generator.hints, known)
    )
    maps = _look(graph, generator, x)
    deep = maps.pop()
    bottom: Any = generator.contract[-1] if generator.contract else None
    channels = generator.encoder.taps[-1].channels if bottom is None else bottom[0].out_channels
    for number, level in enumerate(generator.expand):
        deep = _expand(
            graph, level, channels, deep, maps.pop(), None if beside is None else beside[number]
        )
        channels = generator.widths[number]
    if isinstance(generator.last, BinsHead):
        whole = _decide(graph, generator, deep, x, known)
    else:
        whole = graph.add("Tanh", graph.layer(deep, generator.last))
    padding.crop(whole, colors)


def _look(graph: Nodes, generator: Generator, x: str) -> list[str]:
    """The maps of all levels, as `Generator._look` returns them."""
    encoder: Backbone = generator.encoder
    above = encoder.taps[0].stride.bit_length() - 1
    maps = [graph.pool("AveragePool", x, 2**i) for i in range(above)]
    y = graph.add("Concat", x, x, x, axis=1)
    y = graph.add(
        "Div", graph.add("Sub", y, graph.constant(encoder.mean)), graph.constant(encoder.std)
    )
    layers: Any = encoder.features
    begin = 0
    for end in encoder.ends:
        for layer in layers[begin:end]:
            y = _encode(graph, layer, y)
        begin = end
        maps.append(y)
    for level in generator.contract:
        maps.append(_double(graph, level, graph.pool("MaxPool", maps[-1], 2)))
    return maps


def _encode(graph: Nodes, layer: Any, x: str) -> str:
    """A layer of a backbone."""
    if isinstance(layer, nn.Identity):
        return x
    if isinstance(layer, MaxPool):
        return graph.pool("MaxPool", x, 2)
    if isinstance(layer, ConvReLU):
        return graph.add("Relu", graph.layer(x, layer))
    if isinstance(layer, SameConv):
        half = layer.kernel_size[0] // 2
        pads = (half - layer.stride[0] + 1, half)  # at stride 2 one less before than after
        y = graph.conv(
            x, layer.weight, layer.bias, pads=pads, stride=layer.stride[0], groups=layer.groups
        )
        return (
            graph.add("Clip", y, graph.constant(0.0), graph.constant(6.0)) if layer.bounded else y
        )
    if isinstance(layer, InvertedBottleneck):
        y = x
        for part in layer:
            y = _encode(graph, part, y)
        return graph.add("Add", y, x) if layer.adds else y
    raise TypeError(f"no ONNX operators are known for {type(layer).__name__}")


def _folded(norm: Any) -> tuple[Tensor, Tensor]:
    """The factor (C, 1, 1, 1) of the convolution before a BatchNorm in eval(), and what is added to
    it, (C).
    """
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale[:, None, None, None], norm.bias.double() - norm.running_mean.double() * scale


def _double(graph: Nodes, level: Any, x: str) -> str:
    """Twice (convolution, BatchNorm, LeakyReLU)."""
    for at in (0, 3):
        scale, shift = _folded(level[at + 1])
        x = _leaky(graph, graph.conv(x, level[at].weight.double() * scale, shift))
    return x


def _expand(
    graph: Nodes,
    level: Any,
    channels: int,
    below: str,
    skip: str,
    beside: tuple[str, Tensor] | None,
) -> str:
    """An expanding level, of `channels` below. `beside`: a map and the 1x1 kernel that brings it
    here.
    """
    scale, shift = _folded(level[1])
    weight = level[0].weight.double() * scale
    y = graph.add(
        "Add",
        _grow(graph, below, weight[:, :channels]),
        graph.conv(skip, weight[:, channels:], shift),
    )
    if beside is not None:
        known, kernel = beside
        y = graph.add("Add", y, graph.conv(known, kernel.double() * scale))
    scale, shift = _folded(level[4])
    return _leaky(graph, graph.conv(_leaky(graph, y), level[3].weight.double() * scale, shift))


def _grow(graph: Nodes, x: str, weight: Tensor) -> str:
    """A 3x3 convolution of a map enlarged twice (nearest), as one transposed convolution."""
    kernel = graph.weight(enlarging(weight))
    return graph.add(
        "ConvTranspose", x, kernel, kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1]
    )


def _hear(graph: Nodes, encoder: HintEncoder, hints: str) -> list[tuple[str, Tensor]]:
    """What hints say at each expanding level, from the coarsest: a map, and the 1x1 kernel that
    brings it there.
    """
    maps: list[tuple[str, Tensor]] = []
    finer = None
    known: Any
    join: Any
    for level, (known, join) in enumerate(zip(encoder.known, encoder.join, strict=True)):
        mean = graph.pool("AveragePool", hints, encoder.stride * 2**level)
        share = graph.channels(mean, 2, 3)
        there = graph.add("Greater", share, graph.constant(0.0))
        ab = graph.add(
            "Div", graph.channels(mean, 0, 2), graph.add("Where", there, share, graph.constant(1.0))
        )
        here = graph.add("Concat", ab, graph.add("Cast", there, to=_FLOAT), axis=1)
        x = graph.conv(here, known.weight * torch.tensor([GAIN, GAIN, 1.0]).view(1, 3, 1, 1))
        if finer is not None:
            x = graph.add("Add", x, graph.layer(finer, encoder.down[level - 1], stride=2))
        finer = _leaky(graph, x)
        maps.append((finer, join.weight))
    return maps[::-1]


def _decide(graph: Nodes, generator: Generator, features: str, x: str, hints: str | None) -> str:
    """The head `bins`; returns the colours of the padded condition."""
    head = generator.last
    assert isinstance(head, BinsHead)
    centers = bins.centers().cpu()
    temperature = graph.constant([generator.temperature], "temperature")
    logits = graph.layer(features, head.logits)
    graph.add("Identity", logits, name="logits")
    share = graph.add("Softmax", graph.add("Div", logits, temperature), axis=1)
    ab = _enlarge(graph, graph.conv(share, centers.T[:, :, None, None]))
    seen = [x, ab, _enlarge(graph, graph.layer(features, head.reduce))]
    first: Any = head.refine[0]
    weight = first.weight
    if hints is None:
        weight = weight[:, :-3]
    else:
        seen.append(hints)
    y = _leaky(graph, graph.conv(graph.add("Concat", *seen, axis=1), weight, first.bias))
    y = _leaky(graph, graph.layer(y, head.refine[2]))
    change = graph.add("Tanh", graph.layer(y, head.refine[4]))
    count = generator.out_channels
    moves = change if count == 2 else graph.channels(change, count - 2, count)
    moves = graph.add("Mul", moves, graph.constant(head.REACH))
    around = _enlarge(graph, graph.pool("AveragePool", moves, BINS_STRIDE))
    moved = graph.add("Add", ab, graph.add("Sub", moves, around))
    colors = graph.add("Clip", moved, graph.constant(-1.0), graph.constant(1.0))
    return (
        colors
        if count == 2
        else graph.add("Concat", graph.channels(change, 0, count - 2), colors, axis=1)
    )


def _leaky(graph: Nodes, x: str) -> str:
    return graph.add("LeakyRelu", x, alpha=SLOPE)


def _enlarge(graph: Nodes, x: str) -> str:
    """Bilinearly, from the distribution's size to the full one."""
    scales = graph.constant([1.0, 1.0, float(BINS_STRIDE), float(BINS_STRIDE)])
    return graph.add(
        "Resize", x, "", scales, mode="linear", coordinate_transformation_mode="half_pixel"
    )


def _shaped(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _FLOAT, shape)


class Nodes:
    """Nodes and constants as they are added. Values go by their names. `half`: keep kernels in half
    precision.
    """

    def __init__(self, half: bool) -> None:
        self.half = half
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.named: dict[Any, str] = {}

    def add(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add an operator; returns its output's name."""
        output = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, values: Any, name: str | None = None) -> str:
        """A constant: a tensor becomes float32, whole numbers int64; those without a name are kept
        once.
        """
        if isinstance(values, Tensor):
            array = values.detach().cpu().float().contiguous().numpy()
        else:
            array = np.asarray(values)
            array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        key = (
            (array.dtype.str, array.shape, array.tobytes())
            if array.size < 8
            else len(self.constants)
        )
        if name is None and key in self.named:
            return self.named[key]
        known = self.named[key] = name or f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), known))
        return known

    def weight(self, values: Tensor) -> str:
        """A kernel."""
        if not self.half or float(values.abs().max()) > _LARGEST_HALF:
            return self.constant(values)
        name = f"constant_{len(self.constants)}"
        array = values.detach().cpu().half().contiguous().numpy()
        self.constants.append(numpy_helper.from_array(array, name))
        return self.add("Cast", name, to=TensorProto.FLOAT)

    def conv(
        self,
        x: str,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        pads: tuple[int, int] | None = None,
        stride: int = 1,
        groups: int = 1,
    ) -> str:
        """A convolution. `pads`: before and after, on both axes (default: half the kernel)."""
        before, after = (weight.shape[-1] // 2,) * 2 if pads is None else pads
        inputs = [x, self.weight(weight)] + ([] if bias is None else [self.constant(bias)])
        return self.add(
            "Conv",
            *inputs,
            kernel_shape=list(weight.shape[2:]),
            pads=[before, before, after, after],
            strides=[stride, stride],
            group=groups,
        )

    def layer(self, x: str, layer: Any, stride: int = 1) -> str:
        """A convolution of torch's."""
        return self.conv(x, layer.weight, layer.bias, stride=stride)

    def pool(self, kind: str, x: str, size: int) -> str:
        return (
            x if size == 1 else self.add(kind, x, kernel_shape=[size, size], strides=[size, size])
        )

    def channels(self, x: str, begin: int, end: int) -> str:
        return self.add(
            "Slice", x, self.constant([begin]), self.constant([end]), self.constant([1])
        )


class Padding:
    """`layers.reflect_pad` for a size that is known when the graph runs."""

    def __init__(self, graph: Nodes, x: str, multiple: int) -> None:
        self.graph = graph
        shape = graph.add("Shape", x, start=2)  # height and width
        self.axes = [
            self._axis(graph.add("Gather", shape, graph.constant([at])), multiple) for at in (0, 1)
        ]

    def pad(self, x: str) -> str:
        for axis, (source, _, _) in enumerate(self.axes, 2):
            x = self.graph.add("Gather", x, source, axis=axis)
        return x

    def crop(self, x: str, name: str) -> None:
        begins, ends = (
            self.graph.add("Concat", *(axis[k] for axis in self.axes), axis=0) for k in (1, 2)
        )
        self.graph.add("Slice", x, begins, ends, self.graph.constant([2, 3]), name=name)

    def _axis(self, size: str, multiple: int) -> tuple[str, str, str]:
        """The source index of each padded position, and where the picture begins and ends among
        them; sizes (1).
        """
        add, constant = self.graph.add, self.graph.constant
        one, two, step = constant([1]), constant([2]), constant([multiple])
        blocks = add("Div", add("Add", size, constant([multiple - 1])), step)
        padded = add("Mul", blocks, step)
        before = add("Div", add("Sub", padded, size), two)
        there_and_back = add("Mul", add("Sub", size, one), two)
        zero = constant(0)
        numbers = add("Range", zero, add("Squeeze", padded), constant(1))
        position = add("Mod", add("Sub", numbers, before), add("Max", there_and_back, one))
        source = add("Min", position, add("Sub", there_and_back, position))
        return source, before, add("Add", before, size)
