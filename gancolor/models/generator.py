"""The generator: a U-Net whose first levels are blocks of a pretrained network (poster).

It has one of two heads, and it may take hints: colours that a user knows. A hint map is
(B, 3, H, W): the known `ab`, zero elsewhere, and a mask of 0 and 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancolor.models import bins
from gancolor.models.backbones import Backbone
from gancolor.models.layers import SLOPE, Expanding, double_conv, initialize, max_pool, reflect_pad

CONTRACTIVE_CHANNELS = 512
WIDEST = 256  # channels of an expanding level at most
BINS_STRIDE = 4  # pixels per position of the distribution of colours (Zhang et al., 2016)

# Channels of the hints' encoder at the finest level and below it; the last for all further ones.
CHANNELS = (32, 64, 128)
# Of hints: the ab of photographs fill a quarter of their range, so they weigh as much as the mask.
GAIN = 4.0

_LEAST_SHARE = 1e-5  # of a bin that no training picture has


class Output(NamedTuple):
    """What a generator says of a batch.

    `colors`: (B, 2 or 3, H, W), float32 in [-1, 1]: ab, or lightness and ab. `logits`: (B, Q, h,
    w), float32, of the head `bins`: of the colours at every fourth pixel of the padded condition
    (`Generator.pad`); None of the head `ab`.
    """

    colors: Tensor
    logits: Tensor | None = None


class Looked(NamedTuple):
    """A condition after `Generator.look`.

    `padded`: (B, 1, H', W'). `maps`: of all levels down to the deepest. `inside`: the rows and
    columns of the padded condition that hold the condition itself.
    """

    padded: Tensor
    maps: list[Tensor]
    inside: tuple[slice, slice]


class Generator(nn.Module):
    """Predicts colour from gray or from edges: backbone blocks, contractive levels, expanding
    levels, a head.

    `encoder` gives the first `frozen_blocks` blocks; if it is frozen they run without gradients.
    `levels` trainable contractive levels of 512 channels follow, each a 2x2 max pool and a double
    convolution. (poster puts the pool at a level's end; VGG16's taps lie before their pools, so
    here it opens the next level. The network is the same.) Expanding levels have `width` x stride
    channels, 256 at most. `stride` must divide H and W inside; forward pads.

    `head`: "ab" (poster) goes on to full size and ends in tanh; "bins" ends at a quarter of the
    size in a distribution over colours, whose annealed mean a small branch refines at full size.
    `hints`: whether colour hints are taken.
    """

    def __init__(
        self,
        encoder: Backbone,
        *,
        frozen_blocks: int = 5,
        levels: int = 1,
        width: int = 24,
        out_channels: int = 2,
        head: str = "ab",
        hints: bool = False,
        temperature: float = 0.38,
    ) -> None:
        super().__init__()
        # Trimmed, so that the state_dict holds just the blocks in use.
        self.encoder = encoder.trim(frozen_blocks)
        self.out_channels, self.temperature = out_channels, temperature
        self.finest = BINS_STRIDE if head == "bins" else 1
        taps = self.encoder.taps
        self.stride = taps[-1].stride * 2**levels
        # Above the first tap the condition itself is the skip connection.
        above = [1] * (taps[0].stride.bit_length() - 1)
        channels = [*above, *(tap.channels for tap in taps)]
        self.contract = nn.ModuleList()
        for _ in range(levels):
            self.contract.append(double_conv(channels[-1], CONTRACTIVE_CHANNELS))
            channels.append(CONTRACTIVE_CHANNELS)
        self.expand = nn.ModuleList()
        self.widths: list[int] = []  # channels of the expanding levels
        below = channels.pop()
        while len(channels) > self.finest.bit_length() - 1:
            out = min(width * 2 ** (len(channels) - 1), WIDEST)
            self.expand.append(Expanding(below, channels.pop(), out))
            self.widths.append(out)
            below = out
        self.hints = HintEncoder(self.widths, self.finest) if hints else None
        self.last: nn.Module
        if head == "bins":
            self.last = BinsHead(below, out_channels)
        else:
            self.last = nn.Conv2d(below, out_channels, 3, padding=1)
        for part in (self.contract, self.expand, self.hints):
            if part is not None:
                initialize(part)
        if isinstance(self.last, BinsHead):
            self.last.initialize()
        else:
            initialize(self.last, last=self.last)

    def forward(self, condition: Tensor, hints: Tensor | None = None) -> Tensor:
        """Return `Output.colors` for `condition` (B, 1, H, W), float in [0, 1]: sRGB gray or an
        edge map.

        `hints`: a hint map (B, 3, H, W), for a network that takes them.
        """
        return self.say(condition, hints).colors

    def say(
        self,
        condition: Tensor,
        hints: Tensor | None = None,
        temperature: float | None = None,
    ) -> Output:
        """Return all that the network says (see `forward`), with colours taken at `temperature`."""
        return self.answer(self.look(condition), hints, temperature)

    def look(self, condition: Tensor) -> Looked:
        """Look at a condition (B, 1, H, W) as far as hints do not matter, for `answer`."""
        x, inside = self.pad(condition)
        return Looked(x, self._look(x), inside)

    def answer(
        self, looked: Looked, hints: Tensor | None = None, temperature: float | None = None
    ) -> Output:
        """Return what `say` returns of what was looked at once, with hints as often as wanted."""
        x, (rows, columns) = looked.padded, looked.inside
        maps = list(looked.maps)
        beside: list[Tensor | None] = [None] * len(self.expand)
        if hints is not None:
            if self.hints is None:
                raise ValueError("hints must be None for a generator that takes none, got a map")
            hints, _ = self.pad(hints)
            beside[:] = self.hints(hints)
        deep = maps.pop()
        for level, extra in zip(self.expand, beside, strict=True):
            deep = level(deep, maps.pop(), extra)
        if not isinstance(self.last, BinsHead):
            return Output(torch.tanh(self.last(deep).float())[..., rows, columns])
        temperature = self.temperature if temperature is None else temperature
        colors, logits = self.last(deep, x, hints, temperature)
        return Output(colors[..., rows, columns], logits)

    def pad(self, x: Tensor) -> tuple[Tensor, tuple[slice, slice]]:
        """Pad a picture to what the network's levels divide; see `reflect_pad`."""
        return reflect_pad(x, self.stride)

    def _look(self, condition: Tensor) -> list[Tensor]:
        """The maps of all levels from the finest down, the condition itself above the first tap."""
        with torch.no_grad() if self.encoder.frozen else nullcontext():
            taps: list[Tensor] = self.encoder(condition.expand(-1, 3, -1, -1))
        above = self.encoder.taps[0].stride.bit_length() - 1
        maps = [F.avg_pool2d(condition, 2**i) if i else condition for i in range(above)] + taps
        for level in self.contract:
            maps.append(level(max_pool(maps[-1])))
        return maps


