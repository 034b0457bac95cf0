"""A run is a folder: configuration, metrics, checkpoints, results.

The same command on the same folder resumes. Files are replaced whole, so that a reader
never sees half of one; only `metrics.jsonl` grows row by row.
"""

import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import yaml

from adarank_jax.adaptation.step import State
from adarank_jax.checkpoints import files


class RunFolder:
    """The files of one run.

    Args:
        path: of the folder; made if it is missing.
        config: everything that decides the result, as plain values.
        restart: throw away an earlier run in this folder.

    Raises:
        OSError: the folder cannot be made or written to.
        ValueError: the folder holds a run with another configuration, or files that
            are not of a run.
    """

    def __init__(self, path: str | os.PathLike, config: dict[str, Any], restart: bool):
        """Opens or makes the folder and writes `config.yaml`."""
        self.path = pathlib.Path(path)
        self._make()
        saved = _saved_config(self.path)
        if restart and saved is not None:
            self._clear()
            saved = None
        if saved is None:
            text = _MARK + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
            files.write_whole(self.path / "config.yaml", text.encode())
        elif saved != config:
            raise ValueError(_difference(self.path, saved, config))

    def _make(self):
        """Makes the folder and checks that a file can be written there."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(error, self.path) from error
        _check_writable(self.path, self.path)

    def _clear(self):
        """Removes the files of an earlier run, and no others."""
        # config.yaml goes last: until then the folder is known to be ours.
        weights = [file.name for file in self.path.glob("*.safetensors")]
        for name in (*_FOLDERS, *weights, *_FILES):
            target = self.path / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def read_json(self, name: str, default: Any) -> Any:
        """Reads a JSON file of the folder, or returns the default if there is none."""
        file = self.path / name
        return json.loads(file.read_text()) if file.is_file() else default

    def write_json(self, name: str, value: Any) -> None:
        """Replaces a JSON file of the folder."""
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        files.write_whole(self.path / name, text.encode())

    def cut_metrics(self, run: str, first: int) -> None:
        """Drops the rows of one run from a step on, before they are written again."""
        file = self.path / "metrics.jsonl"
        if not file.is_file():
            return
        # A killed run may leave half a row.
        whole = file.read_text().rpartition("\n")[0]
        rows = [json.loads(line) for line in whole.splitlines()]
        kept = [row for row in rows if row["run"] != run or row["step"] < first]
        files.write_whole(
            file, "".join(json.dumps(row) + "\n" for row in kept).encode()
        )

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Appends a row to `metrics.jsonl`."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def check_folder(path: str | os.PathLike) -> None:
    """Checks that a run folder can be made or opened, and changes nothing.

    Args:
        path: of the folder.

    Raises:
        OSError: it cannot be made or written to.
        ValueError: it holds files that are not of a run.
    """
    path = pathlib.Path(path)
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    _check_writable(existing, path)
    if path.exists():
        _saved_config(path)


def differences(path: str | os.PathLike, config: dict[str, Any]) -> str:
    """Says why a folder cannot be resumed with a configuration; changes nothing.

    Args:
        path: of the folder.
        config: everything that decides the result, as plain values.

    Returns:
        A message; empty if the folder is new or holds the same run.
    """
    saved = read_config(path)
    return "" if saved in (None, config) else _difference(path, saved, config)


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


class Checkpoints:
    """The adaptation states of one run, newest two kept.

    Of several processes only one opens it; Orbax then waits for no other.

    Args:
        folder: where Orbax writes.
    """

    def __init__(self, folder: pathlib.Path):
        """Opens the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        this = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=this,
            active_processes={this},
            barrier_sync_key_prefix=f"process-{this}",
        )
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2, create=False, multiprocessing_options=alone
            ),
        )

    def save(self, step: int, state: State) -> None:
        """Saves the state from which `step` is the next to run."""
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(_named(state)))

    def restore(self, like: State) -> tuple[int, State] | None:
        """Restores the newest state.

        Args:
            like: a state of the structure and shapes that were saved.

        Returns:
            The next step and the state; None if nothing was saved.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _named(like))
        named = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        leaves = [jnp.asarray(named[key]) for key in _named(like)]
        return step, jax.tree.unflatten(jax.tree.structure(like), leaves)

    def close(self) -> None:
        """Waits for the last save."""
        self._manager.wait_until_finished()
        self._manager.close()


def _saved_config(path):
    """Reads `config.yaml`; None in an empty folder."""
    file, entries = path / "config.yaml", list(path.iterdir())
    if file.is_file():
        text = file.read_text(encoding="utf-8", errors="replace")
        if not text.startswith(_MARK):
            raise ValueError(
                f"`{path}` holds a config.yaml that is not of a run of adarank_jax; "
                "choose another folder with --run-dir."
            )
        return yaml.safe_load(text)
    if any(not entry.name.startswith(".config.yaml.") for entry in entries):
        raise ValueError(
            f"`{path}` holds files but no config.yaml, so it is not the folder of a "
            "run; choose another with --run-dir."
        )
    return None


def _check_writable(existing, path):
    """Checks that files can be made in a folder, by one that is gone at once."""
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise _unwritable(error, path) from error


def _unwritable(error, path):
    """Says which folder cannot be written, and what to do."""
    return OSError(
        error.errno,
        f"The run folder cannot be written ({error.strerror}); choose another with "
        "--run-dir",
        str(path),
    )


def _named(state):
    """Flattens a state to arrays by path: what Orbax stores is then only arrays."""
    paths, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in paths}


def _difference(path, saved, config):
    """Lists what differs between two configurations, by dotted key."""
    lines = [*_differing(saved, config)]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"and {len(lines) - _MOST_LINES} more"]
    return (
        f"`{path}` holds a run with another configuration; choose another folder with "
        "--run-dir. Or throw that run away with --restart.\n  " + "\n  ".join(lines)
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
_FOLDERS = (
    *("adapted", "base", "checkpoints", "experts", "export"),
    *("factors", "figures", "heads", "pretraining"),
)
_FILES = ("manifest.json", "metrics.jsonl", "results.json", "config.yaml")
