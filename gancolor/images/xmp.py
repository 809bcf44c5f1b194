"""XMP packets: what no longer holds of the file is taken out, places in the picture are turned as its
pixels are, and a note of where the colours come from is put in.

A packet is XML: all else in it stays as it was. Places are those of the picture as its file stores
it (Metadata Working Group, Guidelines 2.0, 5.9.1).
"""

from __future__ import annotations

from typing import TypeGuard
from xml.dom.minidom import Attr, Document, Element, Node, parseString
from xml.parsers.expat import ExpatError

from gancolor.images.exif import place

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMLNS = "http://www.w3.org/2000/xmlns/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_EXIF = "http://ns.adobe.com/exif/1.0/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_EXTENDED = "http://ns.adobe.com/xmp/note/"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_AREA = "http://ns.adobe.com/xmp/sType/Area#"
_DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_REGIONS = "http://www.metadataworkinggroup.com/schemas/regions/"
_MICROSOFT = "http://ns.microsoft.com/photo/1.2/t/Region#"
_CROPS = "http://ns.adobe.com/camera-raw-settings/1.0/"

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
"""IPTC's vocabulary of where a picture comes from."""

SOURCE_TYPE = SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
"""A photograph's lightness with a trained network's colours."""

_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"/></x:xmpmeta>'
    '<?xpacket end="w"?>'
)

# Told of the file that was read: orientation, size, depth and profile are others now, the thumbnail
# is gray, and the continuation of a packet that is too long for one JPEG segment stays behind.
_STALE = (
    *(
        (_TIFF, name)
        for name in ("Orientation", "ImageWidth", "ImageLength", "BitsPerSample", "SamplesPerPixel")
    ),
    *(
        (_TIFF, name)
        for name in ("Compression", "PhotometricInterpretation", "PlanarConfiguration")
    ),
    *((_EXIF, name) for name in ("PixelXDimension", "PixelYDimension", "ColorSpace")),
    *((_PHOTOSHOP, name) for name in ("ICCProfile", "ColorMode")),
    (_XMP, "Thumbnails"),
    (_EXTENDED, "HasExtendedXMP"),
)
# Places that cannot be turned.
_OF_CROPS = "HasCrop CropTop CropLeft CropBottom CropRight CropAngle CropConstrainToWarp".split()
_OF_SUBJECTS = ("SubjectArea", "SubjectLocation")

# What phones say of that which lies behind the picture, and which is not written again: by
# namespace and first letters.
_SECOND = "a second picture or film behind this one was left out, and XMP's list of it"
_PROMISES = {
    (
        "http://ns.google.com/photos/1.0/camera/",
        "MotionPhoto",
    ): "the film of a Motion Photo was left out",
    (
        "http://ns.google.com/photos/1.0/camera/",
        "MicroVideo",
    ): "the film of a Motion Photo was left out",
    (
        "http://ns.adobe.com/hdr-gain-map/1.0/",
        "",
    ): "the gain map of an Ultra HDR picture was left out",
    ("http://ns.apple.com/HDRGainMap/1.0/", ""): "the gain map of an HDR picture was left out",
    ("http://ns.google.com/photos/1.0/container/", ""): _SECOND,
    ("http://ns.google.com/photos/dd/1.0/device/", ""): _SECOND,
    ("http://ns.google.com/photos/1.0/depthmap/", ""): "the depth map was left out",
    ("http://ns.google.com/photos/1.0/image/", ""): _SECOND,
    ("http://ns.google.com/photos/1.0/audio/", ""): "the sound behind the picture was left out",
}
# Stand-ins while the packet is written as text.
_BREAKS = {"\t": "\ue009", "\n": "\ue00a", "\r": "\ue00d"}


def refreshed(packet: bytes) -> bytes:
    """Return the packet without what told of the old file's encoding; the same bytes if there is
    nothing of it.

    ValueError if the packet is damaged.
    """
    document, rdf = parsed(packet)
    found = [node for space, name in _STALE for node in _properties(rdf, space, name)]
    if not found:
        return packet
    for node in found:
        _remove(node)
    return _written(document)


def stamped(packet: bytes | None, note: str) -> bytes:
    """Return the packet with `note` in xmp:CreatorTool, behind what stands there, and the IPTC's
    source type.

    None begins a new packet. ValueError if the packet is damaged.
    """
    document, rdf = parsed(_EMPTY.encode() if packet is None else packet)
    tool, source = _value(rdf, _XMP, "CreatorTool"), _value(rdf, _IPTC, "DigitalSourceType")
    is_told = source in (SOURCE_TYPE, SOURCE_TYPES + "trainedAlgorithmicMedia")
    if packet is not None and is_told and joined(tool, note) == tool:
        return packet
    _set(rdf, _XMP, "xmp:CreatorTool", joined(tool, note))
    if not is_told:
        _set(rdf, _IPTC, "Iptc4xmpExt:DigitalSourceType", SOURCE_TYPE)
    return _written(document)


