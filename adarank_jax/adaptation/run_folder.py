"""A run is a folder: configuration, metrics, checkpoints, results.

The same command on the same folder resumes. Files are replaced whole, so that a reader
never sees half of one, and hold digests of themselves; only `metrics.jsonl` grows row
by row. One process at a time writes.
"""

import datetime
import os
import pathlib
import platform
import re
import shutil
import tempfile
from typing import Any

import filelock
import yaml

from adarank_jax import errors
from adarank_jax.checkpoints import digests, files
from adarank_jax.errors import Message


class RunFolder:
    """The files of one run, locked for as long as this object lives.

    Args:
        path: of the folder; made if it is missing.
        config: everything that decides the result, as plain values.
        restart: throw away an earlier run in this folder.

    Attributes:
        digest: of the configuration, in hexadecimal.

    Raises:
        DamageError: `config.yaml` was changed or cut off.
        MachineError: the folder cannot be made or written to, holds files that are not
            of a run, or another process writes to it.
        UsageError: the folder holds a run with another configuration.
    """

    def __init__(self, path: str | os.PathLike, config: dict[str, Any], restart: bool):
        """Opens or makes the folder and writes `config.yaml`."""
        self.path, self.digest = pathlib.Path(path), digests.of_value(config)
        self._make()
        starts_over = restart and _is_ours(self.path)
        if not starts_over:
            _saved_config(self.path)  # a folder that is not ours is left as it is
        self._lock = _locked(self.path)
        _tell_owner(self.path)
        if starts_over:
            self._clear()
        self._sweep()
        saved = None if starts_over else _saved_config(self.path)
        if saved is None:
            text = _MARK + _DIGEST + self.digest + "\n"
            text += yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
            files.write_whole(self.path / "config.yaml", text.encode())
        elif saved != config:
            raise _difference(self.path, saved, config)

    def _make(self):
        """Makes the folder and checks that a file can be written there."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(error, self.path) from error
        _check_writable(self.path, self.path)

    def _sweep(self):
        """Removes what a killed process left half written."""
        inside = [self.path / name for name in _FOLDERS]
        for folder in (self.path, *inside):
            found = folder.glob(".*") if folder == self.path else folder.rglob(".*")
            for left in [each for each in found if _is_half_written(each, self.path)]:
                _remove(left)

    def _clear(self):
        """Removes the files of an earlier run, and no others."""
        # config.yaml goes last: until then the folder is known to be ours.
        for name in (*_FOLDERS, *_FILES):
            _remove(self.path / name)

    def read_json(self, name: str, default: Any) -> Any:
        """Reads a JSON file of the folder.

        Args:
            name: of the file.
            default: returned if there is none.

        Raises:
            DamageError: a byte of it was changed or is missing.
        """
        file = self.path / name
        return digests.read_sealed(file) if file.is_file() else default

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Replaces a JSON file of the folder; it holds its own digest."""
        files.write_whole(self.path / name, digests.sealed(value).encode())

    def note(self, message: Message) -> None:
        """Keeps a warning in the manifest, once."""
        manifest = self.read_json("manifest.json", {})
        notes = manifest.get("notes", [])
        if str(message) not in notes:
            self.mark(notes=[*notes, str(message)])

    def mark(self, **facts: Any) -> None:
        """Sets facts in the manifest."""
        self.write_json("manifest.json", self.read_json("manifest.json", {}) | facts)


def check_folder(path: str | os.PathLike, restart: bool = False) -> None:
    """Checks that a run folder can be made or opened, and changes nothing.

    Args:
        path: of the folder.
        restart: an earlier run in it may be thrown away, damaged or not.

    Raises:
        DamageError: `config.yaml` was changed or cut off.
        MachineError: it cannot be made or written to, holds files that are not of a
            run, or another process writes to it.
    """
    path = pathlib.Path(path)
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    _check_writable(existing, path)
    if path.exists():
        if not (restart and _is_ours(path)):
            _saved_config(path)
        if (path / _LOCK).exists():
            _locked(path).release()


def differences(path: str | os.PathLike, config: dict[str, Any]) -> Message | None:
    """Says why a folder cannot be resumed with a configuration; changes nothing.

    Args:
        path: of the folder.
        config: everything that decides the result, as plain values.

    Returns:
        A message; None if the folder is new or holds the same run.
    """
    saved = read_config(path)
    same = saved in (None, config)
    return None if same else _difference(path, saved, config).message


def read_config(path: str | os.PathLike) -> dict[str, Any] | None:
    """Reads the configuration of the run in a folder; changes nothing.

    Args:
        path: of the folder.

    Returns:
        Plain values; None if there is no run.

    Raises:
        ValueError: the folder holds files that are not of a run.
    """
    path = pathlib.Path(path)
    return _saved_config(path) if path.is_dir() else None


