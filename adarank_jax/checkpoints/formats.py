"""What a file is, told by its first bytes and never by its name.

A download that went wrong is often a login page, a Git-LFS pointer or an error message
under the name of a checkpoint; its reader would only say that the header is too large.
"""

import difflib
import json
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

from adarank_jax import errors

DEQUANTISE = "dequantise it to float32 or bfloat16 first"
"""What to do about dtypes that were made for inference."""


def sniff(path: str | os.PathLike) -> str:
    """Tells by its first bytes which reader a file needs.

    Args:
        path: of a file.

    Returns:
        ``"safetensors"``, or ``"torch"`` for any zip archive.

    Raises:
        MissingError: there is no such file; the message has the nearest name.
        InputError: it is no regular file, is empty or has another format.
    """
    path = pathlib.Path(path)
    check_exists(path)
    if not path.is_file():
        raise errors.InputError(
            *("E107", "no regular file", f"`{path}`"),
            remedy="give the path of a checkpoint",
        )
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise errors.InputError(
            "E110",
            "the file is empty (0 bytes): the download did not finish",
            where=f"`{path}`",
            remedy="get it again",
        )
    if head[5:9] == b"\0\0\0{":
        return "safetensors"
    if head.startswith(b"PK"):
        return "torch"
    for is_it, code, what, remedy in _FORMATS:
        if is_it(head):
            found = f"this is {what}{_quote(head)}"
            raise errors.InputError(code, found, f"`{path}`", remedy=remedy)
    if head[8:9] == b"{" or len(head) < 9:
        return "safetensors"
    raise errors.InputError(
        "E119",
        "this is neither a safetensors file nor a zip archive of `torch.save`: it "
        f"starts with {head[:8]!r}",
        where=f"`{path}`",
        remedy="check where it came from",
    )


def _quote(head):
    """Shows the beginning of a text."""
    text = " ".join(head[:80].decode("utf-8", "replace").split())
    return f", which starts with {text!r}" if text.isprintable() else ""


def check_exists(path: str | os.PathLike) -> None:
    """Checks that there is a file or folder.

    Args:
        path: of either.

    Raises:
        MissingError: there is none; the message has the nearest existing name.
        InputError: the path holds a NUL byte.
    """
    path = pathlib.Path(path)
    if "\0" in str(path):
        raise errors.InputError(
            *("E132", f"a NUL byte in the path {str(path)!r}"),
            remedy="remove it, as no path can hold one",
        )
    if path.exists():
        return
    if path.is_symlink():
        raise errors.MissingError(
            "E101",
            f"this is a link to `{os.readlink(path)}`, which does not exist",
            where=f"`{path}`",
            remedy="get the file again",
        )
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    there = sorted(os.listdir(missing.parent)) if missing.parent.is_dir() else []
    near = difflib.get_close_matches(missing.name, there, n=1, cutoff=0.5)
    shown = ", ".join(there[:6]) + (", …" if len(there) > 6 else "") or "nothing"
    advice = (
        f"did you mean `{missing.parent / near[0]}`?"
        if near
        else f"`{missing.parent}` holds {shown}; check the path"
    )
    raise errors.MissingError(
        "E101", "there is no such file or folder", f"`{path}`", remedy=advice
    )


def parse_json(content: bytes, source: str, most_containers: int) -> dict[str, Any]:
    """Parses a JSON object from a source that is not trusted.

    Args:
        content: UTF-8 text; its length was checked before.
        source: what to call it in messages.
        most_containers: how many brackets it may open, which bounds depth and memory.

    Returns:
        The object.

    Raises:
        InputError: it is no JSON object, has one name twice or too many brackets.
    """
    if (count := content.count(b"{") + content.count(b"[")) > most_containers:
        raise errors.InputError(
            *("E123", f"the JSON opens {count:,} brackets", source),
            expected=f"at most {most_containers:,}",
            remedy="do not use it: it is damaged or was made to do harm",
        )
    try:
        value = json.loads(content.decode(), object_pairs_hook=_without_twins)
    except RecursionError:
        raise errors.InputError(
            "E123", "the JSON is nested too deeply", source, remedy="get it again"
        ) from None
    except _TwinError as error:
        found = f"the name {error.args[0]!r} comes twice"
        raise errors.InputError("E115", found, source, remedy="get it again") from None
    except ValueError as error:
        raise errors.InputError(
            "E129", f"this is no valid JSON: {error}", source, remedy="get it again"
        ) from None
    if not isinstance(value, dict):
        raise errors.InputError(
            *("E129", f"it must be a JSON object, got {type(value).__name__}", source),
            remedy="get it again",
        )
    return value


