"""What metadata says of places in the picture, and promises of what lay behind it."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gancolor.images import exif, metadata, reader, writer, xmp
from gancolor.images.metadata import Metadata

HEIGHT, WIDTH = 60, 100
_NAMES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "MP": "http://ns.microsoft.com/photo/1.2/",
    "MPRI": "http://ns.microsoft.com/photo/1.2/t/RegionInfo#",
    "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
}
FACES = """<mwg-rs:Regions rdf:parseType="Resource">
<mwg-rs:AppliedToDimensions stDim:w="100" stDim:h="60" stDim:unit="pixel"/>
<mwg-rs:RegionList><rdf:Bag>
<rdf:li rdf:parseType="Resource"><mwg-rs:Area stArea:x="0.2" stArea:y="0.3" stArea:w="0.1" stArea:h="0.4"
 stArea:unit="normalized"/><mwg-rs:Name>Ada</mwg-rs:Name></rdf:li>
<rdf:li><rdf:Description mwg-rs:Name="Bo"><mwg-rs:Area rdf:parseType="Resource"><stArea:x>0.9</stArea:x>
<stArea:y>0.5</stArea:y><stArea:w>0.2</stArea:w><stArea:h>0.1</stArea:h></mwg-rs:Area></rdf:Description></rdf:li>
</rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>
<MP:RegionInfo rdf:parseType="Resource"><MPRI:Regions><rdf:Bag><rdf:li MPReg:Rectangle="0.15, 0.1, 0.1, 0.4"/>
</rdf:Bag></MPRI:Regions></MP:RegionInfo>"""


def packet(inside: str, attributes: str = "") -> bytes:
    names = " ".join(
        f'xmlns:{prefix}="{address}"' for prefix, address in _NAMES.items() if prefix != "rdf"
    )
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_NAMES["rdf"]}"><rdf:Description'
        f' rdf:about="" {names} {attributes}>{inside}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def areas(data: bytes) -> list[list[float]]:
    """x, y, w, h of all regions of faces, those of Microsoft's by their corner."""
    document, _ = xmp.parsed(data)
    found = []
    for element in document.getElementsByTagNameNS(_NAMES["mwg-rs"], "Area"):
        space = _NAMES["stArea"]
        fields = [
            element.getAttributeNodeNS(space, name)
            or next(iter(element.getElementsByTagNameNS(space, name)), None)
            for name in "xywh"
        ]
        found.append([float(xmp.value_of(field)) for field in fields if field is not None])
    for element in document.getElementsByTagNameNS(_NAMES["rdf"], "li"):
        if rectangle := element.getAttributeNS(_NAMES["MPReg"], "Rectangle"):
            found.append([float(number) for number in rectangle.split(",")])
    return found


def subject_of(data: bytes) -> tuple[int, ...]:
    block = exif.parse(data)
    field = block.top.children[exif.EXIF_DIRECTORY].fields[0x9214]
    return struct.unpack(f"{block.order}{field.count}H", field.data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_regions_turn_as_pixels_do(orientation: int, tmp_path: Path) -> None:
    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stored[6:30, 15:25] = 255  # Ada: centre (0.2, 0.3), 0.1 x 0.4
    details = Image.Exif()
    details[274] = orientation
    details.get_ifd(exif.EXIF_DIRECTORY)[0x9214] = (20, 18, 10, 24)
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "PNG", exif=details)
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    plain = reader.read(tmp_path / "a.png")
    assert plain.metadata.exif is not None
    kept, notes = metadata.turned(Metadata(xmp=packet(FACES)), orientation, WIDTH, HEIGHT)
    assert kept.xmp is not None and notes == []
    ada, bo, rectangle = areas(kept.xmp)
    height, width = plain.size
    rows, columns = np.nonzero(plain.pixels[..., 0])
    expected = [
        columns.min() / width,
        rows.min() / height,
        np.ptp(columns) / width,
        np.ptp(rows) / height,
    ]
    corner = [ada[0] - ada[2] / 2, ada[1] - ada[3] / 2, ada[2], ada[3]]
    assert (
        np.abs(np.array(corner) - expected).max() < 0.02
        and np.abs(np.array(rectangle) - corner).max() < 1e-5
    )
    assert bo[2:] == ([0.1, 0.2] if orientation >= 5 else [0.2, 0.1])
    assert (b'stDim:w="60"' in kept.xmp) == (orientation >= 5)
    x, y, across, down = subject_of(plain.metadata.exif)
    box = [x - across / 2, y - down / 2, across, down]
    assert np.abs(np.array(box) / [width, height, width, height] - expected).max() < 0.03
    assert (kept.xmp == packet(FACES)) == (orientation == 1)


