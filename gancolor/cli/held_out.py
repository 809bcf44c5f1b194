"""`gancolor sample` without inputs: what a run does on pictures it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gancolor.cli.places import free_png, make_folder
from gancolor.cli.saying import say
from gancolor.errors import GancolorError

if TYPE_CHECKING:
    from gancolor.colorizer import Colorizer, Picture


def show(
    colorizer: Colorizer,
    folder: Path,
    *,
    split: str,
    count: int,
    dataset: str | None,
    datasets_root: Path | None,
    size: int | None,
) -> list[str]:
    """Colour `count` pictures of a split, evenly chosen, into `folder`, with a contact sheet; returns what failed."""
    from gancolor import images
    from gancolor.data.dataset import open_source

    config = colorizer.config
    if datasets_root is None and config.datasets_root is not None:
        datasets_root = Path(config.datasets_root)
    source = open_source(
        dataset or config.dataset,
        split,  # type: ignore[arg-type]
        datasets_root=datasets_root,
        seed=config.seed,
        image_size=max(config.image_size, 128),
    )
    make_folder(folder)
    failed: list[str] = []
    taken = {"sheet.png"}
    rows: list[list[Picture]] = []
    count = min(count, len(source))
    for index in (i * len(source) // count for i in range(count)):
        try:
            truth = source.read(index)
            predicted = colorizer(truth, size=size)
            stem = Path(source.name(index)).with_suffix("").as_posix().replace("/", "-")
            images.write_rgb(folder / free_png(stem, taken), predicted)
            rows.append([colorizer.seen(truth), predicted, truth])
        except GancolorError as error:
            failed.append(str(error))
    if rows:
        first = "gray" if colorizer.condition == "gray" else "edges"
        images.write_rgb(folder / "sheet.png", images.sheet(rows, [first, "predicted", "original"]))
        say(f"{len(rows)} {split} pictures coloured; look at {folder / 'sheet.png'}")
    return failed
