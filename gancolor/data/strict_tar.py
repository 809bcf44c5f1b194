"""Tar archives whose damage is told: tarfile alone takes a damaged header for the archive's end."""

from __future__ import annotations

import tarfile
from typing import Self

_DAMAGED = (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError)  # type: ignore[attr-defined]


class StrictInfo(tarfile.TarInfo):
    """For `tarfile.open(..., tarinfo=StrictInfo)`: a header that is damaged or cut off raises tarfile.ReadError."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:  # tarfile gives it by position
        """The next member of an archive."""
        try:
            return super().fromtarfile(tarfile_)
        except _DAMAGED as error:
            raise tarfile.ReadError(f"a member's header is damaged or cut off: {error}") from None
