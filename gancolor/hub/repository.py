"""A model's repository on the Hub: looking at it, and putting a model there.

To look says which commit a revision is, which files it holds and what they must be. A model is
pushed as `model.safetensors`, `config.json` and its card, in one commit on a known one.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gancolor import __version__
from gancolor.config import TrainConfig
from gancolor.errors import ConfigError, DownloadError, MissingExtra
from gancolor.hub import addresses
from gancolor.hub.addresses import MAIN, HubAddress, is_commit
from gancolor.runtime import download
from gancolor.runtime.download import Unanswered
from gancolor.storage import checkpoint, model_file

MODEL, CARD, CONFIG = "model.safetensors", "README.md", "config.json"
"""A model's files in its repository."""

ENDPOINT = "https://huggingface.co"
TIMEOUT = 15.0  # seconds of silence

_MOST_ANSWER, _MOST_CARD = 1 << 24, 1 << 20  # bytes

# Settings that may name a place on this machine.
_PLACES = ("dataset", "backbone_weights", "encoder_weights", "init")

_log = logging.getLogger("gancolor")


@dataclass(frozen=True)
class Snapshot:
    """A repository at a commit. `files`: their names; `sha256`: of its model, None where the Hub
    does not say it.
    """

    address: HubAddress
    commit: str
    files: tuple[str, ...]
    sha256: str | None
    private: bool

    def url(self, file: str) -> str:
        """Where one of its files is to be had."""
        return f"{endpoint()}/{self.address.repository}/resolve/{self.commit}/{quote(file)}"


def endpoint() -> str:
    """The Hub's address: $HF_ENDPOINT or huggingface.co. ConfigError unless it is encrypted or on
    this machine.
    """
    given = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    if not download.is_encrypted(given):
        raise ConfigError(f"HF_ENDPOINT must begin with https://, got {given!r}")
    return given


def token() -> str | None:
    """The user's token for the Hub, $HF_TOKEN; None without one. ConfigError, which does not show
    it, for no token.
    """
    given = os.environ.get("HF_TOKEN", "").strip()
    if re.search(r"[^\x21-\x7e]", given):
        raise ConfigError(
            "HF_TOKEN must be a token of the Hub, one word of plain letters and digits; copy it"
            " again"
        )
    return given or None


def look(address: HubAddress, revision: str | None = None) -> Snapshot:
    """The repository at a revision: `revision`, else the address's own, else `main`.

    Unanswered when the Hub cannot be reached, DownloadError with the way out when it has no such
    thing or does not show it.
    """
    wanted = revision or address.revision or MAIN
    url = (
        f"{endpoint()}/api/models/{address.repository}/revision/{quote(wanted, safe='')}?blobs=true"
    )
    try:
        answer: Any = json.loads(_get(url, _MOST_ANSWER))
        siblings = answer["siblings"]
        files = tuple(str(item["rfilename"]) for item in siblings)
        found = [item for item in siblings if item["rfilename"] == MODEL]
        sha256 = (
            found[0]["lfs"]["sha256"] if found and isinstance(found[0].get("lfs"), dict) else None
        )
        commit = answer["sha"]
        if not is_commit(commit) or (
            sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256)
        ):
            raise ValueError
    except Unanswered as unanswered:
        if (words := _explain(address, wanted, unanswered)) is None:
            raise
        raise DownloadError(words) from unanswered
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(
            f"{url} must tell of a model on the Hub, got another answer; check HF_ENDPOINT"
        ) from error
    return Snapshot(address, commit, files, sha256, bool(answer.get("private")))


def read_card(snapshot: Snapshot) -> str | None:
    """The text of a repository's card, None if it has none. Unanswered when it cannot be had."""
    if CARD not in snapshot.files:
        return None
    return _get(snapshot.url(CARD), _MOST_CARD).decode("utf-8", "replace")


