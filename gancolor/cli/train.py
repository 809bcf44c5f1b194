"""`gancolor train`."""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gancolor import presets
from gancolor.cli.options import (
    TRAINING_SECTIONS,
    SectionedCommand,
    given_settings,
    runs_root_option,
    say,
    training_options,
)
from gancolor.config import NETWORK_SETTINGS, flag_of, settings
from gancolor.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from gancolor.config import TrainConfig


def _presets() -> str:
    """What each preset is, for the end of the help."""
    width = max(map(len, presets.SUMMARIES))
    lines = [f"  {name:<{width}}  {words}" for name, words in presets.SUMMARIES.items()]
    return "\n".join(["\b", "Presets:", *lines])


@click.command(
    "train",
    cls=SectionedCommand,
    sections={"preset": "To begin with", **TRAINING_SECTIONS},
    epilog=_presets(),
)
@training_options
@runs_root_option
@click.option(
    "--resume",
    metavar="RUN",
    help="Go on with a run, given by path, name or number. On the CPU it ends as if never stopped.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the settings, the number of pictures and parameters, time and memory; train nothing.",
)
@click.pass_context
def command(
    context: click.Context, /, runs_root: str | None, resume: str | None, dry_run: bool, **_: Any
) -> None:
    """Train a colorizer on a set or folder of pictures. The result is a run: a numbered folder.

    \b
    gancolor train --dataset mine --init general               go on from the model that comes with gancolor
    gancolor train --dataset mine --init 7 --preset tune-25    go on from run 7, with about 25 pictures
    gancolor train --dataset food --lambda 100                 train a GAN from scratch, on datasets/food
    gancolor train --dataset ~/pictures --image-size 128       on a folder, with smaller pictures
    gancolor train --preset regression --time-limit 20m        without a discriminator, for 20 minutes
    gancolor train --lr 2e-4 --lr 2e-3 --beta1 .5 --beta1 .9   a sweep: one run for each of the four pairs
    gancolor train --resume 7                                  continue run 7
    torchrun --nproc-per-node 2 -m gancolor train ...          two processes

    Ctrl-C finishes the step, writes a checkpoint and stops.
    """
    given = given_settings(context)
    if resume is not None:
        _resume(resume, given, runs_root, dry_run)
        return
    configs = expand_sweep(given | _shape_of_init(given, runs_root))
    failed = []
    for config in configs:
        if dry_run:
            _describe(config)
            continue
        try:
            _train(config, runs_root)
        except TrainingError as error:
            if len(configs) == 1:
                raise
            # a sweep is there to find out: its other runs go on
            failed.append(f"{config.name}: {error}")
    if failed:
        raise TrainingError(f"{len(failed)} of {len(configs)} runs failed: {' | '.join(failed)}")


def expand_sweep(given: dict[str, Any]) -> list[TrainConfig]:
    """One config for each combination of the options that were given several times; all are checked
    before any runs.
    """
    swept = {
        name: given[name] for name, known in settings().items() if known.sweep and given.get(name)
    }
    fixed = {k: v for k, v in given.items() if k not in swept and k != "preset"}
    preset = given.get("preset", "gan")
    configs = []
    for values in itertools.product(*swept.values()):
        chosen = dict(zip(swept, values, strict=True))
        several = {k: v for k, v in chosen.items() if len(swept[k]) > 1}
        if several:
            # as a run directory's
            folder = re.sub(r"[^\w.+-]+", "-", Path(fixed.get("dataset", "still-life")).name)
            stem = fixed.get("name") or f"{preset}-{folder or 'pictures'}"
            marks = "-".join(f"{flag_of(k).strip('-')}-{v:g}" for k, v in several.items())
            configs.append(presets.build(preset, **{**fixed, **chosen, "name": f"{stem}-{marks}"}))
        else:
            configs.append(presets.build(preset, **{**fixed, **chosen}))
    return configs


def _shape_of_init(given: dict[str, Any], runs_root: str | None) -> dict[str, Any]:
    """The network, picture size and factor of colours of the model that --init names, but for what
    is given.

    A preset that has a network of its own overrules it.
    """
    if given.get("init") is None or given.get("preset", presets.TUNING[0]) not in presets.TUNING:
        return {}
    from gancolor.hub import choice
    from gancolor.storage import checkpoint

    own = choice.open_to_start(given["init"], checkpoint.runs_root(runs_root))["config"]
    taken = (*NETWORK_SETTINGS, "image_size", "saturation")
    return {name: getattr(own, name) for name in taken if name not in given}


def _resume(name: str, given: dict[str, Any], runs_root: str | None, dry_run: bool) -> None:
    from gancolor.storage import checkpoint
    from gancolor.training import rundir

    run = checkpoint.find_run(name, checkpoint.runs_root(runs_root))
    single = {}
    for key, value in given.items():
        if settings()[key].sweep:
            if len(value) > 1:
                raise ConfigError(
                    f"{flag_of(key)} must be given once with --resume, got {len(value)} values"
                )
            value = value[0]
        single[key] = value
    config = rundir.merge_settings(rundir.read_config(run), single)
    if dry_run:
        _describe(config)
    else:
        _train(config, runs_root, run)


def _train(config: TrainConfig, runs_root: str | None, resume: Path | None = None) -> None:
    from gancolor.training import Interrupted, train

    try:
        run = train(config, runs_root=runs_root, resume=resume)
    except Interrupted as stop:
        if _leads():
            with contextlib.suppress(OSError):  # the terminal may be gone
                say(str(stop), err=True)
        sys.exit(stop.exit_code)
    if _leads():
        say(run)


def _describe(config: TrainConfig) -> None:
    from gancolor.training.plan import describe

    say(describe(config))


def _leads() -> bool:
    from gancolor.runtime import processes

    return processes.current().leads