def joined(value: str, note: str) -> str:
    """Put the note behind a value, once: a picture may be coloured twice."""
    value = value.strip()
    if note in value.split("; "):
        return value
    return f"{value}; {note}" if value else note


def unpromised(packet: bytes) -> tuple[bytes, list[str]]:
    """Return the packet without what it says of films, gain maps and depth maps that lay behind the
    picture; and notes.

    ValueError if the packet is damaged.
    """
    document, rdf = parsed(packet)
    notes: list[str] = []
    for description in _descriptions(rdf):
        nodes: list[Attr | Element] = list(description.attributes.values())
        for node in nodes + [
            child for child in description.childNodes if isinstance(child, Element)
        ]:
            words = next(
                (
                    words
                    for (space, start), words in _PROMISES.items()
                    if _begins(node, space, start)
                ),
                None,
            )
            if words is not None:
                _remove(node)
                notes += [words] if words not in notes else []
    if len(notes) > 1 and _SECOND in notes:  # a list of what lies behind, told already
        notes.remove(_SECOND)
    return (_written(document) if notes else packet), notes


def turned(packet: bytes, orientation: int, size: tuple[int, int]) -> tuple[bytes, list[str]]:
    """Return the packet with its regions turned, of a picture of `size` = (width, height) as stored;
    and notes of what could not be turned, and is left out.

    ValueError if the packet is damaged.
    """
    document, rdf = parsed(packet)
    changed = False
    for element in document.getElementsByTagName("*"):
        fields = {
            name: node for name in "xywh" if (node := _field(element, _AREA, name)) is not None
        }
        if "x" in fields and "y" in fields:
            unit = _field(element, _AREA, "unit")
            scale = size if unit is not None and value_of(unit) == "pixel" else (1, 1)
            changed |= _turn_area(fields, orientation, scale)
        if orientation >= 5 and _is(element, _REGIONS, "AppliedToDimensions"):
            changed |= _swap(_field(element, _DIMENSIONS, "w"), _field(element, _DIMENSIONS, "h"))
        rectangle = _field(element, _MICROSOFT, "Rectangle")
        if rectangle is not None:
            changed |= _turn_rectangle(rectangle, orientation)
    stale = [node for name in _OF_CROPS for node in _properties(rdf, _CROPS, name)]
    stale += [node for name in _OF_SUBJECTS for node in _properties(rdf, _EXIF, name)]
    for node in stale:
        _remove(node)
    notes = (
        ["crops and places in XMP, of the picture before it was turned upright: left out"]
        if stale
        else []
    )
    return (_written(document) if changed or stale else packet), notes


def _field(element: Element, space: str, name: str) -> Attr | Element | None:
    """A field of a structure, be it written as an attribute or as an element."""
    attribute = element.getAttributeNodeNS(space, name)
    if attribute is not None:
        return attribute
    return next((node for node in element.childNodes if _is(node, space, name)), None)


def _turn_area(fields: dict[str, Attr | Element], orientation: int, scale: tuple[int, int]) -> bool:
    """Turn a centre and the sides around it; False if they are no numbers."""
    try:
        x, y = (float(value_of(fields[name])) for name in "xy")
    except ValueError:
        return False
    for name, value in zip("xy", place(x, y, orientation, *scale), strict=True):
        _set_value(fields[name], f"{value:.6g}")
    if orientation >= 5:
        _swap(fields.get("w"), fields.get("h"))
    return True


def _swap(first: Attr | Element | None, second: Attr | Element | None) -> bool:
    """Exchange two values; False where one is missing."""
    if first is None or second is None:
        return False
    one, other = value_of(first), value_of(second)
    _set_value(first, other)
    _set_value(second, one)
    return True


def _turn_rectangle(node: Attr | Element, orientation: int) -> bool:
    """Turn a corner and the sides behind it, "0.1, 0.2, 0.3, 0.4"."""
    try:
        left, top, width, height = (float(number) for number in value_of(node).split(","))
    except ValueError:
        return False
    corners = [place(left, top, orientation), place(left + width, top + height, orientation)]
    (left, right), (top, bottom) = (sorted(numbers) for numbers in zip(*corners, strict=True))
    _set_value(
        node, ", ".join(f"{number:.6f}" for number in (left, top, right - left, bottom - top))
    )
    return True


def _begins(node: Attr | Element, space: str, start: str) -> bool:
    return node.namespaceURI == space and (node.localName or "").startswith(start)


