"""What a dataset holds, for the terminal and as a picture: counts, sizes, colours, licence, and what
to mind.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gancolor import charts, tables
from gancolor.data import facts, info_page
from gancolor.data.dataset import open_source
from gancolor.data.doctor.rules import REASONS, Rules
from gancolor.data.facts import Facts
from gancolor.data.info_page import Sample, look_at
from gancolor.data.manifest import MANIFEST, read_cells, unreadable
from gancolor.data.shard_lookup import ShardSource
from gancolor.data.source import SPLITS, PictureSource, Split
from gancolor.data.still_life.composition import StillLife
from gancolor.errors import DataError, shown

_PAINTED = 128  # pixels: side of pictures that are painted to be looked at
_FEW, _TINY = 100, 128  # training pictures; pixels of the shorter side
_GRAY_SHARE = 0.1  # of all pictures; the share of ImageNet that makes colorizers gray
# The colours' mean over their deviation: 0.1 to 0.8 in sets of photographs, 2 and more where all
# have one tone.
_ONE_TONE, _TINT = 1.5, 5.0  # the latter in CIE units
_REMEDY = "gancolor data prepare finds such pictures and leaves them out"
_BAR = 40  # letters of the longest bar of the histogram


@dataclass(frozen=True, kw_only=True)
class Information:
    """A dataset at a glance. `text()` and `picture()` show it.

    `splits`: pictures of train, val and test; `rejected`: pictures that the manifest leaves out, by
    reason. `sizes`: (N, 2) width and height of all pictures where the manifest knows them, else of
    the `sample`; none in a painted set. `weight`: bytes of all files together, estimated from the
    sample; 0 where that is not known. `gray`: (N,) which pictures of the sample `rules` call gray.
    `warnings`: sentences.
    """

    facts: Facts
    splits: dict[str, int]
    rejected: dict[str, int]
    sizes: NDArray[np.int64]
    weight: int
    sample: Sample
    gray: NDArray[np.bool_]
    rules: Rules
    warnings: tuple[str, ...]

    @property
    def pictures(self) -> int:
        """How many pictures training may use, over all splits."""
        return sum(self.splits.values())

    def text(self) -> str:
        """Tables and lines for the terminal."""
        parts = [self._head(), self._counts(), self._sizes(), self._colours(), self._histogram()]
        parts.append("\n".join(f"warning: {warning}" for warning in self.warnings))
        return "\n\n".join(part for part in parts if part)

    def picture(self) -> bytes:
        """A PNG file with a few of the pictures and charts of colorfulness, colours, sizes and
        counts.
        """
        title = f"{self.facts.name}: {self.pictures:,} pictures"
        figure = info_page.draw(
            title, self.warnings, self.sample, self.sizes, self.splits, self.rejected, self.gray
        )
        return charts.to_png(figure, 100)

    def _head(self) -> str:
        known = self.facts
        cells = {
            "folder": str(known.folder or ""),
            "made": known.made,
            "sources": ", ".join(known.sources),
            "licence": known.licence,
        }
        lines = [f"{key:<8} {shown(value)}" for key, value in cells.items() if value]
        titled = known.title not in ("", known.name)
        return "\n".join([f"{known.name}: {known.title}" if titled else known.name, *lines])

    def _counts(self) -> str:
        counts = self.splits | {"all": self.pictures}
        rows: list[tables.TableRow] = [
            {"split": split, "pictures": count, "%": _percent(count, self.pictures)}
            for split, count in counts.items()
        ]
        text = tables.terminal(rows, digits=1)
        if not self.rejected:
            return text
        found = [
            {"rejected": key, "pictures": n, "why": REASONS.get(key, "")}
            for key, n in self.rejected.items()
        ]
        return f"{text}\n\n{tables.terminal(found)}"

    def _sizes(self) -> str:
        if not len(self.sizes):
            return "sizes: painted at any size"
        figures = {
            "width": self.sizes[:, 0],
            "height": self.sizes[:, 1],
            "shorter side": self.sizes.min(axis=1),
        }
        if len(self.sample.weights):
            figures["KB of a file"] = (self.sample.weights + 500) // 1000
        marks = {"least": 0, "5 %": 5, "median": 50, "95 %": 95, "most": 100}
        text = tables.terminal(
            [
                {"size": name}
                | {mark: round(float(np.percentile(values, at))) for mark, at in marks.items()}
                for name, values in figures.items()
            ]
        )
        return text + (f"\nall files: about {_amount(self.weight)}" if self.weight else "")

    def _colours(self) -> str:
        a, b = self.sample.center
        mean = float(self.sample.colorfulness.mean())
        values = {
            "lightness": f"mean L* {self.sample.lab[:, 0].mean():.1f}",
            "colours": (
                f"mean a* {tables.number(a, 1)}, b* {tables.number(b, 1)}; deviation"
                f" {self.sample.reach:.1f}; mean chroma {self.sample.chroma.mean():.1f}"
            ),
            "colorfulness": f"mean {mean:.1f}, {charts.describe(mean)}",
            "gray or nearly": (
                f"{100 * self.gray.mean():.1f} % ({self.rules.conditions()['gray']})"
            ),
        }
        every = len(self.sample) + self.sample.broken >= self.pictures
        lines = ["of all pictures:" if every else f"of {len(self.sample)} evenly chosen pictures:"]
        return "\n".join([*lines, *(f"{key:<14}  {value}" for key, value in values.items())])

    def _histogram(self) -> str:
        counts = Counter(map(charts.describe, self.sample.colorfulness.tolist()))
        words = [charts.describe(value) for value in charts.COLORFULNESS_SCALE]
        most = max(counts.values())
        return tables.terminal(
            [
                {
                    "colorfulness": f"{word} (about {value})",
                    "%": _percent(counts[word], len(self.sample)),
                    "": "#" * round(_BAR * counts[word] / most),
                }
                for value, word in zip(charts.COLORFULNESS_SCALE, words, strict=True)
            ],
            digits=1,
        )


def describe(
    dataset: str, datasets_root: Path | str | None = None, pictures: int = 1000
) -> Information:
    """Describe a dataset by its name, its folder, or a pattern of shards: as `open_source` finds it.

    Colours are those of so many evenly chosen `pictures`, so that the time hardly grows with the
    set. DataError if the set is missing, empty, or none of the chosen pictures can be read.
    """
    whole = open_split(dataset, "all", datasets_root)
    known = facts.find(dataset, datasets_root)
    listed = read_manifest(known.folder)
    splits = count_splits(dataset, datasets_root, listed)
    sample = look_at(whole, pictures)
    painted = isinstance(whole, StillLife)
    sizes = listed.sizes if len(listed.sizes) or painted else sample.sizes
    rules = Rules()
    gray = np.array(
        [
            rules.is_gray(*figures)
            for figures in zip(sample.chroma, sample.colorfulness, strict=True)
        ]
    )
    return Information(
        facts=known,
        splits=splits,
        rejected=listed.rejected,
        sizes=sizes,
        weight=_weigh(whole, sample),
        sample=sample,
        gray=gray,
        rules=rules,
        warnings=(*known.troubles, *_warn(splits, sizes, sample, gray)),
    )


def _weigh(whole: PictureSource, sample: Sample) -> int:
    if isinstance(whole, ShardSource):
        return sum(shard.bytes for shard in whole.shards)
    return round(float(sample.weights.mean()) * len(whole)) if len(sample.weights) else 0


def _warn(
    splits: dict[str, int], sizes: NDArray[np.int64], sample: Sample, gray: NDArray[np.bool_]
) -> list[str]:
    """What to mind when training on the dataset, in sentences."""
    warnings = []
    if splits["train"] < _FEW:
        warnings.append(
            f"{splits['train']} pictures to train on are few: what learns from them colours these"
            " pictures and hardly others; some hundreds are a beginning"
        )
    if gray.mean() >= _GRAY_SHARE:
        warnings.append(
            f"{100 * gray.mean():.0f} % of the pictures are gray or nearly, and what learns from"
            f" them paints gray; {_REMEDY}"
        )
    a, b = sample.center
    if np.hypot(a, b) > max(_TINT, _ONE_TONE * sample.reach):
        warnings.append(
            f"nearly all colours lie around one tone (a* {a:.0f}, b* {b:.0f}), as those of sepia"
            f" do, and what learns from them paints that tone; {_REMEDY}"
        )
    if len(sizes) and np.median(sizes.min(axis=1)) < _TINY:
        warnings.append(
            f"half of the pictures or more have a shorter side below {_TINY} pixels, and training"
            " enlarges those below --image-size; choose a small one, or larger pictures"
        )
    if sample.broken:
        warnings.append(
            f"{sample.broken} of {sample.broken + len(sample)} evenly chosen pictures cannot be"
            f" read; {_REMEDY}"
        )
    return warnings


@dataclass(frozen=True, kw_only=True)
class ManifestCounts:
    """What a manifest lists: `rejected` pictures by reason, kept ones by split ("" for those with
    none).

    `sizes`: (N, 2) width and height of the kept ones in pixels; none unless every row has them.
    """

    rejected: dict[str, int]
    splits: Counter[str]
    sizes: NDArray[np.int64]


def open_split(dataset: str, split: Split, datasets_root: Path | str | None) -> PictureSource:
    """Open a dataset as training does; pictures that are painted are small."""
    return open_source(dataset, split, datasets_root=datasets_root, image_size=_PAINTED)


def read_manifest(root: Path | None) -> ManifestCounts:
    """Count what the manifest of a folder lists; nothing without one. DataError if it cannot be
    read.

    Row by row: each costs 16 bytes of memory.
    """
    rejected, splits, sides = Counter[str](), Counter[str](), array("q")
    path = root / MANIFEST if root else None
    if path and os.path.lexists(path) and not path.is_dir():
        try:
            for _, cells in read_cells(path, "split", "reject", "width", "height"):
                split, reject, width, height = map(str.strip, cells)
                if reject:
                    rejected[reject] += 1
                else:
                    splits[split] += 1
                    sides.extend((int(width or 0), int(height or 0)))
        except ValueError as error:
            raise unreadable(path, error) from None
    sizes = np.array(sides, np.int64).reshape(-1, 2)
    order = [*REASONS, *sorted(set(rejected) - set(REASONS))]
    return ManifestCounts(
        rejected={reason: rejected[reason] for reason in order if rejected[reason]},
        splits=splits,
        sizes=sizes if sizes.all() else sizes[:0],
    )


def count_splits(
    dataset: str, datasets_root: Path | str | None, listed: ManifestCounts
) -> dict[str, int]:
    """Pictures of each split; one that only borrows another's pictures has none of its own."""
    counts, firsts = dict.fromkeys(SPLITS, 0), set[str]()
    splits: list[Split] = ["train", "val", "test"]
    # One that the manifest lists no pictures of is the one that borrows: it comes later.
    for split in sorted(splits, key=lambda split: (split != "train", not listed.splits[split])):
        try:
            source = open_split(dataset, split, datasets_root)
        except DataError:  # nothing to train on: told by the count
            continue
        if isinstance(source, ShardSource):  # a name would have to be fetched
            counts[split] = len(source) * (source.split == split)
            continue
        if source.name(0) not in firsts:
            counts[split] = len(source)
        firsts.add(source.name(0))
    return counts


def _percent(part: int, whole: int) -> float:
    return 100 * int(part) / max(whole, 1)


def _amount(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
