"""Participants of studies, simulated: each system fools them with a known probability."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gancolor.evaluation.study_answers import StudyProtocol

PROTOCOL = StudyProtocol(
    form="pairs",
    systems=("gray", "a", "b"),
    pictures="0" * 64,
    practice=2,
    vigilance=4,
    scored=30,
    wait_ms=900,
    show_ms=1000,
    gap_ms=600,
    size=64,
    seed=0,
)


def simulate(
    path: Path,
    rates: Mapping[str, float],
    rng: np.random.Generator,
    *,
    protocol: StudyProtocol = PROTOCOL,
    pictures: Sequence[str] = (),
    attentive: bool = True,
    **changes: Any,
) -> Path:
    """Save the answers of somebody whom each system fools with a known probability. `pictures`: the
    names of those that are shown, by default made up.
    """
    systems = [*protocol.shown_systems] * protocol.scored
    trials: list[dict[str, Any]] = []
    plan = [("practice", protocol.systems[0])] * protocol.practice
    plan += [("vigilance", "obvious")] * protocol.vigilance
    plan += [("scored", system) for system in systems[: protocol.scored]]
    for number, (phase, system) in enumerate(plan):
        fooled = not attentive if phase == "vigilance" else rng.random() < rates[system]
        trial: dict[str, Any] = {
            "phase": phase,
            "system": system,
            "picture": pictures[number] if pictures else f"{number:03d} p.jpg",
        }
        if protocol.form == "pairs":
            fake = str(rng.choice(["first", "second"]))
            other = {"first": "second", "second": "first"}[fake]
            trial |= {"fake": fake, "answer": other if fooled else fake, "shown_ms": [1000, 1017]}
        else:
            trial |= {"answer": "real" if fooled else "fake"}
        trials.append(trial)
    content = {
        "gancolor_study": 1,
        "protocol": asdict(protocol),
        "participant": path.stem,
        "trials": trials,
    }
    path.write_text(json.dumps(content | changes))
    return path