def parsed(packet: bytes) -> tuple[Document, Element]:
    """Parse a packet: all of it, and its rdf:RDF. ValueError if it is damaged."""
    # Entities are of no use in a packet, but can be made to fill the memory.
    if b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        raise ValueError("an XMP packet must not declare entities")
    try:
        document = parseString(packet.strip(b"\0 \t\r\n"))
        found = document.getElementsByTagNameNS(_RDF, "RDF")
    except (ExpatError, ValueError, LookupError, RecursionError, AssertionError) as error:
        raise ValueError("an XMP packet must be XML") from error
    if not found:
        raise ValueError("an XMP packet must hold rdf:RDF")
    return document, found[0]


def _descriptions(rdf: Element) -> list[Element]:
    return [node for node in rdf.childNodes if _is(node, _RDF, "Description")]


def _is(node: object, space: str, name: str) -> TypeGuard[Element]:
    """Whether a node is an element of that name."""
    return isinstance(node, Element) and (node.namespaceURI, node.localName) == (space, name)


def value_of(node: Attr | Element) -> str:
    """The text of an attribute or an element."""
    if isinstance(node, Attr):
        return str(node.value)
    return "".join(child.data for child in node.childNodes if child.nodeType == Node.TEXT_NODE)


def _set_value(node: Attr | Element, value: str) -> None:
    """Set the text of an attribute or an element."""
    if isinstance(node, Attr):
        node.value = value
        return
    document = node.ownerDocument
    assert document is not None
    for child in list(node.childNodes):
        node.removeChild(child)
    node.appendChild(document.createTextNode(value))


def _properties(rdf: Element, space: str, name: str) -> list[Attr | Element]:
    """Find a property, be it written as an attribute or as an element."""
    found: list[Attr | Element] = []
    for description in _descriptions(rdf):
        attribute = description.getAttributeNodeNS(space, name)
        if attribute is not None:
            found.append(attribute)
        found += [node for node in description.childNodes if _is(node, space, name)]
    return found


def _value(rdf: Element, space: str, name: str) -> str:
    """The value of a property, "" if it is not there."""
    for node in _properties(rdf, space, name):
        if isinstance(node, Element) and node.hasAttributeNS(_RDF, "resource"):
            return node.getAttributeNS(_RDF, "resource")
        return value_of(node)
    return ""


def _remove(node: Attr | Element) -> None:
    """Take a property out."""
    if isinstance(node, Attr):
        owner = node.ownerElement
        if owner is not None:
            owner.removeAttributeNode(node)
    elif node.parentNode is not None:
        node.parentNode.removeChild(node)


def _set(rdf: Element, space: str, name: str, value: str) -> None:
    """Set a property where it stands, or in a description of its own; `name` has its usual prefix."""
    old = _properties(rdf, space, name.split(":")[1])
    if not old:
        _append(rdf, space, name, value)
        return
    if isinstance(old[0], Attr):
        old[0].value = value
    elif old[0].parentNode is not None:
        old[0].parentNode.replaceChild(_element(rdf, space, old[0].nodeName, value), old[0])
    for node in old[1:]:
        _remove(node)


def _append(rdf: Element, space: str, name: str, value: str) -> None:
    document = rdf.ownerDocument
    assert document is not None
    prefix = f"{rdf.prefix}:" if rdf.prefix else ""
    others = _descriptions(rdf)
    description = document.createElementNS(_RDF, f"{prefix}Description")
    # The subject must be that of the other descriptions; as an attribute, `about` needs a prefix of
    # its own.
    description.setAttributeNS(_XMLNS, "xmlns:rdf", _RDF)
    description.setAttributeNS(
        _RDF, "rdf:about", others[0].getAttributeNS(_RDF, "about") if others else ""
    )
    description.setAttributeNS(_XMLNS, f"xmlns:{name.split(':')[0]}", space)
    description.appendChild(_element(rdf, space, name, value))
    rdf.appendChild(description)


def _element(rdf: Element, space: str, name: str, value: str) -> Element:
    document = rdf.ownerDocument
    assert document is not None
    element = document.createElementNS(space, name)
    element.appendChild(document.createTextNode(value))
    return element


def _written(document: Document) -> bytes:
    """Write the packet without an XML declaration, which must not stand before its wrapper.

    The writer of the standard library leaves line breaks in attributes bare, and readers make
    spaces of those.
    """
    try:
        for element in document.getElementsByTagName("*"):
            for attribute in list(element.attributes.values()):
                for sign, stand_in in _BREAKS.items():
                    if sign in attribute.value:
                        attribute.value = attribute.value.replace(sign, stand_in)
        text = "".join(node.toxml() for node in document.childNodes)
    except RecursionError as error:
        raise ValueError("an XMP packet must not be nested so deeply") from error
    for sign, stand_in in _BREAKS.items():
        text = text.replace(stand_in, f"&#{ord(sign)};")
    return text.encode("utf-8")
