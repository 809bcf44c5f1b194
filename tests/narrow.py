"""VGG16 with an eighth of its channels: the same layers, taps and code, at a fraction of the time and of the memory."""

from __future__ import annotations

import pytest

SHARE = 8


def narrow_vgg16(patch: pytest.MonkeyPatch | None = None) -> None:
    """Make the generator's and the discriminator's VGG16 narrow, until `patch` undoes it; embeddings stay whole."""
    from gancolor.models import backbones, generator

    patch = patch or pytest.MonkeyPatch()
    widths = [wide // SHARE if isinstance(wide, int) else wide for wide in backbones.VGG_WIDTHS["D"]]
    taps = tuple(tap._replace(channels=tap.channels // SHARE) for tap in backbones.VGG16.TAPS)
    patch.setattr(backbones, "VGG_WIDTHS", {**backbones.VGG_WIDTHS, "D": widths})
    patch.setattr(backbones.VGG16, "TAPS", taps)
    patch.setattr(generator, "CONTRACTIVE_CHANNELS", generator.CONTRACTIVE_CHANNELS // SHARE)
