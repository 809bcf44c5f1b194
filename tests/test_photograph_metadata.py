"""EXIF and XMP: upright, up to date, stamped, and never fatal."""

from __future__ import annotations

import struct
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from gancolor.images import exif, xmp
from gancolor.images.metadata import Metadata, refresh, stamp

NOTE = "colorized by gancolor 0.1.0, model 0007-gan-food step 3000"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
TOOL = "{http://ns.adobe.com/xap/1.0/}CreatorTool"
SOURCE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="uuid:1" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
  xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:Instructions="one&#10;two &amp; three" EXTRA>
<dc:subject><rdf:Bag><rdf:li>할머니</rdf:li></rdf:Bag></dc:subject><!-- kept --></rdf:Description>
</rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


def packet(extra: str = "") -> bytes:
    return PACKET.replace("EXTRA", extra).encode()


def block(
    order: str, *, maker: bytes = b"maker's own note", thumbnail: bytes = b"\xff\xd8gray\xff\xd9"
) -> bytes:
    """An EXIF block by hand: orientation 6, a maker's note at 200, a thumbnail in the second
    directory at the end.
    """

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        short = kind == 3 and count == 1
        return struct.pack(order + ("HHLHxx" if short else "HHLL"), tag, kind, count, value)

    def directory(*entries: bytes, following: int = 0) -> bytes:
        return (
            struct.pack(order + "H", len(entries))
            + b"".join(entries)
            + struct.pack(order + "L", following)
        )

    end = 200 + len(maker)
    pieces = {
        0: (b"II" if order == "<" else b"MM") + struct.pack(order + "HL", 42, 8),
        8: directory(
            entry(271, 2, 6, 160),
            entry(274, 3, 1, 6),
            entry(283, 5, 1, 170),
            entry(0x8769, 4, 1, 80),
            following=end,
        ),
        80: directory(
            entry(0x927C, 7, len(maker), 200),
            entry(0xA001, 3, 1, 65535),
            entry(0xA002, 4, 1, 640),
            entry(0xA003, 4, 1, 480),
        ),
        160: b"Kodak\0",
        170: struct.pack(order + "LL", 72, 1),
        200: maker,
        end: directory(
            entry(274, 3, 1, 6), entry(513, 4, 1, end + 50), entry(514, 4, 1, len(thumbnail))
        ),
        end + 50: thumbnail,
    }
    data = bytearray(max(place + len(piece) for place, piece in pieces.items()))
    for place, piece in pieces.items():
        data[place : place + len(piece)] = piece
    return bytes(data)


def loaded(data: bytes | None) -> Image.Exif:
    assert data is not None
    found = Image.Exif()
    found.load(data)
    return found


def property_of(data: bytes | None, name: str) -> str | None:
    """Find a property as another reader of XML does."""
    assert data is not None
    for description in ElementTree.fromstring(data.decode()).iter(RDF + "Description"):
        if name in description.attrib:
            return description.attrib[name]
        node = description.find(name)
        if node is not None:
            return node.text
    return None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_orientation_is_reset_and_nothing_else_changes(order: str, prefix: bytes) -> None:
    before = prefix + block(order)
    after = exif.reset_orientation(before)
    assert loaded(before)[274] == 6
    assert loaded(after)[274] == 1
    changed = [
        place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new
    ]
    assert len(changed) == 2  # the picture's and the thumbnail's


@pytest.mark.parametrize(
    "damaged", [b"", b"Exif\0\0", b"nothing of the kind", b"II*\0\xff\xff\xff\x7f"]
)
def test_orientation_of_a_damaged_block_is_left(damaged: bytes) -> None:
    assert exif.reset_orientation(damaged) == damaged


def test_damaged_blocks_never_raise_anything_but_value_error() -> None:
    chance = np.random.default_rng(0)
    whole = bytearray(block("<"))
    read = 0
    for _ in range(400):
        broken = whole[: chance.integers(0, len(whole) + 1)]
        for place in chance.integers(0, len(broken), 6) if broken else ():
            broken[place] = chance.integers(256)
        exif.reset_orientation(bytes(broken))
        metadata, _ = refresh(Metadata(exif=bytes(broken)), 480, 640)
        read += metadata.exif is not None
        assert NOTE in loaded(stamp(metadata, NOTE).exif)[305]
    assert 0 < read < 400  # both ways were taken


def test_directories_that_point_at_themselves_end() -> None:
    loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHLLL", 1, 0x8769, 4, 1, 8, 8)
    with pytest.raises(ValueError, match="must hold a directory"):
        exif.parse(loop)
    assert loaded(stamp(Metadata(exif=loop), NOTE).exif)[305] == NOTE


@pytest.mark.parametrize("order", ["<", ">"])
def test_refresh_brings_exif_up_to_date(order: str) -> None:
    metadata, notes = refresh(Metadata(exif=block(order), dpi=(300.0, 299.5)), 640, 480)
    found = loaded(metadata.exif)
    details = found.get_ifd(0x8769)
    assert notes == []
    assert (found[271], found[274], found[296]) == ("Kodak", 1, 2)
    assert (float(found[282]), float(found[283])) == (300.0, 299.5)
    assert (details[0xA001], details[0xA002], details[0xA003]) == (1, 480, 640)
    assert not found.get_ifd(1)  # no second directory
    assert metadata.exif is not None and b"gray" not in metadata.exif
    assert metadata.exif[200:216] == b"maker's own note"  # what points into it still holds


