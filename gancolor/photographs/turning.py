"""What in metadata points into a picture, turned as its pixels are: regions of faces, the subject's place.

Places are those of the picture as its file stores it (Metadata Working Group, Guidelines 2.0, 5.9.1; EXIF 2.32).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from xml.dom.minidom import Attr, Element

from gancolor.photographs import exif, xmp
from gancolor.photographs.contents import Metadata

_SUBJECT_AREA, _SUBJECT_LOCATION = 0x9214, 0xA214
_AREA = "http://ns.adobe.com/xmp/sType/Area#"
_DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_REGIONS = "http://www.metadataworkinggroup.com/schemas/regions/"
_MICROSOFT = "http://ns.microsoft.com/photo/1.2/t/Region#"
_CROPS, _EXIF = "http://ns.adobe.com/camera-raw-settings/1.0/", "http://ns.adobe.com/exif/1.0/"
_OF_CROPS = ("HasCrop", "CropTop", "CropLeft", "CropBottom", "CropRight", "CropAngle", "CropConstrainToWarp")


def turned(metadata: Metadata, orientation: int, width: int, height: int) -> tuple[Metadata, list[str]]:
    """Return the metadata of a picture whose pixels are turned upright, and notes of what could not be turned.

    `orientation` (EXIF, 1-8) is what they are turned by; `width`, `height` are those of the picture as stored.
    """
    if orientation == 1:
        return metadata, []
    notes: list[str] = []
    data, packet = metadata.exif, metadata.xmp
    if data is not None:
        data = _turn_subject(data, orientation, (width, height))
    if packet is not None:
        try:
            packet, notes = _turn_packet(packet, orientation, (width, height))
        except ValueError:  # a damaged packet is left out when it is written
            pass
    return replace(metadata, exif=data, xmp=packet), notes


def place(x: float, y: float, orientation: int, width: float = 1, height: float = 1) -> tuple[float, float]:
    """Where a point of a stored picture of `width` x `height` lies in the upright one."""
    if orientation >= 5:
        x, y, width, height = y, x, height, width
    # What is left is to mirror: across, down.
    return (width - x if orientation in (2, 3, 6, 7) else x), (height - y if orientation in (3, 4, 7, 8) else y)


def _turn_subject(data: bytes, orientation: int, size: tuple[int, int]) -> bytes:
    """Turn the subject's place in an EXIF block; no other byte changes."""
    block = bytearray(data)
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return data
    top = struct.unpack_from(order + "L", data, 4)[0]
    for tag, kind, count, start in _entries(data, order, top):
        if tag != exif.EXIF_DIRECTORY or kind != exif.LONG or count != 1:
            continue
        inside = struct.unpack_from(order + "L", data, start)[0]
        for own, own_kind, own_count, own_start in _entries(data, order, inside):
            if own in (_SUBJECT_AREA, _SUBJECT_LOCATION) and own_kind == exif.SHORT and 2 <= own_count <= 4:
                form = f"{order}{own_count}H"
                numbers = _turn_numbers(struct.unpack_from(form, data, own_start), orientation, size)
                struct.pack_into(form, block, own_start, *numbers)
    return bytes(block)


def _entries(data: bytes, order: str, offset: int) -> Iterator[tuple[int, int, int, int]]:
    return exif.entries(data, order, offset) if 8 <= offset <= len(data) - 2 else iter(())


def _turn_numbers(numbers: Sequence[int], orientation: int, size: tuple[int, int]) -> list[int]:
    """Turn a centre, and the diameter or the sides behind it."""
    x, y = place(numbers[0], numbers[1], orientation, *size)
    rest = list(numbers[2:])
    return [min(max(round(x), 0), 65535), min(max(round(y), 0), 65535), *(rest[::-1] if orientation >= 5 else rest)]


def _turn_packet(packet: bytes, orientation: int, size: tuple[int, int]) -> tuple[bytes, list[str]]:
    document, rdf = xmp.parsed(packet)
    changed = False
    for element in document.getElementsByTagName("*"):
        fields = {name: node for name in "xywh" if (node := _field(element, _AREA, name)) is not None}
        if "x" in fields and "y" in fields:
            unit = _field(element, _AREA, "unit")
            scale = size if unit is not None and xmp.value_of(unit) == "pixel" else (1, 1)
            changed |= _turn_area(fields, orientation, scale)
        if (element.namespaceURI, element.localName) == (_REGIONS, "AppliedToDimensions") and orientation >= 5:
            changed |= _swap(_field(element, _DIMENSIONS, "w"), _field(element, _DIMENSIONS, "h"))
        rectangle = _field(element, _MICROSOFT, "Rectangle")
        if rectangle is not None:
            changed |= _turn_rectangle(rectangle, orientation)
    stale = [node for name in _OF_CROPS for node in xmp.properties(rdf, _CROPS, name)]
    stale += [node for name in ("SubjectArea", "SubjectLocation") for node in xmp.properties(rdf, _EXIF, name)]
    for node in stale:
        xmp.remove(node)
    notes = ["crops and places in XMP, of the picture before it was turned upright: left out"] if stale else []
    return (xmp.written(document) if changed or stale else packet), notes


def _field(element: Element, space: str, name: str) -> Attr | Element | None:
    """A field of a structure, be it written as an attribute or as an element."""
    attribute = element.getAttributeNodeNS(space, name)
    if attribute is not None:
        return attribute
    children = (node for node in element.childNodes if isinstance(node, Element))
    return next((node for node in children if (node.namespaceURI, node.localName) == (space, name)), None)


def _turn_area(fields: dict[str, Attr | Element], orientation: int, scale: tuple[int, int]) -> bool:
    try:
        x, y = (float(xmp.value_of(fields[name])) for name in "xy")
    except ValueError:
        return False
    for name, value in zip("xy", place(x, y, orientation, *scale), strict=True):
        xmp.set_value(fields[name], f"{value:.6g}")
    if orientation >= 5:
        _swap(fields.get("w"), fields.get("h"))
    return True


def _swap(first: Attr | Element | None, second: Attr | Element | None) -> bool:
    if first is None or second is None:
        return False
    one, other = xmp.value_of(first), xmp.value_of(second)
    xmp.set_value(first, other)
    xmp.set_value(second, one)
    return True


def _turn_rectangle(node: Attr | Element, orientation: int) -> bool:
    """Turn a corner and the sides behind it, "0.1, 0.2, 0.3, 0.4"."""
    try:
        left, top, width, height = (float(number) for number in xmp.value_of(node).split(","))
    except ValueError:
        return False
    corners = [place(left, top, orientation), place(left + width, top + height, orientation)]
    (left, right), (top, bottom) = (sorted(numbers) for numbers in zip(*corners, strict=True))
    xmp.set_value(node, ", ".join(f"{number:.6f}" for number in (left, top, right - left, bottom - top)))
    return True
