"""Putting a model on the Hub: `model.safetensors`, `config.json` and its card, as one commit on a known one."""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from gancolor import __version__, checkpoint, safetensors_file
from gancolor.config import TrainConfig
from gancolor.errors import ConfigError, DownloadError, MissingExtra
from gancolor.remote import addresses, hub, records
from gancolor.remote.addresses import MAIN, HubAddress
from gancolor.web import Unanswered

_log = logging.getLogger("gancolor")

_PLACES = ("dataset", "backbone_weights", "encoder_weights", "init")  # settings that may name a place on this machine


def push(
    content: dict[str, Any], card: str, address: HubAddress, *, private: bool, licence: str, over: str | None
) -> str:
    """Put a checkpoint's content with its card at `address`; returns the new commit.

    The repository is made where there is none, private if so wished. What it holds is replaced only if it is what was
    pushed or fetched last from here, or of the commit `over`; the Hub itself refuses when it changes meanwhile.
    ConfigError without a token or for settings that contradict the repository's, MissingExtra without huggingface_hub,
    DownloadError for what the Hub refuses.
    """
    api = _open_api(address)
    with records.opened(address) as (_, record), tempfile.TemporaryDirectory() as folder:
        files = _write(Path(folder), content, card, address, licence)
        _call(address, "made", lambda: api.create_repo(address.repository, private=private or None, exist_ok=True))
        head = _look(address)
        _check_head(head, record.accepted.get(MAIN), over, private)
        _log.info("sending %s (%.1f MB) to %s", hub.MODEL, files[0].stat().st_size / 1e6, address)
        commit = str(_call(address, "written", lambda: _commit(api, address, files, head.commit)))
        record.accepted[MAIN] = commit
    return commit


def portable(config: TrainConfig) -> TrainConfig:
    """The settings without this machine's folders: of each path its last name."""
    named = {name: value for name in _PLACES if (value := getattr(config, name)) and not addresses.is_address(value)}
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
    return "\n".join(["---", *lines, "---", card.strip(), "", "## Use", "", f"    pip install gancolor\n    {use}", ""])


def _open_api(address: HubAddress) -> Any:
    if address.revision is not None:
        raise ConfigError(f"a model is pushed to a repository's main branch, got {address}; leave out @ and the rest")
    try:
        import huggingface_hub
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise MissingExtra("pushing to the Hub needs huggingface_hub: pip install 'gancolor[hub]'") from error
    if (token := hub.token()) is None:
        raise ConfigError(
            f"HF_TOKEN must hold a token that may write to {address.owner}, got none; make one at "
            f"{hub.endpoint()}/settings/tokens"
        )
    disable_progress_bars()
    return huggingface_hub.HfApi(hub.endpoint(), token, library_name="gancolor", library_version=__version__)


def _write(folder: Path, content: dict[str, Any], card: str, address: HubAddress, licence: str) -> list[Path]:
    """The files of a repository, the model first."""
    config: TrainConfig = content["config"]
    known, card = portable(config), portable_card(card, config)
    kept = checkpoint.for_coloring(content)
    files = [folder / name for name in (hub.MODEL, hub.CONFIG, hub.CARD)]
    safetensors_file.write(files[0], kept, known, card=card)
    told = {"library": "gancolor", "version": __version__, "step": content.get("step"), "settings": known.to_json()}
    files[1].write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    files[2].write_text(hub_card(card, known, address, licence), encoding="utf-8")
    return files


def _look(address: HubAddress) -> hub.Snapshot:
    try:
        return hub.look(address)
    except Unanswered as unanswered:
        raise DownloadError(f"{address} could not be looked at: the Hub does not answer ({unanswered})") from unanswered


def _check_head(head: hub.Snapshot, known: str | None, over: str | None, private: bool) -> None:
    """Refuse to replace what somebody else put there."""
    address = head.address
    if private and not head.private:
        raise ConfigError(
            f"--private must be left out for a repository that is public, got {address}; make it private at "
            f"{hub.endpoint()}/{address.repository}/settings"
        )
    if over is not None and not (len(over) >= 7 and head.commit.startswith(over)):
        raise ConfigError(f"--over must be the newest revision of {address}, {head.commit}, got {over}; look at it")
    ours = {hub.MODEL, hub.CONFIG, hub.CARD} & set(head.files)
    if ours and over is None and head.commit != known:
        seen = "nothing was pushed or fetched from here before" if known is None else f"known here is {known}"
        raise DownloadError(
            f"{address} must be as it was left, got the revision {head.commit} of somebody else ({seen}); look at it "
            f"with gancolor models show {address}, then replace it with --over {head.commit}"
        )


def _commit(api: Any, address: HubAddress, files: list[Path], parent: str) -> str:
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(file.name, str(file)) for file in files]
    message = f"Upload a model of gancolor {__version__}"
    done = api.create_commit(address.repository, operations, commit_message=message, parent_commit=parent)
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
            401: f"the token in HF_TOKEN is not accepted; make one that may write at {hub.endpoint()}/settings/tokens",
            403: f"the token in HF_TOKEN may not write to {address.owner}",
            412: "it was changed at the same moment; look at it and push again",
        }.get(status or 0, "try again later")
        raise DownloadError(f"{address} could not be {done}: {reason}; {way}") from error
