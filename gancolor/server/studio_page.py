"""The page to colour on, made with Gradio and mounted into the server's application at /."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import gradio as gr
import gradio.routes as routes_of_gradio
from fastapi import FastAPI
from gradio.components import Component
from gradio.routes import App
from starlette.routing import Match, Mount
from starlette.types import Scope

from gancolor.server import film_tab, photograph_tab, runs_tab, wording
from gancolor.server.page_guard import PageGuard, is_of_page
from gancolor.server.sessions import MOST_SESSIONS
from gancolor.server.studio import Studio

_TITLE = "gancolor"
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_FIXED_FONTS = ("ui-monospace", "Consolas", "monospace")
_KEPT_SECONDS = 3600  # that a file which was shown stays
_UPLOADS = "GRADIO_TEMP_DIR"  # where Gradio asks for the folder of uploads, anew each time
_ROOM = "DEFAULT_TEMP_DIR"  # and what it calls that where it makes folders unasked


@contextlib.asynccontextmanager
async def mounted(app: FastAPI, studio: Studio) -> AsyncIterator[None]:
    """Show the page of an application in here, beside its other routes.

    Its files lie in the server's own folder, and so do those that Gradio makes room for unasked.
    """
    studio.folder.mkdir()
    earlier, os.environ[_UPLOADS] = os.environ.get(_UPLOADS), str(studio.folder)
    names = vars(routes_of_gradio)
    others, names[_ROOM] = names.get(_ROOM), str(studio.folder)
    lifespan, routes = app.router.lifespan_context, list(app.router.routes)
    try:
        inner = _mount(app, studio)
        app.state.page = inner
        async with inner.router.lifespan_context(inner):
            inner.get_blocks().run_startup_events()  # type: ignore[no-untyped-call]
            await inner.get_blocks().run_extra_startup_events()  # type: ignore[no-untyped-call]
            yield
    finally:
        app.router.lifespan_context, app.router.routes = lifespan, routes
        names[_ROOM] = others
        if earlier is None:
            os.environ.pop(_UPLOADS, None)
        else:
            os.environ[_UPLOADS] = earlier


def _mount(app: FastAPI, studio: Studio) -> App:
    """Mount the page behind its guard, before the other routes; returns Gradio's application."""
    gr.mount_gradio_app(
        app,
        build(studio),
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        show_error=True,
        max_file_size=studio.upload_bytes,
        i18n=wording.translations(),
        theme=_theme(),
        css_paths=[Path(__file__).with_suffix(".css")],
    )
    mount = app.router.routes.pop()
    assert isinstance(mount, Mount) and isinstance(mount.app, App)
    app.router.routes.insert(0, _PageMount("/", PageGuard(mount.app, studio)))
    return mount.app


def build(studio: Studio) -> gr.Blocks:
    """The page with its tabs."""
    blocks: gr.Blocks = gr.Blocks(
        title=_TITLE,
        analytics_enabled=False,
        delete_cache=(60, _KEPT_SECONDS),
        fill_width=True,
    )
    with blocks:
        gr.Markdown(f"# {_TITLE}\n\n" + wording.tell("welcome"), elem_id="welcome")
        with gr.Tabs():
            with gr.Tab(wording.tell("photograph"), id="photograph"):
                photograph_tab.build(studio)
            with gr.Tab(wording.tell("film"), id="film"):
                film_tab.build(studio)
            with gr.Tab(wording.tell("runs"), id="runs"):
                runs_tab.build(studio)
    for block in blocks.blocks.values():
        if isinstance(block, Component):
            block.example_inputs = _no_example  # type: ignore[method-assign]
    blocks.state_session_capacity = 2 * MOST_SESSIONS  # of what Gradio keeps of each page
    # The line decides who is next, not Gradio.
    blocks.queue(default_concurrency_limit=None, api_open=False)
    return blocks


def _no_example() -> None:
    """What would be sent to a component: Gradio's own examples are addresses of pictures elsewhere."""


class _PageMount(Mount):
    """Takes the paths of the page; all others are the API's."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return super().matches(scope) if is_of_page(path) else (Match.NONE, {})


def _theme() -> gr.themes.Base:
    """Fonts of the system only: none is fetched. Words have a contrast above 4.5, on buttons too."""
    theme: gr.themes.Base = gr.themes.Default(
        primary_hue="teal",
        neutral_hue="slate",
        font=[gr.themes.Font(name) for name in _FONTS],
        font_mono=[gr.themes.Font(name) for name in _FIXED_FONTS],
    )
    theme.set(
        body_text_color_subdued="*neutral_600",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_cancel_background_fill="#b91c1c",
        button_cancel_background_fill_hover="#991b1b",
    )
    return theme