def _get(url: str, most: int) -> bytes:
    try:
        with download.ask(url, token=token(), encrypted=True, timeout=TIMEOUT) as response:
            body = response.read(most + 1)
    except download.LOST as error:
        raise Unanswered(f"the connection was lost ({download.reason_of(error)})") from error
    if len(body) > most:
        raise Unanswered(f"the answer has more than {most / 1e6:.0f} MB", passing=False)
    return body


def _explain(address: HubAddress, revision: str, unanswered: Unanswered) -> str | None:
    """What an answer of the Hub means, with the way out; None where it says nothing about the
    repository.
    """
    code = header(unanswered.headers, "X-Error-Code")
    if code == "RevisionNotFound":
        return (
            f"{address.at(None)} must have the revision {revision!r}, got none of that name; check"
            " its spelling"
        )
    if code == "GatedRepo":
        return (
            f"{address.at(None)} asks for its terms to be accepted: do so at"
            f" {endpoint()}/{address.repository}, and set HF_TOKEN to a token of that account"
        )
    if unanswered.status in (401, 403, 404):
        if token() is None:
            way = (
                "if it is private, set HF_TOKEN to a token that may read it"
                f" ({endpoint()}/settings/tokens)"
            )
        else:
            way = "check its spelling, or whether the token in HF_TOKEN may read it"
        return (
            f"{address.at(None)} must be a model on the Hub, got none that is shown to you; {way}"
        )
    return None


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's value, whatever the case of its name; "" without it."""
    return next((value for key, value in headers.items() if key.lower() == name.lower()), "")


def push(
    content: dict[str, Any],
    card: str,
    address: HubAddress,
    *,
    private: bool,
    licence: str,
    over: str | None,
) -> str:
    """Put a checkpoint's content with its card at `address`; returns the new commit.

    The repository is made where there is none, private if so wished. What it holds is replaced only
    if it is what was pushed or fetched last from here, or of the commit `over`; the Hub itself
    refuses when it changes meanwhile. ConfigError without a token or for settings that contradict
    the repository's, MissingExtra without huggingface_hub, DownloadError for what the Hub refuses.
    """
    api = _open_api(address)
    with addresses.opened(address) as (_, record), tempfile.TemporaryDirectory() as folder:
        files = _write(Path(folder), content, card, address, licence)
        _call(
            address,
            "made",
            lambda: api.create_repo(address.repository, private=private or None, exist_ok=True),
        )
        head = _look(address)
        _check_head(head, record.accepted.get(MAIN), over, private)
        _log.info("sending %s (%.1f MB) to %s", MODEL, files[0].stat().st_size / 1e6, address)
        commit = str(_call(address, "written", lambda: _commit(api, address, files, head.commit)))
        record.accepted[MAIN] = commit
    return commit


def portable(config: TrainConfig) -> TrainConfig:
    """The settings without this machine's folders: of each path its last name."""
    named = {
        name: value
        for name in _PLACES
        if (value := getattr(config, name)) and not addresses.is_address(value)
    }
    short = {name: Path(value).name or value for name, value in named.items()}
    return dataclasses.replace(config, datasets_root=None, **short)  # type: ignore[arg-type]  # by name


def portable_card(card: str, config: TrainConfig) -> str:
    """A run's card without folders of this machine."""
    known = portable(config)
    for name in _PLACES:
        before, after = getattr(config, name), getattr(known, name)
        if before and before != after:
            card = card.replace(before, after)
    return card


def hub_card(card: str, config: TrainConfig, address: HubAddress, licence: str) -> str:
    """A card for the Hub: its header in YAML, the model's own card, how to use it."""
    header = {
        "library_name": "gancolor",
        "pipeline_tag": "image-to-image",
        "license": licence,
        "tags": ["image-colorization", "gancolor", f"preset-{config.preset}"],
    }
    if config.init and config.init.startswith("hf://"):
        base = addresses.parse(config.init)
        header["base_model"] = base.repository if isinstance(base, HubAddress) else ""
    lines = [f"{key}: {json.dumps(value)}" for key, value in header.items()]  # JSON is YAML
    use = f"gancolor sample old/ --out new/ --run {address}"
    return "\n".join(
        [
            "---",
            *lines,
            "---",
            card.strip(),
            "",
            "## Use",
            "",
            f"    pip install gancolor\n    {use}",
            "",
        ]
    )


