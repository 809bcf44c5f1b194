"""The discriminators on frozen VGG16 features: fully connected units (poster), and maps of patches
on several taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gancolor import color
from gancolor.errors import ConfigError
from gancolor.models.backbones import VGG16
from gancolor.models.layers import SLOPE, BatchNorm1d, initialize, max_pool, spatial_mean
from gancolor.runtime.devices import without_autocast

REDUCTION = 32  # VGG16's five pools


class Seen(NamedTuple):
    """A batch as a discriminator gets it: `rgb` (B, 3, H, W) in [0, 1] and `lab` (B, 3, H, W),
    lightness and ab.
    """

    rgb: Tensor
    lab: Tensor


class Discriminator(nn.Module):
    """Tells real pictures from coloured ones: VGG16 to 512x8x8, max pool, flatten, FC units, one
    logit.

    A unit is Linear, BatchNorm, LeakyReLU 0.2, Dropout. poster's sigmoid is inside the loss
    (softplus of the logit), where it cannot overflow. `head` holds all that trains; `trunk`,
    usually the generator's encoder, is used as it is. With `all_taps` the units also see the mean
    of every tap over the picture: the deepest features alone know objects better than colours, and
    below 256 pixels little is left of them. It costs no further convolution.
    """

    def __init__(
        self,
        trunk: VGG16,
        *,
        size: int = 256,
        units: Sequence[int] = (512, 256, 128),
        dropout: float = 0.5,
        all_taps: bool = False,
    ) -> None:
        super().__init__()
        if size < REDUCTION:
            raise ConfigError(
                f"discriminator size must be {REDUCTION} or more, got {size}; VGG16 halves it five"
                " times"
            )
        if trunk.blocks != len(VGG16.TAPS):
            raise ValueError(
                f"the discriminator's trunk must have {len(VGG16.TAPS)} blocks, got {trunk.blocks}"
            )
        self.trunk = trunk
        self.size = size
        self.all_taps = all_taps
        side = -(-(size // REDUCTION) // 2)
        layers: list[nn.Module] = []
        wide = VGG16.TAPS[-1].channels * side * side
        if all_taps:
            wide += sum(tap.channels for tap in VGG16.TAPS)
        self.width = wide  # of the vector that `features` returns
        for unit in units:
            layers += [
                nn.Linear(wide, unit, bias=False),
                BatchNorm1d(unit),
                nn.LeakyReLU(SLOPE, inplace=True),
                nn.Dropout(dropout),
            ]
            wide = unit
        layers.append(nn.Linear(wide, 1))
        self.head = nn.Sequential(*layers)
        initialize(self.head, last=self.head[-1])

    def features(self, seen: Seen) -> list[Tensor]:
        """Return a vector a picture, (B, width), float32, in a list of one.

        The trunk's 512 x size/32 x size/32, max pooled once more and flattened, and with `all_taps`
        each tap's means. Gradients flow back to `rgb`: call it under no_grad for real pictures.
        """
        taps = self.trunk(_resize(seen.rgb, self.size))
        vector = F.max_pool2d(max_pool(taps[-1]), 2, ceil_mode=True).flatten(1).float()
        return [torch.cat([vector, *map(spatial_mean, taps)], 1) if self.all_taps else vector]

    def judge(self, real: list[Tensor], fake: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return one logit a picture, (B,), float32, of real and of fake features; positive says
        real.

        One batch holds both: normalized apart, their means would be equal after every unit's
        BatchNorm whatever the pictures are, and the discriminator could not learn (docs/models.md).
        """
        logits: Tensor = self.head(torch.cat([real[0], fake[0]])).float().squeeze(1)
        first, second = logits.chunk(2)
        return [first], [second]