def _saved_config(path):
    """Reads `config.yaml`; None in an empty folder."""
    file = path / "config.yaml"
    if not file.is_file():
        strange = [
            entry.name
            for entry in path.iterdir()
            if entry.name not in (_LOCK, _LOCKED_BY)
            and not _is_half_written(entry, path)
        ]
        if strange:
            raise errors.MachineError(
                "E404",
                f"files but no config.yaml ({sorted(strange)[0]!r}), so it is not the "
                "folder of a run",
                where=f"`{path}`",
                remedy="choose another with --run-dir",
            )
        return None
    text = file.read_bytes().decode(errors="replace")
    if not text.startswith(_MARK):
        raise errors.MachineError(
            "E404",
            "a config.yaml that is not of a run of adarank_jax, or is damaged",
            where=f"`{path}`",
            remedy="choose another folder with --run-dir",
        )
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        config = None
    first = text.removeprefix(_MARK).partition("\n")[0]
    if first != _DIGEST + digests.of_value(config):
        raise errors.DamageError(
            "E602",
            "damaged or changed by hand: it has another digest",
            where=f"`{file}`",
            expected="the file as it was written",
            remedy="restore it from a copy, or start the run over with --restart",
        )
    return config


def _remove(path):
    """Removes a file, a folder or a link, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_half_written(path, run_dir):
    """Tells whether a name is one that a file or folder of ours has at first."""
    found = _HALF_WRITTEN.fullmatch(path.name)
    if not found or path.parent != run_dir:
        return bool(found) and found[1].endswith(_ENDINGS)
    return found[1] in (*_FOLDERS, *_FILES, _LOCKED_BY)


def _is_ours(path):
    """Tells whether a run has written this folder, whatever became of it since."""
    file = path / "config.yaml"
    mark = _MARK.encode()
    return file.is_file() and file.read_bytes()[: len(mark)] == mark


def _locked(path):
    """Locks a folder, or says which process has locked it."""
    # Folders are opened again in one process, by the same name.
    lock = filelock.FileLock(path.absolute() / _LOCK, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise errors.MachineError(
            "E610",
            f"another process writes to it ({_owner(path)})",
            where=f"`{path}`",
            remedy="wait for it or stop it, or choose another folder with --run-dir",
        ) from None
    return lock


def _tell_owner(path):
    """Writes down which process has locked a folder."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    told = {"pid": os.getpid(), "machine": platform.node(), "since": now}
    files.write_whole(path / _LOCKED_BY, digests.sealed(told).encode())


def _owner(path):
    """Says which process has locked a folder."""
    try:
        told = digests.read_sealed(path / _LOCKED_BY)
    except (OSError, errors.DamageError):
        return "which did not say its number"
    return f"process {told['pid']} on {told['machine']}, since {told['since']}"


def _check_writable(existing, path):
    """Checks that files can be made in a folder, by one that is gone at once."""
    if not existing.is_dir():
        raise errors.MachineError(
            "E403",
            f"`{existing}` is a file",
            where=f"The run folder `{path}`",
            expected="a folder or nothing",
            remedy="choose another with --run-dir",
        )
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise _unwritable(error, path) from error


def _unwritable(error, path):
    """Says which folder cannot be written, and what to do."""
    return errors.MachineError(
        "E402",
        f"The run folder cannot be written ({error.strerror})",
        where=f"`{path}`",
        remedy="choose another with --run-dir",
    )


def _difference(path, saved, config):
    """Lists what differs between two configurations, by dotted key."""
    lines = [*_differing(saved, config)]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"and {len(lines) - _MOST_LINES} more"]
    return errors.UsageError(
        "E620",
        "a run with another configuration:\n  " + "\n  ".join(lines) + "\n",
        where=f"`{path}`",
        remedy="choose another folder with --run-dir. Or throw that run away with "
        "--restart",
    )


def _differing(there, now, prefix=""):
    """Yields what differs; a branch that one side lacks is one line."""
    for key in dict.fromkeys([*now, *there]):
        both = there.get(key), now.get(key)
        if all(isinstance(each, dict) for each in both):
            yield from _differing(*both, f"{prefix}{key}.")
        elif key not in now or key not in there:
            yield f"{prefix}{key}: only {'now' if key in now else 'there'}"
        elif both[0] != both[1]:
            yield f"{prefix}{key}: {_short(both[0])} there, {_short(both[1])} now"


def _short(value):
    """Shows a value in few characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


_MOST_LINES = 12
_MARK = "# The configuration of a run of adarank_jax.\n"
_DIGEST = "# sha256: "
WEIGHTS = ("adapted", "base", "experts", "heads", "pretraining")
"""Folders of weights in a run folder."""
_FOLDERS = (*WEIGHTS, "checkpoints", "export", "factors", "figures")
_HALF_WRITTEN = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
_ENDINGS = (".csv", ".json", ".jsonl", ".pdf", ".png", ".safetensors", ".svg", ".yaml")
_LOCK, _LOCKED_BY = "lock", "lock.json"
_FILES = (
    *("heads.safetensors", "manifest.json", "merged.safetensors", "metrics.jsonl"),
    *("results.json", "config.yaml"),
)
