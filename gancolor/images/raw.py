"""Cameras' raw files, through rawpy: the extra `raw`."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from gancolor.errors import MissingExtra
from gancolor.images.formats import KINDS, refusal
from gancolor.images.metadata import Metadata, tiff_exif
from gancolor.images.photograph import Header, Stored
from gancolor.images.pixels import bands
from gancolor.runtime.stderr import stderr_closed

_SRGB = (2.4, 12.92)  # its curve's power, and the slope at its foot
_TURNED = (5, 6)  # LibRaw's numbers of a quarter turn
_NOTE = (
    "a camera's raw file holds linear light: it was developed with the camera's white balance and"
    " sRGB's curve, without the maker's own tones"
)


def header(file: BinaryIO) -> Header:
    """Read a raw file's header. MissingExtra if rawpy is not installed, or what it raises if the
    file is damaged.
    """
    try:
        import rawpy
    except ImportError as error:
        raise MissingExtra(
            f"picture must be of a kind that can be read: {refusal(KINDS['raw'])}"
        ) from error
    file.seek(0)
    with stderr_closed():  # LibRaw's words; what matters is raised
        opened = rawpy.imread(file)
    sizes = opened.sizes
    width, height = (sizes.iwidth, sizes.iheight)
    if sizes.flip in _TURNED:
        width, height = height, width
    return Header(
        width=width,
        height=height,
        format=KINDS["raw"].title,
        decode=lambda: _decode(opened, file, rawpy.ColorSpace.sRGB),
    )


def _decode(opened: Any, file: BinaryIO, space: Any) -> Stored:
    with opened, stderr_closed():
        pixels = opened.postprocess(
            output_bps=16, output_color=space, gamma=_SRGB, use_camera_wb=True, no_auto_bright=True
        )
    return Stored(
        width=pixels.shape[1],
        height=pixels.shape[0],
        format=KINDS["raw"].title,
        space="rgb",
        dtype=np.dtype(np.uint16),
        has_alpha=False,
        bands=((rows, None) for rows in bands(pixels)),
        metadata=Metadata(exif=tiff_exif(file)),
        notes=[_NOTE],
    )
