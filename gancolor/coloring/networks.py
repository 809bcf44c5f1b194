"""Networks as a Colorizer asks them: in torch, in onnxruntime, or several as one."""

from __future__ import annotations

import abc
import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gancolor import color, models
from gancolor.coloring import references, sampling
from gancolor.coloring.full_size import Prediction
from gancolor.coloring.references import Features
from gancolor.coloring.views import View
from gancolor.config import TrainConfig
from gancolor.images import arrays
from gancolor.images.arrays import Picture
from gancolor.models import Output, bins
from gancolor.models.backbones import ENCODERS
from gancolor.models.embeddings import Embedder
from gancolor.models.fusion import FusionNetwork
from gancolor.models.generator import BINS_STRIDE, Generator, enlarge, shrink
from gancolor.models.layers import reflect_pad
from gancolor.runtime.devices import pick_autocast
from gancolor.storage import onnx_file

_LEAST = 1e-12  # of a probability, before its logarithm


Answer = Callable[[Tensor | None], Output]
"""What a network says of what it has looked at and of a hint map (1, 3, h, w), or None."""


class Network(abc.ABC):
    """A network on one device.

    `config`: the settings it was trained with. `stride`: what it pads height and width to.
    """

    config: TrainConfig
    device: torch.device
    stride: int

    @property
    def takes_hints(self) -> bool:
        """Whether it takes known colours."""
        return self.config.hints > 0

    @property
    def describes(self) -> bool:
        """Whether what it sees of pictures can be had, to compare them (`describe`)."""
        return False

    def describe(self, view: View) -> Features:
        """What it sees of a view's lightness. ValueError unless it `describes`."""
        raise ValueError("a network that is asked for features must be a U-Net in torch")

    @abc.abstractmethod
    def look(self, condition: Tensor, view: View) -> Answer:
        """Look at a `condition` (1, 1, h, w), on the device; the answer is to a hint map (1, 3, h,
        w) or None.

        `view`: with the temperature and, for a fusion network, the copy for its embedding.
        """

    @abc.abstractmethod
    def on_cpu(self) -> Network:
        """The same on the CPU, in float32."""

    @torch.inference_mode()
    def see(self, rgb: Picture, view: View) -> Prediction:
        """What it says of `rgb` (h, w, 3), which is the view's own or a smaller one."""
        condition = _flip(self._condition(rgb), view)
        answer, hints = self.look(condition, view), self._hints(view, rgb)
        _, (rows, columns) = reflect_pad(condition, self.stride)
        if view.draw is None:
            output = answer(hints)
        else:
            shape, temperature = (rgb.shape[0], rgb.shape[1]), self.temperature(view)
            output = sampling.draw(answer, shape, (rows, columns), hints, view.draw, temperature)
        sure = None
        if output.logits is not None:
            whole = enlarge(bins.confidence(output.logits)[None])[0][..., rows, columns]
            sure = _flip(whole, view)[0].cpu().numpy()
        colors = _flip(output.colors, view)[0].float()
        colors[-2:] *= self.config.saturation
        return Prediction(colors.permute(1, 2, 0).contiguous().cpu().numpy(), (), sure)

    @torch.inference_mode()
    def distribution(self, view: View, x: float, y: float) -> Tensor:
        """The probabilities of the bins, (Q,), at a place in [0, 1] of the view's width and height."""
        condition = self._condition(view.rgb)
        logits = self.look(condition, view)(self._hints(view, view.rgb)).logits
        assert logits is not None
        _, (rows, columns) = reflect_pad(condition, self.stride)
        row = min(int(rows.start + y * condition.shape[2]), rows.stop - 1)
        column = min(int(columns.start + x * condition.shape[3]), columns.stop - 1)
        return torch.softmax(
            logits[0, :, row // BINS_STRIDE, column // BINS_STRIDE].float(), 0
        ).cpu()

    def temperature(self, view: View) -> float:
        """At which colours are taken from its distribution."""
        return self.config.temperature if view.temperature is None else view.temperature

    def _condition(self, rgb: Picture) -> Tensor:
        """What the network is given of a picture, (1, 1, h, w)."""
        if self.config.condition == "edges":
            return torch.from_numpy(arrays.edges(rgb))[None, None].to(self.device).float() / 255
        return models.see(self.config, color.split(color.to_tensor(rgb).to(self.device))[0])

    def _hints(self, view: View, rgb: Picture) -> Tensor | None:
        """The view's hint map (1, 3, h, w), at the size of `rgb`."""
        if view.hints is None:
            return None
        known = torch.from_numpy(view.hints).permute(2, 0, 1)[None].to(self.device)
        # The network's colours are multiplied by the saturation, and are to meet these then.
        known = known / known.new_tensor([self.config.saturation] * 2 + [1]).view(1, 3, 1, 1)
        # smaller where memory ran out and the view was halved
        return _flip(shrink(known, *rgb.shape[:2]), view)


class TorchNetwork(Network):
    """A generator, with the embedder of a fusion network, in one precision."""

    def __init__(
        self,
        generator: Generator | FusionNetwork,
        config: TrainConfig,
        embedding: dict[str, Any] | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.config, self.embedding, self.device = config, embedding, device
        self.embedder = None if embedding is None else Embedder(config, device, dtype, embedding)
        self._autocast = pick_autocast(dtype, device)
        for module in generator.modules():
            if isinstance(module, nn.Conv2d):
                module.to(dtype)  # held in it: autocast would cast the weights at every picture
        generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub leaves it out
        self.generator = generator.to(device).eval().requires_grad_(False)
        self.stride = generator.stride

    def on_cpu(self) -> TorchNetwork:
        """The same on the CPU, in float32."""
        generator = copy.deepcopy(self.generator).cpu()
        return TorchNetwork(
            generator, self.config, self.embedding, torch.device("cpu"), torch.float32
        )

    @property
    def describes(self) -> bool:
        """Whether it has a backbone."""
        return isinstance(self.generator, Generator)

    @torch.inference_mode()
    def describe(self, view: View) -> Features:
        """See `Network.describe`: the backbone's deepest tap of at most `references.STRIDE` pixels
        a position, and the next one.
        """
        assert isinstance(self.generator, Generator)
        encoder = self.generator.encoder
        gray = color.gray(color.split(color.to_tensor(view.rgb).to(self.device))[0])
        padded, inside = reflect_pad(gray, encoder.taps[-1].stride)
        known = [at for at, tap in enumerate(encoder.taps) if tap.stride <= references.STRIDE]
        first = max(0, min(known[-1], len(encoder.taps) - 2))
        with self._autocast():
            taps = encoder(padded.expand(-1, 3, -1, -1), first + 2)[first:]
        height, width = (max(1, length // references.STRIDE) for length in padded.shape[2:])
        grid = (height, width)
        maps = [_bring(tap.float(), grid)[0] for tap in taps]  # (C, h, w)
        places, centres = [], []
        for axis, part in enumerate(inside):
            middle = (np.arange(grid[axis]) + 0.5) * (padded.shape[2 + axis] / grid[axis])
            share = (middle - part.start) / (part.stop - part.start)
            kept = np.flatnonzero((share >= 0) & (share < 1))
            kept = kept if len(kept) else np.array([np.abs(share - 0.5).argmin()])
            places.append(torch.from_numpy(kept))
            centres.append(share[kept].clip(0, 1).astype(np.float32))
        fine, coarse = (
            each[:, places[0][:, None], places[1]].permute(1, 2, 0).cpu().numpy()
            for each in (maps[0], maps[-1])
        )
        return Features(fine, coarse, *centres)

    def look(self, condition: Tensor, view: View) -> Answer:
        """See `Network.look`. Hints asked again cost less than the first ones: the encoder looks
        once.
        """
        generator = self.generator
        with self._autocast():
            if isinstance(generator, FusionNetwork):
                if view.copy is None or self.embedder is None:
                    raise ValueError("a view for a fusion network must have a copy, got None")
                embedding = self.embedder(_flip(color.to_tensor(view.copy), view))
                output = Output(generator(condition, embedding))
                return lambda hints: output
            looked = generator.look(condition)

        def answer(hints: Tensor | None) -> Output:
            with self._autocast():
                return generator.answer(looked, hints, view.temperature)

        return answer


class OnnxNetwork(Network):
    """A U-Net that `interchange` wrote, in onnxruntime on the CPU, in float32."""

    def __init__(self, path: Path, config: TrainConfig) -> None:
        self.config, self.device = config, torch.device("cpu")
        self.session = onnx_file.open_session(path, torch.get_num_threads())
        self.stride = (
            ENCODERS[config.backbone].build.TAPS[config.frozen_blocks - 1].stride * 2**config.levels
        )

    @property
    def takes_hints(self) -> bool:
        """Whether the graph has an input for them."""
        return any(item.name == "hints" for item in self.session.get_inputs())

    def on_cpu(self) -> OnnxNetwork:
        """Itself."""
        return self

    def look(self, condition: Tensor, view: View) -> Answer:
        """See `Network.look`. Each answer runs the whole graph."""
        given = {onnx_file.names(self.config)[0]: condition.numpy()}
        if self.config.head == "bins":
            given["temperature"] = np.full(1, self.temperature(view), np.float32)

        def answer(hints: Tensor | None) -> Output:
            if self.takes_hints:
                known = condition.new_zeros(1, 3, *condition.shape[2:]) if hints is None else hints
                given["hints"] = known.numpy()
            try:
                answers = self.session.run(None, given)
            except (
                Exception
            ) as error:  # its own classes have no common base; what is missing may be memory
                raise RuntimeError(str(error)) from error
            return Output(*map(torch.from_numpy, answers))

        return answer


class MeanNetwork(Network):
    """Several networks on one device as one: the mean of their distributions, or without any of
    their colours.

    With distributions, each network's own moves of colours at full size are averaged too.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = networks
        self.config, self.device = networks[0].config, networks[0].device
        self.stride = math.lcm(*(network.stride for network in networks))

    @property
    def takes_hints(self) -> bool:
        """Whether all of them take known colours."""
        return all(network.takes_hints for network in self.networks)

    @property
    def describes(self) -> bool:
        """Whether the first of them does: what it sees is compared."""
        return self.networks[0].describes

    def describe(self, view: View) -> Features:
        """See `Network.describe`; the first one's."""
        return self.networks[0].describe(view)

    def on_cpu(self) -> MeanNetwork:
        """All of them on the CPU."""
        return MeanNetwork([network.on_cpu() for network in self.networks])

    def look(self, condition: Tensor, view: View) -> Answer:
        """See `Network.look`. Colours are taken at the first network's temperature."""
        temperature = self.temperature(view)
        view = dataclasses.replace(
            view, temperature=temperature if self.config.head == "bins" else None
        )
        # so that all distributions lie alike
        padded, (rows, columns) = reflect_pad(condition, self.stride)
        answers = [network.look(padded, view) for network in self.networks]

        def answer(hints: Tensor | None) -> Output:
            known = None if hints is None else reflect_pad(hints, self.stride)[0]
            whole = _mean([each(known) for each in answers], temperature)
            return whole._replace(colors=whole.colors[..., rows, columns])

        return answer


def _mean(said: Sequence[Output], temperature: float) -> Output:
    """The mean of several networks' distributions, or of their colours."""
    colors = torch.stack([output.colors.float() for output in said]).mean(0)
    logits = [output.logits for output in said if output.logits is not None]
    if not logits:
        return Output(colors)

    def decode(each: Tensor) -> Tensor:
        return enlarge(bins.decode(each, temperature))

    whole = (
        torch.stack([each.float().softmax(1) for each in logits]).mean(0).clamp_min(_LEAST).log()
    )
    own = torch.stack([decode(each) for each in logits]).mean(0)
    moved = (colors[:, -2:] + decode(whole) - own).clamp(-1, 1)
    return Output(torch.cat([colors[:, :-2], moved], 1), whole)


def _bring(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Features (1, C, h, w) at another size: averaged down, or interpolated."""
    if features.shape[2] > grid[0] or features.shape[3] > grid[1]:
        return F.adaptive_avg_pool2d(features, grid)
    return F.interpolate(features, size=grid, mode="bilinear", align_corners=False)


def _flip(x: Tensor, view: View) -> Tensor:
    return x.flip(-1) if view.flip else x
