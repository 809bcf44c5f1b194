"""HEIC: turned, ten bits, alpha, cut off, and without the extra. The pictures were encoded by x265
for these tests.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gancolor.errors import DataError, MissingExtra
from gancolor.images.reader import probe, read

# 64x48 in 4:4:4: above left light gray, below left red, right blue.
TURNED = (  # EXIF says that the right side is the top
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAcltZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9j"
    "AAAAAERAAAIAAQAAAAAB7QABAAAAAAAAAOMAAgAAAAAC0AABAAAAAAAAADAAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAA"
    "ABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABCGlwcnAAAADnaXBjbwAAAHdodmNDAQQIAAAAnjgAAAAAHvAA/P/4+AAADwNg"
    "AAEAF0ABDAH//wQIAAADAJ44AAADAAAeugJAYQABACpCAQEECAAAAwCeOAAAAwAAHpAEECCy3VyU1zcBDQYEAAADAGQAAAMABCBiAAEACEQB"
    "wXMYMAiQAAAAE2NvbHJuY2x4AAEADQAGgAAAABRpc3BlAAAAAAAAAEAAAABAAAAAKGNsYXAAAABAAAAAAQAAADAAAAABAAAAAAAAAAL////w"
    "AAAAAgAAABBwaXhpAAAAAAMICAgAAAAJaXJvdAMAAAAZaXBtYQAAAAAAAAABAAEGgQIDBYSGAAAAGmlyZWYAAAAAAAAADmNkc2MAAgABAAEA"
    "AAEbbWRhdAAAAN8oAa8E+EGayIv/vX3LdyPZ+A/rbVP/5Crf/MQja4HRcirMl7s4YN//JU+r4ZwO+hCSnwbGyX0YYttjV2ecFE2tG5A2xkcE"
    "nBTfEuosZozi/Jtv7YORu8f1yVYTiqv5kuAtG2lvjpH/gyP8j+T03/95XXpf0AC2fewqaF4aTlWpzc2TzGDmQy6zH8UsZ8p4iAFohy0DmbiS"
    "S/6DQ6C93162uFC7Ral4drIyBFO4efROB1JqueBBuGk9Wgv5bcYEWiqk1k0R+0yph7QGFLgKY8yHvqEscFp+iT4Byc/UpUuAAAAABkV4aWYA"
    "AE1NACoAAAAIAAIBDwACAAAABENhbQABEgADAAAAAQAGAAAAAAAA"
)
TEN_BITS = (  # white on the left, gray on the right
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9j"
    "AAAAAERAAAEAAQAAAAABoQABAAAAAAAAAFkAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/Wlw"
    "cnAAAADdaXBjbwAAAHZodmNDAQQIAAAAnDgAAAAAHvAA/P/6+gAADwNgAAEAF0ABDAH//wQIAAADAJw4AAADAAAeugJAYQABAClCAQEECAAA"
    "AwCcOAAAAwAAHpAEECCbLdXJTXNwENBgQAAABkAAAAMAQmIAAQAIRAHBcxgwCJAAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAA"
    "QAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwoKCgAAABhpcG1hAAAAAAAAAAEAAQWB"
    "AgMFhAAAAGFtZGF0AAAAVSgBrwT4cl2ZK2n98tJhBsP/hxBUNLTpOVOx0QaMAuRC//jqaOCMV9ZA/aAlfn11nI7//RkFD6HbMZoAGF/9bDR7"
    "uMn8RnMyJJDiLiGHb99Bh0cZg2g="
)
ALPHA = (  # the right half is transparent
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAmxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9j"
    "AAAAAERAAAIAAQAAAAACkAABAAAAAAAAAOMAAgAAAAADcwABAAAAAAAAALIAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAA"
    "ABVpbmZlAgAAAAACAABodmMxAAAAAA5waXRtAAAAAAABAAABq2lwcnAAAAGDaXBjbwAAAHdodmNDAQQIAAAAnjgAAAAAHvAA/P/4+AAADwNg"
    "AAEAF0ABDAH//wQIAAADAJ44AAADAAAeugJAYQABACpCAQEECAAAAwCeOAAAAwAAHpAEECCy3VyU1zcBDQYEAAADAGQAAAMABCBiAAEACEQB"
    "wXMYMAiQAAAAE2NvbHJuY2x4AAEADQAGgAAAABRpc3BlAAAAAAAAAEAAAABAAAAAKGNsYXAAAABAAAAAAQAAADAAAAABAAAAAAAAAAL////w"
    "AAAAAgAAABBwaXhpAAAAAAMICAgAAABwaHZjQwEECAAAAJ/4AAAAAB7wAPz8+PgAAA8DYAABABdAAQwB//8ECAAAAwCf+AAAAwAAHroCQGEA"
    "AQAlQgEBBAgAAAMAn/gAAAMAAB7AggQWW6uSmubAgAAADIAAAAMAhGIAAQAGRAHBc8CJAAAADnBpeGkAAAAAAQgAAAAnYXV4QwAAAAB1cm46"
    "bXBlZzpoZXZjOjIwMTU6YXV4aWQ6MQAAAAAgaXBtYQAAAAAAAAACAAEFgQIDBYQAAgWGAweIhAAAABppcmVmAAAAAAAAAA5hdXhsAAIAAQAB"
    "AAABnW1kYXQAAADfKAGvBPhBmsiL/719y3cj2fgP621T/+Qq3/zEI2uB0XIqzJe7OGDf/yVPq+GcDvoQkp8Gxsl9GGLbY1dnnBRNrRuQNsZH"
    "BJwU3xLqLGaM4vybb+2DkbvH9clWE4qr+ZLgLRtpb46R/4Mj/I/k9N//eV16X9AAtn3sKmheGk5Vqc3Nk8xg5kMusx/FLGfKeIgBaIctA5m4"
    "kkv+g0Ogvd9etrhQu0WpeHayMgRTuHn0TgdSarngQbhpPVoL+W3GBFoqpNZNEftMqYe0BhS4CmPMh76hLHBafok+AcnP1KVLgAAAAK4oAa4J"
    "8J/zK2n970WOoP/ioecL4FPrjLO2NY9asmrOLn+0zc9u/05aAJ1zsKhPx/4p3uuj4znpT7ZxjMhJSSCDq+LWW9z+nMmN3+KifHVdEGcF4jf/"
    "dXs18QA0VbWUrLiDY0Mh2JlXmwZt4RboDP30ZyKsJY3G1zCh3//sW1Q5cL9JrLHVKCMOLroQQgYA0/uz3/X/NqB/I/mXmXFP/RIZO8bnjOYS"
    "s8Ylivrdvzw="
)


@pytest.fixture
def heic(tmp_path: Path) -> Path:
    pytest.importorskip("pi_heif")
    return tmp_path / "picture.heic"


def test_turned(heic: Path) -> None:
    heic.write_bytes(base64.b64decode(TURNED))
    assert probe(heic) == (48, 64, "HEIC")
    photograph = read(heic)
    assert photograph.pixels.shape == (64, 48, 3) and photograph.pixels.dtype == np.uint8
    assert photograph.format == "HEIC" and photograph.notes == []
    corners = photograph.pixels[[5, 5, -5], [-5, 5, -5]].astype(int)
    assert np.abs(corners - [(240, 240, 240), (200, 40, 40), (40, 60, 220)]).max() <= 6
    exif = Image.Exif()
    exif.load(photograph.metadata.exif)
    assert exif[0x112] == 1 and exif[0x10F] == "Cam"


def test_ten_bits_reach_white(heic: Path) -> None:
    heic.write_bytes(base64.b64decode(TEN_BITS))
    pixels = read(heic).pixels
    assert pixels.dtype == np.uint16 and pixels.shape == (48, 64, 3)
    assert (pixels[5, 5] == 65535).all()
    assert np.abs(pixels[5, -5].astype(int) - 20000).max() < 100


def test_alpha(heic: Path) -> None:
    heic.write_bytes(base64.b64decode(ALPHA))
    photograph = read(heic)
    assert photograph.pixels.shape == (48, 64, 3)
    assert (
        photograph.alpha is not None
        and photograph.alpha[:, 5].min() > 250
        and photograph.alpha[:, -5].max() < 5
    )


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_off(heic: Path, share: float) -> None:
    data = base64.b64decode(TURNED)
    heic.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match="picture must be readable, got .*picture.heic: [^\\n]+$"):
        read(heic)


def test_too_large_is_refused_before_it_is_decoded(heic: Path) -> None:
    heic.write_bytes(base64.b64decode(ALPHA))
    with pytest.raises(DataError, match="at most 0.001 megapixels, got 0.003072 \\(64x48\\)"):
        read(heic, max_pixels=1000)


@pytest.mark.parametrize("function", [read, probe])
def test_without_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: object
) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    path = tmp_path / "picture.heic"
    path.write_bytes(base64.b64decode(ALPHA))
    with pytest.raises(MissingExtra, match=r"pip install 'gancolor\[heif\]'"):
        assert callable(function)
        function(path)


def test_an_item_whose_type_is_no_text_is_damage(tmp_path: Path) -> None:
    data = base64.b64decode(TURNED)
    for old, new in ((b"\2\0\0Exif", b"\2\0\0\xff\0\0\0"), (b"\2\0\0Exif\0", b"\2\0\0Exif\xff")):
        assert data.count(old) == 1
        (tmp_path / "a.heic").write_bytes(data.replace(old, new))
        with pytest.raises(DataError, match="the file is damaged"):
            read(tmp_path / "a.heic")  # pi_heif itself would end the process