def widen(narrow: Mapping[str, Tensor], generator: Generator) -> dict[str, Tensor]:
    """Return a state for `generator` that computes what `narrow`, the state of one with fewer
    channels in its decoder, computes (Chen et al., "Net2Net", 2016).

    Channels that both have are taken. Weights of a new channel are the fresh ones of `generator`,
    but what was there before does not listen to new channels yet, so that they disturb nothing and
    still learn. What fits in no way is taken as it is, for `load_state_dict` to refuse.
    """
    wide = {key: value.clone() for key, value in generator.state_dict().items()}
    above = {f"expand.{level + 1}.0.weight": width for level, width in enumerate(generator.widths)}
    taken: dict[str, Tensor] = {}
    for key, old in narrow.items():
        new = wide.get(key)
        if new is None or new.dim() != old.dim() or new.dim() == 0 or len(new) < len(old):
            taken[key] = old
            continue
        new = new.to(old.dtype)
        if old.dim() > 1:
            # A `JoinedConv` has the channels of the level below first, then those beside.
            beside = new.shape[1] - above[key] if key in above else 0
            below = old.shape[1] - beside
            new[: len(old)] = 0
            new[: len(old), :below] = old[:, :below]
            new[: len(old), new.shape[1] - beside :] = old[:, below:]
        else:
            new[: len(old)] = old
        taken[key] = new
    return taken


