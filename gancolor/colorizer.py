"""Colours pictures with a trained run: the only way anything is coloured outside training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancolor import checkpoint, color, coloring, images, metrics, models, painting, views
from gancolor import hints as known_hints
from gancolor.coloring import Colored, Look, Prediction
from gancolor.config import TrainConfig
from gancolor.data import still_life
from gancolor.devices import pick_autocast, pick_device, pick_dtype
from gancolor.errors import CheckpointError, ConfigError, DataError, is_out_of_memory, reason_of, shown
from gancolor.hints import Hint
from gancolor.models import FusionNetwork, Generator, Output, bins, embeddings
from gancolor.models.embedder import Embedder
from gancolor.models.encoders import ENCODERS
from gancolor.models.hint_encoder import shrink
from gancolor.models.perturbing import perturbed
from gancolor.photographs.contents import Photograph
from gancolor.views import Sight, View

Picture = npt.NDArray[np.uint8]

LEAST_CHROMA = 0.5
"""Mean CIE chroma on generated pictures below which a checkpoint counts as one that does not colour."""

_SELF_TEST_PICTURES = 4
_ALIKE = 6.0  # CIEDE2000 below which two suggestions count as one
_SMALLEST = 32  # pixels: the least shorter side that is tried when memory runs out


class Suggestion(NamedTuple):
    """A colour that may be right at a place: `rgb` in 0 to 255, and its `probability` in [0, 1]."""

    rgb: tuple[int, int, int]
    probability: float


class Colorizer:
    """A generator with what is needed around it. Make one with `Colorizer.load`.

    `config`: the settings it was trained with. `condition`: 'gray', or 'edges' for a network that sees outlines only.
    `step`: after how many steps it was saved. `origin`: where its frozen network's weights come from, in words.
    `name`: of the run or file, with the step. `sight`: what preparing views for `run` takes.
    `content`: a checkpoint's, with the embedding of a fusion network.
    """

    def __init__(
        self,
        generator: Generator | FusionNetwork,
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
        self.device = pick_device(device)
        embedding = None if config.network == "unet" else content["embedding"]
        size = None if embedding is None else embeddings.EMBEDDINGS[config.embedding].size
        self.sight = Sight(
            config.image_size,
            config.condition,
            size,
            config.embedding_fit,
            distribution=config.network == "unet" and config.head == "bins",
            hints=config.hints > 0,
        )
        self._network = _Network(generator, config, embedding, self.device, pick_dtype(precision, self.device))
        self._spare: _Network | None = None  # on the CPU, for when the device's memory runs out

    @property
    def generator(self) -> Generator | FusionNetwork:
        """The network, ready and frozen."""
        return self._network.generator

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", precision: str = "auto") -> Colorizer:
        """Load a run directory (its best.pt, else its last.pt) or a checkpoint file.

        Needs no weights file and no network. CheckpointError when it is missing, damaged or of another version.
        """
        path = Path(path)
        if path.is_dir():
            best = path / "best.pt"
            content = checkpoint.load(best) if best.exists() else checkpoint.load_last(path)
        else:
            content = checkpoint.load(path)
        return cls(_rebuild(content, path), content, device=device, precision=precision, name=_name_of(path))

    def __call__(
        self, picture: str | Path | npt.NDArray[Any], *, size: int | None = None, hints: Sequence[Hint] = ()
    ) -> Picture:
        """Colour one picture; returns uint8 RGB (H, W, 3) of the same size with the picture's own lightness.

        picture: a path, or an array (H, W), (H, W, 1) or (H, W, 3), uint8 or float in [0, 1]. Its colours are ignored.
        size: shorter side at which the network sees it (default: the training size); the aspect is kept.
        hints: colours that are known, in pixels of the picture; each is kept at its place and spreads to what it
        belongs to.
        DataError for an unreadable file, ConfigError for an array of another shape, dtype or range, and for hints
        outside the picture or for a network that takes none.
        """
        rgb = _open(picture)
        return self.paint(rgb, self.predict(rgb, size, hints=hints), hints=hints)

    def suggest(
        self,
        picture: str | Path | npt.NDArray[Any],
        x: float,
        y: float,
        *,
        count: int = 8,
        size: int | None = None,
        hints: Sequence[Hint] = (),
    ) -> list[Suggestion]:
        """The most probable colours of a picture at column `x` and row `y`, at most `count`, the likeliest first.

        Colours that look alike are one, with the sum of their probabilities; each has the picture's lightness there.
        For a network that gives a distribution (`--head bins`); ConfigError else, and for a place outside the picture.
        """
        rgb = _open(picture)
        height, width = rgb.shape[:2]
        known_hints.check(hints, height, width)
        known_hints.check([Hint(x, y, (0, 0, 0))], height, width, what="place")
        coloring.check_able(self.sight, hints=hints)
        if not self.sight.distribution:
            raise ConfigError(f"{self.name} gives no distribution of colours; use a run trained with --head bins")
        if count < 1:
            raise ConfigError(f"count must be at least 1, got {count}")
        view = views.look(self.sight, rgb, size, hints=hints)
        share = self._network.distribution(view, (x + 0.5) / width, (y + 0.5) / height)
        row, column = min(round(y), height - 1), min(round(x), width - 1)
        lightness, _ = color.split(_to_tensor(rgb[row : row + 1, column : column + 1]))
        return _merge_alike(share, lightness.view(()), count)

    def color(self, photograph: Photograph, look: Look | None = None) -> Colored:
        """Colour a photograph at its own size and depth; see `coloring.color`."""
        return coloring.color(photograph, Look() if look is None else look, self.sight, self.run)

    def paint(
        self,
        rgb: Picture,
        predicted: npt.NDArray[np.float32],
        *,
        method: str = "guided",
        hints: Sequence[Hint] = (),
    ) -> Picture:
        """Give a picture, uint8 RGB (H, W, 3), the colours that `predict` returned, brought to its size.

        method: one of `upsampling.METHODS`; what was predicted from edges is always brought up bilinearly. hints: known
        colours, in pixels of this picture, that are kept at their places.
        """
        return painting.paint(rgb, predicted, method=method, hints=hints)

    def seen(self, rgb: Picture) -> Picture:
        """What the network is given of a picture, at full size, to be shown beside the result: gray or edges."""
        if self.condition == "edges":
            return np.repeat(images.edges(rgb)[..., None], 3, axis=2)
        return painting.paint(rgb, np.zeros((1, 1, 2), np.float32), method="bilinear")

    def predict(self, rgb: Picture, size: int | None = None, *, hints: Sequence[Hint] = ()) -> npt.NDArray[np.float32]:
        """What the network says of a picture, uint8 RGB (H, W, 3), at the size at which it sees it (see `__call__`).

        Returns ab, (h, w, 2), or lightness and ab, (h, w, 3), of a network that sees edges; in [-1, 1].
        """
        known_hints.check(hints, *rgb.shape[:2])
        coloring.check_able(self.sight, hints=hints)
        return self.run(views.look(self.sight, rgb, size, hints=hints)).colors

    def run(self, view: View) -> Prediction:
        """What the network says of a view, which `sight` is enough to prepare.

        Where memory runs out, the view is halved until its shorter side is 32 pixels; after that the CPU looks at all
        of it. Each such step is a note, and the colours then may be smaller than the view. DataError when even that
        does not fit.
        """
        notes: list[str] = []
        network = self._network
        while True:
            rgb = view.rgb
            while True:
                try:
                    return Prediction(*network.see(rgb, view))._replace(notes=tuple(notes))
                except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
                    if not is_out_of_memory(error):
                        raise
                    at = f"{rgb.shape[1]}x{rgb.shape[0]}"
                # Here the error, and with it every tensor of the failed attempt, is gone.
                if network.device.type == "cuda":
                    torch.cuda.empty_cache()
                if (smaller := _half(rgb)) is None:
                    break
                rgb = smaller
                notes.append(f"out of memory on {network.device} at {at}: seen at {rgb.shape[1]}x{rgb.shape[0]}")
            if network.device.type == "cpu":
                raise DataError(f"a picture must fit into memory, got none left at {at}; close other programs")
            notes.append(f"out of memory on {network.device} at {at}: the CPU was used instead, at full size")
            if self._spare is None:
                self._spare = self._network.on_cpu()
            network = self._spare

    def self_test(self) -> str | None:
        """Colour a few generated gray pictures; returns a warning when hardly any colour comes of it, else None."""
        chromas = []
        for index in range(_SELF_TEST_PICTURES):
            rgb = still_life.paint(0, index, self.sight.size)
            colors = self.predict(rgb)
            chromas.append(painting.mean_chroma(colors, painting.guide_of(rgb, colors.shape[:2])))
        mean = float(np.mean(chromas))
        if mean >= LEAST_CHROMA:  # not so for not-a-number
            return None
        what = "gives colours that are no numbers" if np.isnan(mean) else f"hardly colours (mean chroma {mean:.2f})"
        return (
            f"WARNING: {self.name} {what}: expect gray pictures, or none; it was trained too little or failed, "
            "choose another with --run"
        )


def _open(picture: str | Path | npt.NDArray[Any]) -> Picture:
    return images.read_rgb(Path(picture)) if isinstance(picture, str | Path) else _as_rgb(picture)


def _merge_alike(share: Tensor, lightness: Tensor, count: int) -> list[Suggestion]:
    """The likeliest colours of a distribution over the bins, (Q,), at a lightness; see `Colorizer.suggest`."""
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


class _Network:
    """A generator, with the embedder of a fusion network, on one device in one precision."""

    def __init__(
        self,
        generator: Generator | FusionNetwork,
        config: TrainConfig,
        embedding: dict[str, Any] | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.config, self.embedding, self.device = config, embedding, device
        self.embedder = None if embedding is None else Embedder(config, device, dtype, embedding)
        self._autocast = pick_autocast(dtype, device)
        for module in generator.modules():
            if isinstance(module, nn.Conv2d):
                module.to(dtype)  # held in it: autocast would cast the weights at every picture
        generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub leaves it out
        self.generator = generator.to(device).eval().requires_grad_(False)

    def on_cpu(self) -> _Network:
        """The same on the CPU, in float32."""
        generator = copy.deepcopy(self.generator).cpu()
        return _Network(generator, self.config, self.embedding, torch.device("cpu"), torch.float32)

    @torch.inference_mode()
    def see(self, rgb: Picture, view: View) -> Prediction:
        """What the network says of `rgb` (h, w, 3), which is the view's own or a smaller one."""
        condition = _flip(self._condition(rgb), view)
        with self._autocast():
            if isinstance(self.generator, Generator) and self.generator.finest > 1:
                output = self.generator.say(condition, self._hints(view, rgb), view.temperature, view.variant)
            else:
                output = self._see_perturbed(condition, view)
        sure = None
        if output.logits is not None:
            sure = _flip(self._confidence(output.logits, condition), view)[0].cpu().numpy()
        colors = _flip(output.colors, view)[0].float().permute(1, 2, 0).contiguous().cpu().numpy()
        return Prediction(colors, (), sure)

    @torch.inference_mode()
    def distribution(self, view: View, x: float, y: float) -> Tensor:
        """The probabilities of the bins, (Q,), at a place in [0, 1] of the view's width and height."""
        assert isinstance(self.generator, Generator)
        condition = self._condition(view.rgb)
        with self._autocast():
            logits = self.generator.say(condition, self._hints(view, view.rgb)).logits
        assert logits is not None
        _, (rows, columns) = self.generator.pad(condition)
        row = min(int(rows.start + y * condition.shape[2]), rows.stop - 1)
        column = min(int(columns.start + x * condition.shape[3]), columns.stop - 1)
        at = logits[0, :, row // self.generator.finest, column // self.generator.finest]
        return torch.softmax(at.float(), 0).cpu()

    def _confidence(self, logits: Tensor, condition: Tensor) -> Tensor:
        """How sure the network is, (1, h, w) in [0, 1], at the size of `condition`."""
        assert isinstance(self.generator, Generator)
        sure = bins.confidence(logits)[None]
        _, (rows, columns) = self.generator.pad(condition)
        return F.interpolate(sure, scale_factor=self.generator.finest, mode="bilinear")[0][..., rows, columns]

    def _condition(self, rgb: Picture) -> Tensor:
        """What the generator is given of a picture, (1, 1, h, w)."""
        if self.config.condition == "edges":
            return torch.from_numpy(images.edges(rgb))[None, None].to(self.device).float() / 255
        return models.see(self.config, color.split(_to_tensor(rgb).to(self.device))[0])

    def _hints(self, view: View, rgb: Picture) -> Tensor | None:
        """The view's hint map (1, 3, h, w), at the size of `rgb`."""
        if view.hints is None:
            return None
        known = torch.from_numpy(view.hints).permute(2, 0, 1)[None].to(self.device)
        return _flip(shrink(known, *rgb.shape[:2]), view)  # smaller where memory ran out and the view was halved

    def _see_perturbed(self, condition: Tensor, view: View) -> Output:
        """A network without a distribution draws nothing at random: its variants have noise on its features."""
        seen: tuple[Tensor, ...] = (condition,)
        if self.embedder is not None:
            if view.copy is None:
                raise ValueError("a view for a fusion network must have a copy, got None")
            seen += (self.embedder(_flip(_to_tensor(view.copy), view)),)
        with perturbed(self.generator, view.variant):
            return Output(self.generator(*seen))


def _flip(x: Tensor, view: View) -> Tensor:
    return x.flip(-1) if view.flip else x


def _half(rgb: Picture) -> Picture | None:
    """The picture at half the size, its shorter side at least `_SMALLEST`; None when it is as small already."""
    height, width = rgb.shape[:2]
    scale = max(0.5, _SMALLEST / min(height, width))
    if scale >= 1:
        return None
    return images.resize(rgb, (round(height * scale), round(width * scale)))


def _name_of(path: Path) -> str:
    """The run's name for its directory or for a checkpoint in it, else the file's."""
    path = path.absolute()
    if path.is_dir():
        return path.name
    return path.parent.name if (path.parent / "config.json").exists() else path.stem


def _rebuild(content: dict[str, Any], path: Path) -> Generator | FusionNetwork:
    """The averaged generator of a best.pt or last.pt."""
    config: TrainConfig = content["config"]
    if config.network != "unet" and "embedding" not in content:
        raise CheckpointError(f"{shown(path)} must hold the embedding of its fusion network, got none")
    try:
        state = dict(content.get("ema") or content["generator"])
        backbone = None
        if config.network == "unet" and not any(key.startswith("encoder.") for key in state):
            with torch.device("meta"):
                used = set(ENCODERS[config.backbone].build(config.frozen_blocks).state_dict())
            frozen = content["backbone" if config.backbone == "vgg16" else "encoder"]
            state |= {f"encoder.{key}": value for key, value in frozen.items() if key in used}
        with torch.device("meta"):  # no initialization, and no use of the caller's random numbers
            if config.network == "unet":
                backbone = ENCODERS[config.backbone].build(config.frozen_blocks).freeze()
            generator = models.build_generator(config, backbone)
        generator.to_empty(device="cpu")
        generator.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        )
    except (KeyError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"{shown(path)} must hold a generator that fits its settings, got another ({reason_of(error)})"
        ) from error
    return generator


def _as_rgb(picture: npt.NDArray[Any]) -> Picture:
    if (
        not isinstance(picture, np.ndarray)
        or picture.ndim not in (2, 3)
        or (picture.ndim == 3 and picture.shape[2] not in (1, 3))
    ):
        shape = getattr(picture, "shape", type(picture).__name__)
        raise ConfigError(f"a picture must be a path or an array (H, W), (H, W, 1) or (H, W, 3), got {shape}")
    if 0 in picture.shape:
        raise DataError(f"a picture must have pixels, got shape {picture.shape}")
    if np.issubdtype(picture.dtype, np.floating):
        low, high = float(picture.min()), float(picture.max())
        if not (low >= 0 and high <= 1):  # also catches NaN
            raise ConfigError(f"a float picture must lie in [0, 1], got [{low:g}, {high:g}]; divide it by its white")
        picture = np.round(picture * 255).astype(np.uint8)
    if picture.dtype != np.uint8:
        raise ConfigError(f"a picture must be uint8 or float in [0, 1], got {picture.dtype}")
    if picture.ndim == 2:
        picture = picture[..., None]
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))


def _to_tensor(rgb: Picture) -> Tensor:
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None]