def _open_api(address: HubAddress) -> Any:
    if address.revision is not None:
        raise ConfigError(
            f"a model is pushed to a repository's main branch, got {address}; leave out @ and the"
            " rest"
        )
    try:
        import huggingface_hub
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise MissingExtra(
            "pushing to the Hub needs huggingface_hub: pip install 'gancolor[hub]'"
        ) from error
    if (secret := token()) is None:
        raise ConfigError(
            f"HF_TOKEN must hold a token that may write to {address.owner}, got none; make one at "
            f"{endpoint()}/settings/tokens"
        )
    disable_progress_bars()
    return huggingface_hub.HfApi(
        endpoint(), secret, library_name="gancolor", library_version=__version__
    )


def _write(
    folder: Path, content: dict[str, Any], card: str, address: HubAddress, licence: str
) -> list[Path]:
    """The files of a repository, the model first."""
    config: TrainConfig = content["config"]
    known, card = portable(config), portable_card(card, config)
    kept = checkpoint.for_coloring(content)
    files = [folder / name for name in (MODEL, CONFIG, CARD)]
    model_file.write(files[0], kept, known, card=card)
    told = {
        "library": "gancolor",
        "version": __version__,
        "step": content.get("step"),
        "settings": known.to_json(),
    }
    files[1].write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    files[2].write_text(hub_card(card, known, address, licence), encoding="utf-8")
    return files


def _look(address: HubAddress) -> Snapshot:
    try:
        return look(address)
    except Unanswered as unanswered:
        raise DownloadError(
            f"{address} could not be looked at: the Hub does not answer ({unanswered})"
        ) from unanswered


def _check_head(head: Snapshot, known: str | None, over: str | None, private: bool) -> None:
    """Refuse to replace what somebody else put there."""
    address = head.address
    if private and not head.private:
        raise ConfigError(
            f"--private must be left out for a repository that is public, got {address}; make it"
            f" private at {endpoint()}/{address.repository}/settings"
        )
    if over is not None and not (len(over) >= 7 and head.commit.startswith(over)):
        raise ConfigError(
            f"--over must be the newest revision of {address}, {head.commit}, got {over}; look"
            " at it"
        )
    ours = {MODEL, CONFIG, CARD} & set(head.files)
    if ours and over is None and head.commit != known:
        seen = (
            "nothing was pushed or fetched from here before"
            if known is None
            else f"known here is {known}"
        )
        raise DownloadError(
            f"{address} must be as it was left, got the revision {head.commit} of somebody else"
            f" ({seen}); look at it with gancolor models show {address}, then replace it with"
            f" --over {head.commit}"
        )


def _commit(api: Any, address: HubAddress, files: list[Path], parent: str) -> str:
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(file.name, str(file)) for file in files]
    message = f"Upload a model of gancolor {__version__}"
    done = api.create_commit(
        address.repository, operations, commit_message=message, parent_commit=parent
    )
    return str(done.oid)


def _call(address: HubAddress, done: str, call: Any) -> Any:
    """What `call` returns. DownloadError for whatever huggingface_hub raises."""
    try:
        return call()
    except Exception as error:  # its own, those of its HTTP library, and RuntimeErrors around them
        cause: BaseException = error
        while getattr(cause, "response", None) is None and cause.__cause__ is not None:
            cause = cause.__cause__
        status = getattr(getattr(cause, "response", None), "status_code", None)
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
        way = {
            401: (
                "the token in HF_TOKEN is not accepted; make one that may write at"
                f" {endpoint()}/settings/tokens"
            ),
            403: f"the token in HF_TOKEN may not write to {address.owner}",
            412: "it was changed at the same moment; look at it and push again",
        }.get(status or 0, "try again later")
        raise DownloadError(f"{address} could not be {done}: {reason}; {way}") from error