class BinsHead(nn.Module):
    """A distribution over the bins of a*b* at a quarter of the size, and its annealed mean refined
    at full size.

    The branch at full size sees the condition, the enlarged colours, a few of the features and the
    hints. It moves colours, less the mean of its moves around: it says where colours end, and
    leaves to the distribution which they are. From edges, of which no lightness is known, it says
    the lightness too.
    """

    REACH = 0.25  # of ab, 27.5 CIE units: the farthest move, of which the mean around is taken off
    FEATURES = 16  # of the deeper ones that are brought to full size
    WIDTH = 24

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.logits = nn.Conv2d(channels, len(bins.centers()), 1)
        self.reduce = nn.Conv2d(channels, self.FEATURES, 1)
        self.refine = nn.Sequential(
            nn.Conv2d(1 + 2 + self.FEATURES + 3, self.WIDTH, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(self.WIDTH, self.WIDTH, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(self.WIDTH, out_channels, 3, padding=1),
        )

    def initialize(self) -> None:
        """Start undecided between the bins (see `expect`), and with a branch that changes nothing."""
        initialize(self.logits, last=self.logits)
        initialize(self.reduce)
        initialize(self.refine, last=self.refine[-1])

    @torch.no_grad()
    def expect(self, shares: Tensor) -> None:
        """Start from how common each bin is, (Q,), wherever nothing else is known."""
        assert self.logits.bias is not None
        self.logits.bias.copy_(shares.clamp_min(_LEAST_SHARE).log())

    def forward(
        self,
        features: Tensor,
        condition: Tensor,
        hints: Tensor | None,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        """Return colours (B, out_channels, H, W) and logits (B, Q, H / 4, W / 4), float32 both.

        `features` (B, channels, H / 4, W / 4), `condition` (B, 1, H, W) and `hints` (B, 3, H, W).
        """
        logits = self.logits(features).float()
        ab = enlarge(bins.decode(logits, temperature))
        known = (
            condition.new_zeros(len(condition), 3, *condition.shape[2:]) if hints is None else hints
        )
        seen = [
            condition,
            ab.to(condition.dtype),
            enlarge(self.reduce(features)).to(condition.dtype),
            known,
        ]
        x = torch.cat(seen, 1).contiguous(memory_format=torch.channels_last)
        change = torch.tanh(self.refine(x).float())
        moves = self.REACH * change[:, -2:]
        colors = (ab + moves - enlarge(F.avg_pool2d(moves, BINS_STRIDE))).clamp(-1, 1)
        return torch.cat([change[:, :-2], colors], 1), logits


class HintEncoder(nn.Module):
    """Brings a hint map to the expanding levels: at each, the map shrunk to its size, and what the
    finer ones know.

    Convolutions alone would thin a single hint out on its way down, and the coarse levels, which
    see things as a whole, would hardly hear of it. Without biases, so that a map of no hints gives
    zeros, and a network with it colours as without. `levels`: channels of the expanding levels from
    the coarsest to the finest; `stride`: pixels of the picture per position of the finest.
    """

    def __init__(self, levels: Sequence[int], stride: int) -> None:
        super().__init__()
        self.stride = stride
        widths = [CHANNELS[min(i, len(CHANNELS) - 1)] for i in range(len(levels))]
        self.known = nn.ModuleList(nn.Conv2d(3, wide, 3, padding=1, bias=False) for wide in widths)
        self.down = nn.ModuleList(
            nn.Conv2d(above, wide, 3, stride=2, padding=1, bias=False)
            for above, wide in itertools.pairwise(widths)
        )
        self.join = nn.ModuleList(
            nn.Conv2d(wide, out, 1, bias=False)
            for wide, out in zip(widths, reversed(levels), strict=True)
        )

    def forward(self, hints: Tensor) -> list[Tensor]:
        """What to add at each expanding level, from the coarsest to the finest, of a hint map (B,
        3, H, W).
        """
        maps: list[Tensor] = []
        finer = None
        for level, (known, join) in enumerate(zip(self.known, self.join, strict=True)):
            stride = self.stride * 2**level
            here = shrink(hints, hints.shape[2] // stride, hints.shape[3] // stride)
            x = known(torch.cat([GAIN * here[:, :2], here[:, 2:]], 1))
            if finer is not None:
                x = x + self.down[level - 1](finer)
            finer = F.leaky_relu(x, SLOPE)
            maps.append(join(finer))
        return maps[::-1]


def shrink(hints: Tensor, height: int, width: int) -> Tensor:
    """Return a smaller hint map (B, 3, height, width), where a place holds the mean of its hints,
    however few.
    """
    if hints.shape[-2:] == (height, width):
        return hints
    mean = F.adaptive_avg_pool2d(hints, (height, width))
    share = mean[:, 2:]
    known = (share > 0).to(mean.dtype)
    return torch.cat([mean[:, :2] / torch.where(share > 0, share, 1), known], 1)


def enlarge(x: Tensor) -> Tensor:
    """Bring a map at the size of the distribution to full size: (B, C, h, w) to (B, C, 4h, 4w)."""
    return F.interpolate(x, scale_factor=float(BINS_STRIDE), mode="bilinear", align_corners=False)
