"""`gancolor evaluate` and `gancolor compare`: the same figures, as tables or as a page to look at."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gancolor.cli.options import (
    device_option,
    feature_weights_option,
    find_models,
    free_png,
    precision_option,
    refuse_torchrun,
    runs_root_option,
    say,
)

if TYPE_CHECKING:
    from gancolor.evaluation.measurement import Shown


@click.command("evaluate")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--dataset",
    help="Name of a set, a folder or shards (default: what the runs were trained on).",
)
@click.option(
    "--split",
    type=click.Choice(["test", "val", "train", "all"]),
    default="test",
    show_default=True,
    help="Which pictures of the set.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("evaluation"),
    show_default=True,
    help="Folder for the results. Tables of an earlier evaluation there are replaced.",
)
@runs_root_option
@click.option(
    "--datasets-root",
    type=click.Path(path_type=Path),
    help=(
        "Folder of the named sets (default: the runs' own, else $GANCOLOR_DATASETS, else ./datasets)."
    ),
)
@click.option(
    "--size",
    type=click.IntRange(min=32),
    help="Side, in pixels, of the squares that are measured (default: the largest training size).",
)
@click.option(
    "--fit",
    type=click.Choice(["crop", "stretch"]),
    default="crop",
    show_default=True,
    help="How a picture becomes a square: by its largest centre square, or stretched.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Measure at most this many pictures, chosen evenly."
)
@click.option(
    "--truth/--no-truth",
    default=None,
    help="Compare with the pictures' own colours (default: yes, unless all are nearly gray).",
)
@click.option(
    "--save-pictures",
    is_flag=True,
    help=(
        "Write the coloured squares into pictures/RUN/ in the folder of --out. PNG files of an earlier"
        " evaluation there are replaced."
    ),
)
@click.option(
    "--perceptual/--no-perceptual",
    default=True,
    show_default=True,
    help=(
        "Measure LPIPS, FID and KID too. They need the extra 'metrics' and download the weights of"
        " their networks."
    ),
)
@feature_weights_option
@click.option(
    "--hints",
    metavar="N,N,...",
    help=(
        "Also measure runs that take hints with this many true colours told to them, for example"
        " 0,1,2,5,10,20,50,100."
    ),
)
@device_option
@precision_option
def command(
    runs: tuple[str, ...],
    dataset: str | None,
    split: str,
    out: Path,
    runs_root: str | None,
    datasets_root: Path | None,
    size: int | None,
    fit: str,
    limit: int | None,
    truth: bool | None,
    save_pictures: bool,
    perceptual: bool,
    feature_weights: str | None,
    hints: str | None,
    device: str,
    precision: str,
) -> None:
    """Measure models on the same pictures, beside two simple answers: gray, and the mean colour of a training set.

    \b
    gancolor evaluate 7                             measure run 7 on the test pictures of its own set
    gancolor evaluate 7 12 --dataset food           measure two runs on the test pictures of another set
    gancolor evaluate 7 --dataset old/ --split all  measure what can be measured on black-and-white photographs

    RUN is the path, name or number of a run, a checkpoint file, general, or an address (hf://owner/name, https://...).
    The protocol is printed before the tables. The folder of --out gets metrics.md, metrics.csv, metrics.jsonl and
    pictures.csv, and with --hints points.csv.
    """
    refuse_torchrun("evaluate")
    from gancolor.evaluation import measurement, results, true_points

    points = true_points.parse(hints) if hints is not None else ()
    found = find_models(runs, runs_root)
    measurement.prepare(out)
    with keeping(out) if save_pictures else contextlib.nullcontext() as see:
        measured = measurement.evaluate(
            found,
            dataset=dataset,
            split=split,
            datasets_root=datasets_root,
            size=size,
            fit=fit,
            limit=limit,
            truth=truth,
            device=device,
            precision=precision,
            perceptual=perceptual,
            feature_weights=feature_weights,
            points=points,
            see=see,
        )
        measurement.write(measured, out)
    for line in measured.protocol.lines():
        say(line)
    say(
        f"\n{results.terminal(measured)}\n\nthe figures are in {out}:"
        f" {', '.join(results.files(measured))}"
    )


_OTHERS = ("out", "save_pictures", "hints")  # options of evaluate that have no place here


@click.command(
    "compare", params=[option for option in command.params if option.name not in _OTHERS]
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("comparison.html"),
    show_default=True,
    help=(
        "Where to write the page. Its pictures go into the folder NAME-sheets beside it. An earlier page"
        " there is replaced."
    ),
)
def compare_command(
    runs: tuple[str, ...], runs_root: str | None, out: Path, **options: Any
) -> None:
    """Show models side by side on one HTML page: pictures, the table of their figures, and charts.

    \b
    gancolor compare 7 12 --out report.html            two runs on the test pictures of their own set
    gancolor compare 7 12 --dataset food --limit 50    on fifty pictures of another set
    gancolor compare 7 12 --dataset old/ --split all   on a folder of black-and-white photographs

    RUN is the path, name or number of a run, a checkpoint file, general, or an address (hf://owner/name, https://...).
    The page shows everything in a browser without any other file, network or script.
    """
    refuse_torchrun("compare")
    from gancolor.evaluation import comparison, results

    measured = comparison.compare(find_models(runs, runs_root), out=out, **options)
    say(
        f"{results.terminal(measured)}\n\nthe page is {out}, its pictures are in"
        f" {comparison.sheets_folder(out)}"
    )


@contextlib.contextmanager
def keeping(out: Path) -> Iterator[Callable[[Shown], None]]:
    """A function that keeps each run's colouring of a picture as OUT/pictures/RUN/PICTURE.png; the
    tree is kept.

    They are written aside and take the place of the runs' earlier PNG files at the end, if nothing
    fails.
    """
    from gancolor.evaluation import results
    from gancolor.images import arrays

    aside = out / f".pictures.{os.getpid()}.part"
    taken: set[str] = set()

    def keep(shown: Shown) -> None:
        # a.jpg and a.png
        name = free_png(Path(shown.name.lstrip("/")).with_suffix("").as_posix(), taken)
        for run, picture in shown.colored.items():
            arrays.write_rgb(aside / run / name, picture)

    try:
        yield keep
        for run in sorted(aside.iterdir()) if aside.is_dir() else []:
            _take_place(run, out / "pictures" / run.name)
    except OSError as error:
        raise results.unwritable(out, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _take_place(new: Path, folder: Path) -> None:
    """Move the PNG files of the tree `new` into `folder`, without those that are there; other files
    stay.
    """
    names = _list_pngs(new)
    for name in _list_pngs(folder):
        if name not in names:
            (folder / name).unlink()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(new / name, folder / name)


def _list_pngs(folder: Path) -> dict[Path, None]:
    """PNG files below a folder, relative to it; what is linked from elsewhere is not looked into."""
    if folder.is_symlink():
        return {}
    paths = (
        Path(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if name.endswith(".png")
    )
    return dict.fromkeys(path.relative_to(folder) for path in paths)