def test_refresh_leaves_the_old_encoding_out() -> None:
    written = Image.Exif()
    written[270], written[259], written[273], written[37724], written[50706] = (
        "a wedding",
        5,
        1234,
        b"8BIM",
        b"\1\4",
    )
    metadata, notes = refresh(Metadata(exif=written.tobytes()), 4, 4)
    assert dict(loaded(metadata.exif)) == {270: "a wedding"}
    assert notes == []


def test_refresh_says_what_was_damaged() -> None:
    lossy = block("<")[:205]  # within the maker's note
    metadata, notes = refresh(Metadata(exif=lossy, xmp=b"<x:xmpmeta"), 4, 4)
    assert loaded(metadata.exif)[271] == "Kodak"
    assert notes == ["EXIF was damaged: 1 of its fields left out", "XMP was damaged: left out"]
    metadata, notes = refresh(Metadata(exif=b"II?", dpi=(float("nan"), 300.0)), 4, 4)
    assert metadata == Metadata()
    assert notes == ["EXIF was damaged: left out"]


def test_stamp_begins_new_blocks() -> None:
    stamped = stamp(Metadata(dpi=(300.0, 300.0)), NOTE)
    assert loaded(stamped.exif)[305] == NOTE
    assert stamped.dpi == (300.0, 300.0)
    assert stamped.xmp is not None and stamped.xmp.startswith(b"<?xpacket begin=")
    assert property_of(stamped.xmp, TOOL) == NOTE
    assert property_of(stamped.xmp, SOURCE) == COMPOSITE


@pytest.mark.parametrize("order", ["<", ">"])
def test_stamp_stands_behind_the_software_that_is_there_once(order: str) -> None:
    first = exif.parse(block(order))
    first.top.fields[305] = exif.text("VueScan 9")
    stamped = stamp(Metadata(exif=exif.serialize(first)), NOTE)
    again = stamp(stamped, NOTE)
    assert loaded(stamped.exif)[305] == f"VueScan 9; {NOTE}"
    assert loaded(stamped.exif).get_ifd(0x8769)[0x927C] == b"maker's own note"
    assert again == stamped


@pytest.mark.parametrize(
    "extra",
    [
        'xmp:CreatorTool="VueScan 9"',
        "><xmp:CreatorTool>VueScan 9</xmp:CreatorTool><xmp:Label>a</xmp:Label",
    ],
    ids=["attribute", "element"],
)
def test_stamp_extends_xmp(extra: str) -> None:
    stamped = stamp(Metadata(xmp=packet(extra)), NOTE).xmp
    assert property_of(stamped, TOOL) == f"VueScan 9; {NOTE}"
    assert property_of(stamped, SOURCE) == COMPOSITE
    assert (
        property_of(stamped, "{http://ns.adobe.com/photoshop/1.0/}Instructions")
        == "one\ntwo & three"
    )
    assert stamped is not None
    written = stamped.decode()
    assert "<rdf:li>할머니</rdf:li>" in written and "<!-- kept -->" in written
    assert written.startswith("<?xpacket begin=") and written.endswith('<?xpacket end="w"?>')
    assert written.count("CreatorTool") == (1 if "=" in extra else 2)  # not told twice
    assert written.count('about="uuid:1"') == written.count("about=")
    assert stamp(Metadata(xmp=stamped), NOTE).xmp == stamped


def test_stamp_replaces_the_source_of_a_scan_but_not_that_of_a_generated_picture() -> None:
    space = (
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        " Iptc4xmpExt:DigitalSourceType="
    )
    scan = stamp(Metadata(xmp=packet(f'{space}"{xmp.SOURCE_TYPES}print"')), NOTE)
    made = stamp(Metadata(xmp=packet(f'{space}"{xmp.SOURCE_TYPES}trainedAlgorithmicMedia"')), NOTE)
    assert property_of(scan.xmp, SOURCE) == COMPOSITE
    assert property_of(made.xmp, SOURCE) == xmp.SOURCE_TYPES + "trainedAlgorithmicMedia"


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"<x:xmpmeta",
        b"<a/>",
        b"\xff\xfe\0",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b'<?xml version="1.0" encoding="of-no-kind"?><a/>',
        b"<a>" * 5000 + b"</a>" * 5000,
    ],
    ids=["empty", "cut", "foreign", "bytes", "entities", "encoding", "deep"],
)
def test_damaged_xmp_is_replaced(damaged: bytes) -> None:
    stamped = stamp(Metadata(exif=b"?", xmp=damaged), NOTE)
    assert property_of(stamped.xmp, TOOL) == NOTE
    assert loaded(stamped.exif)[305] == NOTE


def test_refresh_takes_out_of_xmp_what_no_longer_holds() -> None:
    extra = (
        'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"'
        ' photoshop:ICCProfile="Adobe RGB'
        ' (1998)"><xmp:Thumbnails><rdf:Alt/></xmp:Thumbnails><xmp:Label>a</xmp:Label'
    )
    refreshed = refresh(Metadata(xmp=packet(extra)), 4, 4)[0].xmp
    assert refreshed is not None
    assert all(name not in refreshed for name in (b"Orientation", b"ICCProfile", b"Thumbnails"))
    assert property_of(refreshed, "{http://ns.adobe.com/xap/1.0/}Label") == "a"
    # nothing stale: not a byte changes
    assert refresh(Metadata(xmp=packet()), 4, 4)[0].xmp == packet()


def test_a_note_is_one_line_in_any_script() -> None:
    stamped = stamp(Metadata(), "model\n할머니\udc80 <&>\0")
    assert property_of(stamped.xmp, TOOL) == "model 할머니 <&>"
    assert stamped.exif is not None and "model 할머니 <&>\0".encode() in stamped.exif
