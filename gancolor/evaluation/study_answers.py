"""A study with people: what its page shows and for how long, and what the answers say.

The question is the one of Zhang, Isola and Efros (2016): how often is a picture that a system has
coloured taken for the real one? `study_page` makes the page.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gancolor.errors import ConfigError, DataError, shown
from gancolor.runtime.files import read_regular

FORMS = ("pairs", "single")
"""pairs: a real and a coloured picture one after the other, which one is the fake? single: one
picture without a limit of time, real or fake?
"""

TRUTH = "truth"
"""The name under which a real picture is shown in a study of the form `single`."""

PHASES = ("practice", "vigilance", "scored")
"""What trials are for; a protocol says how many there are of each."""

LEAST_VIGILANCE = 0.75
"""Share of the obvious fakes that a participant must see through; who does not is left out."""

RESAMPLES = 10_000  # of the bootstrap

PUBLISHED = (
    {
        "system": "koalarization (Baldassarre et al. 2017)",
        "fool rate %": 45.87,
        "protocol": "one picture at a time, 'Fake or real?'; 9 recoloured pictures picked from the"
        " best results among 12; 41 people",
    },
    {
        "system": "Zhang et al. 2016, full method",
        "fool rate %": 32.0,
        "protocol": "pairs of real and coloured, 1 s each; 10 pairs of practice, 50 that count;"
        " pictures of ImageNet that were not picked",
    },
)
"""What papers report; of other pictures and other people, so to be read and not to be compared."""

_VERSION = 1
_SLOW = 0.2  # share by which a picture may have been shown longer or shorter than the protocol says
_FRAMES = 34.0  # ms: two frames of a screen, which no browser can promise
_CHUNK = 500  # resamples at a time: bounds memory
_WHAT = "answers to a study, as its page saves them"


@dataclass(frozen=True)
class StudyProtocol:
    """What all participants of a study have in common.

    `form`: one of `FORMS`. `systems`: what coloured the pictures, `gray` among them as the floor.
    `pictures`: a digest of the pictures. `practice`, `vigilance`, `scored`: numbers of trials with
    feedback, with obvious fakes, and that count. `wait_ms`, `show_ms`, `gap_ms`: milliseconds
    before the first picture, of each, and between the two. `size`: side of a picture in pixels.
    `seed`: of what is drawn, together with each participant's own.
    """

    form: str
    systems: tuple[str, ...]
    pictures: str
    practice: int
    vigilance: int
    scored: int
    wait_ms: int
    show_ms: int
    gap_ms: int
    size: int
    seed: int

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(f"--form must be one of {', '.join(FORMS)}, got {self.form}")
        if self.scored < len(self.shown_systems):
            raise ConfigError(
                f"--trials must be at least {len(self.shown_systems)}, so that everybody sees every"
                f" system, got {self.scored}"
            )

    @property
    def shown_systems(self) -> tuple[str, ...]:
        """The systems that a scored trial may show; real pictures alone too in the form `single`."""
        return (*self.systems, TRUTH) if self.form == "single" else self.systems

    @property
    def trials(self) -> int:
        """How many trials a participant takes, each with a picture of its own."""
        return self.practice + self.vigilance + self.scored

    @property
    def digest(self) -> str:
        """16 hex digits that differ whenever anything of the protocol does."""
        text = json.dumps({"version": _VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Trial:
    """One answered trial. `fooled`: whether what was coloured (or real, of `TRUTH`) was taken for
    real.
    """

    phase: str
    picture: str
    system: str
    fooled: bool
    on_time: bool


@dataclass(frozen=True)
class Participant:
    """The answers of one person, who is known by a random number alone."""

    name: str
    protocol: StudyProtocol
    trials: tuple[Trial, ...]

    @property
    def vigilance(self) -> float | None:
        """The share of obvious fakes that were seen through; None where none was shown."""
        seen = [not trial.fooled for trial in self.trials if trial.phase == "vigilance"]
        return sum(seen) / len(seen) if seen else None


@dataclass(frozen=True)
class Score:
    """What the answers say. `rows`: a row for each system. `preferences`: P(A > B), the share of
    resamples in which A fools more often than B. `pictures`: a row for each picture. `notes`: who
    and what was left out, and why.
    """

    protocol: StudyProtocol
    participants: int
    rows: list[dict[str, Any]]
    preferences: list[dict[str, Any]]
    pictures: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def find(paths: Sequence[Path]) -> list[Path]:
    """Files of answers: the files among `paths`, and those of the folders that end in .json, by
    name. DataError for a folder without any.
    """
    found: list[Path] = []
    for path in paths:
        try:
            inside = sorted(path.glob("[!.]*.json")) if path.is_dir() else [path]
        except OSError as error:
            raise DataError(
                f"{shown(path)} must be a folder that can be read, got an error"
                f" ({error.strerror or error})"
            ) from error
        if not inside:
            raise DataError(f"{shown(path)} must hold answers to a study (.json), got none")
        found += inside
    return found


def read(path: Path) -> Participant:
    """A participant's answers, as the page saves them. DataError for any other file."""
    try:
        data = read_regular(path)
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(f"{shown(path)} must hold {_WHAT}, got an error ({reason})") from error
    return parse(data, shown(path))


