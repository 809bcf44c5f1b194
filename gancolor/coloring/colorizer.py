"""A trained network that colours pictures: nothing is coloured outside training but through it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancolor import color, metrics, models
from gancolor import hints as known_hints
from gancolor.coloring import full_size, hint_files, mask_files, painting, references, views
from gancolor.coloring.full_size import Colored, Prediction
from gancolor.coloring.mask_files import Mask
from gancolor.coloring.networks import MeanNetwork, Network, OnnxNetwork, TorchNetwork
from gancolor.coloring.references import Features, Match
from gancolor.coloring.settings import PhotographSettings
from gancolor.coloring.views import Sight, View
from gancolor.config import TrainConfig
from gancolor.data.still_life import composition
from gancolor.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    is_out_of_memory,
    reason_of,
    shown,
)
from gancolor.hints import Hint
from gancolor.hub import choice
from gancolor.images import arrays
from gancolor.images.arrays import Picture
from gancolor.images.photograph import Photograph
from gancolor.models import FusionNetwork, Generator, bins, embeddings
from gancolor.models.backbones import ENCODERS
from gancolor.models.pretrained import build_empty
from gancolor.runtime.devices import free_memory, pick_device, pick_dtype
from gancolor.storage import checkpoint, onnx_file

AnyPicture = str | Path | NDArray[Any]
"""A picture: its path, or an array."""

LEAST_CHROMA = 0.5
"""Mean CIE chroma on generated pictures below which a checkpoint counts as one that does not
colour.
"""

_SELF_TEST_PICTURES = 4
_ALIKE = 6.0  # CIEDE2000 below which two suggestions count as one
_SMALLEST = 32  # pixels: the least shorter side that is tried when memory runs out


class Suggestion(NamedTuple):
    """A colour that may be right at a place: `rgb` in 0 to 255, and its `probability` in [0, 1]."""

    rgb: tuple[int, int, int]
    probability: float


class Colorizer:
    """A generator with what is needed around it. Make one with `Colorizer.load`.

    `config`: the settings it was trained with. `condition`: 'gray', or 'edges' for a network that
    sees outlines only. `step`: after how many steps it was saved. `origin`: where its frozen
    network's weights come from, in words. `name`: of the run or file, with the step. `sight`: what
    preparing views for `predict_view` takes. `content`: a checkpoint's, with the embedding of a fusion
    network.
    """

    def __init__(
        self,
        network: Generator | FusionNetwork | Network,
        content: dict[str, Any],
        *,
        device: str = "auto",
        precision: str = "auto",
        name: str = "model",
    ) -> None:
        config: TrainConfig = content["config"]
        self.config, self.condition = config, config.condition
        self.step: int = content.get("step", 0)
        self.origin: str = content.get("origin", "not known")
        self.name = f"{name} step {self.step}"
        embedding = content["embedding"] if config.takes_embedding else None
        if not isinstance(network, Network):
            picked = pick_device(device)
            network = TorchNetwork(
                network, config, embedding, picked, pick_dtype(precision, picked)
            )
        self.device = network.device
        self.sight = Sight(
            config.image_size,
            config.condition,
            None if embedding is None else embeddings.EMBEDDINGS[config.embedding].size,
            config.embedding_fit,
            distribution=config.says_distribution,
            hints=network.takes_hints,
            features=network.describes,
        )
        self._network = network
        self._spare: Network | None = None  # on the CPU, for when the device's memory runs out

    @property
    def generator(self) -> Generator | FusionNetwork:
        """The network, ready and frozen, of one that runs in torch."""
        assert isinstance(self._network, TorchNetwork)
        return self._network.generator

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        runs_root: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> Colorizer:
        """Load a run directory (its best.pt, else its last.pt), a checkpoint file, or another model
        by its name.

        path: also a run's name or number under `runs_root` (default: $GANCOLOR_RUNS, else ./runs),
        `general`, or an address `hf://owner/name[@revision]` or `https://...`; None for the newest
        run on photographs, else `general` (see `choice.choose`). Needs no weights file, and a
        network only for an address of which no copy is kept. CheckpointError when it is missing,
        damaged or of another version, DownloadError when it cannot be fetched.
        """
        if not isinstance(path, Path):
            path = choice.choose(path, checkpoint.runs_root(runs_root)).path
        if onnx_file.is_one(path):
            return cls._load_onnx(path, device, precision)
        content = checkpoint.open_to_color(path)
        name = content.get("name") or _name_of(path)
        return cls(rebuild(content, path), content, device=device, precision=precision, name=name)

    @classmethod
    def _load_onnx(cls, path: Path, device: str, precision: str) -> Colorizer:
        for option, given, able in (
            ("--device", device, "cpu"),
            ("--precision", precision, "fp32"),
        ):
            if given not in ("auto", able):
                raise ConfigError(
                    f"{option} must be auto or {able} with an ONNX model, got {given}; use the run"
                    " itself"
                )
        content = onnx_file.read_header(path)
        return cls(
            OnnxNetwork(path, content["config"]),
            content,
            name=content.get("name") or _name_of(path),
        )

    @classmethod
    def mean(cls, colorizers: Sequence[Colorizer]) -> Colorizer:
        """One that answers with the mean of several networks: of their distributions, or without
        any of their colours.

        The first one's training size, temperature and settings count; hints are taken if all take
        them. ConfigError unless all see the same (gray or edges, and one embedding), give
        distributions or not, and are on one device.
        """
        first = colorizers[0]
        for other in colorizers[1:]:
            for what, given in _shared(first).items():
                if (got := _shared(other)[what]) != given:
                    raise ConfigError(
                        f"{what} must be the same for networks whose mean is wanted, got {given} of"
                        f" {first.name} and {got} of {other.name}"
                    )
        content = {
            "config": first.config,
            "origin": "; ".join(dict.fromkeys(colorizer.origin for colorizer in colorizers)),
            "step": first.step,
        }
        network = MeanNetwork([colorizer._network for colorizer in colorizers])
        whole = cls(network, content)
        whole.name = " and ".join(colorizer.name for colorizer in colorizers)
        return whole

    @overload
    def __call__(
        self,
        picture: str | Path | NDArray[Any],
        *,
        size: int | None = None,
        hints: str | Path | Sequence[Hint] = (),
        reference: AnyPicture | Sequence[AnyPicture] = (),
        mask: str | Path | NDArray[Any] | None = None,
        temperature: float | None = None,
        samples: None = None,
    ) -> Picture: ...

    @overload
    def __call__(
        self,
        picture: str | Path | NDArray[Any],
        *,
        size: int | None = None,
        hints: str | Path | Sequence[Hint] = (),
        reference: AnyPicture | Sequence[AnyPicture] = (),
        mask: str | Path | NDArray[Any] | None = None,
        temperature: float | None = None,
        samples: int,
        diversity: float = PhotographSettings.diversity,
        seed: int = PhotographSettings.seed,
    ) -> list[Picture]: ...

    def __call__(
        self,
        picture: str | Path | NDArray[Any],
        *,
        size: int | None = None,
        hints: str | Path | Sequence[Hint] = (),
        reference: AnyPicture | Sequence[AnyPicture] = (),
        mask: str | Path | NDArray[Any] | None = None,
        temperature: float | None = None,
        samples: int | None = None,
        diversity: float = PhotographSettings.diversity,
        seed: int = PhotographSettings.seed,
    ) -> Picture | list[Picture]:
        """Colour one picture; returns uint8 RGB (H, W, 3) of the same size with the picture's own
        lightness, or as many such pictures as `samples` says.

        picture: a path, or an array (H, W), (H, W, 1) or (H, W, 3), uint8 or float in [0, 1]. Its
        colours are ignored. size: shorter side at which the network sees it (default: the training
        size, at least 16); the aspect is kept. hints: colours that are known, in pixels of the
        picture, or the path of a file of them (see `hint_files.read`); each is kept at its place and
        spreads to what it belongs to. reference: a picture in colour, or several, whose colours are
        taken where they show the same (see `match`). mask: where to colour, a picture's path (white
        or opaque there) or an array (H, W), bool, uint8 or float in [0, 1]; where it is 0 the
        picture stays as it is, its own colours too. temperature: at which colours are taken from a
        distribution, 0.01 to 2 (default: as it was trained). samples: how many colourings, 1 to 64:
        the first is the likely one, the others are drawn from the network's distribution by `seed`,
        and differ by `diversity`, 0 to 2. DataError for an unreadable file and a gray reference,
        ConfigError for an array of another shape, dtype or range, for what is out of bounds, for
        hints outside the picture, and for what the network cannot give or follow.
        """
        rgb = _open(picture)
        if isinstance(hints, str | Path):
            side = self.sight.size if size is None else size
            seen = views.fit(rgb.shape[0], rgb.shape[1], side)
            hints = hint_files.read(Path(hints), rgb, seen=seen).hints
        hints = [*hints, *(match.hint for match in self.match(rgb, reference, hints=hints))]
        settings = PhotographSettings(
            size=size,
            hints=tuple(hints),
            mask=None if mask is None else _mask_of(mask, *rgb.shape[:2]),
            temperature=temperature,
            variants=1 if samples is None else samples,
            diversity=diversity,
            seed=seed,
        )
        pictures = self.color(Photograph(pixels=rgb), settings).pictures
        return pictures[0] if samples is None else list(pictures)

    def match(
        self,
        picture: AnyPicture,
        reference: AnyPicture | Sequence[AnyPicture],
        *,
        hints: Sequence[Hint] = (),
    ) -> list[Match]:
        """Where a picture shows what a reference, or one of several, shows too, with the reference's
        colours as hints, the surest first; at most `references.MOST`.

        Only the lightness of both is compared. hints: none is found near these. Errors as
        `__call__`.
        """
        rgb = _open(picture)
        known_hints.check(hints, *rgb.shape[:2])
        several = [reference] if isinstance(reference, str | Path | np.ndarray) else [*reference]
        if not several:
            return []
        references.check_able(self.sight)
        exemplars = []
        for each in several:
            name = shown(each) if isinstance(each, str | Path) else "an array"
            pixels = _open(each)
            references.check_colors(pixels, name)
            exemplars.append(references.describe(pixels, name, self.describe_view))
        own = references.describe(rgb, "picture", self.describe_view)
        return references.match(own, exemplars, hints)

    def suggest(
        self,
        picture: str | Path | NDArray[Any],
        x: float,
        y: float,
        *,
        count: int = 8,
        size: int | None = None,
        hints: Sequence[Hint] = (),
    ) -> list[Suggestion]:
        """The most probable colours of a picture at column `x` and row `y`, at most `count`, the
        likeliest first.

        Colours that look alike are one, with the sum of their probabilities; each has the picture's
        lightness there. For a network that gives a distribution (`--head bins`); ConfigError else,
        and for a place outside the picture.
        """
        rgb = _open(picture)
        height, width = rgb.shape[:2]
        known_hints.check(hints, height, width)
        known_hints.check([Hint(x, y, (0, 0, 0))], height, width, name="place {}".format)
        full_size.check_able(self.sight, hints=hints)
        if not self.sight.distribution:
            raise ConfigError(
                f"{self.name} gives no distribution of colours; use a run trained with --head bins"
            )
        if count < 1:
            raise ConfigError(f"count must be at least 1, got {count}")
        view = views.look(self.sight, rgb, size, hints=hints)
        share = self._network.distribution(view, (x + 0.5) / width, (y + 0.5) / height)
        row, column = min(round(y), height - 1), min(round(x), width - 1)
        lightness, _ = color.split(color.to_tensor(rgb[row : row + 1, column : column + 1]))
        return _merge_alike(share, lightness.view(()), count)

    def color(self, photograph: Photograph, settings: PhotographSettings | None = None) -> Colored:
        """Colour a photograph at its own size and depth; see `full_size.color`."""
        return full_size.color(
            photograph, settings or PhotographSettings(), self.sight, self.predict_view
        )

    def paint(
        self,
        rgb: Picture,
        predicted: NDArray[np.float32],
        *,
        method: str = "guided",
        hints: Sequence[Hint] = (),
    ) -> Picture:
        """Give a picture, uint8 RGB (H, W, 3), the colours that `predict` returned, brought to its
        size.

        method: one of `settings.METHODS`; what was predicted from edges is always brought up
        bilinearly. hints: known colours, in pixels of this picture, that are kept at their places.
        """
        return painting.paint(rgb, predicted, method=method, hints=hints)

    def seen(self, rgb: Picture) -> Picture:
        """What the network is given of a picture, at full size, to be shown beside the result: gray
        or edges.
        """
        if self.condition == "edges":
            return np.repeat(arrays.edges(rgb)[..., None], 3, axis=2)
        return painting.paint(rgb, np.zeros((1, 1, 2), np.float32), method="bilinear")

    def predict(
        self, rgb: Picture, size: int | None = None, *, hints: Sequence[Hint] = ()
    ) -> NDArray[np.float32]:
        """What the network says of a picture, uint8 RGB (H, W, 3), at the size at which it sees it
        (see `__call__`).

        Returns ab, (h, w, 2), or lightness and ab, (h, w, 3), of a network that sees edges; in [-1,
        1].
        """
        known_hints.check(hints, *rgb.shape[:2])
        full_size.check_able(self.sight, hints=hints)
        return full_size.ask(
            views.look(self.sight, rgb, size, hints=hints), self.predict_view
        ).colors

    def predict_view(self, view: View) -> Prediction:
        """What the network says of a view, which `sight` is enough to prepare.

        Where memory runs out, the view is halved until its shorter side is 32 pixels; after that
        the CPU looks at all of it. Each such step is a note, and the colours then may be smaller
        than the view. DataError when even that does not fit.
        """
        notes: list[str] = []
        network = self._network
        while True:
            rgb = view.rgb
            while True:
                try:
                    return Prediction(*network.see(rgb, view))._replace(notes=tuple(notes))
                # torch.OutOfMemoryError is a RuntimeError
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    at = f"{rgb.shape[1]}x{rgb.shape[0]}"
                # Here the error, and with it every tensor of the failed attempt, is gone.
                free_memory(network.device)
                if (smaller := _half(rgb)) is None:
                    break
                rgb = smaller
                notes.append(
                    f"out of memory on {network.device} at {at}: seen at"
                    f" {rgb.shape[1]}x{rgb.shape[0]}"
                )
            if network.device.type == "cpu":
                raise DataError(
                    f"a picture must fit into memory, got none left at {at}; close other programs"
                )
            notes.append(
                f"out of memory on {network.device} at {at}: the CPU was used instead, at full size"
            )
            if self._spare is None:
                self._spare = self._network.on_cpu()
            network = self._spare

    def describe_view(self, view: View) -> Features:
        """What the network sees of a view's lightness, to be compared with another's
        (`references.match`); ask only where `sight.features` says so.
        """
        return self._network.describe(view)

    def self_test(self) -> str | None:
        """Colour a few generated gray pictures; returns a warning when hardly any colour comes of
        it, else None.
        """
        chromas = []
        for index in range(_SELF_TEST_PICTURES):
            rgb = composition.paint(0, index, self.sight.size)
            colors = self.predict(rgb)
            chromas.append(painting.mean_chroma(colors, painting.guide_of(rgb, colors.shape[:2])))
        mean = float(np.mean(chromas))
        if mean >= LEAST_CHROMA:  # not so for not-a-number
            return None
        what = (
            "gives colours that are no numbers"
            if np.isnan(mean)
            else f"hardly colours (mean chroma {mean:.2f})"
        )
        return (
            f"WARNING: {self.name} {what}: expect gray pictures, or none; it was trained too little"
            " or failed, choose another with --run"
        )


def _shared(colorizer: Colorizer) -> dict[str, Any]:
    """What networks must have in common for their mean: what they see, what they say, and where; by
    option.
    """
    config = colorizer.config
    shared = {
        "--network": config.network,
        "--condition": config.condition,
        "--device": str(colorizer.device),
    }
    if config.takes_embedding:
        return {**shared, "--embedding": config.embedding, "--embedding-fit": config.embedding_fit}
    return {**shared, "--head": config.head}


def _open(picture: str | Path | NDArray[Any]) -> Picture:
    return arrays.read_rgb(Path(picture)) if isinstance(picture, str | Path) else _as_rgb(picture)


def _mask_of(mask: str | Path | NDArray[Any], height: int, width: int) -> Mask:
    if isinstance(mask, str | Path):
        return mask_files.read(Path(mask), height, width)
    return mask_files.of_array(mask, height, width)


def _merge_alike(share: Tensor, lightness: Tensor, count: int) -> list[Suggestion]:
    """The likeliest colours of a distribution over the bins, (Q,), at a lightness; see
    `Colorizer.suggest`.
    """
    ab = bins.centers()
    whole = lightness.expand(len(ab), 1, 1, 1)
    shown = color.merge_in_gamut(whole, ab[:, :, None, None])
    lab = color.rgb_to_lab(shown)
    first, second = torch.cartesian_prod(torch.arange(len(ab)), torch.arange(len(ab))).unbind(1)
    distance = metrics.ciede2000(lab[first], lab[second]).view(len(ab), len(ab))
    sums: dict[int, float] = {}
    for at in share.argsort(descending=True).tolist():
        alike = min(sums, key=lambda k: float(distance[at, k]), default=at)
        if distance[at, alike] > _ALIKE:
            alike = at
        sums[alike] = sums.get(alike, 0.0) + float(share[at])
    best = sorted(sums, key=lambda k: sums[k], reverse=True)[:count]
    values = (shown.flatten(1) * 255).round().int().tolist()
    return [Suggestion((values[k][0], values[k][1], values[k][2]), sums[k]) for k in best]


def _half(rgb: Picture) -> Picture | None:
    """The picture at half the size, its shorter side at least `_SMALLEST`; None when it is as small
    already.
    """
    height, width = rgb.shape[:2]
    scale = max(0.5, _SMALLEST / min(height, width))
    if scale >= 1:
        return None
    return arrays.resize(rgb, (round(height * scale), round(width * scale)))


def _name_of(path: Path) -> str:
    """The run's name for its directory or for a checkpoint in it, else the file's."""
    path = path.absolute()
    if path.is_dir():
        return path.name
    return path.parent.name if (path.parent / "config.json").exists() else path.stem


def rebuild(content: dict[str, Any], path: Path) -> Generator | FusionNetwork:
    """The averaged generator of a checkpoint's content. CheckpointError, with its `path`, when they
    do not fit.
    """
    config: TrainConfig = content["config"]
    if config.takes_embedding and "embedding" not in content:
        raise CheckpointError(
            f"{shown(path)} must hold the embedding of its fusion network, got none"
        )
    try:
        state = checkpoint.for_coloring(content)["generator"]
        generator = build_empty(lambda: _build(config))
        generator.load_state_dict(
            {
                key: value.float() if value.is_floating_point() else value
                for key, value in state.items()
            }
        )
    except (KeyError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"{shown(path)} must hold a generator that fits its settings, got another"
            f" ({reason_of(error)})"
        ) from error
    return generator


def _build(config: TrainConfig) -> Generator | FusionNetwork:
    backbone = None
    if not config.takes_embedding:
        backbone = ENCODERS[config.backbone].build(config.frozen_blocks).freeze()
    return models.build_generator(config, backbone)


def _as_rgb(picture: NDArray[Any]) -> Picture:
    if (
        not isinstance(picture, np.ndarray)
        or picture.ndim not in (2, 3)
        or (picture.ndim == 3 and picture.shape[2] not in (1, 3))
    ):
        shape = getattr(picture, "shape", type(picture).__name__)
        raise ConfigError(
            f"a picture must be a path or an array (H, W), (H, W, 1) or (H, W, 3), got {shape}"
        )
    if 0 in picture.shape:
        raise DataError(f"a picture must have pixels, got shape {picture.shape}")
    if np.issubdtype(picture.dtype, np.floating):
        low, high = float(picture.min()), float(picture.max())
        if not (low >= 0 and high <= 1):  # also catches NaN
            raise ConfigError(
                f"a float picture must lie in [0, 1], got [{low:g}, {high:g}]; divide it by its"
                " white"
            )
        picture = np.round(picture * 255).astype(np.uint8)
    if picture.dtype != np.uint8:
        raise ConfigError(f"a picture must be uint8 or float in [0, 1], got {picture.dtype}")
    if picture.ndim == 2:
        picture = picture[..., None]
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))
