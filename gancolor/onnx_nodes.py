"""Nodes and constants of an ONNX graph as they are added, and the padding whose size is known when it runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

_LARGEST_HALF = torch.finfo(torch.float16).max


class Nodes:
    """Nodes and constants as they are added. Values go by their names. `half`: keep kernels in half precision."""

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
        """A constant: a tensor becomes float32, whole numbers int64; those without a name are kept once."""
        if isinstance(values, Tensor):
            array = values.detach().cpu().float().contiguous().numpy()
        else:
            array = np.asarray(values)
            array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size < 8 else len(self.constants)
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
        return x if size == 1 else self.add(kind, x, kernel_shape=[size, size], strides=[size, size])

    def channels(self, x: str, begin: int, end: int) -> str:
        return self.add("Slice", x, self.constant([begin]), self.constant([end]), self.constant([1]))


class Padding:
    """`layers.reflect_pad` for a size that is known when the graph runs."""

    def __init__(self, graph: Nodes, x: str, multiple: int) -> None:
        self.graph = graph
        shape = graph.add("Shape", x, start=2)  # height and width
        self.axes = [self._axis(graph.add("Gather", shape, graph.constant([at])), multiple) for at in (0, 1)]

    def pad(self, x: str) -> str:
        for axis, (source, _, _) in enumerate(self.axes, 2):
            x = self.graph.add("Gather", x, source, axis=axis)
        return x

    def crop(self, x: str, name: str) -> None:
        begins, ends = (self.graph.add("Concat", *(axis[k] for axis in self.axes), axis=0) for k in (1, 2))
        self.graph.add("Slice", x, begins, ends, self.graph.constant([2, 3]), name=name)

    def _axis(self, size: str, multiple: int) -> tuple[str, str, str]:
        """The source index of each padded position, and where the picture begins and ends among them; sizes (1)."""
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
