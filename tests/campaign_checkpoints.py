"""Malformed checkpoints and settings, made at random from good ones and given to what reads them.

    python tests/campaign_checkpoints.py --count 1000 --seed 1

Each must be read, or refused in one line that obeys nothing on a terminal. Nothing else may happen:
no other error, no code run, no file lost, no more memory than the file and the network need. Prints
what became of them, by kind.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import random
import shutil
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tiny_settings import TINY

from gancolor import presets
from gancolor.coloring.colorizer import Colorizer
from gancolor.config import TrainConfig
from gancolor.data import catalog, facts, manifest, shard_listing
from gancolor.errors import GancolorError
from gancolor.storage import checkpoint
from gancolor.training import rundir, train
from gancolor.training.state import State

MOST = 600 << 20  # bytes by which a reader may grow beyond what it had, on a checkpoint of some MB
LONGEST = 5000  # letters of a message


class Payload:
    """Unpickling this makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def nested(depth: int, kind: type = list) -> Any:
    """A list in a list in a list."""
    value: Any = []
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def odd(draw: random.Random) -> Any:
    """A value that may stand where it does not belong."""
    return draw.choice(
        [
            lambda: None,
            lambda: [],
            lambda: {},
            lambda: "",
            lambda: "x\x1b[31m\n",
            lambda: "x" * 100_000,
            lambda: -1,
            lambda: 0,
            lambda: 10**400,
            lambda: -(2**63),
            lambda: math.nan,
            lambda: math.inf,
            lambda: 1e308,
            lambda: True,
            lambda: b"bytes",
            lambda: (1, "a"),
            lambda: {1: 2, None: 3},
            lambda: nested(5000),
            lambda: torch.zeros(()),
            lambda: torch.zeros(3, 0),
            lambda: torch.full((7,), math.nan),
            lambda: torch.zeros(2, 2, dtype=torch.complex64),
            lambda: torch.zeros(4).to_sparse(),
            lambda: torch.empty(10**9, device="meta"),
            lambda: torch.zeros(1).expand(10**8),
            lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
            lambda: torch.Size([1, 2]),
            lambda: torch.float16,
            lambda: torch.device("cpu"),
        ]
    )()


