"""Malformed pictures: what sampling, preparing and training say of each must be the same.

    python tests/campaign_pictures.py --count 20000 --seed 1

makes pictures of all kinds that can be written here, cuts, flips, swaps and fills parts of them,
and reads each as `gancolor sample`, `gancolor data prepare` and training do. A disagreement, an
exception that is not meant for users, a word on standard error, or more than a minute for one
picture is a finding; the exit code is 1 if there is any.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import io
import os
import signal
import struct
import sys
import tempfile
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from gancolor.data.doctor import examination
from gancolor.errors import GancolorError
from gancolor.images import arrays, metadata
from gancolor.images import reader as reading

_SECONDS = 60
_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
    b' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    b' xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" GCamera:MotionPhoto="1"'
    b' xmlns:MPReg="http://ns.microsoft.com/photo/1.2/t/Region#"'
    b' xmlns:MP="http://ns.microsoft.com/photo/1.2/"><MP:Region MPReg:Rectangle="0.1, 0.2, 0.3,'
    b' 0.4"/></rdf:Description></rdf:RDF></x:xmpmeta>'
)


def scene(seed: int = 0) -> np.ndarray:
    """A smooth colour picture of 72 x 96, uint8."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (96, 72), interpolation=cv2.INTER_CUBIC)


def pictures() -> dict[str, bytes]:
    """Pictures of all kinds by their file names."""
    rgb = scene()
    gray, deep = rgb[..., 0], rgb.astype(np.uint16) * 257
    alpha = np.dstack((rgb, gray))
    made: dict[str, bytes] = {}

    def add(
        name: str, array: np.ndarray, form: str, mode: str | None = None, **options: object
    ) -> None:
        buffer = io.BytesIO()
        image = Image.fromarray(array)
        (image if mode is None else image.convert(mode)).save(buffer, form, **options)
        made[name] = buffer.getvalue()

    add("plain.jpg", rgb, "JPEG", quality=90)
    add("progressive.jpg", rgb, "JPEG", progressive=True)
    add("gray.jpg", gray, "JPEG")
    add("cmyk.jpg", rgb, "JPEG", "CMYK")
    add("restart.jpg", rgb, "JPEG", restart_marker_rows=1)
    add("two.mpo.jpg", rgb, "MPO", save_all=True, append_images=[Image.fromarray(rgb)])
    add("plain.png", rgb, "PNG")
    add("palette.png", rgb, "PNG", "P")
    add("bit.png", gray, "PNG", "1")
    add("alpha.png", alpha, "PNG")
    made["deep.png"] = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    add("lossy.webp", rgb, "WEBP")
    add("lossless.webp", rgb, "WEBP", lossless=True)
    add("alpha.webp", alpha, "WEBP")
    add("plain.bmp", rgb, "BMP")
    add("palette.bmp", rgb, "BMP", "P")
    made["rle.bmp"] = _rle_bmp(gray)
    add("plain.gif", rgb, "GIF")
    add("plain.avif", rgb, "AVIF")
    add("plain.jp2", rgb, "JPEG2000")
    made["deep.jp2"] = cv2.imencode(".jp2", deep[..., ::-1])[1].tobytes()
    add("plain.ppm", rgb, "PPM")
    made["deep.ppm"] = b"P6\n96 72\n65535\n" + deep.astype(">u2").tobytes()
    add("plain.pgm", gray, "PPM")
    add("rle.tga", rgb, "TGA", compression="tga_rle")
    add("plain.pcx", rgb, "PCX")
    add("plain.sgi", rgb, "SGI")
    add("plain.qoi", rgb, "QOI")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        options = {} if compression == "raw" else {"compression": compression}
        add(f"{compression}.tif", rgb, "TIFF", **options)
    details = Image.Exif()
    details[270], details[274], details[305] = "a market", 6, "by hand"
    details.get_ifd(0x8769)[0x9214] = (20, 18, 10, 24)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    told = {"exif": details, "icc_profile": profile, "dpi": (300, 300)}
    add("told.jpg", rgb, "JPEG", xmp=_XMP, comment=b"a comment", **told)
    add("told.webp", rgb, "WEBP", xmp=_XMP, **told)
    info = PngInfo()
    info.add_text("Title", "a market")
    info.add_itxt("XML:com.adobe.xmp", _XMP.decode())
    add("told.png", rgb, "PNG", pnginfo=info, **told)
    add("told.tif", rgb, "TIFF", **told)
    colors = _chunk(b"gAMA", struct.pack(">L", 100_000)) + _chunk(b"cICP", bytes((12, 13, 0, 1)))
    place = made["plain.png"].index(b"IDAT") - 4
    made["colors.png"] = made["plain.png"][:place] + colors + made["plain.png"][place:]
    made["plain.psd"] = psd(rgb)
    add("fax.tif", gray, "TIFF", "1", compression="group4")
    for name, array, more in (
        ("deep.tif", deep, {"compression": "zlib", "predictor": True}),
        ("planes.tif", np.moveaxis(deep, 2, 0), {"planarconfig": "separate", "rowsperstrip": 8}),
        ("tiles.tif", rgb, {"tile": (32, 32), "compression": "zlib"}),
        ("float.tif", rgb.astype(np.float32) / 255, {"rowsperstrip": 16}),
        ("strips.tif", rgb, {"rowsperstrip": 8}),
        ("lzw16.tif", deep, {"rowsperstrip": 8, "compression": "zlib"}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, photometric="rgb", metadata=None, **more)
        made[name] = buffer.getvalue()
    add("multi.tif", rgb, "TIFF", save_all=True, append_images=[Image.fromarray(rgb)] * 2)
    return made


def of_extras() -> dict[str, bytes]:
    """Pictures of the kinds that optional libraries read, where they are installed; other tests
    have them.
    """
    made = {}
    if importlib.util.find_spec("pi_heif"):
        import test_photograph_heif as heif

        for name, text in (
            ("turned.heic", heif.TURNED),
            ("deep.heic", heif.TEN_BITS),
            ("alpha.heic", heif.ALPHA),
        ):
            made[name] = base64.b64decode(text)
    if importlib.util.find_spec("rawpy"):
        from test_photograph_directories import dng

        made["raw.dng"] = dng(scene())
    return made


def psd(rgb: np.ndarray, flattened: bool = True) -> bytes:
    """A Photoshop file of one flattened picture."""
    version = struct.pack(">LB", 1, flattened) + bytes(8)
    resource = (
        b"8BIM" + struct.pack(">HHL", 1057, 0, len(version)) + version + bytes(len(version) % 2)
    )
    height, width = rgb.shape[:2]
    head = b"8BPS" + struct.pack(">H6xHLLHH", 1, 3, height, width, 8, 3)
    planes = np.moveaxis(rgb, 2, 0).tobytes()
    return (
        head
        + struct.pack(">L", 0)
        + struct.pack(">L", len(resource))
        + resource
        + bytes(4)
        + bytes(2)
        + planes
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def _rle_bmp(gray: np.ndarray) -> bytes:
    """A BMP file of 8 bits, packed by runs."""
    rows = []
    for row in gray[::-1] // 16 * 16:
        ends = np.flatnonzero(np.diff(row)) + 1
        pieces = np.split(row, ends)
        rows.append(b"".join(bytes((len(piece), int(piece[0]))) for piece in pieces) + b"\0\0")
    data = b"".join(rows) + b"\0\1"
    palette = b"".join(bytes((value, value, value, 0)) for value in range(256))
    start = 14 + 40 + len(palette)
    head = struct.pack(
        "<LLLHHLLLLLL", 40, gray.shape[1], gray.shape[0], 1, 8, 1, len(data), 2835, 2835, 256, 0
    )
    return b"BM" + struct.pack("<LHHL", start + len(data), 0, 0, start) + head + palette + data


def mutate(generator: np.random.Generator, data: bytes) -> tuple[str, bytes]:
    """Damage a file in a way that is drawn; returns what was done, and the file."""
    changed = bytearray(data)
    way = str(
        generator.choice(
            ["cut", "cut a little", "flip", "flips", "zeros", "swap", "drop", "double", "number"]
        )
    )
    place = int(generator.integers(2, len(data)))
    size = int(generator.integers(1, max(2, len(data) // 8)))
    other = int(generator.integers(2, len(data)))
    if way == "cut":
        changed = changed[:place]
    elif way == "cut a little":
        changed = changed[: -int(generator.integers(1, 40))]
    elif way == "flip":
        changed[place] ^= 1 << int(generator.integers(8))
    elif way == "flips":
        for index in generator.integers(2, len(data), int(generator.integers(2, 20))):
            changed[index] = int(generator.integers(256))
    elif way == "zeros":
        changed[place : place + size] = bytes(len(changed[place : place + size]))
    elif way == "swap":
        one, two = changed[place : place + size], changed[other : other + size]
        if len(one) == len(two):
            changed[place : place + size], changed[other : other + size] = two, one
    elif way == "drop":
        del changed[place : place + size]
    elif way == "double":
        changed[place:place] = changed[place : place + size]
    else:
        place = int(generator.integers(2, min(len(data), 400)))
        changed[place : place + 4] = struct.pack(
            "<L", int(generator.choice([0, 1, 255, 65535, 2**31, 2**32 - 1]))
        )
    return way, bytes(changed)


def mended_png(data: bytes) -> bytes:
    """A PNG file with right checksums, so that what lies behind them is tried too."""
    out, place = [data[:8]], 8
    while place + 12 <= len(data):
        length = min(int.from_bytes(data[place : place + 4], "big"), len(data) - place - 12)
        kind_and_data = data[place + 4 : place + 8 + length]
        out.append(_chunk(kind_and_data[:4], kind_and_data[4:]))
        place += 12 + length
    return b"".join(out)


def mutants(count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """Name, what was done, and bytes of `count` malformed files, each kind in turn."""
    generator = np.random.default_rng(seed)
    made = list((pictures() | of_extras()).items())
    for number in range(count):
        name, data = made[number % len(made)]
        way, changed = mutate(generator, data)
        if name.endswith(".png") and generator.random() < 0.5:
            way, changed = f"{way}, mended", mended_png(changed)
        yield name, way, changed


def _sampled(path: Path) -> str:
    found = reading.read(path, max_pixels=50_000_000)
    metadata.stamp(metadata.refresh(found.metadata, *found.size)[0], "tried")
    return found.damage


def _trained(path: Path) -> str:
    arrays.read_rgb(path)
    return ""


def _prepared(path: Path) -> str:
    return examination.examine(path.read_bytes(), path.name).problem


READERS: dict[str, Callable[[Path], str]] = {
    "sample": _sampled,
    "prepare": _prepared,
    "training": _trained,
}


def judge(path: Path) -> dict[str, str]:
    """What each reader says of a file: "" for a good one, else the reason. Another exception is
    raised.
    """
    said = {}
    for name, reader in READERS.items():
        try:
            said[name] = reader(path)
        except GancolorError as error:
            said[name] = str(error)
            if "\n" in said[name] or "Traceback" in said[name]:
                raise AssertionError(f"not one line: {said[name]}") from error
    return said


def run(count: int, seed: int, keep: Path | None = None) -> tuple[Counter[str], list[str]]:
    """Judge `count` malformed files; returns how many were refused, taken or disputed, and what was
    found.
    """
    counts, findings = Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as heard:
        kept = os.dup(2)
        os.dup2(heard.fileno(), 2)
        before = signal.signal(signal.SIGALRM, _too_slow)
        try:
            for number, (name, way, data) in enumerate(mutants(count, seed)):
                path = Path(folder, name)
                path.write_bytes(data)
                signal.alarm(_SECONDS)
                finding = ""
                try:
                    said = judge(path)
                    bad = {reader for reader, words in said.items() if words}
                    state = (
                        "refused"
                        if len(bad) == len(READERS)
                        else "taken"
                        if not bad
                        else "disputed"
                    )
                    if state == "disputed":
                        finding = (
                            f"only {', '.join(sorted(bad))}:"
                            f" {next(words for words in said.values() if words)}"
                        )
                except Exception:
                    state, finding = "raised", traceback.format_exc(limit=-3)
                finally:
                    signal.alarm(0)
                if heard.seek(0, os.SEEK_END):
                    heard.seek(0)
                    finding += f" stderr: {heard.read()[:300]!r}"
                    heard.truncate(0)
                    state = "loud" if state in ("refused", "taken") else state
                counts[state] += 1
                if finding:
                    findings.append(f"{number} {name} ({way}): {finding}")
                    if keep is not None:
                        (keep / f"{number}-{name}").write_bytes(data)
        finally:
            signal.signal(signal.SIGALRM, before)
            os.dup2(kept, 2)
            os.close(kept)
    return counts, findings


def _too_slow(number: int, frame: object) -> None:
    raise TimeoutError(f"it took more than {_SECONDS} s")


def main() -> None:
    """Run as many as asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the files that were found")
    chosen = parser.parse_args()
    if chosen.keep is not None:
        chosen.keep.mkdir(parents=True, exist_ok=True)
    counts, findings = run(chosen.count, chosen.seed, chosen.keep)
    for finding in findings:
        print(finding)
    print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
