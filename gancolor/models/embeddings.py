"""What a fusion network is told of the whole picture: an embedding, the class scores of a frozen
network.

`EMBEDDINGS` has the frozen networks by name. An `Embedder` computes what one of them says of
pictures, or takes it from the disk where it is known already.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gancolor import color
from gancolor.config import CROPPING, TrainConfig
from gancolor.errors import CheckpointError, MissingExtra, WeightsError, shown
from gancolor.models import pretrained
from gancolor.models.backbones import (
    MEAN,
    STD,
    VGG_WIDTHS,
    per_channel,
    torchvision_source,
    vgg_layers,
)
from gancolor.models.embedding_cache import FORMAT, LARGEST, EmbeddingCache
from gancolor.models.pretrained import (
    build_empty,
    describe_origin,
    download_weights,
    file_sha256,
    find_problems,
    load_strictly,
    named_source,
    randomize,
    read_state,
    require_file,
    way_out,
)
from gancolor.runtime.devices import pick_autocast
from gancolor.runtime.files import cache_root

log = logging.getLogger("gancolor")

FACE_MEAN = tuple(value / 255 for value in pretrained.FACE_MEAN)
FACE_STD = (1 / 255,) * 3

# timm's default address for this network until it moved to another host; still on its release page
_TIMM_FILE = (
    "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/"
    "inception_resnet_v2-940b1cd6.pth"
)

MOST = 16  # pictures that go through the network at once: bounds memory


@dataclass(frozen=True)
class EmbeddingKind:
    """What is known of an embedding before it is built.

    `width` is the number of scores, `size` the side of the pictures it takes in pixels, `mean` and
    `std` normalize RGB in [0, 1]. `build` returns the network, normalized (B, 3, size, size) to (B,
    width). `source` returns the address of ImageNet's weights and the beginning of their SHA-256;
    None if there is none. `convert` reads a file's tensors.
    """

    name: str
    title: str
    width: int
    size: int
    build: Callable[[], nn.Module]
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    source: Callable[[], tuple[str, str] | None] | None = None
    publisher: str = "torchvision"
    convert: Callable[[Mapping[str, Any]], pretrained.Converted] | None = None


class VGG(nn.Module):
    """VGG with its classifier, (B, 3, H, W) normalized to (B, classes) scores; H and W at least 32.

    Graph and names are torchvision's (`features.N`, `classifier.0|3|6`), for `widths` of its table.
    For inference only: it has no dropout.
    """

    def __init__(self, widths: Sequence[int | str], classes: int, hidden: int = 4096) -> None:
        super().__init__()
        channels = [width for width in widths if isinstance(width, int)][-1]
        self.features = nn.Sequential(*vgg_layers(widths))
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(channels * 7 * 7, hidden),
            nn.ReLU(inplace=True),
            nn.Identity(),  # torchvision's dropout
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Identity(),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return scores


def _vgg_kind(
    name: str,
    title: str,
    widths: str,
    classes: int = 1000,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    source: Callable[[], tuple[str, str]] | None = None,
) -> EmbeddingKind:
    table = VGG_WIDTHS[widths]
    return EmbeddingKind(
        name=name,
        title=title,
        width=classes,
        size=224,
        build=lambda: VGG(table, classes),
        mean=mean,
        std=std,
        source=source,
        convert=functools.partial(pretrained.to_torchvision, widths=table, mean=mean, std=std),
    )


def _inception_resnet_v2() -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise MissingExtra(
            "the embedding inception-resnet-v2 must have timm, which is not installed; "
            "pip install 'gancolor[baselines]'"
        ) from error
    network: nn.Module = timm.create_model("inception_resnet_v2", pretrained=False)
    return network


EMBEDDINGS: dict[str, EmbeddingKind] = {
    kind.name: kind
    for kind in (
        _vgg_kind("vgg16", "VGG16", "D", source=lambda: torchvision_source("VGG16")),
        _vgg_kind("vgg19", "VGG19", "E", source=lambda: torchvision_source("VGG19")),
        _vgg_kind("vggface", "VGG-Face", "D", 2622, FACE_MEAN, FACE_STD),
        EmbeddingKind(
            name="inception-resnet-v2",
            title="Inception-ResNet-v2",
            width=1000,
            size=299,
            build=_inception_resnet_v2,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            source=lambda: named_source(_TIMM_FILE, "Inception-ResNet-v2"),
            publisher="timm",
            convert=functools.partial(pretrained.to_timm, classes=1000),
        ),
    )
}


class Embedding(nn.Module):
    """A frozen network of `kind`: always in eval(), no gradients, RGB in [0, 1] to class scores.

    `network` is what `kind.build` returns.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, kind: EmbeddingKind, network: nn.Module) -> None:
        super().__init__()
        self.kind = kind
        self.network = network
        self.register_buffer("mean", per_channel(kind.mean), persistent=False)
        self.register_buffer("std", per_channel(kind.std), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def forward(self, rgb: Tensor) -> Tensor:
        """Return scores (B, width), float32, of `rgb` (B, 3, size, size), float in [0, 1].

        It is normalized in float32, whatever the dtype of the weights.
        """
        x = (rgb.float() - self.mean) / self.std
        scores: Tensor = self.network(x.to(next(self.network.parameters()).dtype))
        return scores.float()

    def train(self, mode: bool = True) -> Embedding:
        """Stay in eval(), whatever `mode` a parent asks for."""
        super().train(False)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Embedding:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # follow the device, never the dtype: to(bfloat16) would blur the normalization
        device = self.mean.device
        self.mean, self.std = (
            per_channel(self.kind.mean, device),
            per_channel(self.kind.std, device),
        )
        return self


def load_embedding(name: str, weights: str, *, seed: int = 0) -> Embedding:
    """Return the embedding `name` on the CPU, float32, with the weights asked for.

    `weights` is "imagenet" (downloaded once into torch's hub folder and checked), "none" (random,
    from the name and `seed` alone) or the path of a state_dict in one of the conventions of
    `gancolor.models.pretrained`. Raises WeightsError when the file cannot be had or does not fit,
    MissingExtra without timm where it is needed.
    """
    kind = EMBEDDINGS[name]
    if weights == "imagenet":
        _source(kind)  # a refusal comes before the work
    network = build_empty(kind.build)
    if weights == "none":
        # VGG-Face takes 0-255: without the factor its scores would be in the hundreds, and their
        # softmax 0 and 1.
        randomize(network, _own_seed(name, seed), first=min(1.0, kind.std[0] / STD[0]))
        _standardize(Embedding(kind, network))
        log.warning(
            "embedding weights: none. %s's scores are RANDOM (seed %d), not trained on any picture;"
            " they tell pictures apart, not what is on them; give its weights with"
            " --backbone-weights PATH where you have them",
            kind.title,
            seed,
        )
    else:
        path = (
            download_weights(_source(kind), kind.title) if weights == "imagenet" else Path(weights)
        )
        loaded = read_state(path, kind.title)
        converted = (
            kind.convert(loaded)
            if kind.convert
            else pretrained.Converted(dict(loaded), {}, "its own names")
        )
        load_strictly(network, converted.state, path, kind.title, converted.names)
        log.info(
            "embedding weights: %s; read as %s", describe_embedding(name, weights), converted.words
        )
    return Embedding(kind, network)


def from_state(name: str, state: Mapping[str, Tensor]) -> Embedding:
    """Return the embedding `name` with the tensors of `Embedding.network.state_dict()`, not copied,
    in their dtype.

    Raises WeightsError unless they fit exactly.
    """
    kind = EMBEDDINGS[name]
    with torch.device("meta"):
        network = kind.build()
    if found := find_problems(state, network.state_dict()):
        raise WeightsError(
            f"the saved embedding must hold {kind.title}'s tensors and no others, got: {found}; "
            "use the version of gancolor that saved it"
        )
    network.load_state_dict(state, assign=True)
    return Embedding(kind, network)


def identify(name: str, weights: str, seed: int = 0) -> str:
    """Return a short name for weights that no other weights of this embedding have, for files and
    cache keys.

    Raises WeightsError when they are a file that is not there.
    """
    kind = EMBEDDINGS[name]
    if weights == "none":
        return f"none-seed{seed}"
    if weights == "imagenet":
        return _source(kind)[1]
    require_file(Path(weights), kind.title)
    return file_sha256(Path(weights))[:16]


def describe_embedding(name: str, weights: str) -> str:
    """Say in words for logs and model cards which network this is and where its weights come from."""
    kind = EMBEDDINGS[name]
    find = functools.partial(_source, kind) if weights == "imagenet" else kind.source
    return f"{kind.title}, {describe_origin(weights, find, kind.publisher)}"


class Embedder:
    """The embedding that `config` names, with its cache. Nothing is built or opened before it is
    needed.

    `saved` is what `state` returned: then no weights file is needed. `width`, `size`: of the
    embedding. `origin`: where its weights come from, in words. `passes`: pictures that went through
    the network so far. Raises WeightsError for weights that are not there, CheckpointError for a
    `saved` of another embedding.
    """

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        saved: dict[str, Any] | None = None,
    ) -> None:
        kind = EMBEDDINGS[config.embedding]
        self.width, self.size = kind.width, kind.size
        self.passes = 0
        self._name, self._device, self._dtype = config.embedding, device, dtype
        self._saved = _begin(config) if saved is None else _check(saved, config.embedding)
        self.origin: str = self._saved["origin"]
        self._weights_from = config.backbone_weights if saved is None else None
        self._softmax = config.embedding_output == "softmax"
        # pictures come again, so that it pays to keep them
        self._repeats = config.framing not in CROPPING
        self._keeps = config.embedding_cache and self._repeats
        self._autocast = pick_autocast(dtype, device)
        self._network: Embedding | None = None
        self._cache: EmbeddingCache | None = None

    @torch.no_grad()
    def __call__(self, copies: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """Return the embedding, float32 (B, width) on the device, of RGB `copies`, uint8 (B, 3,
        size, size).

        Only their lightness counts. `keys` are their SHA-256 in hexadecimal: with them, pictures
        that the cache knows do not go through the network, and equal ones go once. Scores are
        rounded to float16 in any case, so that a picture gives the same numbers whether it was
        known or not; WeightsError if that cannot hold them.
        """
        if keys and len(keys) != len(copies):
            raise ValueError(f"keys must be one a picture, got {len(keys)} for {len(copies)}")
        if keys and self._repeats:
            scores = self._look_up(copies, keys)
        else:
            scores = self._compute(copies, MOST)
        scores = scores.to(self._device).float()
        return scores.softmax(dim=1) if self._softmax else scores

    def state(self) -> dict[str, Any]:
        """Return what `saved` needs: plain values and, unless they are random, the weights as they
        are held.

        Random weights are drawn again from the seed and compared with `fingerprint`, some of their
        values. An embedder made from `saved` returns it without building the network; any other
        builds it now if no picture has yet.
        """
        if self._weights_from is None:
            return dict(self._saved)
        network = self._build().network
        if self._weights_from == "none":
            return {**self._saved, "weights": None}
        return {
            **self._saved,
            "weights": {key: value.cpu() for key, value in network.state_dict().items()},
        }

    def _look_up(self, copies: Tensor, keys: Sequence[str]) -> Tensor:
        if self._keeps and self._cache is None:
            self._cache = self._open_cache()
        known = {} if self._cache is None else self._cache.get(keys)
        rows = {key: row for row, key in reversed(list(enumerate(keys))) if key not in known}
        if rows:
            # What a picture gives depends on the size of its batch, in the last bits. On the CPU,
            # where runs repeat bit for bit, each goes alone: which others are known must not
            # matter.
            most = 1 if self._device.type == "cpu" else MOST
            scores = self._compute(copies[list(rows.values())], most).cpu().numpy()
            fresh: dict[str, NDArray[np.float16]] = dict(zip(rows, scores, strict=True))
            if self._cache is not None:
                self._cache.put(fresh)
            known = known | fresh
        return torch.from_numpy(np.stack([known[key] for key in keys]))

    def _compute(self, copies: Tensor, most: int) -> Tensor:
        """Return raw scores, float16 (B, width) on the device, of `most` pictures at a time."""
        network = self._build()
        parts = [torch.empty(0, self.width, dtype=torch.float16, device=self._device)]
        for part in copies.split(most):
            lightness, _ = color.split(part.to(self._device))
            gray = color.gray(lightness).expand(-1, 3, -1, -1)
            with self._autocast():
                scores = network(gray.contiguous(memory_format=torch.channels_last))
            parts.append(scores.half())
            self.passes += len(part)
        scores = torch.cat(parts)
        if not scores.isfinite().all():
            raise WeightsError(
                f"scores of the embedding {self._name} must be finite and at most {LARGEST:.0f},"
                " got others; use --precision fp32, or other weights with --backbone-weights"
            )
        return scores

    def _build(self) -> Embedding:
        """Return the network, built at the first call; its convolutions and Linear layers are held
        in the dtype.
        """
        if self._network is None:
            with torch.inference_mode(False):  # its tensors outlive a caller's inference mode
                network = self._load()
                for module in network.modules():
                    if isinstance(module, nn.Conv2d | nn.Linear):
                        module.to(self._dtype)
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
                self._network = network.to(self._device)
        return self._network

    def _load(self) -> Embedding:
        if self._saved["weights"] is not None:
            return from_state(self._name, self._saved["weights"])
        seed = self._saved["seed"]
        if self._weights_from is not None and self._weights_from != "none":
            return load_embedding(self._name, self._weights_from, seed=seed)
        network = load_embedding(self._name, "none", seed=seed)
        fingerprint = _fingerprint(network)
        if self._weights_from is not None:
            self._saved["fingerprint"] = fingerprint
        elif not _agree(fingerprint, self._saved["fingerprint"]):
            raise CheckpointError(
                f"random weights of the embedding {self._name} must be those of the checkpoint, got"
                f" others from torch {torch.__version__} for the seed {seed}; use the versions of"
                " torch and gancolor that saved it"
            )
        return network

    def _open_cache(self) -> EmbeddingCache:
        identity = self._saved["identity"]
        if identity.startswith("none-"):
            identity += (  # another version may draw others
                f"-torch{torch.__version__.split('+')[0]}"
            )
        tensors = (self._saved["weights"] or {}).values()
        held = next(
            (
                tensor.dtype
                for tensor in tensors
                if tensor.dtype not in (torch.float32, torch.int64)
            ),
            None,
        )
        # rounded once already, to another dtype than this run's
        if held not in (
            None,
            self._dtype,
        ):
            identity += f"-from-{_word(held)}"
        name = f"{self._name}-{identity}-{_word(self._dtype)}-{FORMAT}"
        return EmbeddingCache(cache_root() / "embeddings" / name, self.width)


def _begin(config: TrainConfig) -> dict[str, Any]:
    """Return a state without weights for the embedding and the weights that `config` names."""
    name, weights = config.embedding, config.backbone_weights
    return {
        "name": name,
        "weights": None,
        "seed": config.seed,
        "fingerprint": None,
        "identity": identify(name, weights, config.seed),
        "origin": describe_embedding(name, weights),
    }


def _check(saved: Mapping[str, Any], name: str) -> dict[str, Any]:
    needed = ("name", "weights", "seed", "fingerprint", "identity", "origin")
    if missing := [key for key in needed if key not in saved]:
        raise CheckpointError(
            f"the checkpoint must hold a whole embedding, got one without its {', '.join(missing)};"
            " use another checkpoint of the run"
        )
    if saved["name"] != name:
        raise CheckpointError(
            f"the checkpoint must hold the embedding {name} of its settings, got"
            f" {shown(saved['name'], 80)}; use another checkpoint of the run"
        )
    weights, numbers = saved["weights"], saved["fingerprint"]
    right = {
        "weights": (
            weights is None
            or (isinstance(weights, Mapping) and all(isinstance(key, str) for key in weights))
        ),
        "seed": type(saved["seed"]) is int and 0 <= saved["seed"] < 2**32,
        "fingerprint": (
            numbers is None
            or (isinstance(numbers, list) and all(isinstance(x, float) for x in numbers))
        ),
        "identity": (
            isinstance(saved["identity"], str)
            and bool(re.fullmatch(r"[\w.+-]{1,200}", saved["identity"]))
        ),
        "origin": isinstance(saved["origin"], str),
    }
    if wrong := [key for key, is_right in right.items() if not is_right]:
        raise CheckpointError(
            f"the checkpoint must hold a whole embedding, got another {', '.join(wrong)}; "
            "use another checkpoint of the run"
        )
    return {key: saved[key] for key in needed}


def _fingerprint(network: Embedding) -> list[float]:
    """Return the first and the last value of each layer's weights: no other draw has them."""
    layers = [value for value in network.network.state_dict().values() if value.ndim > 1]
    return [float(value.flatten()[at]) for value in layers for at in (0, -1)]


def _agree(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    """Whether two fingerprints are of the same draw; processors may round its last bits
    differently.
    """
    return (
        one is not None
        and other is not None
        and len(one) == len(other)
        and np.allclose(one, other, 1e-3, 1e-6)
    )


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _source(kind: EmbeddingKind) -> tuple[str, str]:
    """Return where ImageNet's weights are; WeightsError if `kind` has none."""
    source = kind.source() if kind.source else None
    if source is None:
        raise WeightsError(
            f"{kind.title}'s weights must be a file or none, got imagenet: no published file of"
            f" them comes with a checksum; {way_out(kind.title)}"
        )
    return source


@torch.no_grad()
def _standardize(embedding: Embedding) -> None:
    """Bring random scores to mean 0 and deviation 1 over made-up pictures, by the last layer.

    Random deep networks tell pictures apart by little beside a large constant, which would drive
    the first ReLU of a fusion network out of its range for good (docs/models.md). Trained scores
    lie around 0 by themselves.
    """
    scores = embedding(_made_up_pictures(embedding.kind.size))
    mean, deviation = scores.mean(dim=0), scores.std(dim=0).square().mean().sqrt().clamp(min=1e-6)
    last = [layer for layer in embedding.network.modules() if isinstance(layer, nn.Linear)][-1]
    last.weight.div_(deviation)
    last.bias.sub_(mean).div_(deviation)


def _made_up_pictures(size: int, count: int = 6) -> Tensor:
    """Gray clouds, as photographs equally strong in each octave, (count, 3, size, size) in [0, 1];
    always the same.
    """
    generator = torch.Generator().manual_seed(0)
    clouds = torch.zeros(count, 1, size, size)
    for octave in (2, 4, 8, 16, 32, 64):
        noise = torch.randn(count, 1, octave, octave, generator=generator)
        clouds += F.interpolate(noise, (size, size), mode="bilinear")
    clouds = (clouds - clouds.mean()) / clouds.std()
    return (0.45 + 0.22 * clouds).clamp(0, 1).expand(-1, 3, -1, -1)


def _own_seed(name: str, seed: int) -> int:
    """Return a seed that differs between networks, so that one is no cut-out of another."""
    return int.from_bytes(hashlib.sha256(f"{name}:{seed}".encode()).digest()[:8], "big")
