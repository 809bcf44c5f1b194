"""The backbones that a generator can see through, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from gancolor.models.backbones import VGG16, Backbone, describe, load_backbone
from gancolor.models.efficientnet import TITLE, EfficientNetLite0, describe_efficientnet, load_efficientnet


class Loader(Protocol):
    """Returns a backbone of all its blocks with "imagenet", "none" or the file `weights`, frozen unless `trainable`."""

    def __call__(self, weights: str, *, seed: int = 0, trainable: bool = False) -> Backbone: ...


class EncoderKind(NamedTuple):
    """What is known of a backbone before it is built.

    `build` takes the number of blocks and returns them without weights worth keeping, for a checkpoint's to be loaded.
    `load` and `describe` take what the user chose as weights.
    """

    title: str
    build: type[VGG16] | type[EfficientNetLite0]
    load: Loader
    describe: Callable[[str], str]


ENCODERS: dict[str, EncoderKind] = {
    "vgg16": EncoderKind("VGG16", VGG16, load_backbone, describe),
    "efficientnet-lite0": EncoderKind(TITLE, EfficientNetLite0, load_efficientnet, describe_efficientnet),
}
