"""Makes the page of a study: one HTML file with its pictures inside, for any browser, without a
server.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from gancolor import color
from gancolor.errors import ConfigError, DataError, shown
from gancolor.evaluation import study_answers
from gancolor.evaluation.measurement import GRAY, Shown, evaluate
from gancolor.evaluation.protocol import is_gray
from gancolor.evaluation.study_answers import StudyProtocol
from gancolor.images import arrays
from gancolor.images.arrays import Picture
from gancolor.runtime.files import json_of, read_regular, write_whole

SPARE = 1.2
"""How many more pictures than trials are coloured: what is itself nearly gray is left out."""

_QUALITY = 95  # of JPEG: the real pictures are compressed as the coloured ones are
_CELLS = 4  # an obvious fake has so many tints along a side
_TINT = 60.0  # CIE units of chroma


_SENDS_NOWHERE = '<meta name="results-to" content="">'
_CONTENT = re.compile(r'<script type="application/json" id="study">(.*?)</script>', re.DOTALL)
_MOST_BYTES = 1 << 30


class StudyPage(NamedTuple):
    """A page that was made: its text, its protocol, and the names of its pictures."""

    text: str
    protocol: StudyProtocol
    pictures: frozenset[str]

    def sending_to(self, address: str) -> str:
        """The page that offers to send the answers to an address beside its own."""
        return self.text.replace(_SENDS_NOWHERE, _SENDS_NOWHERE.replace('""', f'"{address}"'))


class _Kept(NamedTuple):
    """A picture of the study: its real one, each system's, and an obvious fake, as JPEG."""

    name: str
    truth: bytes
    fakes: dict[str, bytes]
    obvious: bytes


def make(
    runs: Sequence[Path],
    out: Path,
    *,
    form: str = "pairs",
    trials: int = 40,
    practice: int = 10,
    vigilance: int = 5,
    wait_ms: int = 900,
    show_ms: int = 1000,
    gap_ms: int = 600,
    size: int = 256,
    limit: int | None = None,
    seed: int = 0,
    **options: Any,
) -> StudyProtocol:
    """Colour held-out pictures with the runs and write the page `out`; returns its protocol.

    `options` are those of `evaluation.evaluate` that choose the pictures and the device. `limit`:
    at most so many pictures, by default `SPARE` times the trials. The gray picture is a system too.
    Raises what `evaluate` does, ConfigError for settings that cannot work, and DataError when there
    are too few pictures in colour or the page cannot be written.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out must be a file that ends in .html, got {shown(out)}")
    if out.is_dir():
        raise ConfigError(f"--out must be a file's name, got the folder {shown(out)}")
    count = practice + vigilance + trials
    kept: list[_Kept] = []
    rng = np.random.default_rng(seed)

    def keep(picture: Shown) -> None:
        if is_gray(picture.truth):
            return
        pictures = {GRAY: picture.gray, **picture.colored}
        coded = {name: arrays.encode_jpeg(rgb, _QUALITY) for name, rgb in pictures.items()}
        real = arrays.encode_jpeg(picture.truth, _QUALITY)
        fake = arrays.encode_jpeg(spoil(picture.truth, rng), _QUALITY)
        name = f"{len(kept):03d} {Path(picture.name).name}"  # folders are nobody else's business
        kept.append(_Kept(name, real, coded, fake))

    evaluation = evaluate(
        runs,
        size=size,
        limit=limit or int(np.ceil(SPARE * count)),
        truth=True,
        perceptual=False,
        feature_weights="none",
        mean_color=False,
        see=keep,
        **options,
    )
    if len(kept) < count:
        raise DataError(
            f"a study of {count} trials must have as many pictures in colour, got {len(kept)};"
            " give another --dataset, or fewer --trials, --practice or --vigilance"
        )
    protocol = StudyProtocol(
        form=form,
        systems=tuple(kept[0].fakes),
        pictures=evaluation.protocol.digest,
        practice=practice,
        vigilance=vigilance,
        scored=trials,
        wait_ms=wait_ms,
        show_ms=show_ms,
        gap_ms=gap_ms,
        size=size,
        seed=seed,
    )
    page = _render(protocol, kept)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, page)
    except OSError as error:
        raise DataError(
            f"{shown(out)} must be writable, got an error ({error.strerror or error}); choose"
            " another --out"
        ) from error
    return protocol


def read(path: Path) -> StudyPage:
    """A page that `make` wrote. DataError for any other file."""
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8")
        found = _CONTENT.search(text)
        if found is None or text.count(_SENDS_NOWHERE) != 1:
            raise ValueError("it holds no study, or one of another version of gancolor")
        content = json_of(found[1])
        protocol = study_answers.protocol_of(content["protocol"])
        names = frozenset(str(picture["name"]) for picture in content["pictures"])
        if content["digest"] != protocol.digest:
            raise ValueError(f"its protocol is {protocol.digest} and not {content['digest']!r:.40}")
    except (ConfigError, OSError, KeyError, TypeError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
        raise DataError(
            f"{shown(path)} must be a page that `gancolor study make` wrote, got another"
            f" ({shown(reason, 200)}); make it anew"
        ) from error
    return StudyPage(text, protocol, names)


def spoil(truth: Picture, rng: np.random.Generator) -> Picture:
    """An obvious fake: the picture's lightness under tints of all hues, in blurred squares."""
    lightness = color.split(color.to_tensor(truth))[0]  # (1, 1, H, W)
    hue = rng.uniform(0, 2 * np.pi, (_CELLS, _CELLS))
    tints = torch.from_numpy(np.stack((np.cos(hue), np.sin(hue)))).float()[None]  # (1, 2, 4, 4)
    ab = torch.nn.functional.interpolate(tints, lightness.shape[2:], mode="bilinear")
    ab = ab / ab.norm(dim=1, keepdim=True).clamp_min(1e-3) * (_TINT / 110)
    spoiled: Picture = color.to_arrays(color.merge_in_gamut(lightness, ab))[0]
    return spoiled


def _render(protocol: StudyProtocol, kept: Sequence[_Kept]) -> str:
    def uri(data: bytes) -> str:
        return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"

    content = {
        "gancolor_study": 1,
        "digest": protocol.digest,
        "protocol": asdict(protocol),
        "shown": protocol.shown_systems,
        "pictures": [
            {
                "name": picture.name,
                "truth": uri(picture.truth),
                "obvious": uri(picture.obvious),
                "fakes": {name: uri(data) for name, data in picture.fakes.items()},
            }
            for picture in kept
        ],
    }
    template = resources.files("gancolor.evaluation").joinpath("study.html").read_text("utf-8")
    # Inside <script> "</" could end the text, and "<!--" hide its end.
    return template.replace("@@STUDY@@", json.dumps(content).replace("<", "\\u003c"))
