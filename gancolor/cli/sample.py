"""`gancolor sample`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from gancolor.cli.places import device_option, find_runs, free_png, precision_option, runs_root_option
from gancolor.errors import ConfigError, DataError, GancolorError

if TYPE_CHECKING:
    from gancolor.colorizer import Colorizer, Picture


class Job(NamedTuple):
    """A picture to read and where its colours go."""

    source: Path
    target: Path


@click.command("sample")
@click.argument("inputs", nargs=-1, type=click.Path(path_type=Path), metavar="[INPUT]...")
@click.option("--run", help="Run by path, name or number, or a checkpoint file (default: the newest run).")
@runs_root_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the results (default: the run's samples/; needed with INPUT).",
)
@click.option(
    "--size",
    type=click.IntRange(min=16),
    help="Shorter side at which the network sees a picture (default: its training size).",
)
@click.option(
    "--split",
    type=click.Choice(["test", "val", "train", "all"]),
    default="test",
    show_default=True,
    help="Which of the run's pictures to colour when no INPUT is given.",
)
@click.option("--count", type=click.IntRange(min=1), default=16, show_default=True, help="How many of them.")
@click.option("--dataset", help="Another set or folder to take them from.")
@click.option(
    "--datasets-root",
    type=click.Path(path_type=Path),
    help="Where named sets live (default: the run's own, else $GANCOLOR_DATASETS, else ./datasets).",
)
@click.option("--quality", type=click.IntRange(1, 100), default=95, show_default=True, help="Of JPEG and WebP files.")
@device_option
@precision_option
def command(
    inputs: tuple[Path, ...],
    run: str | None,
    runs_root: str | None,
    out: Path | None,
    size: int | None,
    split: str,
    count: int,
    dataset: str | None,
    datasets_root: Path | None,
    quality: int,
    device: str,
    precision: str,
) -> None:
    """Colour pictures, or show what a run does on pictures it never saw.

    \b
    gancolor sample                        the newest run on its held-out pictures: gray | predicted | original
    gancolor sample old/ --out new/        a folder, its tree mirrored in new/
    gancolor sample a.jpg b.png --out new/ --run 7

    Pictures keep their size and their own lightness. One broken picture does not stop the others; the exit code is
    then 1.
    """
    jobs = plan(inputs, out) if inputs else []
    from gancolor.colorizer import Colorizer

    (found,) = find_runs([run], runs_root)
    colorizer = Colorizer.load(found, device=device, precision=precision)
    if inputs:
        failed = _color_files(colorizer, jobs, size, quality)
    else:
        folder = out or (found.parent if found.is_file() else found) / "samples"
        failed = _show_held_out(colorizer, folder, split, count, dataset, datasets_root, size)
    if failed:
        click.echo(f"{len(failed)} failed:", err=True)
        for line in failed:
            click.echo(f"  {line}", err=True)
        sys.exit(1)


def plan(inputs: tuple[Path, ...], out: Path | None) -> list[Job]:
    """What to read and where to write; the tree of a folder is mirrored. ConfigError before anything is written."""
    from gancolor.data.folder import find_pictures

    if out is None:
        raise ConfigError("--out must name a folder when pictures are given, got none; for example --out colored")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out must be a folder, got the file {out}")
    target_root = out.resolve()
    folders = [path for path in inputs if path.is_dir()]
    jobs = []
    for path in inputs:
        if not path.is_dir():
            jobs.append(Job(path, out / path.name))
            continue
        if path.resolve() == target_root:
            raise ConfigError(f"--out must not be the input folder, got {out}; the originals would be overwritten")
        mirrored = out / path.resolve().name if len(folders) > 1 else out
        names = [name for name in find_pictures(path) if target_root not in (path / name).resolve().parents]
        if not names:
            raise DataError(f"{path} must hold pictures, got none that gancolor reads (JPEG, PNG, WebP, BMP, TIFF)")
        jobs += [Job(path / name, mirrored / name) for name in names]
    _refuse_collisions(jobs)
    return jobs


def _refuse_collisions(jobs: list[Job]) -> None:
    sources = {job.source.resolve() for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in sources:
            raise ConfigError(f"--out must not overwrite an input, got {job.target}; choose another folder")
        if target in taken:
            raise ConfigError(
                f"inputs must have different names, got {taken[target]} and {job.source}; "
                "colour them one folder at a time"
            )
        taken[target] = job.source


def _color_files(colorizer: Colorizer, jobs: list[Job], size: int | None, quality: int) -> list[str]:
    from tqdm import tqdm

    from gancolor import images

    failed = []
    bar = tqdm(jobs, unit="picture", disable=not sys.stderr.isatty(), dynamic_ncols=True)
    for job in bar:
        try:
            if job.target.suffix.lower() not in images.SUFFIXES:
                raise DataError(f"{job.source} must be a JPEG, PNG, WebP, BMP or TIFF file by its name")
            colored = colorizer(job.source, size=size)
            _make_folder(job.target.parent)
            images.write_rgb(job.target, colored, quality)
        except GancolorError as error:
            failed.append(str(error))
            bar.write(f"failed: {error}", file=sys.stderr)
    click.echo(f"{len(jobs) - len(failed)} of {len(jobs)} pictures coloured")
    return failed


def _show_held_out(
    colorizer: Colorizer,
    folder: Path,
    split: str,
    count: int,
    dataset: str | None,
    datasets_root: Path | None,
    size: int | None,
) -> list[str]:
    from gancolor import images
    from gancolor.data.folder import open_source

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
    _make_folder(folder)
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
        click.echo(f"{len(rows)} {split} pictures coloured; look at {folder / 'sheet.png'}")
    return failed


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder} must be a writable folder, got '{error.strerror}'; choose another with --out"
        ) from error