class PatchDiscriminator(nn.Module):
    """Says where a picture is coloured: a map of logits on each of several VGG16 taps, and one on
    the colours alone.

    Taps are normalized per channel by constants of the training pictures, so that the scale of a
    weights file means nothing. Fixed random 1x1 projections with top-down sums spread what matters
    over few channels (Sauer et al., 2021, "Projected GANs"): a discriminator that may choose its
    features looks at the few that give fakes away at once. Heads are convolutions under spectral
    norm, without BatchNorm and dropout, so pictures are judged one by one. The first head sees
    lightness and ab themselves: what VGG16 does not care for is judged there.

    `head` holds all that trains and what is measured or drawn once; `trunk` is used as it is.
    """

    TAPS = (1, 2, 3)  # relu2_2, relu3_3, relu4_3
    PROJECTED = 64  # channels behind the random projections
    WIDTH = 64  # of a head
    SHIFT = 0.125  # largest translation, of the side
    CUT = 0.25  # side of the piece that is cut out, of the side

    def __init__(self, trunk: VGG16, *, size: int = 256, augment: bool = True) -> None:
        super().__init__()
        if size < REDUCTION:
            raise ConfigError(
                f"discriminator size must be {REDUCTION} or more, got {size}; VGG16 halves it five"
                " times"
            )
        self.trunk, self.size, self.augment = trunk, size, augment
        taps = [trunk.TAPS[at] for at in self.TAPS]
        self.names = ("ab", *(tap.name for tap in taps))  # of the maps
        self.head = _Heads([tap.channels for tap in taps], self.PROJECTED, self.WIDTH)

    def features(self, seen: Seen) -> list[Tensor]:
        """Return the normalized maps of a batch: lightness and ab at this network's size, then one
        for each tap.
        """
        rgb = _resize(seen.rgb, self.size)
        taps = self.trunk(rgb, blocks=self.TAPS[-1] + 1)
        maps = [_resize(seen.lab, self.size), *(taps[at] for at in self.TAPS)]
        return [
            (x - mean.to(x.dtype)) * scale.to(x.dtype)
            for x, mean, scale in zip(maps, self.head.means, self.head.scales, strict=True)
        ]

    @torch.no_grad()
    def measure(self, seen: Seen) -> None:
        """Take the constants of normalization from true pictures: mean and deviation of each
        channel.
        """
        self.head.reset_constants()
        for at, x in enumerate(self.features(seen)):
            variance, mean = torch.var_mean(x.float(), (0, 2, 3), keepdim=True)
            self.head.means[at].copy_(mean)
            # A channel that is hardly ever on must not become the loudest one.
            floor = 0.1 * variance.mean().clamp_min(1e-12)
            self.head.scales[at].copy_((variance + floor).rsqrt())

    def judge(self, real: list[Tensor], fake: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the maps of logits (B, 1, h, w), float32, of real and of fake features; positive
        says real.
        """
        both = self.judge_alone([torch.cat(pair) for pair in zip(real, fake, strict=True)])
        pairs = [x.chunk(2) for x in both]
        return [first for first, _ in pairs], [second for _, second in pairs]

    def judge_alone(self, features: list[Tensor]) -> list[Tensor]:
        """Return the maps of logits of one kind of pictures: each picture is judged by itself."""
        maps: list[Tensor] = self.head(features)
        return maps

    def distort(self, real: Seen, fake: Seen, drawn: Tensor) -> tuple[Seen, Seen]:
        """Move both pictures of a pair alike, and cut the same piece out. `drawn`: (B, 4) in [0,
        1), on the CPU.

        Never anything about colour, which is what is judged (Zhao et al., 2020, "Differentiable
        Augmentation").
        """
        if not self.augment:
            return real, fake
        count, _, height, width = real.rgb.shape
        numbers: list[list[float]] = drawn.tolist()
        reach = (round(self.SHIFT * height), round(self.SHIFT * width))
        side = (round(self.CUT * height), round(self.CUT * width))
        corners = [(round(2 * reach[0] * y), round(2 * reach[1] * x)) for y, x, _, _ in numbers]
        kept = real.rgb.new_ones(count, 1, height, width)
        for at, (_, _, y, x) in enumerate(numbers):
            top, left = round(y * height) - side[0] // 2, round(x * width) - side[1] // 2
            kept[at, :, max(0, top) : top + side[0], max(0, left) : left + side[1]] = 0
        gray = color.gray(real.lab.new_zeros(1, 1, 1, 1))

        def move(x: Tensor) -> Tensor:
            padded = F.pad(x, (reach[1], reach[1], reach[0], reach[0]), mode="replicate")
            moved = [
                padded[at, :, y : y + height, x : x + width] for at, (y, x) in enumerate(corners)
            ]
            return torch.stack(moved).contiguous(memory_format=torch.channels_last)

        return tuple(  # type: ignore[return-value]
            Seen((move(seen.rgb) - gray) * kept + gray, move(seen.lab) * kept)
            for seen in (real, fake)
        )


class _Heads(nn.Module):
    """What a PatchDiscriminator keeps in a checkpoint: constants, random projections, and the heads
    that train.
    """

    def __init__(self, taps: Sequence[int], projected: int, width: int) -> None:
        super().__init__()
        channels = (3, *taps)
        self._count = len(channels)
        for at, number in enumerate(channels):
            self.register_buffer(f"mean_{at}", torch.zeros(1, number, 1, 1))
            self.register_buffer(f"scale_{at}", torch.ones(1, number, 1, 1))
        self.project = nn.ModuleList(nn.Conv2d(number, projected, 1, bias=False) for number in taps)
        for layer in self.project:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")  # type: ignore[arg-type]
        self.project.requires_grad_(False)
        self.maps = nn.ModuleList(
            [_head(3, width, strides=(2, 2)), *(_head(projected, width, (2,)) for _ in taps)]
        )

    @property
    def means(self) -> list[Tensor]:
        """Each map's mean, (1, C, 1, 1)."""
        return [self.get_buffer(f"mean_{at}") for at in range(self._count)]

    @property
    def scales(self) -> list[Tensor]:
        """What each map's deviation from the mean is multiplied by, (1, C, 1, 1)."""
        return [self.get_buffer(f"scale_{at}") for at in range(self._count)]

    def reset_constants(self) -> None:
        for mean, scale in zip(self.means, self.scales, strict=True):
            mean.zero_()
            scale.fill_(1)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        colors, *taps = features
        mixed: list[Tensor] = []
        for project, tap in zip(reversed(self.project), reversed(taps), strict=True):
            x = project(tap)
            if mixed:
                above = F.interpolate(mixed[0], size=x.shape[-2:], mode="nearest")
                x = (x + above) * 0.5**0.5
            mixed.insert(0, x)
        return [head(x).float() for head, x in zip(self.maps, [colors, *mixed], strict=True)]


def _head(channels: int, width: int, strides: Sequence[int]) -> nn.Sequential:
    """Convolutions under spectral norm down to a map of logits."""
    layers: list[nn.Module] = []
    for stride in strides:
        layers += [
            spectral_norm(nn.Conv2d(channels, width, 3, stride=stride, padding=1)),
            nn.LeakyReLU(SLOPE),
        ]
        channels = width
    layers += [spectral_norm(nn.Conv2d(channels, width, 3, padding=1)), nn.LeakyReLU(SLOPE)]
    layers.append(spectral_norm(nn.Conv2d(width, 1, 1)))
    return nn.Sequential(*layers)


def _resize(rgb: Tensor, size: int) -> Tensor:
    """Resize to size x size in float32, by plain averaging where it divides the picture's size,
    smoothly else.
    """
    height, width = rgb.shape[-2:]
    if (height, width) == (size, size):
        return rgb
    with without_autocast(rgb.device):
        if height % size == 0 and width % size == 0:
            return F.avg_pool2d(rgb.float(), (height // size, width // size))
        return F.interpolate(
            rgb.float(), (size, size), mode="bilinear", antialias=True, align_corners=False
        )
