"""What commands share: the lines that go to the terminal, options, which runs are meant, and names of
the files that are written.

Many options are derived from settings that are declared elsewhere, each once. Every line is printed
through here, with what a terminal might obey made visible.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import click

from gancolor import fields, presets
from gancolor.batch.batch_settings import BatchSettings
from gancolor.config import DEVICES, TrainConfig, parse_duration, settings
from gancolor.errors import ConfigError, DataError, masked, visible
from gancolor.fields import Setting
from gancolor.runtime.remote_files import is_address

_LONGEST = 3000  # letters of one message


class PlaceType(click.ParamType):  # type: ignore[type-arg]
    """A folder to write to: a Path, or a text where an address is given."""

    name = "path"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | str:
        return value if isinstance(value, str) and is_address(value) else Path(value)


PLACE = PlaceType()


def say(text: object = "", *, err: bool = False) -> None:
    """Print a text of one or more lines on standard output, or with `err` on standard error."""
    click.echo(visible(masked(str(text)), keep="\n\t"), err=err)


def say_above(bar: Any, text: str, file: IO[str] | None = None) -> None:
    """Print one line on standard error, above a progress bar (None: there is none). A lost terminal
    is no error.
    """
    with contextlib.suppress(OSError):
        if bar is None:
            click.echo(one_line(text), err=True)
        else:
            bar.write(one_line(text), file=file or sys.stderr)


def one_line(text: str) -> str:
    """A message as one line of a bearable length."""
    words = visible(masked(text))
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 500]}...{words[-497:]}"


def leads() -> bool:
    """Whether this process speaks: the only one, or torchrun's first."""
    return os.environ.get("RANK", "0") == "0"


def refuse_torchrun(command: str) -> None:
    """ConfigError when torchrun started several processes: each would do all the work and write the
    same files.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    if world not in ("", "1"):
        raise ConfigError(
            f"{command} must run in one process, got {world}; start it without torchrun"
        )


def check_ray(command: str, address: str | None, workers: int | None) -> None:
    """ConfigError where a Ray cluster, if one is named, cannot do the work."""
    if address is None:
        return
    from gancolor.runtime import cluster

    refuse_torchrun(f"{command} --ray")
    if workers == 0:
        raise ConfigError("--workers must be at least 1 with --ray, got 0; leave it out")
    cluster.check_address(address)


def find_models(models: Sequence[str], runs_root: str | None) -> list[Path]:
    """Directories of runs and files of other models, by what `choice.find` takes."""
    from gancolor.hub import choice
    from gancolor.storage import checkpoint

    root = checkpoint.runs_root(runs_root)
    return [choice.find(model, root).path for model in models]


def free_png(stem: str, taken: set[str]) -> str:
    """STEM.png, or STEM-2.png and so on: the first that is not in `taken`, to which it is added."""
    name = f"{stem}.png"
    for number in itertools.count(2):
        if name not in taken:
            break
        name = f"{stem}-{number}.png"
    taken.add(name)
    return name


def make_folder(folder: Path) -> None:
    """Make the folder of --out. DataError if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder} must be a writable folder, got '{error.strerror}'; choose another with --out"
        ) from error