def test_crops_are_taken_out_of_a_turned_picture_and_said() -> None:
    data = packet(
        "<exif:SubjectArea><rdf:Seq><rdf:li>3</rdf:li></rdf:Seq></exif:SubjectArea>",
        'crs:CropTop="0.1"',
    )
    kept, notes = metadata.turned(Metadata(xmp=data), 6, WIDTH, HEIGHT)
    assert (
        kept.xmp is not None
        and b"CropTop=" not in kept.xmp
        and b"<exif:SubjectArea" not in kept.xmp
    )
    assert notes == [
        "crops and places in XMP, of the picture before it was turned upright: left out"
    ]
    assert metadata.turned(Metadata(xmp=data), 1, WIDTH, HEIGHT) == (Metadata(xmp=data), [])


@pytest.mark.parametrize(
    "damaged", [b"<no packet", packet("<mwg-rs:Area stArea:x='a' stArea:y='2'/>"), b""]
)
def test_damaged_packets_do_no_harm(damaged: bytes) -> None:
    assert (
        metadata.turned(Metadata(xmp=damaged, exif=b"II*\0\xff\0\0\0"), 6, WIDTH, HEIGHT)[0].exif
        is not None
    )


@pytest.mark.parametrize("form", ["jpeg", "tiff", "tiff16"])
def test_all_readers_turn_regions(form: str, tmp_path: Path) -> None:
    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    if form == "tiff16":
        import tifffile

        tags = [(700, 1, len(packet(FACES)), packet(FACES), True), (274, 3, 1, 6, True)]
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer, stored.astype(np.uint16), photometric="rgb", metadata=None, extratags=tags
        )
        data = buffer.getvalue()
    else:
        details = Image.Exif()
        details[274] = 6
        buffer = io.BytesIO()
        if form == "tiff":
            details[700] = packet(FACES)
            Image.fromarray(stored).save(buffer, "TIFF", exif=details)
        else:
            Image.fromarray(stored).save(buffer, "JPEG", exif=details, xmp=packet(FACES))
        data = buffer.getvalue()
    photograph = reader.decode(data, "a")
    assert photograph.size == (WIDTH, HEIGHT) and photograph.metadata.xmp is not None
    assert areas(photograph.metadata.xmp)[0] == pytest.approx([0.7, 0.2, 0.4, 0.1])


PROMISES = {
    "the film of a Motion Photo was left out": (
        'GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1"'
    ),
    "the gain map of an Ultra HDR picture was left out": 'hdrgm:Version="1.0"',
}


@pytest.mark.parametrize("note", PROMISES)
@pytest.mark.parametrize("listed", [False, True])
def test_promises_of_what_is_not_written_again_are_taken_out(note: str, listed: bool) -> None:
    inside = "<Container:Directory><rdf:Seq/></Container:Directory>" if listed else ""
    data = packet(inside + "<dc:source>here</dc:source>", PROMISES[note])
    kept, notes = metadata.refresh(Metadata(xmp=data), HEIGHT, WIDTH)
    assert notes == [note] and kept.xmp is not None
    for gone in (b"GCamera:MotionPhoto=", b"hdrgm:Version=", b"<Container:Directory"):
        assert gone not in kept.xmp
    assert b"<dc:source>here</dc:source>" in kept.xmp
    plain = packet("<dc:source>here</dc:source>")
    assert metadata.refresh(Metadata(xmp=plain), HEIGHT, WIDTH) == (Metadata(xmp=plain), [])


def test_they_are_said_when_a_file_is_written(tmp_path: Path) -> None:
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(
        buffer, "JPEG", xmp=packet("", 'GCamera:MicroVideo="1" GCamera:MicroVideoOffset="99"')
    )
    photograph = reader.decode(buffer.getvalue() + b"a film", "a.jpg")
    notes = writer.write(tmp_path / "b.jpg", rgb, photograph)
    assert notes == ["the film of a Motion Photo was left out"]
    assert b"MicroVideo=" not in (tmp_path / "b.jpg").read_bytes()
