"""Networks with an eighth of their channels: the same layers, taps and code, at a fraction of the
time and memory.

What is measured on training pictures before the first step is measured on few.
"""

from __future__ import annotations

import pytest

SHARE = 8


def narrow_networks(patch: pytest.MonkeyPatch | None = None) -> None:
    """Make both VGG16s, the heads of patches and the fusion networks narrow, until `patch` undoes
    it.

    The embeddings of the fusion networks stay whole.
    """
    from gancolor.models import backbones, discriminator, fusion, generator
    from gancolor.training import plan

    def narrow(row: fusion.FusionLayer) -> fusion.FusionLayer:
        return row._replace(channels=row.channels // SHARE) if row.channels > SHARE else row

    patch = patch or pytest.MonkeyPatch()
    widths = [
        wide // SHARE if isinstance(wide, int) else wide for wide in backbones.VGG_WIDTHS["D"]
    ]
    taps = tuple(tap._replace(channels=tap.channels // SHARE) for tap in backbones.VGG16.TAPS)
    patch.setattr(backbones, "VGG_WIDTHS", {**backbones.VGG_WIDTHS, "D": widths})
    patch.setattr(backbones.VGG16, "TAPS", taps)
    patch.setattr(plan, "SAMPLE", 16)
    patch.setattr(plan, "LOOKED_AT", 4)
    patch.setattr(generator, "CONTRACTIVE_CHANNELS", generator.CONTRACTIVE_CHANNELS // SHARE)
    for name in ("PROJECTED", "WIDTH"):
        whole = getattr(discriminator.PatchDiscriminator, name)
        patch.setattr(discriminator.PatchDiscriminator, name, whole // SHARE)
    for name, (encoder, joined, decoder) in fusion.TABLES.items():
        table = fusion.FusionTable(
            tuple(map(narrow, encoder)), narrow(joined), tuple(map(narrow, decoder))
        )
        patch.setitem(fusion.TABLES, name, table)
