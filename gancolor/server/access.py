"""Who may ask: names and passwords of a file, checked as HTTP Basic."""

from __future__ import annotations

import base64
import binascii
import hmac
from pathlib import Path

from gancolor.errors import ConfigError, shown
from gancolor.runtime.files import read_regular

_MOST_BYTES = 1 << 20


def read_users(path: Path) -> dict[bytes, bytes]:
    """Passwords by user of a file with a line `user:password` each. ConfigError, without quoting
    a password, for another, and for an empty one.
    """
    try:
        lines = read_regular(path, _MOST_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else "no text in UTF-8 of a usual size"
        )
        raise ConfigError(
            f"--auth-file must be a file that can be read, got {shown(path)}: {reason}"
        ) from error
    users: dict[bytes, bytes] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        user, colon, password = line.partition(":")
        if not (user and colon and password):
            raise ConfigError(
                f"--auth-file must have lines user:password, got another as line {number} of"
                f" {shown(path)}"
            )
        if user.encode() in users:
            raise ConfigError(
                f"--auth-file must name each user once, got {shown(user)} again as line {number}"
                f" of {shown(path)}"
            )
        users[user.encode()] = password.encode()
    if not users:
        raise ConfigError(f"--auth-file must have lines user:password, got none in {shown(path)}")
    return users


def is_known(users: dict[bytes, bytes], authorization: str) -> bool:
    """Whether a header `Authorization` names one of the users with the right password. It takes as
    long whichever part is wrong.
    """
    scheme, _, token = authorization.partition(" ")
    try:
        given = base64.b64decode(token.strip(), validate=True)
    except (binascii.Error, ValueError):
        given = b""
    name, _, secret = given.partition(b":")
    found = False
    for user, password in users.items():
        right = hmac.compare_digest(name, user) & hmac.compare_digest(secret, password)
        found = found | right
    return found and scheme.lower() == "basic"
