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

DEQUANTISE = "quantised; dequantise it to float32 or bfloat16 first"
"""What to do about dtypes that were made for inference."""


def sniff(path: str | os.PathLike) -> str:
    """Tells by its first bytes which reader a file needs.

    Args:
        path: of a file.

    Returns:
        ``"safetensors"``, or ``"torch"`` for any zip archive.

    Raises:
        FileNotFoundError: there is no such file; the message has the nearest name.
        ValueError: it is no regular file, is empty or has another format.
    """
    path = pathlib.Path(path)
    check_exists(path)
    if not path.is_file():
        raise ValueError(f"`{path}` is no regular file; give the path of a checkpoint.")
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise ValueError(
            f"`{path}` is empty (0 bytes): the download did not finish; get it again."
        )
    if head[5:9] == b"\0\0\0{":
        return "safetensors"
    if head.startswith(b"PK"):
        return "torch"
    for is_it, what in _FORMATS:
        if is_it(head):
            raise ValueError(f"`{path}` is {what}{_quote(head)}")
    if head[8:9] == b"{" or len(head) < 9:
        return "safetensors"
    raise ValueError(
        f"`{path}` is neither a safetensors file nor a zip archive of `torch.save`: "
        f"it starts with {head[:8]!r}; check where it came from."
    )


def _quote(head):
    """Shows the beginning of a text."""
    text = " ".join(head[:80].decode("utf-8", "replace").split())
    return f" It starts with {text!r}." if text.isprintable() else ""


def check_exists(path: str | os.PathLike) -> None:
    """Checks that there is a file or folder.

    Args:
        path: of either.

    Raises:
        FileNotFoundError: there is none; the message has the nearest existing name.
    """
    path = pathlib.Path(path)
    if "\0" in str(path):
        raise ValueError(f"A path cannot hold a NUL byte, got {str(path)!r}.")
    if path.exists():
        return
    if path.is_symlink():
        raise FileNotFoundError(
            f"`{path}` is a link to `{os.readlink(path)}`, which does not exist; "
            "get the file again."
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
        else f"`{missing.parent}` holds {shown}; check the path."
    )
    raise FileNotFoundError(f"There is no `{path}`; {advice}")


def parse_json(content: bytes, source: str, most_containers: int) -> dict[str, Any]:
    """Parses a JSON object from a source that is not trusted.

    Args:
        content: UTF-8 text; its length was checked before.
        source: what to call it in messages.
        most_containers: how many brackets it may open, which bounds depth and memory.

    Returns:
        The object.

    Raises:
        ValueError: it is no JSON object, has one name twice or too many brackets.
    """
    if (count := content.count(b"{") + content.count(b"[")) > most_containers:
        raise ValueError(
            f"{source} opens {count:,} brackets, expected at most {most_containers:,}; "
            "it is damaged or was made to do harm."
        )
    try:
        value = json.loads(content.decode(), object_pairs_hook=_without_twins)
    except RecursionError:
        raise ValueError(f"{source} is nested too deeply; get it again.") from None
    except ValueError as error:
        raise ValueError(f"{source} is no valid JSON: {error}; get it again.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{source} must be a JSON object, got {type(value).__name__}.")
    return value


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a JSON object from a file of a model, which is not trusted.

    Args:
        path: of a configuration, a few kilobytes as a rule.

    Returns:
        The object.

    Raises:
        ValueError: it is no JSON object, too large, or nested too deeply.
    """
    with pathlib.Path(path).open("rb") as stream:
        content = stream.read(_MOST_JSON_BYTES + 1)
    if len(content) > _MOST_JSON_BYTES:
        raise ValueError(
            f"`{path}` has more than {_MOST_JSON_BYTES:,} bytes, which no "
            "configuration has; get it again."
        )
    return parse_json(content, f"`{path}`", _MOST_JSON_BRACKETS)


def _without_twins(pairs):
    """Builds a dict and refuses a name that comes twice."""
    built = dict(pairs)
    if len(built) != len(pairs):
        seen = set()
        twin = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the name {twin!r} comes twice")
    return built


def _starts_with(*signatures: bytes) -> Callable[[bytes], bool]:
    """Builds a test of the first bytes."""
    return lambda head: head.startswith(signatures)


_MOST_JSON_BYTES = 10_000_000
_MOST_JSON_BRACKETS = 100_000
_MAGIC_OF_OLD_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_RESAVE = (
    'once, in a sandbox, run `torch.save(torch.load("old.pt", '
    'weights_only=True), "new.pt")` with torch >= 2.10 and read `new.pt`.'
)
_FORMATS: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (
        _starts_with(b"version https://git-lfs"),
        "a Git-LFS pointer, not the file itself: run `git lfs pull`.",
    ),
    (
        lambda head: (
            re.match(rb"\s*<(!doctype|html|head|\?xml|error)", head, re.I) is not None
        ),
        "a web page, not a checkpoint: log in or accept the terms, and download again.",
    ),
    (
        lambda head: (
            re.match(rb'\s*(\{\s*["}]|\[)', head) is not None and b"\0" not in head
        ),
        "a JSON text, often the error message of a server: download again.",
    ),
    (
        _starts_with(b"\x89HDF\r\n"),
        "an HDF5 file (Keras, `.h5`): save it as safetensors first.",
    ),
    (
        _starts_with(b"GGUF", b"GGML", b"lmgg", b"tjgg"),
        f"a GGUF file of llama.cpp, {DEQUANTISE}.",
    ),
    (
        lambda head: head[257:262] == b"ustar",
        f"a tar archive (torch < 1.6, or several files): unpack it, or {_RESAVE}",
    ),
    (
        _starts_with(
            b"\x1f\x8b", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ"
        ),
        "a compressed archive: unpack it and give the checkpoint inside.",
    ),
    (
        lambda head: head[2:].startswith(_MAGIC_OF_OLD_TORCH),
        f"of the format that `torch.save` wrote before torch 1.6: {_RESAVE}",
    ),
    (
        lambda head: head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"),
        f"a bare pickle, which is code and is not read: {_RESAVE}",
    ),
    (
        lambda head: re.match(rb"\x08[\x01-\x20][\x12\x1a\x3a\x42]", head) is not None,
        "an ONNX graph: export the weights as safetensors from where it was made.",
    ),
    (
        lambda head: (
            re.match(rb"([\x81-\x8f]|\xde..|\xdf....)([\xa1-\xbf]|\xd9)", head, re.S)
            is not None
        ),
        "a msgpack file (Flax): save it as safetensors first.",
    ),
)
