"""The README and the documentation: every command that they show exists, with every option, and
runs in tiny form.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import clips
import pytest

import gancolor
from gancolor import presets
from gancolor.cli import main
from gancolor.cli.options import SectionedCommand, given_settings
from gancolor.cli.train import expand_sweep

if TYPE_CHECKING:
    from click.testing import Result

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [
    page
    for pattern in (
        "README.md",
        "docs/*.md",
        "datasets/README.md",
        "runs/README.md",
        "CONTRIBUTING.md",
    )
    for page in sorted(REPOSITORY.glob(pattern))
    if page.name != "cli.md"  # written from --help, and checked by docs/check.py
]
# Options of other programs that the pages name beside ours.
FOREIGN = {"--logdir", "--nproc-per-node"}
SHAPE = "--width 4 --levels 1 --frozen-blocks 2"
TINY = f"--image-size 32 --batch-size 2 {SHAPE} --backbone-weights none --val-pictures 2"
TINY += " --workers 0 --device cpu --precision fp32 --steps 1"


def snippets(text: str) -> Iterator[str]:
    """Yield the lines of code blocks, fenced or indented, and the code spans of a page."""
    fenced = re.compile(r"^(```|~~~)[^\n]*\n(.*?)^\1", re.MULTILINE | re.DOTALL)
    for block in fenced.findall(text):
        yield from block[1].replace("\\\n", " ").splitlines()
    rest = fenced.sub("", text)
    blocks = re.findall(r"(?:^(?: {4}|\t)[^\n]*\n?)+", rest, re.MULTILINE)
    yield from "".join(blocks).replace("\\\n", " ").splitlines()
    yield from re.findall(
        r"`([^`\n]+)`", re.sub(r"^(?: {4}|\t)[^\n]*$", "", rest, flags=re.MULTILINE)
    )


def commands(text: str) -> list[list[str]]:
    """Return the arguments of each `gancolor ...` that a page shows, without comments, pipes and
    `...`.
    """
    found = []
    for snippet in snippets(text):
        words = re.sub(r"^\$ ", "", snippet.strip())
        start = r"(?:[A-Z_]+=\S+ +)*(?:\S*/)?(?:torchrun .*-m (?:-- )?|python -m )?"
        match = re.match(rf"{start}gancolor(?: +(.*))?$", words)
        if match and not (match[1] or "").startswith("/"):
            typed = re.split(r"[|;>]|&&", match[1] or "")[0]
            found.append([word for word in shlex.split(typed, comments=True) if word != "..."])
    return [arguments for arguments in found if arguments]


def handed_on(text: str) -> list[tuple[list[str], list[str]]]:
    """Return, for each torchrun that a page shows, what follows `gancolor` and what of it torchrun
    hands on: it takes for its own what looks like one of its options. SystemExit for what it refuses.
    """
    from torch.distributed.run import get_args_parser

    found = []
    for snippet in snippets(text):
        if match := re.search(r"\btorchrun +(.*\bgancolor\b.*)", snippet):
            words = shlex.split(match[1], comments=True)
            taken = get_args_parser().parse_args(words)
            assert (taken.module, taken.training_script) == (True, "gancolor"), snippet
            found.append((words[words.index("gancolor") + 1 :], taken.training_script_args))
    return found


def parse(arguments: list[str]) -> click.Context:
    """Parse a command line without running it: click's UsageError if anything in it does not exist."""
    command: click.Command = main
    context, rest = click.Context(main, info_name="gancolor"), list(arguments)
    while isinstance(command, click.Group):
        if not rest and command is not main:  # a group by itself
            return context
        name, found, rest = command.resolve_command(context, rest)
        assert name is not None and found is not None
        command = found
        context = click.Context(command, info_name=name, parent=context)
    return command.make_context(context.info_name, rest, parent=context.parent)


def leaves(group: click.Group, context: click.Context) -> Iterator[tuple[list[str], click.Command]]:
    """Every command that is no group, with the words that lead to it."""
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from (
                ([name, *words], leaf)
                for words, leaf in leaves(found, click.Context(found, parent=context))
            )
        else:
            yield [name], found


def check(arguments: list[str]) -> None:
    """Fail unless the command exists with its options, and its settings are valid together."""
    if arguments[0] in ("--help", "--version", "-h"):
        return
    try:
        context = parse(arguments)
    except click.exceptions.Exit:  # --help
        return
    if context.info_name == "train" and context.params["resume"] is None:
        assert expand_sweep(given_settings(context))


def test_the_parser_of_pages_finds_commands() -> None:
    page = (
        "Text with `gancolor sample`, `gancolor` alone and `gancolor/color.py`.\n\n"
        "    gancolor train --dataset 'my pictures'   # a comment\n"
        "    FOO=1 gancolor train --lr 1e-3 \\\n      --beta1 .5\n"
        "    pip install gancolor\n\n"
        "```sh\n$ .venv/bin/gancolor sample old/ --out new/ && ls\n```\n"
        "| a | `torchrun --nproc-per-node 2 -m gancolor train ...` |\n"
    )
    assert sorted(commands(page)) == [
        ["sample"],
        ["sample", "old/", "--out", "new/"],
        ["train"],
        ["train", "--dataset", "my pictures"],
        ["train", "--lr", "1e-3", "--beta1", ".5"],
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--lamda", "1"],
        ["train", "--time-limit", "soon"],
        ["paint"],
        ["sample", "--run"],
        ["train", "x"],
        ["data", "x"],
        ["data", "pack"],
    ],
    ids=" ".join,
)
def test_the_check_notices_what_does_not_exist(arguments: list[str]) -> None:
    with pytest.raises(click.UsageError):
        check(arguments)


