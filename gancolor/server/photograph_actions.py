"""What happens when a visitor of the page does something with a photograph: each action says what is
shown then, by the names of the tab's components. When one fails, everything is as it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from gancolor.coloring import hint_files
from gancolor.errors import ConfigError, DataError, GancolorError
from gancolor.images.formats import SUFFIXES, suffix_of
from gancolor.server import editing, finishing, previews, problems, stage
from gancolor.server.editing import Edit, Mark, Sweep
from gancolor.server.line import Ticket
from gancolor.server.previews import Painted, Preview
from gancolor.server.problems import Problem
from gancolor.server.sessions import MOST_REFERENCES, OpenPicture, Session, Sessions
from gancolor.server.studio import Studio
from gancolor.server.wording import say

Updates = dict[str, Any]
"""What changes on the page: updates by the names of components."""

_T = TypeVar("_T")
_Said = dict[str, Any]


@dataclasses.dataclass
class Visit:
    """A visitor who does something: what their browser `said` of it, and `wait`, which is told while
    others are served.
    """

    session: Session
    said: _Said
    wait: Callable[[str], None] = lambda words: None

    @property
    def picture(self) -> OpenPicture:
        """The photograph that is shown."""
        return self.session.picture

    def number(self, name: str = "number") -> int:
        """A whole number that the browser said. ConfigError for something else."""
        return round(self.real(name))

    def real(self, name: str) -> float:
        """A number that the browser said. ConfigError for something else."""
        return _real(name, self.said.get(name))


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(say("no_number", name=name, value=str(value)[:40]))
    return float(value)


class PhotographActions:
    """The actions, for all visitors."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.sessions = Sessions(studio.settings.max_bytes)

    # --- photographs that come and go ---

    async def take_files(self, visit: Visit, given: Sequence[str]) -> Updates:
        """Take photographs that were dropped, and colour the first of them."""
        session, added = visit.session, list[OpenPicture]()
        for each in given:
            picture = self._taken(session, Path(each))
            session.pictures.append(picture)
            try:
                self._check_size(picture.path)
                self.sessions.make_room(session)
                preview = await self._do(visit, lambda _, it=picture: self._preview(it))  # type: ignore[misc]
            except (GancolorError, Problem) as error:
                session.pictures.remove(picture)
                shutil.rmtree(picture.path.parent, ignore_errors=True)
                words = problems.without_folder(str(error), picture.path.parent)
                gr.Warning(html.escape(words), duration=None, title=say("warning"))
                continue
            picture.thumbnail = previews.address_of(previews.thumbnail(preview.rgb))
            added.append(picture)
        if not added:
            return {"drop": None}
        session.chosen = session.pictures.index(added[0])
        return {**await self._paint(visit), **self._strip(session), "drop": None}

    def _taken(self, session: Session, path: Path) -> OpenPicture:
        """A photograph that was uploaded, moved to where it stays."""
        name = path.name
        suffix = suffix_of(name)
        target = session.new_folder() / (name if suffix in SUFFIXES else Path(name).stem)
        shutil.move(path, target)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # of this upload alone
        return OpenPicture(target, name)

    def _check_size(self, path: Path) -> None:
        """ConfigError for a file that is larger than a request may be; films may be larger."""
        most, size = self.studio.settings.max_bytes, path.stat().st_size
        if size > most:
            raise ConfigError(
                say(
                    "large_file",
                    most=f"{most / 1e6:g}",
                    found=f"{size / 1e6:.4g}",
                    name=path.name,
                )
            )

    async def choose_picture(self, visit: Visit) -> Updates:
        """Show another photograph."""
        number = visit.number()
        if not 0 <= number < len(visit.session.pictures):
            raise ConfigError(f"a photograph must be one that is there, got {number + 1}")
        visit.session.chosen = number
        return {**await self._paint(visit), **self._strip(visit.session)}

    async def remove_picture(self, visit: Visit) -> Updates:
        """Forget a photograph."""
        session, number = visit.session, visit.number()
        if not 0 <= number < len(session.pictures):
            raise ConfigError(f"a photograph must be one that is there, got {number + 1}")
        gone = session.pictures.pop(number)
        shutil.rmtree(gone.path.parent, ignore_errors=True)
        if number < session.chosen or session.chosen == len(session.pictures):
            session.chosen = max(0, session.chosen - 1)
        if not session.pictures:
            nothing = gr.update(after="", before="", marks=[], sweeps=[], region="")
            return {**self._strip(session), "stage": nothing, "tools": gr.update(visible=False)}
        return {**await self._paint(visit), **self._strip(session)}

    # --- colours at places ---

    async def press(self, visit: Visit) -> Updates:
        """Ask for the most probable colours at a place."""
        return await self._look(visit, visit.real("x"), visit.real("y"))

    async def look_at(self, visit: Visit, x: Any, y: Any) -> Updates:
        """As `press`, at a place that was typed; a mark that is selected moves there."""
        place = _real("x", x), _real("y", y)
        number = visit.picture.selected
        if number is None:
            return await self._look(visit, *place)
        edit = visit.picture.history.present
        moved = edit.replaced(number, edit.mark(number).moved(*place))
        return await self._change(visit, moved, selected=number)

    async def take_mark(self, visit: Visit) -> Updates:
        """Select a mark, so that its colour or place can be changed."""
        number = visit.number()
        mark = visit.picture.history.present.mark(number)
        shown = await self._look(visit, *mark.place, selected=number)
        return {**shown, "picker": mark.color}

    async def choose_color(self, visit: Visit) -> Updates:
        """Take a colour of the palette for the place that was picked."""
        palette, number = visit.picture.palette, visit.number()
        if not 0 <= number < len(palette):
            raise ConfigError(f"a colour must be one of the {len(palette)} shown, got {number + 1}")
        return await self._color(visit, palette[number])

    async def use_color(self, visit: Visit, x: Any, y: Any, color: str) -> Updates:
        """Take any colour for the place that was picked or typed."""
        if visit.picture.selected is None:
            visit.picture.picked = _real("x", x), _real("y", y)
        return await self._color(visit, color)

    async def _color(self, visit: Visit, color: str) -> Updates:
        picture = visit.picture
        edit = picture.history.present
        if picture.selected is not None:
            number = picture.selected
            changed = edit.replaced(number, edit.mark(number).recolored(color))
        else:
            if picture.picked is None:
                raise ConfigError(say("no_place"))
            size, place = self.studio.colorizer.sight.size, picture.picked
            preview = await self._do(visit, lambda _: self._preview(picture))
            changed = edit.with_mark(previews.point(size, preview, *place, color))
            number = len(edit.marks)
        shown = await self._change(visit, changed, selected=number)
        return {**shown, "picker": editing.hex_of(editing.rgb_of(color))}

    async def move_mark(self, visit: Visit) -> Updates:
        """Move a mark."""
        number, edit = visit.number(), visit.picture.history.present
        mark = edit.mark(number).moved(visit.real("x"), visit.real("y"))
        return await self._change(visit, edit.replaced(number, mark), selected=number)

    async def remove_mark(self, visit: Visit) -> Updates:
        """Remove a mark."""
        edit = visit.picture.history.present
        return await self._change(visit, edit.replaced(visit.number()))

    async def stroke(self, visit: Visit, color: str) -> Updates:
        """Take a stroke of the brush: a colour along it, or where to colour."""
        picture, said = visit.picture, visit.said
        edit, path = picture.history.present, editing.path_of(said.get("places"))
        radius = max(0.5, visit.real("radius"))
        if said.get("tool") != "brush":
            sweep = Sweep(path, radius, erases=said.get("tool") == "erase")
            changed = dataclasses.replace(edit, sweeps=(*edit.sweeps, sweep))
            return await self._change(visit, changed)
        preview = await self._do(visit, lambda _: self._preview(picture))
        size = self.studio.colorizer.sight.size
        mark = previews.stroke(size, preview, path, radius, color)
        return await self._change(visit, edit.with_mark(mark))

    # --- steps ---

    async def go_back(self, visit: Visit) -> Updates:
        """Undo."""
        return await self._step(visit, visit.picture.history.undone())

    async def go_on(self, visit: Visit) -> Updates:
        """Redo."""
        return await self._step(visit, visit.picture.history.redone())

    async def clear_all(self, visit: Visit) -> Updates:
        """Take everything back that was told, which can be undone too."""
        return await self._change(visit, Edit())

    # --- looks ---

    async def set_saturation(self, visit: Visit, value: float) -> Updates:
        """Make the colours more or less vivid."""
        edit = visit.picture.history.present
        return await self._change(visit, dataclasses.replace(edit, saturation=float(value)))

    async def show_sure(self, visit: Visit, wanted: bool) -> Updates:
        """Show where the colours are sure, or no longer."""
        visit.session.sure = bool(wanted)
        return await self._paint(visit)

    async def vary(self, visit: Visit) -> Updates:
        """Show variants to choose from."""
        picture, edit = visit.picture, visit.picture.history.present
        exemplars = [exemplar for _, exemplar in picture.references]
        found = await self._do(
            visit,
            lambda _: previews.variants(
                self.studio.colorizer, self._preview(picture), edit, exemplars
            ),
        )
        picture.variants = [previews.address_of(each) for each in found]
        return self._looks(picture)

    async def take_variant(self, visit: Visit) -> Updates:
        """Take a variant."""
        number = visit.number()
        if not 0 <= number < len(visit.picture.variants):
            raise ConfigError(f"a variant must be one of those shown, got {number + 1}")
        edit = visit.picture.history.present
        return await self._change(visit, dataclasses.replace(edit, variant=number))

    async def add_reference(self, visit: Visit, given: str) -> Updates:
        """Take colours from another picture."""
        picture, settings = visit.picture, self.studio.settings
        if len(picture.references) >= MOST_REFERENCES:
            raise ConfigError(say("many_references", most=MOST_REFERENCES))
        path = self._taken(visit.session, Path(given)).path
        colorizer = self.studio.colorizer
        try:
            self._check_size(path)
            self.sessions.make_room(visit.session)
            exemplar = await self._do(
                visit, lambda _: previews.describe(colorizer, path, settings.max_pixels)
            )
        except BaseException:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise
        picture.references.append((path, exemplar))
        return await self._paint(visit)

    async def remove_reference(self, visit: Visit) -> Updates:
        """Take no colours from a picture any more."""
        references, number = visit.picture.references, visit.number()
        if not 0 <= number < len(references):
            raise ConfigError(f"a reference must be one that is there, got {number + 1}")
        path, _ = references.pop(number)
        shutil.rmtree(path.parent, ignore_errors=True)
        return await self._paint(visit)

    async def enlarge(self, visit: Visit) -> Updates:
        """Show the photograph at its full size, or as large as the screen again."""
        if not visit.said.get("large"):
            return await self._paint(visit)
        picture, settings = visit.picture, self.studio.settings
        finishing.check_showable(picture)
        before, after = await self._do(
            visit,
            lambda ticket: finishing.shown_at_full_size(
                self.studio.colorizer, picture, settings.max_pixels, ticket
            ),
        )
        pictures: _Said = {
            "before": previews.address_of(before),
            "after": previews.address_of(after),
        }
        return {"stage": gr.update(**pictures, sure="", large=True)}

    # --- files ---

    async def save_one(self, visit: Visit) -> Updates:
        """Colour the photograph at its full size, and let the browser save it."""
        path, notes = await self._save(visit, visit.picture)
        return {"fetcher": stage.fetch(path), "notes": _as_html(notes)}

    async def save_every(self, visit: Visit) -> Updates:
        """Colour all photographs, and let the browser save an archive of them."""
        files, notes = [], list[str]()
        for picture in visit.session.pictures:
            path, own = await self._save(visit, picture)
            files.append(path)
            notes += (f"{picture.name}: {note}" for note in own)
        path = finishing.pack(files, visit.session.new_folder() / "colored.zip")
        for file in files:
            file.unlink()
        return {"fetcher": stage.fetch(path), "notes": _as_html(notes)}

    async def save_hints(self, visit: Visit) -> Updates:
        """Let the browser save the hints."""
        path = visit.session.new_folder() / f"{Path(visit.picture.name).stem}.json"
        saved = finishing.save_hints(visit.picture.history.present, path)
        return {"fetcher": stage.fetch(saved)}

    async def save_mask(self, visit: Visit) -> Updates:
        """Let the browser save where to colour."""
        picture = visit.picture
        preview = await self._do(visit, lambda _: self._preview(picture))
        path = visit.session.new_folder() / f"{Path(picture.name).stem}-mask.png"
        edit = picture.history.present
        return {
            "fetcher": stage.fetch(finishing.save_mask(edit, preview.height, preview.width, path))
        }

    async def load_hints(self, visit: Visit, given: str) -> Updates:
        """Add the hints of a file."""
        picture, path = visit.picture, Path(given)
        if path.suffix.lower() not in hint_files.SUFFIXES:
            known = ", ".join(sorted(hint_files.SUFFIXES))
            raise DataError(say("hints_kind", known=known, name=path.name))
        size = self.studio.colorizer.sight.size
        try:
            marks = await self._do(
                visit, lambda _: previews.read_hints(path, self._preview(picture), size)
            )
        except GancolorError as error:
            raise DataError(problems.without_folder(str(error), path.parent)) from error
        finally:
            path.unlink(missing_ok=True)
        edit = picture.history.present
        changed = dataclasses.replace(edit, marks=(*edit.marks, *marks))
        return await self._change(visit, changed)

    async def load_mask(self, visit: Visit, given: str) -> Updates:
        """Take a picture of where to colour, instead of all that was said of it before."""
        picture, uploaded = visit.picture, Path(given)
        path = picture.path.parent / f"{secrets.token_urlsafe(8)}{suffix_of(uploaded.name)}"
        shutil.move(uploaded, path)
        try:
            self._check_size(path)
            self.sessions.make_room(visit.session)
            edit = picture.history.present
            return await self._change(visit, dataclasses.replace(edit, region=path, sweeps=()))
        except BaseException as error:
            path.unlink()
            if isinstance(error, GancolorError):
                words = str(error).replace(str(path), uploaded.name)
                raise DataError(words) from error
            raise

    # --- what they have in common ---

    async def _do(self, visit: Visit, work: Callable[[Ticket], _T]) -> _T:
        return await self.studio.do(work, visit.wait)

    def _preview(self, picture: OpenPicture) -> Preview:
        """On the line's thread."""
        settings = self.studio.settings
        return self.sessions.preview(picture, self.studio.colorizer.sight, settings.max_pixels)

    async def _save(self, visit: Visit, picture: OpenPicture) -> tuple[Path, list[str]]:
        folder = visit.session.new_folder()
        settings = self.studio.settings
        saved = await self._do(
            visit,
            lambda ticket: finishing.save(
                self.studio.colorizer, picture, folder, settings.max_pixels, ticket
            ),
        )
        self.sessions.make_room(visit.session)
        return saved

    async def _look(
        self, visit: Visit, x: float, y: float, *, selected: int | None = None
    ) -> Updates:
        picture, hints = visit.picture, visit.picture.history.present.hints
        found = await self._do(
            visit,
            lambda _: previews.suggest(self.studio.colorizer, self._preview(picture), x, y, hints),
        )
        picture.picked, picture.selected = (x, y), selected
        picture.palette = [editing.hex_of(each.rgb) for each in found]
        items = [
            stage.choice(
                f"{color}, {each.probability:.0%}", text=f"{each.probability:.0%}", color=color
            )
            for color, each in zip(picture.palette, found, strict=True)
        ]
        return {
            "palette": gr.update(items=items),
            "stage": gr.update(picked=[x, y], selected=-1 if selected is None else selected),
            "x": round(x),
            "y": round(y),
            **self._list(picture),
        }

    async def _change(self, visit: Visit, edit: Edit, selected: int | None = None) -> Updates:
        """Go on with an edit, when it can be painted."""
        return await self._step(visit, visit.picture.history.done(edit), selected)

    async def _step(
        self, visit: Visit, history: editing.History, selected: int | None = None
    ) -> Updates:
        picture, before = visit.picture, visit.picture.history
        picture.history = history
        try:
            shown = await self._paint(visit)
        except BaseException:
            picture.history = before
            raise
        picture.selected = selected
        place = None if selected is None else history.present.mark(selected).place
        if place is not None:
            picture.picked = place
            shown |= {"x": round(place[0]), "y": round(place[1])}
        shown["stage"] |= gr.update(
            selected=-1 if selected is None else selected, picked=list(place or ())
        )
        return {**shown, **self._list(picture)}

    async def _paint(self, visit: Visit) -> Updates:
        """Colour the photograph that is shown, and say all that is to be seen of it."""
        picture, edit = visit.picture, visit.picture.history.present
        exemplars = [exemplar for _, exemplar in picture.references]

        def work(_: Ticket) -> tuple[Preview, Painted]:
            preview = self._preview(picture)
            edit.checked(preview.height, preview.width)
            painted = previews.paint(
                self.studio.colorizer, preview, edit, exemplars, confidence=visit.session.sure
            )
            return preview, painted

        preview, painted = await self._do(visit, work)
        picture.selected = None
        sure = painted.confidence
        view = gr.update(
            before=previews.address_of(preview.rgb),
            after=previews.address_of(painted.rgb),
            sure="" if sure is None else previews.address_of(previews.heat(sure)),
            width=preview.width,
            height=preview.height,
            marks=stage.marks_shown(edit.marks),
            sweeps=stage.sweeps_shown(edit.sweeps),
            region=preview.veil(edit.region),
            picked=list(picture.picked or ()),
            selected=-1,
            large=False,
        )
        return {
            "stage": view,
            "tools": gr.update(visible=True),
            "notes": _as_html([*preview.notes, *painted.notes]),
            "saturation": edit.saturation,
            **self._list(picture),
            **self._looks(picture),
        }

    def _list(self, picture: OpenPicture) -> Updates:
        """The marks, and which steps there are."""
        history = picture.history
        items = [
            stage.choice(
                _name_of(number, mark),
                text=_name_of(number, mark),
                color=mark.color,
                chosen=number == picture.selected,
            )
            for number, mark in enumerate(history.present.marks)
        ]
        return {
            "marks": gr.update(items=items),
            "undo": gr.update(interactive=bool(history.past)),
            "redo": gr.update(interactive=bool(history.future)),
        }

    def _looks(self, picture: OpenPicture) -> Updates:
        """The variants and references."""
        taken = picture.history.present.variant
        variants = [
            stage.choice(str(number + 1), source=source, chosen=number == taken)
            for number, source in enumerate(picture.variants)
        ]
        references = [stage.choice(path.name, text=path.name) for path, _ in picture.references]
        return {"variants": gr.update(items=variants), "references": gr.update(items=references)}

    def _strip(self, session: Session) -> Updates:
        """The photographs to choose from, when there are several."""
        items = [
            stage.choice(picture.name, source=picture.thumbnail, chosen=number == session.chosen)
            for number, picture in enumerate(session.pictures)
        ]
        several = len(items) > 1
        return {"strip": gr.update(items=items), "save_all": gr.update(visible=several)}


def _name_of(number: int, mark: Mark) -> str:
    x, y = mark.place
    return f"{number + 1}: {x:.0f}, {y:.0f} · {mark.color}"


def _as_html(notes: Sequence[str]) -> str:
    """Sentences, which may hold names of files, as a list."""
    return "".join(f"<p>{html.escape(note)}</p>" for note in dict.fromkeys(notes))
