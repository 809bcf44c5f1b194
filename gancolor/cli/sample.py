"""`gancolor sample`: photographs and films coloured, or a run shown on pictures it never saw.

What the options say is declared with the settings that they belong to; only what concerns the
command line alone is declared here.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gancolor import fields
from gancolor.batch.batch_settings import FEW, BatchSettings
from gancolor.cli import loading
from gancolor.cli.options import (
    PLACE,
    SectionedCommand,
    check_deadline,
    check_ray,
    chosen_of,
    device_option,
    free_png,
    leads,
    make_folder,
    precision_option,
    ray_option,
    refuse_torchrun,
    runs_root_option,
    say,
    setting_options,
)
from gancolor.coloring.settings import ColoringSettings, PhotographSettings
from gancolor.errors import ConfigError, GancolorError, shown
from gancolor.images import formats
from gancolor.runtime import workers
from gancolor.video.film_settings import EncoderSettings, FilmSettings, PipeSettings

if TYPE_CHECKING:
    from gancolor.batch.input_files import Item
    from gancolor.batch.mirror import Mirror
    from gancolor.coloring.colorizer import Colorizer
    from gancolor.hub.choice import Choice
    from gancolor.images.arrays import Picture

_PIPE = tuple(fields.declared(PipeSettings))
# Options that choose among a run's own pictures, and those that serve files too.
_HELD_OUT = ("split", "count", "dataset", "datasets_root")
_BOTH = ("runs", "runs_root", "out", "size", "device", "precision")

_list_options = [
    click.option(
        "-0",
        "--null",
        is_flag=True,
        help="The names of a list (-) are separated by NUL, as find -print0 writes them.",
    ),
    click.option(
        "--list-folders",
        is_flag=True,
        help="Colour what is in the folders that a list (-) names, too.",
    ),
    click.option(
        "--list-addresses",
        is_flag=True,
        help="Fetch and colour what a list (-) names by its address (https://..., s3://...), too.",
    ),
]

_file_options = [
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
            "Leave out files and folders with names like this, for example '*-thumb.jpg' or private."
            " May be given several times."
        ),
    ),
    click.option(
        "--skip-existing",
        is_flag=True,
        help="Colour only files without a result, for example to go on after a stop.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace results that exist already."),
    click.option(
        "--provenance/--no-provenance",
        default=True,
        show_default=True,
        help="Write into the metadata that gancolor coloured the file, and with which model.",
    ),
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
        "--dataset", help="Without INPUT: another set, folder or shards to take the pictures from."
    ),
    click.option(
        "--datasets-root",
        type=click.Path(path_type=Path),
        help=(
            "Without INPUT: folder of the named sets (default: the run's own, else"
            " $GANCOLOR_DATASETS, else ./datasets)."
        ),
    ),
]

_SECTIONS = {  # by the option that each begins with
    "runs": "The model",
    "size": "How it colours",
    "sheet": "Files",
    "strength": "Films",
    "raw": "Films in a pipe",
    "split": "Pictures of the run, without INPUT",
    "device": "The machine",
}


_export_options = [
    click.option(
        "--export-keys",
        type=click.Path(path_type=Path),
        help=(
            "Write the frames of a film that the network sees, coloured, as pictures into this new"
            " folder, and no film. Change them by hand and give the folder back with --keys."
        ),
    )
]


def _all_options(function: Callable[..., Any]) -> Callable[..., Any]:
    groups = (
        [setting_options(PhotographSettings)],
        [setting_options(BatchSettings)],
        _list_options,
        _file_options,
        [setting_options(FilmSettings, beside=ColoringSettings)],
        _export_options,
        [setting_options(EncoderSettings)],
        [setting_options(PipeSettings)],
        _held_out_options,
    )
    for option in reversed([option for group in groups for option in group]):
        function = option(function)
    return function


@click.command("sample", cls=SectionedCommand, sections=_SECTIONS)
@click.argument("inputs", nargs=-1, metavar="[INPUT]...")
@click.option(
    "--run",
    "runs",
    multiple=True,
    help=(
        "Model to colour with: the path, name or number of a run, a checkpoint file, general,"
        " hf://owner/name[@revision] or https://... (default: the newest run that was trained on"
        " photographs, else general; without INPUT the newest run). Several models colour together:"
        " the mean of what they predict is taken."
    ),
)
@runs_root_option
@click.option(
    "--out",
    type=PLACE,
    help=(
        "Folder for the results, or an address (s3://bucket/new). It must be given with INPUT"
        " (default: samples/ in the run)."
    ),
)
@_all_options
@device_option
@precision_option
@ray_option
@click.pass_context
def command(
    context: click.Context,
    /,
    inputs: tuple[str, ...],
    runs: tuple[str, ...],
    runs_root: str | None,
    out: Path | str | None,
    device: str,
    precision: str,
    **chosen: Any,
) -> None:
    """Colour photographs and films. Without INPUT, colour pictures that the run has never seen.

    \b
    gancolor sample old/ --out new/                          a folder with its subfolders
    gancolor sample a.jpg b.tif film.mp4 --out new/ --run 7  some files, with run 7
    gancolor sample '*.jpg' --out new/                       files that fit a pattern
    find . -name '*.jpg' | gancolor sample - --out new/      a list of files on standard input
    gancolor sample s3://bucket/old/ --out s3://bucket/new/  files in object storage (docs/scale.md)
    gancolor sample old/ --out new/ --ray=head:6379          a folder, on the machines of a Ray cluster
    torchrun --nproc-per-node 2 -m -- gancolor sample old/ --out new/    in two processes
    gancolor sample                                          test pictures of the newest run, beside the originals
    ... | gancolor sample - --raw y4m | ...                  frames from one program to another

    Photographs keep their size, depth, lightness, transparency and metadata. Films keep their frames, timestamps, sound
    and subtitles. A file that fails does not stop the others; it is listed at the end, and the exit code is 1. The file
    report.jsonl in the folder of --out says what became of each file.
    """
    if any(chosen[name] is not None for name in _PIPE):
        from gancolor.cli import sample_pipe

        sample_pipe.check(inputs, _typed(context), chosen)
        with sample_pipe.opened(chosen) as pipe:
            colorizer = loading.load(
                loading.choose(runs, runs_root, newest=not inputs), device, precision
            )
            sample_pipe.color(colorizer, pipe, chosen)
        return
    _refuse_idle(context, bool(inputs))
    check_deadline(context)
    _check_together(inputs, out, chosen)
    _check_partners(chosen)
    exports = chosen["export_keys"] is not None
    if exports or chosen["keys"] is not None:
        _check_keys(context, inputs, "--export-keys" if exports else "--keys")
    listed, passed, mirror = None, Counter[str](), None
    if inputs and not exports:
        if _needs_worker(inputs, chosen):
            context.with_resource(workers.spare("gancolor.batch.pool"))
        listed, mirror = _found(inputs, out or Path(), chosen, passed)
    models = loading.choose(runs, runs_root, newest=not inputs)
    folder = _folder_of(out, models, exports, mirror)
    colorizer = loading.load(models, device, precision)
    failed: list[str] = []
    if exports:
        from gancolor.cli import sample_files

        sample_files.export_keys(colorizer, Path(inputs[0]), chosen)
    elif listed is not None:
        from gancolor.cli import sample_files

        failed = sample_files.color(
            colorizer,
            listed,
            inputs,
            folder,
            chosen | {"device": device, "precision": precision},
            set(_typed(context).values()),
            mirror,
            models,
        )
        if passed and leads():
            say(f"passed over: {formats.passed_over(passed)}")
    else:
        refuse_torchrun("gancolor sample without INPUT")
        failed = _color_held_out(
            colorizer, folder, size=chosen["size"], **{name: chosen[name] for name in _HELD_OUT}
        )
    if failed:
        say(f"{len(failed)} failed:", err=True)
        for line in failed:
            say(f"  {line}", err=True)
        sys.exit(1)


def _needs_worker(inputs: tuple[str, ...], chosen: dict[str, Any]) -> bool:
    """Whether it is likely that pictures are coloured in a worker process, and not here."""
    if chosen["dry_run"] or chosen["ray"] is not None:
        return False
    if chosen["workers"] is not None:
        return bool(chosen["workers"])
    if chosen["limit"] is not None and chosen["limit"] <= FEW:
        return False
    return len(inputs) > FEW or any(name == "-" or os.path.isdir(name) for name in inputs)


def _found(
    inputs: tuple[str, ...], out: Path | str, chosen: dict[str, Any], passed: Counter[str]
) -> tuple[Iterator[Item], Mirror | None]:
    """The files that the inputs name, and where those lie here that come from addresses or go to
    one.
    """
    from gancolor.batch import address_inputs, input_files
    from gancolor.batch.mirror import open_mirror

    options: dict[str, Any] = {
        "format": chosen["format"],
        "null": chosen["null"],
        "folders": chosen["list_folders"],
        "exclude": chosen["exclude"],
        "passed": passed,
    }
    addresses = chosen["list_addresses"]
    mirror = open_mirror(inputs, out, addresses)
    if mirror is None:
        return input_files.expand(inputs, Path(out), **options), None
    if chosen["keep_dates"]:
        raise ConfigError(
            "--keep-dates must be left out with addresses, where files have the storage's dates"
        )
    place = Path() if mirror.out is not None else Path(out)
    return address_inputs.expand(inputs, place, mirror, addresses=addresses, **options), mirror


def _folder_of(
    out: Path | str | None, models: Sequence[Choice], exports: bool, mirror: Mirror | None
) -> Path:
    """The folder that results go to, or that stands for the address that they go to."""
    if mirror is not None and mirror.out is not None:
        return mirror.results
    if isinstance(out, str):
        raise ConfigError(f"--out must be a folder without INPUT, got {shown(out)}")
    return out or (Path() if exports else _samples_folder(models))


def _color_held_out(
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


def _check_together(
    inputs: tuple[str, ...], out: Path | str | None, chosen: dict[str, Any]
) -> None:
    """ConfigError for options that contradict each other, or lack what they belong to."""
    for name in ("null", "list_folders", "list_addresses"):
        if chosen[name] and "-" not in inputs:
            flag = f"--{name}".replace("_", "-")
            raise ConfigError(
                f"{flag} must be used with a list on standard input, got none; give - as an INPUT"
            )
    if chosen["ray"] is not None and chosen["dry_run"]:
        raise ConfigError("--dry-run must be used without --ray, got both; leave --ray out")
    check_ray("gancolor sample", chosen["ray"], chosen["workers"])
    for name in ("limit", "dry_run"):
        if chosen[name]:
            refuse_torchrun(f"gancolor sample --{name}".replace("_", "-"))
    if inputs and out is None and chosen["export_keys"] is None:
        raise ConfigError(
            "--out must name a folder when pictures are given, got none; for example --out colored"
        )
    if inputs and isinstance(out, Path) and not out.exists():
        ends = {formats.suffix_of(name) for name in inputs if Path(name).is_file()} - {""}
        if formats.suffix_of(out.name) in formats.SUFFIXES | ends:
            raise ConfigError(
                f"--out must name a folder, got {out}, which looks like a file; for example --out"
                " colored"
            )
    if chosen["skip_existing"] and chosen["overwrite"]:
        raise ConfigError("--skip-existing and --overwrite must not be given together; choose one")


# Options that count for the key frames of a film that --export-keys writes.
_OF_EXPORT = (
    *("export_keys", "provenance", "upsample", "temperature", "saturation", "strength"),
    *("key_interval", "from", "to"),
)


def _check_keys(context: click.Context, inputs: tuple[str, ...], flag: str) -> None:
    """ConfigError unless there is one film, for which key frames are given or written, in one
    process.
    """
    from gancolor.video.opening import is_film

    if len(inputs) != 1 or not Path(inputs[0]).is_file() or not is_film(inputs[0]):
        got = shown(inputs[0]) if len(inputs) == 1 else f"{len(inputs)} inputs"
        raise ConfigError(f"{flag} must be used with one film, got {got}; name the film's file")
    refuse_torchrun(f"gancolor sample {flag}")
    if flag == "--keys":
        return
    known = (*_BOTH, *_OF_EXPORT, "inputs")
    for name, other in _typed(context).items():
        if name not in known or name == "out":
            raise ConfigError(
                f"{other} must be left out with --export-keys, which writes key frames alone"
            )


def _check_partners(chosen: dict[str, Any]) -> None:
    """ConfigError for files that go with photographs where there are none, before a model is loaded."""
    if chosen["show_hints"] and not any(
        chosen[each] for each in ("hints", "reference", "consistent")
    ):
        raise ConfigError(
            "--show-hints must be used with --hints, --reference or --consistent, got none of them;"
            " leave it out"
        )
    for flag in ("--hints", "--mask"):
        if (given := chosen[flag[2:]]) is not None:
            from gancolor.batch import partners, worker

            partners.check(given, flag, worker.PARTNERS[flag])
    if chosen["reference"] or chosen["show_matches"]:
        from gancolor.batch import exemplars

        exemplars.check(BatchSettings(**chosen_of(BatchSettings, chosen)))


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
            " none; to colour files, name them: gancolor sample old/ --out new/"
        )
    return (model.path.parent if model.path.is_file() else model.path) / "samples"


def _typed(context: click.Context) -> dict[str, str]:
    """The options that were typed: by their parameters, as they are called."""
    default = click.core.ParameterSource.DEFAULT
    return {
        item.name: item.opts[-1]
        for item in context.command.params
        if item.name is not None and context.get_parameter_source(item.name) is not default
    }


def _refuse_idle(context: click.Context, with_inputs: bool) -> None:
    """ConfigError for an option that would do nothing here."""
    for name, flag in _typed(context).items():
        if with_inputs and name in _HELD_OUT:
            raise ConfigError(
                f"{flag} must be used without INPUT, got both; it chooses among a run's pictures"
            )
        if with_inputs and name in ("diversity", "seed") and context.params["variants"] == 1:
            raise ConfigError(
                f"{flag} must be used with --variants of 2 or more, got 1; it changes the others only"
            )
        if not with_inputs and name not in (*_HELD_OUT, *_BOTH, "inputs"):
            raise ConfigError(
                f"{flag} must be used with INPUT, got none; name files or folders to colour"
            )