def places(value: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """Every (container, key) of a nested value."""
    if depth > 6 or not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else range(len(value))
    return [place for key in keys for place in ((value, key), *places(value[key], depth + 1))]


def copied(value: Any) -> Any:
    """A copy whose containers may be changed; tensors are shared."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def other_content(content: dict[str, Any], draw: random.Random) -> Any:
    """Some of a checkpoint's values replaced, removed, renamed or reshaped."""
    whole = copied(content)
    if draw.random() < 0.05:
        return odd(draw)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        top = draw.random() < 0.5
        container, key = draw.choice(
            [(whole, each) for each in whole] if top else places(whole) or [(whole, "x")]
        )
        value = container[key] if isinstance(container, list) or key in container else None
        way = draw.randrange(5)
        if way == 0 and isinstance(container, dict):
            container.pop(key, None)
        elif way == 1 and isinstance(container, dict):
            container[draw.choice(["\x1b[31m", "x" * 1000, 5, None, "other"])] = container.pop(
                key, None
            )
        elif way == 2 and isinstance(value, torch.Tensor):
            container[key] = draw.choice(
                [
                    value.double(),
                    value[..., None],
                    value.flatten()[:1],
                    value.float() * math.nan,
                    value.to(torch.int8),
                ]
            )
        elif way == 3 and isinstance(value, int | float):
            container[key] = draw.choice(
                [-value, value + 10**9, float(value), str(value), value * 1e300]
            )
        else:
            container[key] = odd(draw)
    return whole


def other_bytes(data: bytes, draw: random.Random) -> bytes:
    """A file's bytes flipped, cut, zeroed, doubled or strewn."""
    changed = bytearray(data)
    at = (
        draw.randrange(len(data))
        if draw.random() < 0.5
        else len(data) - 1 - draw.randrange(min(len(data), 4000))
    )
    length = draw.choice([1, 4, 512, 4096])
    way = draw.randrange(6)
    if way == 0:
        changed[at] ^= 1 << draw.randrange(8)
    elif way == 1:
        del changed[at:]
    elif way == 2:
        changed[at : at + length] = bytes(length)
    elif way == 3:
        changed[at:at] = changed[at : at + length]
    elif way == 4:
        changed[at : at + length] = draw.randbytes(length)
    else:
        del changed[at : at + length]
    return bytes(changed)


def other_archive(data: bytes, draw: random.Random, folder: Path) -> bytes:
    """The same members packed, made larger, left out or called otherwise."""
    source, target = folder / "source.zip", folder / "target.zip"
    source.write_bytes(data)
    way = draw.randrange(5)
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(target, "w") as new,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of names that are there twice
        left_out = draw.choice(old.namelist())
        for name in old.namelist():
            held = old.read(name)
            if way == 0:
                new.writestr(name, held, zipfile.ZIP_DEFLATED)
            elif way == 1 and name == left_out:
                new.writestr(name, bytes(300 << 20), zipfile.ZIP_DEFLATED)
            elif way == 2 and name == left_out:
                continue
            elif way == 3 and name == left_out:
                new.writestr("\x1b[31m" + name, held)
            else:
                new.writestr(name, held)
                if way == 4 and name == left_out:
                    new.writestr(name, draw.randbytes(len(held)))
    return target.read_bytes()


def with_code(content: dict[str, Any], draw: random.Random, mark: Path, path: Path) -> None:
    """A file that would make `mark` where it is unpickled."""
    way = draw.randrange(4)
    if way == 0:
        path.write_bytes(pickle.dumps(Payload(mark)))
    elif way == 1:
        torch.save({**content, "step": Payload(mark)}, path)
    elif way == 2:
        torch.save({**content, "step": Payload(mark)}, path, _use_new_zipfile_serialization=False)
    else:
        torch.save(Payload(mark), path)


def other_json(value: Any, draw: random.Random) -> bytes:
    """A JSON text with something wrong in its values, its depth or its letters."""
    whole = copied(value)
    way = draw.randrange(4)
    if way == 0:
        return other_bytes(json.dumps(whole).encode(), draw)
    if way == 1:
        depth = draw.choice([500, 100_000])
        return draw.choice([b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth])
    for _ in range(draw.choice([1, 1, 2])):
        container, key = draw.choice(places(whole))
        new = draw.choice(
            [
                None,
                [],
                {},
                "",
                "\x1b[31m",
                -1,
                10**400,
                math.nan,
                math.inf,
                True,
                [1, "a"],
                1e308,
                nested(300),
            ]
        )
        if draw.random() < 0.2 and isinstance(container, dict):
            container["\x1b[31mkey"] = container.pop(key, None)
        else:
            container[key] = new
        if not places(whole):
            break
    text = json.dumps(whole)
    return text.encode() if way == 2 else text.replace('"', "", 1).encode()


def resident() -> int:
    """Bytes of memory that the process has, 0 where that is not known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def tried(read: Callable[[], Any]) -> tuple[str, str]:
    """What became of reading, 'read' or 'refused', or else 'WRONG', and why."""
    before = resident()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
        result = "read", ""
    except GancolorError as error:
        words = str(error)
        result = "refused", words
        if not words.isprintable() or len(words) > LONGEST:
            return "WRONG", f"a message of {len(words)} letters: {ascii(words)[:500]}"
        if "weights_only" in words or "can still be loaded" in words:
            return "WRONG", f"advice to run code: {words}"
    except Exception:
        return "WRONG", traceback.format_exc(limit=-6)
    if resident() - before > MOST:
        return "WRONG", f"{(resident() - before) >> 20} MiB more"
    return result


def tiny(**changes: Any) -> TrainConfig:
    """Settings of a training of one step."""
    small = {**TINY, "steps": 1}
    return presets.build(changes.pop("preset", "gan"), **{**small, **changes})


def resumed(run: Path) -> TrainConfig:
    """The settings of a run that goes on."""
    return rundir.merge_settings(rundir.read_config(run), {"steps": 3})


class Campaign:
    """Trained runs, and what is tried on copies of their files."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.counts: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self.mark = folder / "executed"
        self.runs = [
            train(tiny(preset=preset), runs_root=folder / "runs")
            for preset in ("gan", "poster", "regression")
        ]
        self.contents = [torch.load(run / "last.pt", weights_only=True) for run in self.runs]

    def note(self, kind: str, number: int, result: tuple[str, str]) -> None:
        """Count what became of one."""
        self.counts[kind, result[0]] += 1
        if result[0] == "WRONG":
            self.wrong.append(f"{kind}, number {number}: {result[1]}")
        if self.mark.exists():
            self.wrong.append(f"{kind}, number {number}: CODE WAS RUN")
            self.mark.rmdir()

    def checkpoint(self, number: int) -> None:
        """Make a malformed checkpoint, and read it in every way there is."""
        draw = random.Random(f"{self.seed} checkpoint {number}")
        which = draw.randrange(len(self.runs))
        good = self.runs[which]
        run = self.folder / "0009-tried"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        shutil.copy(good / "config.json", run)
        shutil.copy(good / "last.pt", run / "last-1.pt")
        path = run / "last.pt"
        kind = draw.choice(["bytes", "bytes", "archive", "content", "content", "content", "code"])
        if kind == "bytes":
            path.write_bytes(other_bytes((good / "last.pt").read_bytes(), draw))
        elif kind == "archive":
            path.write_bytes(other_archive((good / "last.pt").read_bytes(), draw, self.folder))
        elif kind == "code":
            with_code(self.contents[which], draw, self.mark, path)
        else:
            try:
                torch.save(other_content(self.contents[which], draw), path)
            except Exception:  # what torch itself does not write cannot come from it
                return
        size = path.stat().st_size
        self.note(
            kind + ", coloured with",
            number,
            tried(lambda: Colorizer.load(path, device="cpu").self_test()),
        )

        def go_on() -> None:
            content = checkpoint.load_last(run, mend=True)
            rundir.merge_settings(rundir.read_config(run), {"steps": 2})
            State(content["config"], torch.device("cpu"), content)
            if number % 4 == 0:
                train(
                    rundir.merge_settings(content["config"], {"steps": content["step"] + 1}),
                    resume=run,
                )

        self.note(kind + ", gone on with", number, tried(go_on))
        left = [each.stat().st_size for each in run.glob("last*") if each.name != "last-1.pt"]
        if not left or (len(left) == 1 and left[0] != size and not (run / "log.jsonl").exists()):
            self.wrong.append(f"{kind}, number {number}: the file is gone")

    def settings(self, number: int) -> None:
        """Make malformed settings, lists and tables, and read them."""
        draw = random.Random(f"{self.seed} settings {number}")
        folder = self.folder / "settings"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        kind = draw.choice(
            ["config.json", "config.json", "shards.json", "set.json", "mine.toml", "manifest.csv"]
        )
        path = folder / kind
        read: Callable[[], Any]
        if kind == "config.json":
            path.write_bytes(other_json(json.loads((self.runs[0] / kind).read_text()), draw))
            read = partial(resumed, folder)
        elif kind == "shards.json":
            row = {
                "file": "0.tar",
                "split": "train",
                "pictures": 70,
                "bytes": 10**6,
                "sha256": "0" * 64,
            }
            rows = [{**row, "starts": [0, 65536]}]
            head = {"gancolor shards": 1, "name": "n", "licence": "l", "plan": "p", "shards": rows}
            path.write_bytes(other_json(head, draw))
            read = partial(shard_listing.read, path)
        elif kind == "set.json":
            path.write_bytes(
                other_json({"name": "n", "title": "t", "licence": "l", "sources": ["a"]}, draw)
            )
            read = partial(facts.find, str(folder))
        elif kind == "mine.toml":
            good = (
                b'title = "t"\nwhat = "w"\nsource = "s"\nlicence = "l"\n[[files]]\nname ='
                b' "a.zip"\nurls = ["http://x"]\n'
            )
            deep = b"a = " + b"[" * 100_000
            path.write_bytes(draw.choice([other_bytes(good, draw), other_bytes(good, draw), deep]))
            read = partial(catalog.find, "mine", folder)
        else:
            good = b"path,split,reject\na.jpg,train,\nb.jpg,,gray\n" + "\u00fc.jpg,val,\n".encode()
            path.write_bytes(other_bytes(good, draw))
            read = partial(manifest.read, path)
        self.note(kind, number, tried(read))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign and print its counts; 1 if anything else happened than what may."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="checkpoints, and as many settings")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), chosen.seed)
        for number in range(chosen.count):
            campaign.checkpoint(number)
            campaign.settings(number)
    for (kind, result), count in sorted(campaign.counts.items()):
        print(f"{kind}: {count} {result}")
    print("\n\n".join(campaign.wrong[:20]), file=sys.stderr)
    print(f"seed {chosen.seed}: {sum(campaign.counts.values())} tried, {len(campaign.wrong)} wrong")
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from narrow import narrow_networks  # VGG16 with an eighth of its channels

    narrow_networks()
    sys.exit(main())
