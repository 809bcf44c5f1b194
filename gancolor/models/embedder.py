"""What a fusion network is told of the whole picture: embeddings, from the disk where they are known already."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gancolor import color
from gancolor.config import TrainConfig
from gancolor.devices import pick_autocast
from gancolor.errors import CheckpointError, WeightsError, shown
from gancolor.feature_cache import LARGEST, FeatureCache
from gancolor.files import cache_root
from gancolor.models import embeddings
from gancolor.models.embeddings import Embedding

MOST = 16  # pictures that go through the network at once: bounds memory


class Embedder:
    """The embedding that `config` names, with its cache. Nothing is built or opened before it is needed.

    `saved` is what `state` returned: then no weights file is needed. `width`, `size`: of the embedding. `origin`: where
    its weights come from, in words. `passes`: pictures that went through the network so far.
    Raises WeightsError for weights that are not there, CheckpointError for a `saved` of another embedding.
    """

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        saved: dict[str, Any] | None = None,
    ) -> None:
        kind = embeddings.EMBEDDINGS[config.embedding]
        self.width, self.size = kind.width, kind.size
        self.passes = 0
        self._name, self._device, self._dtype = config.embedding, device, dtype
        self._saved = _begin(config) if saved is None else _check(saved, config.embedding)
        self.origin: str = self._saved["origin"]
        self._weights_from = config.backbone_weights if saved is None else None
        self._softmax = config.embedding_output == "softmax"
        self._repeats = config.framing != "random"  # pictures come again, so that it pays to keep them
        self._keeps = config.embedding_cache and self._repeats
        self._autocast = pick_autocast(dtype, device)
        self._network: Embedding | None = None
        self._cache: FeatureCache | None = None

    @torch.no_grad()
    def __call__(self, copies: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """Return the embedding, float32 (B, width) on the device, of RGB `copies`, uint8 (B, 3, size, size).

        Only their lightness counts. `keys` are their SHA-256 in hexadecimal: with them, pictures that the cache knows
        do not go through the network, and equal ones go once. Scores are rounded to float16 in any case, so that a
        picture gives the same numbers whether it was known or not; WeightsError if that cannot hold them.
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
        """Return what `saved` needs: plain values and, unless they are random, the weights as they are held.

        Random weights are drawn again from the seed and compared with `fingerprint`, some of their values. An embedder
        made from `saved` returns it without building the network; any other builds it now if no picture has yet.
        """
        if self._weights_from is None:
            return dict(self._saved)
        network = self._build().network
        if self._weights_from == "none":
            return {**self._saved, "weights": None}
        return {**self._saved, "weights": {key: value.cpu() for key, value in network.state_dict().items()}}

    def _look_up(self, copies: Tensor, keys: Sequence[str]) -> Tensor:
        if self._keeps and self._cache is None:
            self._cache = self._open_cache()
        known = {} if self._cache is None else self._cache.get(keys)
        rows = {key: row for row, key in reversed(list(enumerate(keys))) if key not in known}
        if rows:
            # What a picture gives depends on the size of its batch, in the last bits. On the CPU, where runs repeat bit
            # for bit, each goes alone: which others are known must not matter.
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
                f"scores of the embedding {self._name} must be finite and at most {LARGEST:.0f}, got others; "
                "use --precision fp32, or other weights with --backbone-weights"
            )
        return scores

    def _build(self) -> Embedding:
        """Return the network, built at the first call; its convolutions and Linear layers are held in the dtype."""
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
            return embeddings.from_state(self._name, self._saved["weights"])
        seed = self._saved["seed"]
        if self._weights_from is not None and self._weights_from != "none":
            return embeddings.load_embedding(self._name, self._weights_from, seed=seed)
        network = embeddings.load_embedding(self._name, "none", seed=seed)
        fingerprint = _fingerprint(network)
        if self._weights_from is not None:
            self._saved["fingerprint"] = fingerprint
        elif not _agree(fingerprint, self._saved["fingerprint"]):
            raise CheckpointError(
                f"random weights of the embedding {self._name} must be those of the checkpoint, got others from torch "
                f"{torch.__version__} for the seed {seed}; use the versions of torch and gancolor that saved it"
            )
        return network

    def _open_cache(self) -> FeatureCache:
        identity = self._saved["identity"]
        if identity.startswith("none-"):
            identity += f"-torch{torch.__version__.split('+')[0]}"  # another version may draw others
        tensors = (self._saved["weights"] or {}).values()
        held = next((tensor.dtype for tensor in tensors if tensor.dtype not in (torch.float32, torch.int64)), None)
        if held not in (None, self._dtype):  # rounded once already, to another dtype than this run's
            identity += f"-from-{_word(held)}"
        folder = f"{self._name}-{identity}-{_word(self._dtype)}"
        return FeatureCache(cache_root() / "embeddings" / folder, self.width, folder)


def _begin(config: TrainConfig) -> dict[str, Any]:
    """Return a state without weights for the embedding and the weights that `config` names."""
    name, weights = config.embedding, config.backbone_weights
    return {
        "name": name,
        "weights": None,
        "seed": config.seed,
        "fingerprint": None,
        "identity": embeddings.identify(name, weights, config.seed),
        "origin": embeddings.describe_embedding(name, weights),
    }


def _check(saved: Mapping[str, Any], name: str) -> dict[str, Any]:
    needed = ("name", "weights", "seed", "fingerprint", "identity", "origin")
    if missing := [key for key in needed if key not in saved]:
        raise CheckpointError(
            f"the checkpoint must hold a whole embedding, got one without its {', '.join(missing)}; "
            "use another checkpoint of the run"
        )
    if saved["name"] != name:
        raise CheckpointError(
            f"the checkpoint must hold the embedding {name} of its settings, got {shown(saved['name'], 80)}; "
            "use another checkpoint of the run"
        )
    weights, numbers = saved["weights"], saved["fingerprint"]
    right = {
        "weights": weights is None or (isinstance(weights, Mapping) and all(isinstance(key, str) for key in weights)),
        "seed": type(saved["seed"]) is int and 0 <= saved["seed"] < 2**32,
        "fingerprint": numbers is None or (isinstance(numbers, list) and all(isinstance(x, float) for x in numbers)),
        "identity": isinstance(saved["identity"], str) and bool(re.fullmatch(r"[\w.+-]{1,200}", saved["identity"])),
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
    """Whether two fingerprints are of the same draw; processors may round its last bits differently."""
    return one is not None and other is not None and len(one) == len(other) and np.allclose(one, other, 1e-3, 1e-6)


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
