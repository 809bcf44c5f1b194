"""The fusion networks: encoder, fusion with a global embedding, decoder, as the papers' tables
(koalarization, face, portrait, deep-cnn).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancolor import color
from gancolor.models.layers import BatchNorm2d, reflect_pad


class FusionLayer(NamedTuple):
    """One row of a paper's table: a convolution, ReLU and what follows it, or a nearest x2
    upsampling.

    `normalized`: BatchNorm after the ReLU. `dropout`: dropout at the network's rate after that.
    """

    channels: int = 0
    kernel: int = 3
    stride: int = 1
    upsample: bool = False
    normalized: bool = False
    dropout: bool = False


class FusionTable(NamedTuple):
    """A paper's network. `fusion` joins the encoder's features and the embedding; the decoder's
    last convolution is the output layer, with tanh or sigmoid in place of ReLU.
    """

    encoder: tuple[FusionLayer, ...]
    fusion: FusionLayer
    decoder: tuple[FusionLayer, ...]


_UP = FusionLayer(upsample=True)
_NORMALIZED = functools.partial(FusionLayer, normalized=True)

_KOALARIZATION = FusionTable(
    encoder=(
        FusionLayer(64, stride=2),
        FusionLayer(128),
        FusionLayer(128, stride=2),
        FusionLayer(256),
        FusionLayer(256, stride=2),
        FusionLayer(512),
        FusionLayer(512),
        FusionLayer(256),  # the text says 512; 256 is what adds up to the fused depth of 1257
    ),
    fusion=FusionLayer(256, kernel=1),
    decoder=(
        FusionLayer(128),
        _UP,
        FusionLayer(64),
        FusionLayer(64),
        _UP,
        FusionLayer(32),
        FusionLayer(2),
        _UP,
    ),
)
_PORTRAIT = FusionTable(
    encoder=(
        _NORMALIZED(64, stride=2),
        _NORMALIZED(128, stride=2),
        _NORMALIZED(256, stride=2),
        _NORMALIZED(512),
        _NORMALIZED(256),
    ),
    fusion=_NORMALIZED(256, kernel=1),
    decoder=(
        _UP,
        _NORMALIZED(128),
        _NORMALIZED(64),
        _UP,
        _NORMALIZED(32),
        _NORMALIZED(16),
        FusionLayer(2, kernel=2),
        _UP,
    ),
)

TABLES: dict[str, FusionTable] = {
    "koalarization": _KOALARIZATION,  # deep-cnn's too
    "face": _KOALARIZATION._replace(
        # "in layers which have major nodes": the widest, of 512 channels
        encoder=tuple(row._replace(dropout=row.channels == 512) for row in _KOALARIZATION.encoder)
    ),
    "portrait": _PORTRAIT,
}


class FusionNetwork(nn.Module):
    """Predicts colour from lightness and an embedding of the whole picture, by the table of that
    name in `TABLES`.

    `embedding_width` is the embedding's. `dropout` is the rate in the rows that have it. `smooth`
    makes the last upsampling, of the two colour channels, bilinear; the papers' is nearest: blocks
    of 2x2. `scale` is the network's own units (default: ab110), which never leave it; its sign
    decides between tanh and sigmoid.
    """

    def __init__(
        self,
        table: str,
        *,
        embedding_width: int,
        dropout: float = 0.5,
        smooth: bool = False,
        scale: color.ColorScale | None = None,
    ) -> None:
        super().__init__()
        if table not in TABLES:
            raise ValueError(f"table must be one of {', '.join(TABLES)}, got {table}")
        self.table = TABLES[table]
        self.embedding_width = embedding_width
        self.scale = color.SCALES["ab110"] if scale is None else scale
        self.stride = 1
        for row in self.table.encoder:
            self.stride *= row.stride

        self.encoder = nn.Sequential()
        channels = 1
        for row in self.table.encoder:
            self.encoder.append(_layers(row, channels, dropout))
            channels = row.channels
        self.fusion = Fusion(self.table.fusion, channels, embedding_width, dropout)
        self.decoder = _decoder(
            self.table.decoder, self.table.fusion.channels, dropout, smooth, self.scale.signed
        )
        for part in self.modules():
            # as Keras begins, in which the papers are written
            if isinstance(part, nn.Conv2d) and part.bias is not None:
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)

    def forward(self, lightness: Tensor, embedding: Tensor) -> Tensor:
        """Return ab (B, 2, H, W), float32, for `lightness` (B, 1, H, W) in [-1, 1] and `embedding`
        (B, width).

        Any H and W. With the scale ab127 the colours reach a little beyond [-1, 1]. Raises
        ValueError for an embedding of another shape, which belongs to another backbone or batch.
        """
        expected = (lightness.shape[0], self.embedding_width)
        if tuple(embedding.shape) != expected:
            raise ValueError(
                f"embedding must be (batch, width) = {expected}, got {tuple(embedding.shape)}"
            )
        x, (rows, columns) = reflect_pad(self.scale.lightness(lightness.float()), self.stride)
        units: Tensor = self.decoder(self.fusion(self.encoder(x), embedding))
        return self.scale.decode(units[..., rows, columns])


class Fusion(nn.Sequential):
    """The fusion row: the features joined with the embedding, a 1x1 convolution and what follows
    it.
    """

    def __init__(
        self, row: FusionLayer, channels: int, embedding_width: int, dropout: float
    ) -> None:
        super().__init__(FusionConv(channels, embedding_width, row.channels), *_rest(row, dropout))

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        """`features` (B, C, h, w) and `embedding` (B, width) to (B, channels, h, w)."""
        first, *others = self
        x: Tensor = first(features, embedding)
        for layer in others:
            x = layer(x)
        return x


class FusionConv(nn.Conv2d):
    """1x1 convolution of features joined with an embedding that is repeated at every position.

    The joined tensor is never made: the embedding's part of the product is the same everywhere, so
    it is computed once a picture and added.
    """

    def __init__(self, channels: int, embedding_width: int, channels_out: int) -> None:
        super().__init__(channels + embedding_width, channels_out, 1)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        """`features` (B, channels, h, w) and `embedding` (B, width) to (B, channels_out, h, w)."""
        channels = features.shape[1]
        everywhere = F.linear(
            embedding.to(self.weight.dtype), self.weight[:, channels:].flatten(1), self.bias
        )
        return F.conv2d(features, self.weight[:, :channels]) + everywhere[:, :, None, None]


class Squash(nn.Module):
    """The output's activation, in float32: tanh to [-1, 1] where colours are signed, else sigmoid
    to [0, 1].
    """

    def __init__(self, signed: bool) -> None:
        super().__init__()
        self.signed = signed

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept."""
        return torch.tanh(x.float()) if self.signed else torch.sigmoid(x.float())


