"""Check the documentation: every relative link resolves, and docs/cli.md says what `--help` says.

python docs/check.py            lists what is wrong, one line each, and exits with 1
python docs/check.py --write    writes docs/cli.md afresh first
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
CLI_PAGE = ROOT / "docs" / "cli.md"
INTRODUCTION = """# Commands

This page repeats what each command says with `--help`, so that it can be read and searched in one
place. The [quickstart](quickstart.md) shows the commands in use. `make docs DOCS_FLAGS=--write`
writes the page; a text is changed where its option is declared (`gancolor/cli/` and the settings),
not here.
"""
SKIPPED = {".git", ".venv", "build", "dist", "node_modules"}
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)[^)]*\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


def pages() -> Iterator[Path]:
    """Yield the repository's Markdown files; of runs/ and datasets/, which hold the user's own,
    only the README.
    """
    for page in sorted(ROOT.rglob("*.md")):
        parts = page.relative_to(ROOT).parts
        own = parts[0] in {"runs", "datasets"} and parts[1:] != ("README.md",)
        if not own and not SKIPPED & set(parts):
            yield page


def prose(page: Path) -> str:
    """Return a page without its code, in which brackets are no links and hashes no headings."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^(    |\t).*$", "", text, flags=re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the names under which a page's headings can be linked to, as GitHub makes them."""
    slugs = (
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(prose(page))
    )
    return set(slugs)


def broken_links() -> Iterator[str]:
    """Yield a line for each relative link that leads nowhere."""
    for page in pages():
        for target in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page))):
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue  # another site
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            where = page.relative_to(ROOT)
            if not file.exists():
                yield f"{where}: link must lead to a file, got {target}"
            elif anchor and file.suffix == ".md" and anchor not in anchors(file):
                yield f"{where}: link must lead to a heading of {path or where}, got #{anchor}"


def helps(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """Yield each command's full name and help text, the group's own first, at a width that depends
    on no terminal.
    """
    context_settings = {**command.context_settings, "terminal_width": 110}
    context = click.Context(command, info_name=name, parent=parent, **context_settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None and not found.hidden:
                yield from helps(found, child, context)


def cli_page() -> str:
    """Return what docs/cli.md should hold."""
    from gancolor.cli import main

    shown = list(helps(main, "gancolor"))
    contents = [f"- [{path}](#{path.replace(' ', '-')})" for path, _ in shown]
    parts = [f"{INTRODUCTION}\n" + "\n".join(contents) + "\n"]
    parts += [f"## {path}\n\n```text\n{text.rstrip()}\n```\n" for path, text in shown]
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Check, after writing docs/cli.md where `--write` asks for it; return the exit code."""
    if arguments not in ([], ["--write"]):
        print("usage: python docs/check.py [--write]", file=sys.stderr)
        return 2
    page = cli_page()
    if arguments:
        CLI_PAGE.write_text(page, encoding="utf-8")
    problems = list(broken_links())
    if not CLI_PAGE.exists() or CLI_PAGE.read_text(encoding="utf-8") != page:
        problems.append(
            "docs/cli.md: must say what --help says; write it with: make docs DOCS_FLAGS=--write"
        )
    print(
        "\n".join(problems) or f"{len(list(pages()))} pages checked",
        file=sys.stderr if problems else sys.stdout,
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
