"""Colours pictures with a trained run: the only way anything is coloured outside training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gancolor import checkpoint, color, images, models
from gancolor.config import TrainConfig
from gancolor.devices import pick_autocast, pick_device, pick_dtype
from gancolor.errors import CheckpointError, ConfigError, DataError
from gancolor.models import VGG16, FusionNetwork, Generator
from gancolor.models.embedder import Embedder

Picture = npt.NDArray[np.uint8]

_STRIP = 1 << 20  # pixels that are merged at once: bounds the memory of large pictures
_LARGEST = 8  # the network sees at most this many times its training area: bounds very long pictures


class Colorizer:
    """A generator with what is needed around it. Make one with `Colorizer.load`.

    `config`: the settings it was trained with. `condition`: 'gray', or 'edges' for a network that sees outlines only.
    `step`: after how many steps it was saved. `origin`: where its frozen network's weights come from, in words.
    `content`: a checkpoint's, with the embedding of a fusion network.
    """

    def __init__(
        self,
        generator: Generator | FusionNetwork,
        content: dict[str, Any],
        *,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        config: TrainConfig = content["config"]
        self.config, self.condition = config, config.condition
        self.step: int = content.get("step", 0)
        self.origin: str = content.get("origin", "not known")
        self.device = pick_device(device)
        dtype = pick_dtype(precision, self.device)
        self._embedder = None
        if config.network != "unet":
            self._embedder = Embedder(config, self.device, dtype, content["embedding"])
        self._autocast = pick_autocast(dtype, self.device)
        for module in generator.modules():
            if isinstance(module, nn.Conv2d):
                module.to(dtype)  # held in it: autocast would cast the weights at every picture
        generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub leaves it out
        self.generator = generator.to(self.device).eval().requires_grad_(False)

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
        return cls(_rebuild(content, path), content, device=device, precision=precision)

    def __call__(self, picture: str | Path | npt.NDArray[Any], *, size: int | None = None) -> Picture:
        """Colour one picture; returns uint8 RGB (H, W, 3) of the same size with the picture's own lightness.

        picture: a path, or an array (H, W), (H, W, 1) or (H, W, 3), uint8 or float in [0, 1]. Its colours are ignored.
        size: shorter side at which the network sees it (default: the training size); the aspect is kept.
        DataError for an unreadable file, ConfigError for an array of another shape, dtype or range.
        """
        rgb = images.read_rgb(Path(picture)) if isinstance(picture, str | Path) else _as_rgb(picture)
        return self.paint(rgb, self.predict(rgb, size))

    def paint(self, rgb: Picture, predicted: npt.NDArray[np.float32]) -> Picture:
        """Give a picture, uint8 RGB (H, W, 3), the colours that `predict` returned, brought to its size."""
        height, width = rgb.shape[:2]
        grown = np.asarray(cv2.resize(predicted, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        return _merge_in_strips(rgb, grown.reshape(height, width, -1))

    def seen(self, rgb: Picture) -> Picture:
        """What the network is given of a picture, at full size, to be shown beside the result: gray or edges."""
        if self.condition == "edges":
            return np.repeat(images.edges(rgb)[..., None], 3, axis=2)
        return _merge_in_strips(rgb, np.zeros((*rgb.shape[:2], 2), np.float32))

    @torch.inference_mode()
    def predict(self, rgb: Picture, size: int | None = None) -> npt.NDArray[np.float32]:
        """What the network says of a picture, uint8 RGB (H, W, 3), at the size at which it sees it (see `__call__`).

        Returns ab, (h, w, 2), or lightness and ab, (h, w, 3), of a network that sees edges; in [-1, 1].
        """
        small = _shrink(rgb, self.config.image_size if size is None else size)
        if self.condition == "edges":
            condition = torch.from_numpy(images.edges(small))[None, None].to(self.device).float() / 255
        else:
            condition = models.see(self.config, color.split(_to_tensor(small).to(self.device))[0])
        seen: tuple[Tensor, ...] = (condition,)
        if self._embedder is not None:
            copy = images.square(rgb, self._embedder.size, self.config.embedding_fit)
            seen += (self._embedder(_to_tensor(copy)),)
        with self._autocast():
            output = self.generator(*seen)
        predicted: npt.NDArray[np.float32] = output[0].float().permute(1, 2, 0).contiguous().cpu().numpy()
        return predicted


def _rebuild(content: dict[str, Any], path: Path) -> Generator | FusionNetwork:
    """The averaged generator of a best.pt or last.pt."""
    config: TrainConfig = content["config"]
    if config.network != "unet" and "embedding" not in content:
        raise CheckpointError(f"{path} must hold the embedding of its fusion network, got none")
    try:
        state = dict(content.get("ema") or content["generator"])
        backbone = None
        if config.network == "unet" and not any(key.startswith("encoder.") for key in state):
            with torch.device("meta"):
                used = set(VGG16(blocks=config.frozen_blocks).state_dict())
            state |= {f"encoder.{key}": value for key, value in content["backbone"].items() if key in used}
        with torch.device("meta"):  # no initialization, and no use of the caller's random numbers
            if config.network == "unet":
                backbone = VGG16(blocks=config.frozen_blocks).freeze()
            generator = models.build_generator(config, backbone)
        generator.to_empty(device="cpu")
        generator.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        )
    except (KeyError, RuntimeError) as error:
        reason = (str(error).splitlines() or ["?"])[0][:160]
        raise CheckpointError(f"{path} must hold a generator that fits its settings, got another ({reason})") from error
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


def _shrink(rgb: Picture, size: int) -> Picture:
    """The picture with its shorter side at most `size` and its area bounded, aspect kept."""
    if size < 1:
        raise ConfigError(f"the size must be at least 1, got {size}")
    height, width = rgb.shape[:2]
    scale = min(1.0, size / min(height, width), (_LARGEST * size * size / (height * width)) ** 0.5)
    if scale == 1.0:
        return rgb
    return images.resize(rgb, (max(1, round(height * scale)), max(1, round(width * scale))))


@torch.inference_mode()
def _merge_in_strips(rgb: Picture, predicted: npt.NDArray[np.float32]) -> Picture:
    """Full-size uint8 RGB from the picture's lightness and predicted ab, or from predicted lightness and ab."""
    result = np.empty_like(rgb)
    rows = max(1, _STRIP // rgb.shape[1])
    for start in range(0, rgb.shape[0], rows):
        part = slice(start, start + rows)
        guess = torch.from_numpy(predicted[part]).permute(2, 0, 1)[None]
        lightness = guess[:, :1] if guess.shape[1] == 3 else color.split(_to_tensor(rgb[part]))[0]
        merged = color.merge_in_gamut(lightness, guess[:, -2:])
        result[part] = (merged[0] * 255).round().byte().permute(1, 2, 0).numpy()
    return result


def _to_tensor(rgb: Picture) -> Tensor:
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None]
