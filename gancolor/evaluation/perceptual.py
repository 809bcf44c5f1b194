"""LPIPS, FID and KID through torchmetrics (the extra `metrics`): each a number, or the reason why
there is none.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gancolor._torchvision  # noqa: F401  (before torchmetrics, which imports torchvision)
from gancolor.errors import DownloadError, GancolorError
from gancolor.runtime.download import fetch

KEYS = ("lpips", "fid", "kid")
"""The columns, all of them better when lower."""

INSTALL = "pip install 'gancolor[metrics]'"
KID_SUBSET = 1000  # pictures, as in most code: fewer pictures make one subset of all
KID_SUBSETS = 100

# One file each and two tries: a machine that is offline learns it in seconds.
_TIMEOUT, _RETRIES = 10.0, 1

_log = logging.getLogger("gancolor")

Distance = Callable[[Tensor, Tensor], Tensor]


class Perceptual:
    """Compares coloured pictures with true ones by what trained networks see in them.

    lpips: from two float pictures (1, 3, S, S) in [0, 1] to one number; inception: from uint8 (1,
    3, S, S) to features (1, width). Instead of either, the reason why it is missing. `empty` says
    by column why it has no numbers.
    """

    def __init__(self, lpips: Distance | str, inception: nn.Module | str) -> None:
        self.empty: dict[str, str] = {}
        if isinstance(lpips, str):
            self.empty["lpips"] = lpips
        if isinstance(inception, str):
            self.empty |= {"fid": inception, "kid": inception}
        self._lpips, self._inception = lpips, inception
        self._truth: list[Tensor] = []
        self._colored: dict[str, list[Tensor]] = {}

    @classmethod
    def load(cls, device: torch.device) -> Perceptual:
        """With torchmetrics' networks on `device`, their weights fetched first; what cannot be had
        becomes a reason.
        """
        return cls(
            _try(lambda: _load_lpips(device), "LPIPS"),
            _try(lambda: _load_inception(device), "FID and KID"),
        )

    @torch.inference_mode()
    def see(self, truth: Tensor, colored: Mapping[str, Tensor]) -> dict[str, float]:
        """Take in one picture, uint8 (1, 3, S, S) on the networks' device, and its colourings by
        row.

        Returns the LPIPS of each row's, nothing without that network.
        """
        if isinstance(self._inception, nn.Module):
            self._truth.append(self._inception(truth).float().cpu())
            for row, picture in colored.items():
                self._colored.setdefault(row, []).append(self._inception(picture).float().cpu())
        if isinstance(self._lpips, str):
            return {}
        true = truth.float() / 255
        return {
            row: self._lpips(picture.float() / 255, true).item() for row, picture in colored.items()
        }

    @torch.no_grad()
    def summarize(self) -> dict[str, dict[str, float]]:
        """`fid` and `kid` by row over all pictures seen; fewer than two are a reason in `empty`."""
        if isinstance(self._inception, str):
            return {}
        if len(self._truth) < 2:
            reason = f"needs at least two pictures, got {len(self._truth)}"
            self.empty |= {"fid": reason, "kid": reason}
            return {}
        true = torch.cat(self._truth)
        found = {}
        for row, features in self._colored.items():
            colored = torch.cat(features)
            found[row] = {
                "fid": frechet_distance(colored, true),
                "kid": kernel_distance(colored, true),
            }
        return found

    def lines(self) -> list[str]:
        """What the numbers are made with, for the protocol."""
        lines, version = [], importlib.metadata.version
        if "lpips" not in self.empty:
            lines.append(f"LPIPS: AlexNet, torchmetrics {version('torchmetrics')}")
        if "fid" not in self.empty:
            count = len(self._truth)
            subsets = (
                f"{KID_SUBSETS} subsets of {KID_SUBSET}"
                if count > KID_SUBSET
                else "one subset of all"
            )
            lines.append(
                f"FID, KID: Inception-v3 of torch-fidelity {version('torch-fidelity')}"
                " (TensorFlow's weights of 2015, 2048 features; torchmetrics"
                f" {version('torchmetrics')} resizes to 299); KID over {subsets} pictures"
            )
            if count < 2048:
                lines.append(
                    f"FID of {count} pictures is biased upwards: compare it only at the same list"
                    " of pictures"
                )
        missing = ", ".join(key.upper() for key in KEYS if key in self.empty)
        return (
            [*lines, f"{missing}: not measured, for the reason below the tables"]
            if missing
            else lines
        )


def frechet_distance(colored: Tensor, true: Tensor) -> float:
    """FID of two sets of features, float (N, width) and (M, width), both of at least two; by
    torchmetrics.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    colored, true = _turn(colored.double(), true.double())
    metric = FrechetInceptionDistance(feature=_Given(colored.shape[1]))
    metric.update(true, real=True)
    metric.update(colored, real=False)
    return float(metric.compute())


def kernel_distance(colored: Tensor, true: Tensor, seed: int = 0) -> float:
    """KID of two sets of features, float (N, width) and (M, width), both of at least two; by
    torchmetrics.

    Mean over random subsets; when there are no more pictures than a subset holds, one subset of
    all.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    count = min(len(colored), len(true))
    subsets = KID_SUBSETS if count > KID_SUBSET else 1
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message=".*will save all extracted features")
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(
            feature=_Given(colored.shape[1]), subsets=subsets, subset_size=min(count, KID_SUBSET)
        )
        metric.update(true, real=True)
        metric.update(colored, real=False)
        return float(metric.compute()[0])


class _Given(nn.Module):
    """A feature network that is given the features: each picture goes through the real one only
    once.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def _turn(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Express both sets in axes of the space that they span: the same distance, and much faster for
    few pictures.
    """
    together = torch.cat((first, second))
    if len(together) >= together.shape[1]:
        return first, second
    center = together.mean(dim=0)
    axes = torch.linalg.qr((together - center).T).Q  # (width, N + M)
    return (first - center) @ axes, (second - center) @ axes


def _try(make: Callable[[], Any], what: str) -> Any:
    """What `make` makes, or the reason why it cannot."""
    try:
        return make()
    except ImportError as error:
        reason = f"{error.name or 'torchmetrics'} is not installed; {INSTALL}"
    except GancolorError as error:
        reason = str(error)
    _log.warning("%s will be empty: %s", what, reason)
    return reason


def _load_lpips(device: torch.device) -> Distance:
    image = importlib.import_module("torchmetrics.image.lpip")
    models = importlib.import_module("torchvision.models")
    _have(str(models.AlexNet_Weights.DEFAULT.url))
    metric = image.LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).to(device)

    def measure(colored: Tensor, true: Tensor) -> Tensor:
        value: Tensor = metric(colored, true)
        metric.reset()
        return value

    return measure


def _load_inception(device: torch.device) -> nn.Module:
    fid = importlib.import_module("torchmetrics.image.fid")
    fidelity = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    _have(fidelity.URL_INCEPTION_V3)
    network: nn.Module = fid.FrechetInceptionDistance(feature=2048).inception
    return network.to(device)


def _have(url: str) -> Path:
    """Put the weights where their library looks for them, checked by the checksum in their name.

    DownloadError when they cannot be had; the library itself must never begin a download.
    """
    name = url.rsplit("/", 1)[-1]
    found = re.search(r"-([0-9a-f]{8,})\.", name)
    if found is None:
        raise DownloadError(
            f"address of weights must hold their checksum, got {url}; use the versions of {INSTALL}"
        )
    target = Path(torch.hub.get_dir()) / "checkpoints" / name
    return fetch(url, target, found.group(1), timeout=_TIMEOUT, retries=_RETRIES)
