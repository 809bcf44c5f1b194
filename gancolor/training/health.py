"""Watches a run and says in words what is wrong, what was done about it, or what to try."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

WINDOW = 50
"""Steps; fixed, so that what the check does never depends on how often the run is logged."""

_LOWEST_LR = 1e-6
_PATIENCE = 3  # windows in a row before something is done or said again

_log = logging.getLogger("gancolor")


class Health:
    """Collects the statistics of each step and gives a verdict every `WINDOW` steps.

    With `rescue`, a discriminator that wins outright for three windows has its learning rate halved
    (down to 1e-6).
    """

    def __init__(self, *, rescue: bool) -> None:
        self.rescue = rescue
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.streaks: dict[str, int] = {}

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers; part of the checkpoint, since `rescue` changes the run."""
        return {"sums": dict(self.sums), "counts": dict(self.counts), "streaks": dict(self.streaks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s numbers. ValueError for others."""
        sums, counts, streaks = (dict(state[name]) for name in ("sums", "counts", "streaks"))
        whole = [*counts.values(), *streaks.values()]
        if not all(isinstance(x, int | float) for x in sums.values()) or not all(
            type(x) is int for x in whole
        ):
            raise ValueError("numbers of the health check")
        if sums.keys() != counts.keys() or 0 in counts.values():
            raise ValueError("counts of the health check")
        self.sums, self.counts, self.streaks = sums, counts, streaks

    def update(
        self, step: int, statistics: dict[str, float], optimizers: dict[str, Optimizer]
    ) -> list[str]:
        """Take in one step's statistics; at a window's end return the verdicts in words (often
        none).
        """
        for name, value in statistics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        if (step + 1) % WINDOW:
            return []
        means = {name: self.sums[name] / self.counts[name] for name in self.sums}
        self.sums, self.counts = {}, {}
        return [
            self._verdict(name, means, optimizers)
            for name, check in _CHECKS.items()
            if self._persists(name, check(means))
        ]

    def _persists(self, name: str, present: bool) -> bool:
        self.streaks[name] = self.streaks.get(name, 0) + 1 if present else 0
        return present and self.streaks[name] % _PATIENCE == 0

    def _verdict(self, name: str, means: dict[str, float], optimizers: dict[str, Optimizer]) -> str:
        words = {key: f"{value:.3g}" for key, value in means.items()}
        if name in _OF_MAPS:
            words["maps"] = " and ".join(_OF_MAPS[name](means))
        said = _WORDS[name].format_map(words)
        if name == "saturated":
            return f"{said}; {self._slow_down(optimizers)}"
        return said

    def _slow_down(self, optimizers: dict[str, Optimizer]) -> str:
        if not self.rescue:
            return "try a lower --discriminator-lr, --label-smoothing 0.1 or --instance-noise 0.1"
        group = optimizers["discriminator"].param_groups[0]
        before = group["initial_lr"]  # from which the schedule makes the rate of each step
        group["initial_lr"] = max(_LOWEST_LR, before / 2)
        if group["initial_lr"] == before:
            return f"its learning rate is at its floor of {before:.1e}; try --instance-noise 0.1"
        return (
            f"its learning rate was halved to {group['initial_lr']:.1e} (--no-rescue to leave it)"
        )


def first_bad(terms: dict[str, float]) -> str | None:
    """The name of a term that is not a finite number, if there is one."""
    return next((name for name, value in terms.items() if not math.isfinite(value)), None)


def _saturated(means: dict[str, float]) -> bool:
    if means.get("d_accuracy", 0) <= 0.98:
        return False
    # Spectral norm keeps the logits of maps small however right they are.
    return bool(_maps(means)) or (means.get("d_real", 0) > 0.9 and means.get("d_fake", 1) < 0.1)


def _gives_up(means: dict[str, float]) -> bool:
    return "d_real" in means and abs(means["d_real"] - means["d_fake"]) < 0.002


def _gray(means: dict[str, float]) -> bool:
    return "ab_spread" in means and means["ab_spread"] < 0.1 * means["ab_truth_spread"]


def _sepia(means: dict[str, float]) -> bool:
    if "ab_spread" not in means or _gray(means):
        return False
    off = (
        means["ab_offset"] > 1.5 * means["ab_truth_offset"]
        and means["ab_offset"] > means["ab_spread"]
    )
    return off and means["ab_spread"] < 0.5 * means["ab_truth_spread"]


def _exploding(means: dict[str, float]) -> bool:
    return any(value > 1e4 for name, value in means.items() if name.startswith("grad_norm"))


def _winning_maps(means: dict[str, float]) -> list[str]:
    """The discriminator's maps that tell nearly every place, where the others do not."""
    if means.get("d_accuracy", 1) > 0.9:
        return []
    return [name for name, right in _maps(means).items() if right > 0.97]


def _blind_maps(means: dict[str, float]) -> list[str]:
    """The discriminator's maps that tell nothing, where the others tell something."""
    if means.get("d_accuracy", 0) < 0.55:
        return []
    return [name for name, right in _maps(means).items() if right < 0.505]


def _maps(means: dict[str, float]) -> dict[str, float]:
    prefix = "d_accuracy/"
    return {
        key.removeprefix(prefix): value for key, value in means.items() if key.startswith(prefix)
    }


_OF_MAPS = {"winning_map": _winning_maps, "blind_map": _blind_maps}
_CHECKS: dict[str, Callable[[dict[str, float]], bool]] = {
    "saturated": _saturated,
    "gives_up": _gives_up,
    "winning_map": lambda means: bool(_winning_maps(means)),
    "blind_map": lambda means: bool(_blind_maps(means)),
    "gray": _gray,
    "sepia": _sepia,
    "exploding": _exploding,
}
_WORDS = {
    "saturated": (
        "the discriminator wins outright (accuracy {d_accuracy}, D(real) {d_real}, D(fake)"
        " {d_fake})"
    ),
    "gives_up": (
        "the discriminator gives up (D(real) {d_real}, D(fake) {d_fake}); "
        "try a higher --discriminator-lr or a lower --dropout"
    ),
    "winning_map": (
        "the discriminator tells real from fake by {maps} alone; TensorBoard's picture 'validation'"
        " shows where; a higher --perceptual or a lower --discriminator-lr helps the generator to"
        " follow"
    ),
    "blind_map": "the discriminator's {maps} tells nothing; this is usual early on",
    "gray": (
        "the generator paints gray (spread of ab {ab_spread}, truth {ab_truth_spread}); more steps,"
        " another --lr (a lower one in a fusion network), or pictures that are not gray themselves"
        " help"
    ),
    "sepia": (
        "the generator paints sepia (ab off-centre by {ab_offset}, truth {ab_truth_offset}; "
        "spread {ab_spread}, truth {ab_truth_spread}); this is usual early on; "
        "if it stays, try more steps or a higher --adversarial-weight"
    ),
    "exploding": "gradients are very large; try --clip 1 or a lower --lr",
}