class _TwinError(Exception):
    """The name that comes twice in a JSON object."""


def _without_twins(pairs):
    """Builds a dict and refuses a name that comes twice."""
    built = dict(pairs)
    if len(built) != len(pairs):
        seen = set()
        raise _TwinError(next(key for key, _ in pairs if key in seen or seen.add(key)))
    return built


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a JSON object from a file of a model, which is not trusted.

    Args:
        path: of a configuration, a few kilobytes as a rule.

    Returns:
        The object.

    Raises:
        InputError: it is no JSON object, too large, or nested too deeply.
    """
    with pathlib.Path(path).open("rb") as stream:
        content = stream.read(_MOST_JSON_BYTES + 1)
    if len(content) > _MOST_JSON_BYTES:
        raise errors.InputError(
            *("E123", f"more than {_MOST_JSON_BYTES:,} bytes", f"`{path}`"),
            remedy="get it again, as no configuration is so large",
        )
    return parse_json(content, f"`{path}`", _MOST_JSON_BRACKETS)


def _starts_with(*signatures: bytes) -> Callable[[bytes], bool]:
    """Builds a test of the first bytes."""
    return lambda head: head.startswith(signatures)


_MOST_JSON_BYTES = 10_000_000
_MOST_JSON_BRACKETS = 100_000
_MAGIC_OF_OLD_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_RESAVE = (
    'once, in a sandbox, run `torch.save(torch.load("old.pt", '
    'weights_only=True), "new.pt")` with torch >= 2.10 and read `new.pt`'
)
_AS_SAFETENSORS = "save it as safetensors first"
_FORMATS: tuple[tuple[Callable[[bytes], bool], str, str, str], ...] = (
    (
        _starts_with(b"version https://git-lfs"),
        *("E117", "a Git-LFS pointer, not the file itself", "run `git lfs pull`"),
    ),
    (
        lambda head: (
            re.match(rb"\s*<(!doctype|html|head|\?xml|error)", head, re.I) is not None
        ),
        *("E117", "a web page, not a checkpoint"),
        "log in or accept the terms, and download again",
    ),
    (
        lambda head: (
            re.match(rb'\s*(\{\s*["}]|\[)', head) is not None and b"\0" not in head
        ),
        *("E117", "a JSON text, often the error message of a server", "download again"),
    ),
    (
        _starts_with(b"\x89HDF\r\n"),
        *("E125", "an HDF5 file (Keras, `.h5`)", _AS_SAFETENSORS),
    ),
    (
        _starts_with(b"GGUF", b"GGML", b"lmgg", b"tjgg"),
        *("E125", "a GGUF file of llama.cpp, quantised", DEQUANTISE),
    ),
    (
        lambda head: head[257:262] == b"ustar",
        *("E127", "a tar archive (torch < 1.6, or several files)"),
        f"unpack it, or {_RESAVE}",
    ),
    (
        _starts_with(
            b"\x1f\x8b", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ"
        ),
        *("E125", "a compressed archive", "unpack it and give the checkpoint inside"),
    ),
    (
        lambda head: head[2:].startswith(_MAGIC_OF_OLD_TORCH),
        *("E127", "of the format that `torch.save` wrote before torch 1.6", _RESAVE),
    ),
    (
        lambda head: head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"),
        *("E127", "a bare pickle, which is code and is not read", _RESAVE),
    ),
    (
        lambda head: re.match(rb"\x08[\x01-\x20][\x12\x1a\x3a\x42]", head) is not None,
        *("E125", "an ONNX graph"),
        "export the weights as safetensors from where it was made",
    ),
    (
        lambda head: (
            re.match(rb"([\x81-\x8f]|\xde..|\xdf....)([\xa1-\xbf]|\xd9)", head, re.S)
            is not None
        ),
        *("E125", "a msgpack file (Flax)", _AS_SAFETENSORS),
    ),
)
"""How the first bytes tell a format, its code, what it is, and what to do."""
