"""`gancolor evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gancolor.evaluation import Shown


@click.command("evaluate")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--dataset", help="A set's name or a folder (default: the one that the runs were trained on).")
@click.option(
    "--split",
    type=click.Choice(["test", "val", "train", "all"]),
    default="test",
    show_default=True,
    help="Which of its pictures.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("evaluation"),
    show_default=True,
    help="Folder for the results; those of an earlier evaluation there are replaced.",
)
@click.option("--runs-root", help="Where runs live (default: $GANCOLOR_RUNS, else ./runs).")
@click.option(
    "--datasets-root",
    type=click.Path(path_type=Path),
    help="Where named sets live (default: the runs' own, else $GANCOLOR_DATASETS, else ./datasets).",
)
@click.option(
    "--size",
    type=click.IntRange(min=32),
    help="Side of the squares that are measured (default: the largest training size).",
)
@click.option(
    "--fit",
    type=click.Choice(["crop", "stretch"]),
    default="crop",
    show_default=True,
    help="The largest centre square of a picture, or all of it stretched.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many pictures, evenly spread.")
@click.option(
    "--truth/--no-truth",
    default=None,
    help="Whether the pictures' own colours are the truth (default: unless all are nearly gray).",
)
@click.option("--save-pictures", is_flag=True, help="Keep the coloured squares in pictures/RUN/ of the folder.")
@click.option(
    "--perceptual/--no-perceptual",
    default=True,
    show_default=True,
    help="LPIPS, FID and KID: needs the extra 'metrics' and downloads their networks' weights.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="Of the networks.",
)
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
    device: str,
    precision: str,
) -> None:
    """Measure runs on the same pictures, under one protocol, beside gray and the mean colour of a training set.

    \b
    gancolor evaluate 7                             run 7 on the held-out pictures of its dataset
    gancolor evaluate 7 12 --dataset food           two runs on pictures that neither need have seen
    gancolor evaluate 7 --dataset old/ --split all  a folder without colours: what can be said without a truth

    RUN is a path, a name or a number, or a checkpoint file. The protocol is printed before the tables; the folder gets
    metrics.md, metrics.csv, metrics.jsonl and pictures.csv.
    """
    from gancolor import checkpoint, evaluation, results

    root = checkpoint.runs_root(runs_root)
    found = [Path(run) if Path(run).is_file() else checkpoint.find_run(run, root) for run in runs]
    evaluation.prepare(out)
    measured = evaluation.evaluate(
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
        see=keeper(out / "pictures") if save_pictures else None,
    )
    evaluation.write(measured, out)
    for line in measured.protocol.lines():
        click.echo(line)
    click.echo(f"\n{results.terminal(measured)}\n\nthe figures are in {out}: {', '.join(results.FILES)}")


def keeper(folder: Path) -> Callable[[Shown], None]:
    """A function that writes each run's colouring of a picture as folder/RUN/PICTURE.png; the tree is kept."""
    from gancolor import images

    taken: set[str] = set()

    def keep(shown: Shown) -> None:
        stem = Path(shown.name.lstrip("/")).with_suffix("").as_posix()
        stem = stem if stem not in taken else f"{stem}-{shown.index}"  # a.jpg and a.png
        taken.add(stem)
        for run, picture in shown.colored.items():
            images.write_rgb(folder / run / f"{stem}.png", picture)

    return keep