def _layers(row: FusionLayer, channels_in: int, dropout: float) -> nn.Sequential:
    """The layers of a row of the encoder or the decoder, but for the last."""
    return nn.Sequential(_conv(row, channels_in), *_rest(row, dropout))


def _rest(row: FusionLayer, dropout: float) -> list[nn.Module]:
    """What follows a row's convolution. BatchNorm comes after the ReLU: Keras's convolutions hold
    their activation.
    """
    layers: list[nn.Module] = [nn.ReLU(inplace=True)]
    if row.normalized:
        layers.append(BatchNorm2d(row.channels))
    if row.dropout:
        layers.append(nn.Dropout(dropout))
    return layers


def _conv(row: FusionLayer, channels_in: int) -> nn.Conv2d:
    """A convolution that keeps the size, or halves it with stride 2; biased, for ReLU comes before
    any BatchNorm.
    """
    return nn.Conv2d(
        channels_in, row.channels, row.kernel, stride=row.stride, padding=(row.kernel - 1) // 2
    )


def _decoder(
    rows: Sequence[FusionLayer], channels: int, dropout: float, smooth: bool, signed: bool
) -> nn.Sequential:
    """The decoder, a module for each row."""
    decoder = nn.Sequential()
    last = max(i for i, row in enumerate(rows) if not row.upsample)
    for i, row in enumerate(rows):
        if row.upsample:
            decoder.append(_upsample(smooth and i > last))
            continue
        decoder.append(
            _output(row, channels, signed) if i == last else _layers(row, channels, dropout)
        )
        channels = row.channels
    return decoder


def _upsample(smooth: bool) -> nn.Upsample:
    return (
        nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False)
        if smooth
        else nn.Upsample(scale_factor=2.0)
    )


def _output(row: FusionLayer, channels_in: int, signed: bool) -> nn.Sequential:
    """The layers of the last convolution; an even kernel is padded on the right and below, as
    TensorFlow's `same`.
    """
    missing = 1 - row.kernel % 2
    padding = [nn.ZeroPad2d((0, missing, 0, missing))] if missing else []
    return nn.Sequential(*padding, _conv(row, channels_in), Squash(signed))
