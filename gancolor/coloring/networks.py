"""Networks as a Colorizer asks them: in torch, in onnxruntime, or several as one.

`perturbed` makes a network say other plausible things of the same picture.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gancolor import color, models
from gancolor.coloring import references
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

STRENGTH = 1.5
"""Standard deviation of the noise, in standard deviations of each feature."""
_DETAILED = 2  # taps of the encoder that stay as they are: noise on edges and texture only stains

_LEAST = 1e-12  # of a probability, before its logarithm


class Network(abc.ABC):
    """A network on one device.

    `config`: the settings it was trained with. `stride`: what it pads height and width to.
    `alternatives`: whether it can say several things of one picture.
    """

    config: TrainConfig
    device: torch.device
    stride: int
    alternatives = True

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
    def say(self, condition: Tensor, hints: Tensor | None, view: View) -> Output:
        """What it says of a `condition` (1, 1, h, w) and a hint map (1, 3, h, w), on the device.

        `view`: with the temperature, the variant and, for a fusion network, the copy for its
        embedding.
        """

    @abc.abstractmethod
    def on_cpu(self) -> Network:
        """The same on the CPU, in float32."""

    @torch.inference_mode()
    def see(self, rgb: Picture, view: View) -> Prediction:
        """What it says of `rgb` (h, w, 3), which is the view's own or a smaller one."""
        condition = _flip(self._condition(rgb), view)
        output = self.say(condition, self._hints(view, rgb), view)
        sure = None
        if output.logits is not None:
            _, (rows, columns) = reflect_pad(condition, self.stride)
            whole = enlarge(bins.confidence(output.logits)[None])[0][..., rows, columns]
            sure = _flip(whole, view)[0].cpu().numpy()
        colors = _flip(output.colors, view)[0].float()
        colors[-2:] *= self.config.saturation
        return Prediction(colors.permute(1, 2, 0).contiguous().cpu().numpy(), (), sure)

    @torch.inference_mode()
    def distribution(self, view: View, x: float, y: float) -> Tensor:
        """The probabilities of the bins, (Q,), at a place in [0, 1] of the view's width and height."""
        condition = self._condition(view.rgb)
        logits = self.say(condition, self._hints(view, view.rgb), view).logits
        assert logits is not None
        _, (rows, columns) = reflect_pad(condition, self.stride)
        row = min(int(rows.start + y * condition.shape[2]), rows.stop - 1)
        column = min(int(columns.start + x * condition.shape[3]), columns.stop - 1)
        return torch.softmax(
            logits[0, :, row // BINS_STRIDE, column // BINS_STRIDE].float(), 0
        ).cpu()

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

    def say(self, condition: Tensor, hints: Tensor | None, view: View) -> Output:
        """See `Network.say`. Without a distribution nothing is drawn: variants have noise on the
        features.
        """
        with self._autocast():
            if isinstance(self.generator, FusionNetwork):
                if view.copy is None or self.embedder is None:
                    raise ValueError("a view for a fusion network must have a copy, got None")
                with perturbed(self.generator, view.variant):
                    return Output(
                        self.generator(
                            condition, self.embedder(_flip(color.to_tensor(view.copy), view))
                        )
                    )
            if self.generator.finest > 1:
                return self.generator.say(condition, hints, view.temperature, view.variant)
            with perturbed(self.generator, view.variant):
                return Output(self.generator(condition, hints))


class OnnxNetwork(Network):
    """A U-Net that `interchange` wrote, in onnxruntime on the CPU, in float32."""

    def __init__(self, path: Path, config: TrainConfig) -> None:
        self.config, self.device = config, torch.device("cpu")
        self.session = onnx_file.open_session(path, torch.get_num_threads())
        self.stride = (
            ENCODERS[config.backbone].build.TAPS[config.frozen_blocks - 1].stride * 2**config.levels
        )
        self.alternatives = config.head == "bins"  # noise on features has no place in a graph

    @property
    def takes_hints(self) -> bool:
        """Whether the graph has an input for them."""
        return any(item.name == "hints" for item in self.session.get_inputs())

    def on_cpu(self) -> OnnxNetwork:
        """Itself."""
        return self

    def say(self, condition: Tensor, hints: Tensor | None, view: View) -> Output:
        """See `Network.say`."""
        given = {onnx_file.names(self.config)[0]: condition.numpy()}
        if self.takes_hints:
            given["hints"] = (
                condition.new_zeros(1, 3, *condition.shape[2:]) if hints is None else hints
            ).numpy()
        if self.config.head == "bins":
            temperature = self.config.temperature if view.temperature is None else view.temperature
            given["temperature"] = np.full(1, temperature, np.float32)
            if view.variant is not None:
                given["noise"] = bins.draw_noise(view.variant).numpy()
        elif view.variant is not None:
            raise ValueError(
                "variant must be None for a graph without a distribution of colours, got a number"
            )
        try:
            answers = self.session.run(None, given)
        except (
            Exception
        ) as error:  # its own classes have no common base; what is missing may be memory
            raise RuntimeError(str(error)) from error
        return Output(*map(torch.from_numpy, answers))


class MeanNetwork(Network):
    """Several networks on one device as one: the mean of their distributions, or without any of
    their colours.

    With distributions, each network's own moves of colours at full size are averaged too.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = networks
        self.config, self.device = networks[0].config, networks[0].device
        self.stride = math.lcm(*(network.stride for network in networks))
        self.alternatives = all(network.alternatives for network in networks)

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

    def say(self, condition: Tensor, hints: Tensor | None, view: View) -> Output:
        """See `Network.say`. Colours are taken at the first network's temperature."""
        temperature = self.config.temperature if view.temperature is None else view.temperature
        view = dataclasses.replace(
            view, temperature=temperature if self.config.head == "bins" else None
        )
        # so that all distributions lie alike
        padded, (rows, columns) = reflect_pad(condition, self.stride)
        hints = None if hints is None else reflect_pad(hints, self.stride)[0]
        said = [network.say(padded, hints, view) for network in self.networks]
        colors = torch.stack([output.colors.float() for output in said]).mean(0)
        logits = [output.logits for output in said if output.logits is not None]
        if not logits:
            return Output(colors[..., rows, columns])

        def decode(each: Tensor) -> Tensor:
            drawn = each if view.variant is None else bins.draw(each, view.variant)
            return enlarge(bins.decode(drawn, temperature))

        whole = (
            torch.stack([each.float().softmax(1) for each in logits])
            .mean(0)
            .clamp_min(_LEAST)
            .log()
        )
        own = torch.stack([decode(each) for each in logits]).mean(0)
        moved = (colors[:, -2:] + decode(whole) - own).clamp(-1, 1)
        return Output(torch.cat([colors[:, :-2], moved], 1)[..., rows, columns], whole)


@contextmanager
def perturbed(generator: Generator | FusionNetwork, seed: int | None) -> Iterator[None]:
    """Within this, a generator's deeper features carry Gaussian noise that is drawn from `seed`;
    None changes nothing.

    In a U-Net that is the encoder's taps behind the second block (at least the last) and the
    contractive levels: noise on the deepest alone hardly shows, since the skips pass on the rest.
    In a fusion network it is the fused features. The noise of a feature is one number, the same
    everywhere, so that one thing keeps one colour. It is drawn on the CPU: every device gets the
    same.
    """
    if seed is None:
        yield
        return
    handles = [
        layer.register_forward_hook(_Noise(seed + at))
        for at, layer in enumerate(_layers(generator))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layers(generator: Generator | FusionNetwork) -> list[nn.Module]:
    if isinstance(generator, FusionNetwork):
        return [generator.fusion]
    return [generator.encoder, *generator.contract]


class _Noise:
    """A forward hook that adds noise to the output, or to the deeper ones of a list of outputs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(
        self, module: nn.Module, inputs: Any, output: Tensor | list[Tensor]
    ) -> Tensor | list[Tensor]:
        random = torch.Generator().manual_seed(self.seed)
        if isinstance(output, Tensor):
            return _add_noise(output, random)
        first = min(_DETAILED, len(output) - 1)
        return [*output[:first], *(_add_noise(features, random) for features in output[first:])]


def _add_noise(features: Tensor, random: torch.Generator) -> Tensor:
    noise = torch.randn(1, features.shape[1], 1, 1, generator=random).to(features.device)
    spread = features.float().std(dim=(0, 2, 3), correction=0, keepdim=True)
    return features + (STRENGTH * spread * noise).to(features.dtype)


def _bring(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Features (1, C, h, w) at another size: averaged down, or interpolated."""
    if features.shape[2] > grid[0] or features.shape[3] > grid[1]:
        return F.adaptive_avg_pool2d(features, grid)
    return F.interpolate(features, size=grid, mode="bilinear", align_corners=False)


def _flip(x: Tensor, view: View) -> Tensor:
    return x.flip(-1) if view.flip else x
