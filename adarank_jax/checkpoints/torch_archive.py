"""Zip archives of `torch.save`: where the bytes of each member are, all of it checked.

`torch.save` stores its members as they are. So whatever is compressed, encrypted, there
twice, overlapping or outside the one folder was not written by it, and is refused.
"""

import mmap
import os
import pathlib
import re
import struct
import zipfile
import zlib
from typing import NamedTuple

from adarank_jax import errors


class Archive(NamedTuple):
    """The members of a torch file.

    Attributes:
        content: of the whole file, mapped.
        spans: begin and end in it, by name inside the archive's folder.
    """

    content: mmap.mmap
    spans: dict[str, tuple[int, int]]


def open_archive(path: str | os.PathLike) -> Archive:
    """Maps an archive and checks every member of it.

    Args:
        path: of the file.

    Returns:
        The archive; each byte of it was compared with its checksum.

    Raises:
        InputError: it is damaged, or is another kind of archive.
    """
    path = pathlib.Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except _ERRORS as error:
        raise errors.InputError(
            "E111",
            f"this is no whole zip archive ({path.stat().st_size:,} bytes found, "
            f"{error}): the download did not finish",
            where=f"`{path}`",
            remedy="get it again",
        ) from error
    _check_kind(members, path)
    with path.open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    spans, previous = {}, 0
    for member in sorted(members, key=lambda member: member.header_offset):
        where = f"Member {member.orig_filename!r} of `{path}`"
        name = _check_member(member, where)
        begin = _data_offset(content, member, where)
        end = begin + member.file_size
        if member.header_offset < previous or end > len(content):
            raise _refused("it overlaps another or the end", where)
        if zlib.crc32(memoryview(content)[begin:end]) != member.CRC:
            raise _refused("it does not match its checksum", where)
        if name in spans:
            raise _refused("it is there twice", where)
        spans[name], previous = (begin, end), end
    return Archive(content, spans)


def _refused(found, where, remedy="get it again: the archive is damaged"):
    """Makes the error about an archive that `torch.save` did not write so."""
    return errors.InputError("E126", found, where, remedy=remedy)


def _check_kind(members, path):
    """Checks that this is an archive of `torch.save`."""
    names = [member.orig_filename for member in members]
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise errors.InputError(
            *("E127", "this is a TorchScript archive, which holds code", f"`{path}`"),
            remedy='convert it once with `torch.save(torch.jit.load("old.pt", '
            'map_location="cpu").state_dict(), "new.pt")` and read `new.pt`',
        )
    if not any(name.endswith("/data.pkl") for name in names):
        raise errors.InputError(
            "E125",
            f"this is a zip archive, but not of `torch.save`: it holds {names[:3]}",
            where=f"`{path}`",
            expected="a member `data.pkl`",
            remedy="unpack it or give another file",
        )
    roots = {name.partition("/")[0] for name in names}
    if len(roots) > 1:
        found = f"it must hold one folder, got {sorted(roots)[:5]}"
        raise _refused(found, f"`{path}`")


def _check_member(member, where):
    """Checks what the directory says of a member; returns its name in the folder."""
    if not (match := _NAME.fullmatch(member.orig_filename)):
        raise _refused("it is none that `torch.save` writes", where, "do not use it")
    if member.flag_bits & 0x41:
        raise _refused("it is encrypted", where, "unpack it and save it again")
    if (
        member.compress_type != zipfile.ZIP_STORED
        or member.compress_size != member.file_size
    ):
        raise _refused(
            f"it is compressed or of two sizes ({member.compress_size:,} and "
            f"{member.file_size:,} bytes), which `torch.save` never writes",
            where,
            "do not use it",
        )
    if member.flag_bits & ~0x0808:
        found = f"it has the flags {member.flag_bits:#x}, which are not read"
        raise _refused(found, where, "save it again with `torch.save`")
    return match["name"]


def _data_offset(content, member, where):
    """Finds the data of a member behind its own header, which must agree."""
    offset = member.header_offset
    header = content[offset : offset + 30] if offset >= 0 else b""
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise _refused("it has no header where it should be", where)
    flags, method = struct.unpack("<HH", header[6:10])
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    name = content[offset + 30 : offset + 30 + name_length]
    if (flags, method, name) != (
        member.flag_bits,
        member.compress_type,
        member.orig_filename.encode(),
    ):
        raise _refused("it differs from the directory", where)
    return offset + 30 + name_length + extra_length


_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)
_NAME = re.compile(
    r"(?!\.{1,2}/)[^/\\\x00-\x1f]+/(?P<name>data\.pkl|version|byteorder|"
    r"\.format_version|\.storage_alignment|\.data/serialization_id|data/[0-9]{1,10})"
)
