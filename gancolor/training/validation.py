"""Measures a generator on held-out pictures, beside the gray picture that must be beaten."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gancolor import color, metrics, models
from gancolor.config import TrainConfig
from gancolor.images import arrays
from gancolor.images.arrays import Picture
from gancolor.models import Discriminator, FusionNetwork, Generator, PatchDiscriminator, Seen

PIXELS_AT_ONCE = 8 * 256 * 256  # bounds the memory of a validation batch
_GRID = 8  # pictures in the fixed grid

RULE = "CIEDE2000 + 0.1 |mean colorfulness difference| + 2 |1 - spread of a*|, lowest is best"


def score(values: dict[str, float]) -> float:
    """What `best.pt` is chosen by (`RULE`): gray may not win by being close, nor gaudy by being
    colourful.

    Nor may blue and yellow alone: the spread of a* says whether there are reds and greens. Half of
    it missing weighs as much as ten points of colorfulness, or one CIEDE2000.
    """
    return (
        values["ciede2000"]
        + 0.1 * abs(values["delta_colorfulness"])
        + 2 * abs(1 - values["spread_a"])
    )


@dataclass
class Validation:
    """Held-out pictures: uint8 `rgb` (N, 3, S, S), uint8 `edges` (N, 1, S, S) for the edge
    condition, on the CPU, and the `embedding` (N, width) for a fusion network, on the device.
    """

    config: TrainConfig
    rgb: Tensor
    edges: Tensor | None
    embedding: Tensor | None
    device: torch.device
    autocast: Callable[[], contextlib.AbstractContextManager[object]]

    def measure(self, generator: Generator | FusionNetwork) -> dict[str, float]:
        """`metrics.KEYS` of the generator's colours over all pictures."""
        return self._summarize(lambda truth, part: self._color(generator, part))

    def gray(self) -> dict[str, float]:
        """The same of the gray pictures."""
        return self._summarize(lambda truth, part: metrics.gray_picture(truth))

    def grid(
        self,
        generator: Generator | FusionNetwork,
        discriminator: Discriminator | PatchDiscriminator | None = None,
    ) -> Picture:
        """gray | predicted | original of a few pictures spread over all, as one picture (H, W, 3).

        With a discriminator that judges places, a column shows where it tells the prediction: red
        there, blue where it takes it for real.
        """
        count = min(_GRID, len(self.rgb))
        part = torch.arange(count) * len(self.rgb) // count
        truth = self._truth(part)
        predicted = self._color(generator, part)
        seen = (
            metrics.gray_picture(truth)
            if self.edges is None
            else self._edges(part).expand(-1, 3, -1, -1)
        )
        columns = {
            "gray" if self.edges is None else "edges": seen,
            "predicted": predicted,
            "original": truth,
        }
        if isinstance(discriminator, PatchDiscriminator):
            columns["told as fake"] = self._told(discriminator, predicted)
        rows = [list(row) for row in zip(*map(color.to_arrays, columns.values()), strict=True)]
        return arrays.sheet(rows, list(columns))

    @torch.no_grad()
    def _told(self, discriminator: PatchDiscriminator, predicted: Tensor) -> Tensor:
        """Each place of `predicted` (N, 3, S, S), in [0, 1], by the mean of the maps: red is fake,
        blue real.
        """
        training = discriminator.training
        discriminator.eval()
        with self.autocast():
            features = discriminator.features(Seen(predicted, torch.cat(color.split(predicted), 1)))
            maps = discriminator.judge_alone(features)
        discriminator.train(training)
        size = predicted.shape[-2:]
        real = [
            F.interpolate(x.float(), size, mode="bilinear", align_corners=False).sigmoid()
            for x in maps
        ]
        verdict = torch.stack(real).mean(0)
        return torch.cat([1 - verdict, torch.full_like(verdict, 0.2), verdict], 1)

    def _summarize(self, predict: Callable[[Tensor, slice], Tensor]) -> dict[str, float]:
        size = max(1, PIXELS_AT_ONCE // (self.rgb.shape[-1] * self.rgb.shape[-2]))
        rows = []
        for start in range(0, len(self.rgb), size):
            part = slice(start, start + size)
            truth = self._truth(part)
            rows.append(
                {k: v.cpu() for k, v in metrics.measure(predict(truth, part), truth).items()}
            )
        return metrics.summarize(rows)

    def _truth(self, part: slice | Tensor) -> Tensor:
        return self.rgb[part].to(self.device).float() / 255

    def _edges(self, part: slice | Tensor) -> Tensor:
        assert self.edges is not None
        return self.edges[part].to(self.device).float() / 255

    @torch.no_grad()
    def _color(self, generator: Generator | FusionNetwork, part: slice | Tensor) -> Tensor:
        lightness, _ = color.split(self.rgb[part].to(self.device))
        condition = models.see(self.config, lightness) if self.edges is None else self._edges(part)
        seen: tuple[Tensor, ...] = (condition.contiguous(memory_format=torch.channels_last),)
        if self.embedding is not None:
            seen += (self.embedding[part],)
        was_training = generator.training
        generator.eval()
        with self.autocast():
            output = generator(*seen).float()
        generator.train(was_training)
        if self.edges is not None:
            lightness, output = output[:, :1], output[:, 1:]
        return color.merge_in_gamut(lightness, output)
