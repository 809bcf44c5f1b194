"""How the server runs: each setting is declared once, with its help and bounds.

Nothing heavy is imported here, so that the command line can show its options at once.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from gancolor import fields
from gancolor.errors import ConfigError, shown
from gancolor.fields import setting

_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]*))(?::[0-9]*)?")
_NAME = re.compile(r"[A-Za-z0-9._-]+")  # of a host, or an address of IPv4


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How the server runs. ConfigError, naming the option, for what is out of bounds."""

    host: str = setting(
        "127.0.0.1",
        "Address to listen on. Any other than this machine's own lets others in: see --auth-file.",
    )
    port: int = setting(8000, "Port to listen on; 0 takes a free one.", minimum=0, maximum=65535)
    auth_file: Path | None = setting(
        None, "Ask for a name and a password: a file with a line user:password for each user."
    )
    max_megapixels: float = setting(100.0, "Refuse larger pictures.", above=0)
    max_megabytes: float = setting(200.0, "Refuse larger requests.", above=0)
    max_seconds: float = setting(
        120.0,
        "Give a request up that took longer to arrive, then to wait and be coloured, or then to"
        " be fetched.",
        above=0,
        maximum=86400,
    )
    max_film_megabytes: float = setting(2000.0, "Refuse larger films.", above=0)
    max_film_minutes: float = setting(
        240.0,
        "Give a film up that took longer to arrive, or then to be coloured.",
        above=0,
        maximum=100_000,
    )
    max_films: int = setting(
        4,
        "Films that are received, wait, are coloured or can be fetched at once.",
        minimum=1,
        maximum=1000,
    )
    keep_hours: float = setting(
        24.0, "Remove a film that was coloured after so many hours.", above=0, maximum=100_000
    )
    films: Path | None = setting(
        None,
        "Folder of films that the page lets its users choose from, beside uploading their own.",
    )
    concurrency: int = setting(
        16,
        "Requests that are received, wait or are coloured at once; one more is told to come back.",
        minimum=1,
        maximum=1000,
    )
    root_path: str = setting(
        "", "Path under which a proxy shows the server to the world, for example /gancolor."
    )
    server_name: str = setting(
        "",
        "Name under which a proxy shows the server to the world, for example photos.example.org."
        " A server on this machine's own address, or with a name, answers to no other name.",
    )
    study: Path | None = setting(
        None, "Show the page that `gancolor study make` wrote at /study, and take its results."
    )
    study_results: Path | None = setting(
        None, "Folder for them (default: beside the page, study-results of study.html)."
    )
    max_participants: int = setting(
        1000, "Take the results of so many participants at most.", minimum=1, maximum=1_000_000
    )
    api_only: bool = setting(
        False, "Serve the API alone, without the page: starts faster, in less memory."
    )

    def __post_init__(self) -> None:
        fields.check(self)
        if self.study_results is not None and self.study is None:
            raise ConfigError("--study-results must be used with --study, got no --study")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ConfigError(
                "--root-path must begin with / and not end with it, got"
                f" {shown(self.root_path)}; for example /gancolor"
            )
        if self.server_name and not _NAME.fullmatch(self.server_name):
            raise ConfigError(
                "--server-name must be a name alone, without https:// and port, got"
                f" {shown(self.server_name)}; for example photos.example.org"
            )

    @property
    def max_pixels(self) -> int:
        """Pictures with more pixels are refused."""
        return round(self.max_megapixels * 1e6)

    @property
    def max_bytes(self) -> int:
        """Requests with more bytes are refused."""
        return round(self.max_megabytes * 1e6)

    @property
    def max_film_bytes(self) -> int:
        """Requests with a film with more bytes are refused."""
        return round(self.max_film_megabytes * 1e6)

    @property
    def results_folder(self) -> Path | None:
        """Where results of the study are kept."""
        if self.study is None:
            return None
        return self.study_results or self.study.with_name(f"{self.study.stem}-results")

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        return _is_loopback(self.host)

    def answers_to(self, host: str) -> bool:
        """Whether a request may ask for `host`, a name with or without a port. A page from elsewhere
        whose name is made to point to this machine asks for its own, and is refused.
        """
        if not (self.is_local or self.server_name):
            return True
        found = _HOST.fullmatch(host)
        name = "" if found is None else (found[1] or found[2]).lower()
        return bool(name) and (_is_loopback(name) or name == self.server_name.lower())


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