class SectionedCommand(click.Command):
    """A command whose help lists its options under headings.

    `sections`: the parameter that each begins with -> its heading, in the options' order. Options
    before the first, and the help itself, stand under "Options".
    """

    def __init__(self, *arguments: Any, sections: Mapping[str, str], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section; click calls it."""
        heading, lines = "Options", dict[str, list[tuple[str, str]]]()
        for parameter in self.get_params(ctx):
            heading = self.sections.get(parameter.name or "", heading)
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                place = "Options" if parameter.name == "help" else heading
                lines.setdefault(place, []).append(record)
        for title, records in lines.items():
            with formatter.section(title):
                formatter.write_dl(records)


class Duration(click.ParamType[float]):
    """90s, 20m, 1.5h or plain seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class Clock(click.ParamType[float]):
    """A place in a film: seconds, 1:02:03.5, or 90s."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            if ":" not in value:
                return parse_duration(value)
            *whole, seconds = value.split(":")
            if (
                len(whole) > 2
                or not all(part.isdecimal() for part in whole)
                or not 0 <= float(seconds) < 60
            ):
                raise ValueError
            return sum(
                int(part) * 60.0**power for power, part in enumerate(reversed(whole), 1)
            ) + float(seconds)
        except (ConfigError, ValueError):
            self.fail(f"must look like 90, 1:30 or 1:02:03.5, got {value!r}", param, ctx)


class Size(click.ParamType["int | None"]):
    """A whole number of pixels of at least `least`, or auto (None)."""

    name = "auto|N"

    def __init__(self, least: int) -> None:
        self.least = least

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        if isinstance(value, int) or value == "auto":
            return value if isinstance(value, int) else None
        try:
            size = int(value)
        except ValueError:
            size = 0
        if size < self.least:
            self.fail(
                f"must be auto or a whole number of at least {self.least}, got {value!r}",
                param,
                ctx,
            )
        return size


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers separated by commas."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple | list):
            return tuple(value)
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"must be whole numbers separated by commas, got {value!r}", param, ctx)


TRAINING_SECTIONS = {
    "dataset": "Pictures",
    "objective": "Networks",
    "discriminator": "Discriminator",
    "loss": "Losses",
    "lr": "Optimizer and schedule",
    "batch_size": "The run",
}
"""Headings of `training_options`, by the setting that each begins with."""


def training_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for every field of TrainConfig, in its order."""
    return options_of(TrainConfig, _default)(function)


def options_of(
    owner: type, default_words: Callable[[str, Any], str] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that adds an option for every setting of a dataclass, in its order.

    An option that was not typed is None, or the default of a yes-or-no one. `default_words`: how
    its default is shown.
    """
    kinds, known = fields.base_types(owner), fields.declared(owner)
    defaults = {item.name: item.default for item in dataclasses.fields(owner)}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(known):
            words = (default_words or _plain_default)(name, defaults[name])
            flag = fields.flag_of(owner, name)
            function = _option(name, flag, kinds[name], defaults[name], known[name], words)(
                function
            )
        return function

    return decorate


def given_settings(context: click.Context) -> dict[str, Any]:
    """The settings that were typed, by field name."""
    source = click.core.ParameterSource.DEFAULT
    known = settings()
    return {
        k: v
        for k, v in context.params.items()
        if k in known and context.get_parameter_source(k) is not source
    }


def setting_options(
    owner: type, *, beside: type | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that adds an option for every setting of a dataclass, in its order, but for those
    that it shares with the dataclass `beside`.
    """
    shared = fields.declared(beside) if beside is not None else {}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed([name for name in fields.declared(owner) if name not in shared]):
            function = setting_option(owner, name)(function)
        return function

    return decorate


def setting_option(owner: type, name: str) -> Callable[[Any], Any]:
    """An option for one setting of a dataclass, with its default and its bounds; `chosen_of` reads
    it.
    """
    known, kind = fields.declared(owner)[name], fields.base_types(owner)[name]
    default = next(item.default for item in dataclasses.fields(owner) if item.name == name)
    flag = fields.flag_of(owner, name)
    if kind is bool:
        return click.option(flag, is_flag=True, default=default, help=known.help)
    several = kind is tuple
    return click.option(
        flag,
        type=_range(name, fields.item_types(owner)[name] if several else kind, known),
        multiple=several,
        default="auto" if name == "size" else default,
        show_default=not several,
        help=f"{known.help} May be given several times." if several else known.help,
    )


def chosen_of(owner: type, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a command's parameters say of the settings of a dataclass, by field name."""
    return {
        name: parameters[fields.flag_of(owner, name)[2:].replace("-", "_")]
        for name in fields.declared(owner)
    }


def _option(
    name: str, flag: str, kind: type, default: Any, known: Setting, words: str
) -> Callable[[Any], Any]:
    if kind is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    several = " Give it several times for one run each." if known.sweep else ""
    return click.option(
        flag,
        name,
        type=_type(name, kind, known),
        default=None if kind is not bool else default,
        multiple=known.sweep,
        help=f"{known.help}{several}{_bounds(known)}{words}",
    )


def _type(name: str, kind: type, known: Setting) -> Any:
    if name in ("time_limit", "timeout"):
        return Duration()
    if name == "preset":
        return click.Choice(list(presets.PRESETS))
    if kind is tuple:
        return Numbers()
    return click.Choice(known.choices) if known.choices else None if kind is bool else kind


def _range(name: str, kind: type, known: Setting) -> Any:
    """The type of an option whose bounds are checked where it is typed."""
    if name == "size":
        return Size(round(known.minimum or 1))
    if name in ("start", "end"):
        return Clock()
    if kind is Path:
        return click.Path(path_type=Path)
    if known.choices:
        return click.Choice(known.choices)
    least, is_open = (known.minimum, False) if known.above is None else (known.above, True)
    if least is None and known.maximum is None:
        return kind
    if kind is int:
        most = None if known.maximum is None else round(known.maximum)
        return click.IntRange(None if least is None else round(least), most)
    return click.FloatRange(least, known.maximum, min_open=is_open)


def _bounds(known: Setting) -> str:
    low = (
        f"at least {known.minimum:g}"
        if known.minimum is not None
        else f"above {known.above:g}"
        if known.above is not None
        else ""
    )
    high = (
        f"at most {known.maximum:g}" if known.maximum is not None and known.maximum < 10000 else ""
    )
    words = ", ".join(part for part in (low, high) if part)
    return f"  [{words}]" if words else ""


def _default(name: str, default: Any) -> str:
    """The preset gan's value, and where other presets differ."""
    if default is None or name == "preset":
        return f"  [default: {default}]" if default else ""
    others: dict[str, list[str]] = {}
    for preset, row in presets.PRESETS.items():
        if name in row and row[name] != default:
            others.setdefault(_show(row[name]), []).append(preset)
    words = [f"{', '.join(_shorten(group))}: {value}" for value, group in others.items()]
    return f"  [default: {'; '.join([_show(default), *words])}]"


def _plain_default(name: str, default: Any) -> str:
    return "" if default is None else f"  [default: {_show(default)}]"


def _shorten(names: list[str]) -> list[str]:
    """`portrait-*` for all of them, `tune-*` likewise."""
    for start in ("portrait-", "tune-"):
        family = [preset for preset in presets.PRESETS if preset.startswith(start)]
        if set(family) <= set(names):
            names = [name for name in names if name not in family] + [f"{start}*"]
    return names


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return (
        ",".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


runs_root_option = click.option(
    "--runs-root", help="Folder of the runs (default: $GANCOLOR_RUNS, else ./runs)."
)
datasets_root_option = click.option(
    "--datasets-root",
    type=click.Path(path_type=Path),
    help="Folder of the named sets (default: $GANCOLOR_DATASETS, else ./datasets).",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help=f"Where to compute: {DEVICES}.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="Number format of the networks. auto is bf16 where the hardware computes in it.",
)
feature_weights_option = click.option(
    "--feature-weights",
    metavar="WEIGHTS",
    help=(
        "The VGG16 through which the measures FD VGG16 and told apart look: the path of a file or a"
        " run, imagenet (downloaded), or none to leave both out (default: the frozen one of the"
        " first run that has one, so that nothing is downloaded)."
    ),
)

ray_option = click.option(
    "--ray",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="auto",
    help=(
        "Have a Ray cluster do the work: the one at HOST:PORT, or without an address the one of"
        " $RAY_ADDRESS, one that runs on this machine, or a new one here. Every machine must see the"
        " same files. Put it last, or write --ray=auto. Needs gancolor[cluster]."
    ),
)
deadline_option = setting_option(BatchSettings, "deadline")


def check_deadline(context: click.Context) -> None:
    """ConfigError where no process could be given up with a picture that takes too long."""
    typed = context.get_parameter_source("deadline") is not click.core.ParameterSource.DEFAULT
    if typed and context.params["workers"] == 0:
        raise ConfigError(
            "--deadline must be used with at least one of --workers, got 0; leave one of them out"
        )
