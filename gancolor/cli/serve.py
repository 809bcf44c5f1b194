"""`gancolor serve`: the API that other programs colour pictures with."""

from __future__ import annotations

import socket
from types import FrameType
from typing import Any

import click

from gancolor.cli import loading
from gancolor.cli.options import (
    SectionedCommand,
    chosen_of,
    device_option,
    precision_option,
    refuse_torchrun,
    runs_root_option,
    say,
    setting_options,
)
from gancolor.errors import ConfigError, MissingExtra, shown
from gancolor.server.server_settings import ServerSettings

_SECTIONS = {"runs": "The model", "host": "The server", "device": "The machine"}
_SHUTDOWN = 30  # seconds that answers have when the server is told to end


@click.command("serve", cls=SectionedCommand, sections=_SECTIONS)
@click.option(
    "--run",
    "runs",
    multiple=True,
    help=(
        "Model to colour with, as `gancolor sample` takes it (default: the newest run that was"
        " trained on photographs, else general). Several models colour together."
    ),
)
@runs_root_option
@setting_options(ServerSettings)
@device_option
@precision_option
def command(
    runs: tuple[str, ...], runs_root: str | None, device: str, precision: str, **chosen: Any
) -> None:
    """Open a page to colour photographs on, and an API for other programs, until Ctrl-C.

    \b
    gancolor serve                                              on this machine alone
    curl -F picture=@old.jpg http://127.0.0.1:8000/v1/color -o new.jpg
    gancolor serve --host 0.0.0.0 --auth-file users.txt         for others, who need a password
    gancolor serve --study study.html                           a study's page at /study, which takes its results

    http://127.0.0.1:8000/docs describes the API.
    """
    settings = ServerSettings(**chosen_of(ServerSettings, chosen))
    refuse_torchrun("gancolor serve")
    try:
        import uvicorn

        from gancolor.server import application
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"gancolor serve needs {error.name}; install it with: pip install 'gancolor[studio]'"
        ) from error
    listener = _listen(settings)
    with listener:
        colorizer = loading.load(loading.choose(runs, runs_root), device, precision)
        app = application.create_app(colorizer, settings, runs_root, precision)
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        say(f"serving on {address}, described at {address}/docs; Ctrl-C ends it")
        if settings.study is not None:
            say(f"the study is {address}/study; its results go to {shown(settings.results_folder)}")
        if not settings.is_local:
            say(_warning(settings), err=True)
        config = uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            date_header=False,
            ws="none",
            root_path=settings.root_path,
            timeout_graceful_shutdown=_SHUTDOWN,
        )
        server = uvicorn.Server(config)
        ending = server.handle_exit

        def end(sig: int, frame: FrameType | None) -> None:
            application.let_go(app)  # of pages that are open: the server would wait for them
            ending(sig, frame)

        server.handle_exit = end  # type: ignore[method-assign]
        server.run(sockets=[listener])


def _listen(settings: ServerSettings) -> socket.socket:
    """A socket that listens at the address. ConfigError where that cannot be."""
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"--host must be an address of this machine, got {shown(settings.host)}: {error}"
        ) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # who comes while the model is loaded waits
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"--host and --port must be free, got {shown(settings.host)} and {settings.port}:"
            f" {error.strerror}; choose another --port"
        ) from error
    return listener


def _warning(settings: ServerSettings) -> str:
    if settings.auth_file is None:
        who = "everybody who reaches this machine can use it, without a password"
        fix = "ask for passwords with --auth-file"
    else:
        who = "everybody who reaches this machine can try passwords on it"
        fix = "choose long ones"
    return (
        f"WARNING: {settings.host} is open to other machines: {who}. {fix[0].upper()}{fix[1:]}, and"
        " put a proxy with TLS in front: without it pictures and passwords travel readable."
    )
