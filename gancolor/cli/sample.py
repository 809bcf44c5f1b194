"""`gancolor sample` without inputs: what a run does on pictures it never saw.

`gancolor sample`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gancolor.cli.options import (
    Clock,
    Size,
    check_deadline,
    deadline_option,
    device_option,
    free_png,
    leads,
    make_folder,
    precision_option,
    refuse_torchrun,
    runs_root_option,
    say,
)
from gancolor.errors import ConfigError, GancolorError

if TYPE_CHECKING:
    from gancolor.coloring.colorizer import Colorizer, Picture
    from gancolor.hub.choice import Choice


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
    """Colour `count` pictures of a split, evenly chosen, into `folder`, with a contact sheet;
    returns what failed.
    """
    from gancolor.data.dataset import open_source
    from gancolor.images import arrays

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
            arrays.write_rgb(folder / free_png(stem, taken), predicted)
            rows.append([colorizer.seen(truth), predicted, truth])
        except GancolorError as error:
            failed.append(str(error))
    if rows:
        first = "gray" if colorizer.condition == "gray" else "edges"
        arrays.write_rgb(folder / "sheet.png", arrays.sheet(rows, [first, "predicted", "original"]))
        say(f"{len(rows)} {split} pictures coloured; look at {folder / 'sheet.png'}")
    return failed


_HELD_OUT = (
    "split",
    "count",
    "dataset",
    "datasets_root",
)  # options that choose among a run's own pictures
_BOTH = ("runs", "runs_root", "out", "size", "device", "precision")  # those that serve files too

_photograph_options = [
    click.option(
        "--size",
        type=Size(),
        default="auto",
        show_default=True,
        help=(
            "Shorter side at which the network sees a picture (auto: decided by its training size)."
        ),
    ),
    click.option(
        "--upsample",
        type=click.Choice(["guided", "bilinear"]),
        default="guided",
        show_default=True,
        help="How colours are brought to full size: along the picture's edges, or not.",
    ),
    click.option(
        "--temperature",
        type=click.FloatRange(0.01, 2),
        help=(
            "How colours are taken from a network's distribution (--head bins): near 0 the"
            " likeliest, 1 its mean (default: as it was trained)."
        ),
    ),
    click.option(
        "--saturation",
        type=click.FloatRange(0, 4),
        default=1.0,
        show_default=True,
        help="Factor of the colours.",
    ),
    click.option(
        "--keep-color",
        type=click.FloatRange(0, 1),
        default=0.0,
        show_default=True,
        help="Share of a picture's own colours in the result.",
    ),
    click.option(
        "--consensus",
        type=click.IntRange(1, 12),
        default=1,
        show_default=True,
        help="Median of that many views, of several sizes and mirrored.",
    ),
    click.option(
        "--variants",
        type=click.IntRange(1, 64),
        default=1,
        show_default=True,
        help="Alternatives to write, beside the first as NAME-2, NAME-3 and so on.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        help="Of the variants.",
    ),
    click.option(
        "--sheet",
        is_flag=True,
        help="Write NAME-sheet.png too: the gray picture and all --variants side by side.",
    ),
    click.option(
        "--show-confidence",
        is_flag=True,
        help="Write NAME-confidence.png too: bright where the colours are sure.",
    ),
]

_film_options = [
    click.option(
        "--strength",
        type=click.FloatRange(0, 1),
        help=(
            "Of a film: how much colour is carried along the motion (default: what measured best;"
            " 0: frame by frame)."
        ),
    ),
    click.option(
        "--key-interval",
        type=click.IntRange(min=1),
        help="Of a film: the network sees every N-th frame, and each shot's first.",
    ),
    click.option(
        "--codec",
        default="auto",
        show_default=True,
        help="Of a film's pictures: auto, libx264, ffv1, ...",
    ),
    click.option(
        "--crf",
        type=click.IntRange(0, 63),
        help="Of a film: the encoder's quality, lower is better.",
    ),
    click.option(
        "--encoder-preset",
        help="Of a film: the encoder's own speed preset, for example fast or slow.",
    ),
    click.option(
        "--from", "start", type=Clock(), help="Of a film: begin here, for example 90 or 1:30."
    ),
    click.option("--to", "end", type=Clock(), help="Of a film: end here."),
    click.option(
        "--resume",
        is_flag=True,
        help="Of a film: go on where a stopped run of the same command ended.",
    ),
]

_file_options = [
    click.option(
        "-0",
        "--null",
        is_flag=True,
        help="Of a list (-): names are separated by NUL, as find -print0 writes them.",
    ),
    click.option(
        "--list-folders", is_flag=True, help="Of a list (-): take the folders that it names too."
    ),
    click.option(
        "--format",
        type=click.Choice(["jpeg", "png", "tiff", "webp", "bmp"]),
        help="Of the pictures written (default: as they came).",
    ),
    click.option(
        "--quality",
        type=click.IntRange(1, 100),
        default=95,
        show_default=True,
        help="Of JPEG and WebP files.",
    ),
    click.option(
        "--limit",
        type=click.IntRange(min=1),
        help="Colour at most N files; with --skip-existing the next N.",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Say what would be done, where, and about how long it takes; write nothing.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help=(
            "Leave names, or parts of paths, like this out of folders: '*-thumb.jpg', private. May"
            " be given several times."
        ),
    ),
    click.option(
        "--keep-dates",
        is_flag=True,
        help="Give the results the file dates of what they were made of.",
    ),
    click.option(
        "--skip-existing",
        is_flag=True,
        help="Leave out files whose result exists: goes on after a stop.",
    ),
    click.option(
        "--skip-colored",
        is_flag=True,
        help="Leave pictures and films alone that are in colour already.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace results that exist."),
    click.option(
        "--provenance/--no-provenance",
        default=True,
        show_default=True,
        help="Write into the metadata that gancolor coloured the file, and with which model.",
    ),
    click.option(
        "--max-megapixels",
        type=click.FloatRange(min=0, min_open=True),
        default=500.0,
        show_default=True,
        help="Refuse larger pictures.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=0),
        help=(
            "Processes that read, paint and write (default: one per core beside a GPU, else one per"
            " 4; 1 to 4)."
        ),
    ),
    deadline_option,
]

_held_out_options = [
    click.option(
        "--split",
        type=click.Choice(["test", "val", "train", "all"]),
        default="test",
        show_default=True,
        help="Without INPUT: which of the run's pictures to colour.",
    ),
    click.option(
        "--count",
        type=click.IntRange(min=1),
        default=16,
        show_default=True,
        help="Without INPUT: how many of them.",
    ),
    click.option(
        "--dataset", help="Without INPUT: another set, folder or shards to take them from."
    ),
    click.option(
        "--datasets-root",
        type=click.Path(path_type=Path),
        help=(
            "Where named sets live (default: the run's own, else $GANCOLOR_DATASETS, else"
            " ./datasets)."
        ),
    ),
]


def _all_options(function: Callable[..., Any]) -> Callable[..., Any]:
    groups = (_photograph_options, _file_options, _film_options, _held_out_options)
    for option in reversed([option for group in groups for option in group]):
        function = option(function)
    return function


@click.command("sample")
@click.argument("inputs", nargs=-1, metavar="[INPUT]...")
@click.option(
    "--run",
    "runs",
    multiple=True,
    help=(
        "The model: a run by path, name or number, a checkpoint file, general,"
        " hf://owner/name[@revision] or https://... (default: the newest run on photographs, else"
        " general; without INPUT the newest run). Given several times: the mean of what they say."
    ),
)
@runs_root_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the results (default: the run's samples/; needed with INPUT).",
)
@_all_options
@device_option
@precision_option
@click.pass_context
def command(
    context: click.Context,
    /,
    inputs: tuple[str, ...],
    runs: tuple[str, ...],
    runs_root: str | None,
    out: Path | None,
    device: str,
    precision: str,
    **chosen: Any,
) -> None:
    """Colour photographs and films, or show what a run does on pictures it never saw.

    \b
    gancolor sample old/ --out new/        a folder of pictures and films, its tree mirrored in new/
    gancolor sample                        the newest run on its held-out pictures: gray | predicted | original
    gancolor sample a.jpg b.tif film.mp4 --out new/ --run 7
    gancolor sample '*.jpg' --out new/     a pattern; - reads a list of files from standard input

    Pictures keep their size, depth, lightness, transparency and metadata; films their frames, timestamps, sound and
    subtitles. What fails does not stop the others, is listed at the end and makes the exit code 1. report.jsonl in the
    folder of --out says what became of each file.
    """
    _refuse_idle(context, bool(inputs))
    check_deadline(context)
    _check_together(inputs, out, chosen)
    listed, passed = None, Counter[str]()
    if inputs:
        from gancolor.batch import input_files

        listed = input_files.expand(
            inputs,
            out,  # type: ignore[arg-type]
            format=chosen["format"],
            null=chosen["null"],
            folders=chosen["list_folders"],
            exclude=chosen["exclude"],
            passed=passed,
        )
    from gancolor.coloring.colorizer import Colorizer
    from gancolor.hub import choice
    from gancolor.storage import checkpoint

    root = checkpoint.runs_root(runs_root)
    if runs:
        models = [choice.find(run, root) for run in runs]
    else:
        models = [choice.choose(None, root) if inputs else choice.newest_run(root)]
    folder = out or _samples_folder(models)
    if leads():
        for model in models:
            say(model.sentence())
    loaded = [Colorizer.load(model.path, device=device, precision=precision) for model in models]
    colorizer = loaded[0] if len(loaded) == 1 else Colorizer.mean(loaded)
    known = [model.name for model in models] == [choice.GENERAL]  # and it is known to colour
    if leads() and not known and (warning := colorizer.self_test()):
        say(warning, err=True)
    if listed is not None:
        from gancolor.cli import sample_files

        failed = sample_files.color(colorizer, listed, inputs, folder, chosen, _typed(context))
        if passed and leads():
            from gancolor.images import formats

            say(f"passed over: {formats.passed_over(passed)}")
    else:
        refuse_torchrun("gancolor sample without INPUT")
        failed = show(
            colorizer, folder, size=chosen["size"], **{name: chosen[name] for name in _HELD_OUT}
        )
    if failed:
        say(f"{len(failed)} failed:", err=True)
        for line in failed:
            say(f"  {line}", err=True)
        sys.exit(1)


def _check_together(inputs: tuple[str, ...], out: Path | None, chosen: dict[str, Any]) -> None:
    """ConfigError for options that contradict each other, or lack what they belong to."""
    for name in ("null", "list_folders"):
        if chosen[name] and "-" not in inputs:
            flag = f"--{name}".replace("_", "-")
            raise ConfigError(
                f"{flag} must be used with a list on standard input, got none; give - as an INPUT"
            )
    for name in ("limit", "dry_run"):
        if chosen[name]:
            refuse_torchrun(f"gancolor sample --{name}".replace("_", "-"))
    if inputs and out is None:
        raise ConfigError(
            "--out must name a folder when pictures are given, got none; for example --out colored"
        )
    if chosen["skip_existing"] and chosen["overwrite"]:
        raise ConfigError("--skip-existing and --overwrite must not be given together; choose one")


def _samples_folder(models: Sequence[Choice]) -> Path:
    """Where the held-out pictures of a model go that is the user's own. ConfigError for another,
    and for several.
    """
    if len(models) > 1:
        raise ConfigError(
            f"--out must name a folder for the pictures of {len(models)} models together, got none"
        )
    (model,) = models
    if not model.own:
        raise ConfigError(
            f"--out must name a folder for the pictures of {model.name}, which is no run here, got"
            " none"
        )
    return (model.path.parent if model.path.is_file() else model.path) / "samples"


def _typed(context: click.Context) -> list[str]:
    """Names of the parameters that were typed."""
    default = click.core.ParameterSource.DEFAULT
    return [name for name in context.params if context.get_parameter_source(name) is not default]


def _refuse_idle(context: click.Context, with_inputs: bool) -> None:
    """ConfigError for an option that would do nothing here."""
    flags = {item.name: item.opts[-1] for item in context.command.params}
    for name in _typed(context):
        if with_inputs and name in _HELD_OUT:
            raise ConfigError(
                f"{flags[name]} must be used without INPUT, got both; it chooses among a run's"
                " pictures"
            )
        if not with_inputs and name not in (*_HELD_OUT, *_BOTH, "inputs"):
            raise ConfigError(
                f"{flags[name]} must be used with INPUT, got none; name files or folders to colour"
            )