def test_the_check_notices_settings_out_of_bounds() -> None:
    with pytest.raises(gancolor.GancolorError):
        check(["train", "--image-size", "8"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_command_shown_exists_with_its_options(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = commands(text)
    if page.name == "README.md" and page.parent == REPOSITORY:
        assert {"train", "sample"} <= {arguments[0] for arguments in found}, (
            "the README must show how it is used"
        )
    for arguments in found:
        try:
            check(arguments)
        except click.UsageError as error:
            pytest.fail(f"{page.name}: gancolor {shlex.join(arguments)}: {error.format_message()}")


def test_torchrun_hands_on_what_the_pages_show_it() -> None:
    found = [one for page in PAGES for one in handed_on(page.read_text(encoding="utf-8"))]
    assert {words[0] for words, _ in found} == {"train", "sample"}
    assert all(words == taken for words, taken in found)
    with pytest.raises(SystemExit):  # --run is the beginning of two of torchrun's own
        handed_on("    torchrun -m gancolor sample old/ --run 7")


def test_torchrun_takes_no_option_of_a_training_for_its_own() -> None:
    command = main.get_command(click.Context(main), "train")
    assert command is not None
    for option in (one for parameter in command.params for one in parameter.opts):
        [(words, taken)] = handed_on(f"    torchrun -m gancolor train {option} x")
        assert words == taken == ["train", option, "x"]


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_every_option_named_alone_exists(name: str) -> None:
    page = REPOSITORY / name
    if not page.exists():
        pytest.skip(f"there is no {name}")
    group = click.Context(main, info_name="gancolor")
    known = set(FOREIGN)
    commands_known = list(leaves(main, group))
    for _, command in commands_known:
        for parameter in command.params:
            known |= {*parameter.opts, *parameter.secondary_opts}
    spans = [span for span in snippets(page.read_text(encoding="utf-8")) if span.startswith("--")]
    named = {option for span in spans for option in re.findall(r"(?<!\S)--[\w-]+", span)}
    assert named <= known
    for span in spans:
        typed = shlex.split(span)
        if not set(typed) & FOREIGN and not any(word.isupper() for word in typed):
            assert any(accepts(words, command, typed) for words, command in commands_known), span


def accepts(words: list[str], command: click.Command, typed: list[str]) -> bool:
    """Whether the command takes these words; a bare name of an option that needs a value counts."""
    if len(typed) == 1:
        return any(
            typed[0] in (*parameter.opts, *parameter.secondary_opts) for parameter in command.params
        )
    try:
        parse([*words, *typed])
    except click.UsageError:
        return False
    return True


def test_the_python_shown_in_the_readme_compiles_and_imports() -> None:
    page = REPOSITORY / "README.md"
    if not page.exists():
        pytest.skip("there is no README.md")
    blocks = re.findall(
        r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    for block in blocks:
        compile(block, "README.md", "exec")
        imports = [line for line in block.splitlines() if re.match(r"(from|import) ", line)]
        exec("\n".join(imports), {})


def test_a_help_with_headings_lists_every_option_below_one() -> None:
    sectioned = [
        (words, command)
        for words, command in leaves(main, click.Context(main, info_name="gancolor"))
        if isinstance(command, SectionedCommand)
    ]
    assert {words[0] for words, _ in sectioned} == {"train", "sample", "reproduce", "serve"}
    for words, command in sectioned:
        context = click.Context(command, info_name=words[-1])
        options = {item.name for item in command.params if isinstance(item, click.Option)}
        assert set(command.sections) <= options, words
        shown = command.get_help(context)
        for heading in command.sections.values():
            assert f"\n{heading}:\n" in shown, heading
        for item in command.params:
            if isinstance(item, click.Option) and not item.hidden:
                assert re.search(rf"^  .*{item.opts[0]}\b", shown, re.MULTILINE), item.name


# --- running them ---


@pytest.mark.slow
def test_the_readme_works_in_tiny_form(
    cli: Callable[..., Result],
    painted: Path,
    small_embeddings: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("av")
    page = REPOSITORY / "README.md"
    if not page.exists():
        pytest.skip("there is no README.md")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in ("datasets/food", "old", "pictures"):
        shutil.copytree(painted, tmp_path / folder)
    shutil.copy(painted / "lakes" / "02.jpg", tmp_path / "grandmother.jpg")
    clips.film(tmp_path / "film.mp4", frames=6)
    config = presets.build("regression", **given_settings(parse(["train", *TINY.split()])))
    # what --resume 7 and Colorizer.load name
    named = gancolor.train(config, runs_root=tmp_path / "runs")
    named.rename(tmp_path / "runs" / "0007-gan-food")

    text = page.read_text(encoding="utf-8")
    shown = commands(text)
    for arguments in shown:
        if arguments[:2] in (["data", "download"], ["models", "push"]):
            continue  # that needs the network
        if arguments[0] == "serve":
            continue  # that goes on until Ctrl-C; tests/test_server.py starts it
        arguments = [str(tmp_path / "pictures") if word == "PATH" else word for word in arguments]
        if "--out" in arguments and arguments[0] == "sample":
            arguments.append("--overwrite")  # the page shows some commands twice
        if arguments[0] == "train":
            tiny = TINY.replace(SHAPE, "") if "--init" in arguments else TINY
            arguments += ["--steps", "2"] if "--resume" in arguments else tiny.split()
        if arguments[:2] == ["data", "prepare"]:
            arguments += ["--min-size", "32"]  # the painted pictures are small
        result = cli(*arguments)
        assert result.exit_code == 0, f"gancolor {shlex.join(arguments)}: {result.stderr[-1000:]}"
    assert len(list((tmp_path / "runs").iterdir())) > 1
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, "README.md", "exec"), {})