def parse(data: bytes, name: str) -> Participant:
    """A participant's answers from what the page saves. DataError, which says `name`, for others."""
    try:
        content = json.loads(data.decode("utf-8"))
        if content["gancolor_study"] != _VERSION:
            raise DataError(
                f"{name} must be of version {_VERSION} of the study, got"
                f" {content['gancolor_study']!r:.40}; score it with the gancolor that made the page"
            )
        protocol = protocol_of(content["protocol"])
        trials = tuple(_trial(item, protocol) for item in content["trials"])
        return Participant(str(content["participant"]), protocol, trials)
    except (ConfigError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = shown(" ".join(str(error).split()) or type(error).__name__, 200)
        raise DataError(f"{name} must hold {_WHAT}, got something else ({reason})") from error


def protocol_of(about: Mapping[str, Any]) -> StudyProtocol:
    """The protocol that a page or answers state. ConfigError, KeyError, TypeError or ValueError for
    what is none.
    """
    return StudyProtocol(**{**about, "systems": tuple(about["systems"])})


def _trial(item: Mapping[str, Any], protocol: StudyProtocol) -> Trial:
    phase, system, answer = item["phase"], item["system"], item["answer"]
    known = (*protocol.shown_systems, TRUTH, "obvious")
    if phase not in PHASES or system not in known:
        raise ValueError(f"a trial of {phase!r} with {system!r}")
    if protocol.form == "single":
        if answer not in ("real", "fake"):
            raise ValueError(f"the answer {answer!r}")
        return Trial(phase, str(item["picture"]), system, answer == "real", True)
    if answer not in ("first", "second") or item["fake"] not in ("first", "second"):
        raise ValueError(f"the answer {answer!r} to {item['fake']!r}")
    allowed = _SLOW * protocol.show_ms + _FRAMES
    first, second = item["shown_ms"]
    on_time = all(abs(float(ms) - protocol.show_ms) <= allowed for ms in (first, second))
    return Trial(phase, str(item["picture"]), system, answer != item["fake"], on_time)


def score(paths: Sequence[Path], *, seed: int = 0, resamples: int = RESAMPLES) -> Score:
    """Score the answers in these files, all of one protocol.

    A system's fool rate is the share of its scored trials in which it was taken for real: 50 % of
    pairs is perfect, 0 % fools nobody. Left out, with a note each: who answered twice (the later
    file), who did not finish, who saw through less than `LEAST_VIGILANCE` of the obvious fakes;
    and single trials whose pictures stood too long or too short on the screen. The 95 % intervals
    are of a bootstrap of two levels: people are drawn first, then trials of each. DataError for a
    file that is none of a study's, for files of different protocols, and when nobody is left.
    """
    people: list[Participant] = []
    notes: list[str] = []
    first: tuple[Path, StudyProtocol] | None = None
    for path in paths:
        person = read(path)
        first = first or (path, person.protocol)
        if person.protocol != first[1]:
            raise DataError(
                f"answers must be of one protocol, got {first[1].digest} in {shown(first[0])} and"
                f" {person.protocol.digest} in {shown(path)}; score them apart"
            )
        if reason := _unfit(person, people):
            notes.append(f"{shown(path)} left out: {reason}")
        else:
            people.append(person)
    if first is None or not people:
        raise DataError(
            "answers must include a participant that can be scored, got none"
            + "".join(f"; {note}" for note in notes)
        )
    late = sum(
        not trial.on_time for person in people for trial in person.trials if _counts(trial.phase)
    )
    if late:
        notes.append(
            f"{late} trials left out: a picture stood on the screen more than {_SLOW:.0%} longer or"
            " shorter than it should"
        )
    protocol = first[1]
    shown_counts, fooled = _count(people, protocol.shown_systems)
    rates = _resample(shown_counts, fooled, seed, resamples)
    rows = []
    for at, system in enumerate(protocol.shown_systems):
        low, high = np.percentile(rates[:, at], (2.5, 97.5)) * 100
        rate = 100 * fooled[:, at].sum() / max(shown_counts[:, at].sum(), 1)
        trials = int(shown_counts[:, at].sum())
        rows.append(
            {
                "system": system,
                "fool rate %": float(rate),
                "low": float(low),
                "high": float(high),
                "trials": trials,
            }
        )
    return Score(
        protocol,
        len(people),
        rows,
        _preferences(protocol.shown_systems, rates),
        _by_picture(people, protocol.shown_systems),
        notes,
    )


def _counts(phase: str) -> bool:
    return phase == "scored"


def _unfit(person: Participant, before: Sequence[Participant]) -> str | None:
    """Why a participant's answers do not count; None if they do."""
    if any(person.name == other.name for other in before):
        return "the same participant as in an earlier file"
    if len(person.trials) != person.protocol.trials:
        return f"{len(person.trials)} of {person.protocol.trials} trials were answered"
    seen = person.vigilance
    if seen is not None and seen < LEAST_VIGILANCE:
        return f"{seen:.0%} of the obvious fakes were seen through, less than {LEAST_VIGILANCE:.0%}"
    return None


def _count(
    people: Sequence[Participant], systems: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often each participant saw each system and was fooled by it, (P, S) each."""
    seen, fooled = np.zeros((2, len(people), len(systems)), np.int64)
    for row, person in enumerate(people):
        for trial in person.trials:
            if _counts(trial.phase) and trial.on_time:
                at = systems.index(trial.system)
                seen[row, at] += 1
                fooled[row, at] += trial.fooled
    return seen, fooled


def _resample(
    seen: NDArray[np.int64], fooled: NDArray[np.int64], seed: int, resamples: int
) -> NDArray[np.float64]:
    """Fool rates of resamples, (R, S): people are drawn with replacement, then each one's trials.

    To draw n trials of which k fooled, with replacement, is to draw from the binomial distribution
    of n and k / n.
    """
    rng = np.random.default_rng(seed)
    share = fooled / np.maximum(seen, 1)
    rates = []
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        people = rng.integers(len(seen), size=(count, len(seen)))
        drawn = rng.binomial(seen[people], share[people]).sum(1)  # (count, S)
        rates.append(drawn / np.maximum(seen[people].sum(1), 1))
    return np.concatenate(rates)


def _preferences(systems: Sequence[str], rates: NDArray[np.float64]) -> list[dict[str, Any]]:
    """P(A > B) of each pair of systems; resamples in which both are equal count half."""
    rows: list[dict[str, Any]] = []
    for a, system in enumerate(systems):
        row: dict[str, Any] = {"P(row > column)": system}
        for b, other in enumerate(systems):
            more = (rates[:, a] > rates[:, b]).mean() + 0.5 * (rates[:, a] == rates[:, b]).mean()
            row[other] = None if a == b else float(more)
        rows.append(row)
    return rows


def _by_picture(people: Sequence[Participant], systems: Sequence[str]) -> list[dict[str, Any]]:
    """How often each picture fooled, by system, as "fooled of shown"; the most fooling first."""
    counts: dict[str, dict[str, list[int]]] = {}
    for person in people:
        for trial in person.trials:
            if _counts(trial.phase) and trial.on_time:
                cell = counts.setdefault(trial.picture, {}).setdefault(trial.system, [0, 0])
                cell[0] += trial.fooled
                cell[1] += 1

    def rate(cells: Mapping[str, Sequence[int]]) -> float:
        own = [cell for system, cell in cells.items() if system != TRUTH] or [[0, 1]]
        return sum(cell[0] for cell in own) / sum(cell[1] for cell in own)

    ordered = sorted(counts, key=lambda picture: (-rate(counts[picture]), picture))
    return [
        {"picture": picture}
        | {
            system: "{} of {}".format(*counts[picture][system])
            if system in counts[picture]
            else None
            for system in systems
        }
        for picture in ordered
    ]


def lines(protocol: StudyProtocol) -> list[str]:
    """The protocol in words, one line a fact."""
    how = {
        "pairs": f"a real and a coloured picture one after the other, {protocol.show_ms} ms each,"
        f" {protocol.wait_ms} ms before and {protocol.gap_ms} ms between them; which one was"
        " coloured by a computer?",
        "single": "one picture without a limit of time; fake or real?",
    }
    return [
        f"protocol {protocol.digest}, seed {protocol.seed}: {how[protocol.form]}",
        f"trials of each participant: {protocol.practice} with feedback, {protocol.vigilance} with"
        f" obvious fakes, {protocol.scored} that count; every picture at most once, every system"
        f" equally often; pictures of {protocol.size} x {protocol.size} pixels, their digest"
        f" {protocol.pictures[:16]}",
    ]
