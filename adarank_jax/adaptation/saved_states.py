"""States of an adaptation on disk, verified when written and when read.

Orbax writes arrays whole, but does not notice a flipped bit in them, and does not fall
back to an older state. So a state counts only when a file of digests stands beside it,
of every array and of every file of Orbax's. It is written after the arrays were read
back and found equal.
"""

import contextlib
import errno
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from adarank_jax import errors, faults
from adarank_jax.adaptation.step import State
from adarank_jax.checkpoints import digests, files

KEPT = 3
"""States that are kept, newest first."""


class Saved(NamedTuple):
    """What is on disk of one step.

    Attributes:
        step: the next one to run.
        state: variables and optimiser state, on the host.
        about: what was noted with it.
        damaged: one sentence for each newer state that could not be used.
    """

    step: int
    state: State
    about: dict[str, Any]
    damaged: tuple[str, ...] = ()


def save(
    folder: pathlib.Path, step: int, state: State, about: Mapping[str, Any]
) -> None:
    """Saves a state, reads it back, and drops the oldest.

    Args:
        folder: of the states of one adaptation.
        step: the next one to run.
        state: on the host.
        about: plain values to be kept with it.

    Raises:
        MachineError: the disk is full, or does not give back what was written; what
            was saved before is untouched.
    """
    named = _named(state)
    place = folder / str(step)
    try:
        if place.exists():  # unfinished, damaged, or of a start that came further
            _drop(place)
        place.mkdir(parents=True)
        faults.point("state-before-save")
        with _checkpointer() as checkpointer:
            checkpointer.save(place.absolute() / _ARRAYS, named)
    except (OSError, ValueError) as error:
        shutil.rmtree(place, ignore_errors=True)
        raise _unsaved(folder, step, error) from error
    faults.point("state-saved")
    expected = digests.of_arrays(named)
    if digests.of_arrays(_read(place, named)) != expected:
        raise errors.MachineError(
            "E405",
            f"the state of step {step:,} is not what was written",
            where=f"`{place}`",
            remedy="check the disk; the states before it are untouched",
        )
    record = {
        "step": step,
        "arrays": expected,
        "files": _file_digests(place),
        "about": dict(about),
    }
    files.write_whole(place / _DIGESTS, digests.sealed(record).encode())
    files.sync_folder(folder)
    faults.point("state-committed")
    # Newer ones are damaged, or of a start that came further.
    kept = {*map(str, sorted(n for n in steps(folder) if n <= step)[-KEPT:])}
    for place in folder.iterdir():
        if place.name.isdecimal() and place.name not in kept:
            _drop(place)
    faults.point("state-dropped")


def restore(folder: pathlib.Path, like: State) -> Saved | None:
    """Reads the newest state whose every number is as it was written.

    Args:
        folder: of the states of one adaptation.
        like: a state of the structure, shapes and dtypes that were saved.

    Returns:
        The state; None if none was ever saved.

    Raises:
        DamageError: there are states, and all of them are damaged. Nothing is deleted.
    """
    damaged = []
    for step in sorted(steps(folder), reverse=True):
        try:
            record = _verified(folder / str(step), step)
            arrays = _verified_arrays(folder / str(step), record, _named(like))
        except errors.DamageError as error:
            damaged.append(str(error))
            continue
        leaves = [jnp.asarray(arrays[name]) for name in _named(like)]
        state = jax.tree.unflatten(jax.tree.structure(like), leaves)
        return Saved(step, state, record["about"], tuple(damaged))
    if damaged:
        raise errors.DamageError(
            "E601",
            f"no saved state is intact: {' '.join(damaged)}",
            where=f"`{folder}`",
            remedy="restore one from a copy, or start the run over with --restart",
        )
    return None


def steps(folder: pathlib.Path) -> list[int]:
    """Lists the steps of the states that were finished, damaged or not.

    Args:
        folder: of the states of one adaptation.
    """
    found = folder.glob(f"*/{_DIGESTS}")
    return [int(file.parent.name) for file in found if file.parent.name.isdecimal()]


def check(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """Compares every number of a state with what was written.

    Args:
        folder: of the states of one adaptation.
        step: of the state.

    Returns:
        What was noted with it.

    Raises:
        DamageError: a byte that counts was changed or is missing.
    """
    record = _verified(folder / str(step), step)
    _verified_arrays(folder / str(step), record, None)
    return record["about"]


def _verified(place, step):
    """Reads the file of digests of a state."""
    try:
        record = digests.read_sealed(place / _DIGESTS)
    except OSError as error:
        raise _damage(place, f"it cannot be read ({error.strerror})") from error
    if record["step"] != step:
        raise _damage(place, f"it holds step {record['step']}")
    return record


def _verified_arrays(place, record, like):
    """Reads the arrays of a state and compares them with their digests."""
    # Orbax may hang or shout on damaged files, so it gets to see none.
    try:
        found, expected = _file_digests(place), record["files"]
    except OSError as error:
        raise _damage(place, f"it cannot be read ({error.strerror})") from error
    names = found.keys() | expected.keys()
    wrong = sorted(n for n in names if found.get(n) != expected.get(n))
    if wrong:
        raise _damage(place, f"the SHA-256 of {wrong[:3]} is another")
    try:
        arrays = _read(place, like)
    except Exception as error:  # noqa: BLE001  Orbax raises whatever its parts raise
        raise _damage(place, f"{type(error).__name__}: {error}") from error
    if digests.of_arrays(arrays) != record["arrays"]:
        raise _damage(place, "its arrays are others")
    if like is not None and _shapes(arrays) != _shapes(like):
        raise _damage(place, "its arrays are of another problem")
    return arrays


def _shapes(arrays):
    """Lists dtype and shape by name."""
    return {name: (x.dtype, x.shape) for name, x in arrays.items()}


def _file_digests(place):
    """Hashes every file that Orbax wrote."""
    root = place / _ARRAYS
    return {
        file.relative_to(root).as_posix(): files.digest(file)
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


def _damage(place, found):
    """Says that one state cannot be used."""
    return errors.DamageError(
        "E605", found, f"`{place}`", "the state as it was written"
    )


def _unsaved(folder, step, error):
    """Says why a state could not be written."""
    free = shutil.disk_usage(folder).free
    is_full = getattr(error, "errno", None) in _FULL or "space left" in str(error)
    return errors.MachineError(
        "E401" if is_full else "E402",
        f"the state of step {step:,} could not be written ({error}); "
        f"{free:,} bytes are free",
        where=f"`{folder}`",
        remedy="make room, or see to the disk; the same command goes on from the state "
        "before",
    )


def _read(place, like):
    """Reads the arrays of a state."""
    with _checkpointer() as checkpointer:
        if like is not None:
            like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        found = checkpointer.restore(place.absolute() / _ARRAYS, like)
    return {name: np.asarray(array) for name, array in found.items()}


def _drop(place):
    """Removes a state, its digests first: without them it does not count."""
    (place / _DIGESTS).unlink(missing_ok=True)
    shutil.rmtree(place)


@contextlib.contextmanager
def _checkpointer():
    """Opens Orbax in this process alone: it must not wait for any other."""
    this = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=this,
        active_processes={this},
        barrier_sync_key_prefix=f"process-{this}",
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        yield checkpointer


def _named(state):
    """Flattens a state to arrays by path: what Orbax stores is then only arrays."""
    paths, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in paths}


_FULL = (errno.ENOSPC, errno.EDQUOT)
_ARRAYS = "state"
_DIGESTS = "digests.json"
