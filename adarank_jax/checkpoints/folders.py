"""Folders that appear whole or not at all, with the digests of their files.

A folder is filled under another name beside its place and renamed at the end. What is
already there is replaced only if it is such a folder itself, with not a byte changed.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from adarank_jax import errors, faults
from adarank_jax.checkpoints import files

SUMS = "SHA256SUMS"
MARK = "adarank_jax.json"
"""A file that every such folder holds, so that no other folder is taken for one."""


def check_target(path: str | os.PathLike) -> pathlib.Path:
    """Checks, before any work, that a folder can be written or replaced.

    Args:
        path: of the folder.

    Returns:
        The path.

    Raises:
        MachineError: it holds files that are not, or no longer, those of an export.
        MachineError: it is a file.
    """
    path = pathlib.Path(path)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise errors.MachineError(
            *("E403", "this is a file or a link", f"`{path}`", "a folder or nothing"),
            remedy="choose another folder to write to",
        )
    if path.is_dir() and any(path.iterdir()):
        found = strange(path)
        if found:
            raise errors.MachineError(
                *("E404", f"it is not empty and is not replaced: {found}"),
                where=f"`{path}`",
                remedy="choose another folder, or move this one away",
            )
    return path


def strange(path: pathlib.Path) -> str:
    """Says why a folder is not an untouched one of ours; nothing if it is.

    Args:
        path: of the folder.
    """
    if not (path / SUMS).is_file() or not (path / MARK).is_file():
        return f"it has no {SUMS} and {MARK}, so no export wrote it"
    try:
        recorded = read_sums(path)
    except errors.DamageError as error:
        return error.message.found
    found = {file.relative_to(path).as_posix() for file in _files(path)} - {SUMS}
    if found != recorded.keys():
        names = sorted(found ^ recorded.keys())
        return f"{names[0]!r} was added or removed after the export"
    changed = [n for n, sha in recorded.items() if files.digest(path / n) != sha]
    return f"{changed[0]!r} was changed after the export" if changed else ""


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a folder to fill, which takes its place when everything is written.

    Args:
        path: where it shall be.

    Yields:
        An empty folder beside it; digests are added to it at the end. If anything
        fails it is removed, and what was at `path` is as before.

    Raises:
        UsageError: as `check_target`.
        MachineError: as `check_target`.
    """
    path = check_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        new = aside / "new"
        new.mkdir()
        yield new
        faults.point("export-half-written")
        write_sums(new)
        for file in _files(new):
            _sync(file)
        for inner in (new, *(each for each in new.rglob("*") if each.is_dir())):
            files.sync_folder(inner)
        _swap(check_target(path), new, aside / "old")
        files.sync_folder(path.parent)
        faults.point("export-in-place")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _swap(path, new, old):
    """Puts `new` at `path`; what was there goes to `old`, or back if that fails."""
    had = path.exists()
    if had:
        os.rename(path, old)
        faults.point("export-old-aside")
    try:
        os.rename(new, path)
    except BaseException:
        if had:
            os.rename(old, path)
        raise


def _sync(file):
    """Waits until a file is on the disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def write_sums(path: pathlib.Path) -> None:
    """Writes the SHA-256 digest of every file, as `sha256sum --check` reads them."""
    names = sorted(file.relative_to(path).as_posix() for file in _files(path))
    lines = [f"{files.digest(path / name)}  {name}\n" for name in names if name != SUMS]
    (path / SUMS).write_text("".join(lines), encoding="utf-8")


def read_sums(path: pathlib.Path) -> dict[str, str]:
    """Reads the recorded digests, by file.

    Raises:
        DamageError: a line is not `digest  name`, or a name leads out of the folder.
    """
    sums = {}
    for line in (path / SUMS).read_bytes().decode(errors="replace").splitlines():
        sha, _, name = line.partition("  ")
        pure = pathlib.PurePosixPath(name)
        if len(sha) != 64 or not name or pure.is_absolute() or ".." in pure.parts:
            raise errors.DamageError(
                *("E660", f"{SUMS} has a line that is none: {line[:80]!r}"),
                where=f"`{path}`",
                remedy="make the export again",
            )
        sums[name] = sha
    return sums


def _files(path):
    """Lists all files below a folder; a link counts as one."""
    return [file for file in path.rglob("*") if file.is_symlink() or file.is_file()]
