"""The command line: groups whose commands are imported when they are asked for, so that
`gancolor --help` and every command's help load no torch.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from gancolor import __version__
from gancolor.cli.options import leads, one_line, say_above
from gancolor.errors import GancolorError, is_out_of_memory


class LazyGroup(click.Group):
    """`modules`: name -> (module with `command`, or "module:attribute"; one line of help), in the
    help's order.
    """

    def __init__(
        self, *arguments: Any, modules: Mapping[str, tuple[str, str]], **more: Any
    ) -> None:
        super().__init__(*arguments, **more)
        self.modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in order."""
        return list(self.modules)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of that name, None if there is none."""
        if name not in self.modules:
            return None
        module, _, attribute = self.modules[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute or "command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summaries; nothing is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.modules.items()])


_COMMANDS = {  # name -> (module with `command`, summary)
    "data": (
        "gancolor.cli.data_commands",
        "Make, inspect, download and pack sets of training pictures.",
    ),
    "train": ("gancolor.cli.train", "Train a colorizer on a set or folder of pictures."),
    "sample": ("gancolor.cli.sample", "Colour photographs and films."),
    "serve": ("gancolor.cli.serve", "Colour photographs and films for other programs, over HTTP."),
    "evaluate": ("gancolor.cli.evaluate", "Measure models on the same pictures, in tables."),
    "compare": (
        "gancolor.cli.evaluate:compare_command",
        "Show models side by side on the same pictures, as one HTML page.",
    ),
    "study": (
        "gancolor.cli.study",
        "Ask people what they take for real, and score their answers.",
    ),
    "models": (
        "gancolor.cli.model_commands",
        "List the models that are here, describe one, share one.",
    ),
    "export": (
        "gancolor.cli.export",
        "Write a model as one file: safetensors or ONNX.",
    ),
    "average": (
        "gancolor.cli.export:average_command",
        "Write the mean of several runs' weights as one model.",
    ),
    "reproduce": (
        "gancolor.cli.reproduce",
        "Train what a paper's table compares, and print our figures beside the paper's.",
    ),
}


class _Shown(click.ClickException):
    """Printed as one line, without a traceback; what a terminal might obey in it is made visible."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(one_line(message))
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance too


class _Main(LazyGroup):
    """Turns GancolorErrors into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (
            click.ClickException
        ) as error:  # it quotes what was typed, and patterns of the shell type names
            error.message = one_line(error.message)  # type: ignore[misc]  # click reads it when it shows it
            raise
        except GancolorError as error:
            raise _Shown(str(error), error.exit_code) from error
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            sys.exit(130)
        except (MemoryError, RuntimeError, OSError, ImportError) as error:
            if not is_out_of_memory(error):
                raise
            raise _Shown(
                "memory ran out; close other programs, or ask for less at once (--workers 1)", 1
            ) from error


@click.group(
    cls=_Main,
    modules=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="gancolor")
def main() -> None:
    """Colour photographs and films, and train the networks that do it.

    \b
    gancolor sample old/ --out new/               colour the photographs and films of a folder
    gancolor data prepare photos/ --name mine     make a clean training set of any folder
    gancolor train --dataset mine --init general  train the model that comes with gancolor further, on that set
    gancolor train --dataset mine                 train a network of your own
    tensorboard --logdir runs                     watch the training
    gancolor sample                               colour pictures that the newest run has never seen
    gancolor evaluate 3 7 --dataset mine          measure the runs 3 and 7
    gancolor compare 3 7 --out report.html        show them side by side

    A training is kept as a run, a numbered folder in ./runs. Commands take its number, its name or its path.
    """
    # Before torch is loaded: threads that spin while they wait starve each other where other
    # programs use the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _log_to_terminal()


class _TerminalHandler(logging.Handler):
    """Writes warnings and news to standard error, above a progress bar if one is there."""

    def emit(self, record: logging.LogRecord) -> None:
        words = self.format(record)
        if record.levelno >= logging.WARNING:
            words = f"Warning: {words}"
        bars = sys.modules.get("tqdm")
        say_above(None if bars is None else bars.tqdm, words)


def _log_to_terminal() -> None:
    logging.getLogger("gancolor.pictures").setLevel(logging.WARNING)  # each process reads its own
    logger = logging.getLogger("gancolor")
    logger.setLevel(logging.INFO if leads() else logging.ERROR)
    logger.propagate = False
    logger.handlers = [_TerminalHandler()]
