"""Files that `torch.save` wrote: what they may hold, looked at before they are unpacked, and why torch refuses one."""

from __future__ import annotations

import pickle
import re
import zipfile

from gancolor.errors import reason_of, shown


def check_stored(archive: zipfile.ZipFile, size: int) -> None:
    """BadZipFile unless an archive of `size` bytes holds its members as they are, as torch writes them.

    So it unpacks to no more than it is. Packed ones may grow to a thousand times of it.
    """
    members = archive.infolist()
    if any(each.compress_type != zipfile.ZIP_STORED or each.flag_bits & 1 for each in members):
        raise zipfile.BadZipFile("its members are packed, which torch does not write")
    if (told := sum(each.file_size for each in members)) > size:
        raise zipfile.BadZipFile(f"its members are of {told:,} bytes, it has {size:,}")


def refusal(error: BaseException) -> str:
    """Why torch does not take a file, in a few words, without its advice to load it in spite of that."""
    if named := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it would run code: {shown(named[1], 80)}"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds other things than numbers and texts"
    return reason_of(error)
