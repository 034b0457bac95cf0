"""Several processes that run one program, on one machine or on many.

Every process is started with the same command. All compute, process 0 leads: it alone
writes, and what it read or decided goes to the others. Alone, a process leads itself,
and everything here does nothing.
"""

import hashlib
import itertools
import os
import sys
from typing import Any, NoReturn

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the other processes; before anything is computed, in every process.

    Args:
        coordinator: address of process 0 and a free port there, ``10.0.0.1:1234``;
            None on a TPU slice and under Slurm or Open MPI, which know all three.
        num_processes: of the run.
        process_id: of this process, from 0.

    Raises:
        ConnectionError: the others cannot be reached.
        ValueError: only some of the three are given and the rest is not known.
    """
    given = {
        "coordinator": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise ValueError(
            f"`{missing[0]}` is missing; give coordinator, num_processes and "
            "process_id together, or none of them on a TPU slice or under Slurm."
        )
    if coordinator is not None and ":" not in coordinator:
        raise ValueError(
            f"`coordinator` must be an address and a port, got {coordinator!r}; "
            f"write {coordinator}:1234, say."
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except ValueError as error:
        raise ValueError(
            f"The other processes are not known here ({error}); give coordinator, "
            "num_processes and process_id."
        ) from error
    except RuntimeError as error:
        raise ConnectionError(
            f"Process {process_id} could not join the others at {coordinator} "
            f"({error}); is process 0 running, and is its port open?"
        ) from error


def is_lead() -> bool:
    """Tells whether this process writes and decides."""
    return jax.process_index() == 0


def devices() -> list[jax.Device]:
    """Lists the devices of all processes, those of each side by side."""
    return sorted(jax.devices(), key=lambda each: (each.process_index, each.id))


def wait() -> None:
    """Waits, a day at most, until every process got as far as this.

    A collective would do it as well, but some give up after a minute. A process that
    ends meanwhile ends the others.

    Raises:
        RuntimeError: there are several processes, but `start` was not called.
    """
    if jax.process_count() == 1:
        return
    if not jax.distributed.is_initialized():
        raise RuntimeError(
            f"This is one of {jax.process_count()} processes that do not know each "
            "other; call `hosts.start()` first, or give --distributed."
        )
    barrier = ocp.multihost.get_barrier_sync_fn()
    barrier(key=f"adarank-{next(_BARRIERS)}", timeout_ms=1000 * 24 * 3600)


def from_lead(arrays: Any) -> Any:
    """Hands the arrays of process 0 to every process.

    Args:
        arrays: a tree of one structure and shape in every process; only the values of
            process 0 count.

    Returns:
        The same tree with the values of process 0; without other processes, the very
        arrays.
    """
    if jax.process_count() == 1:
        return arrays
    wait()
    return multihost_utils.broadcast_one_to_all(arrays, is_source=is_lead())


def check_same(what: str, content: bytes) -> None:
    """Checks that every process holds the same.

    Args:
        what: it is, and what to do if it differs.
        content: bytes to compare.

    Raises:
        ValueError: the content differs; in every process.
    """
    if jax.process_count() == 1:
        return
    wait()
    digest = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
    found = np.asarray(multihost_utils.process_allgather(digest))
    others = [i for i, row in enumerate(found) if (row != found[0]).any()]
    if others:
        raise ValueError(f"Process 0 and {_listed(others)} differ in {what}.")


def check_none(problems: int, what: str) -> None:
    """Stops every process if one has a problem.

    Args:
        problems: how many this process has.
        what: they are.

    Raises:
        ValueError: this process has none, but others have; they say which.
    """
    if jax.process_count() == 1:
        return
    wait()
    found = np.asarray(multihost_utils.process_allgather(np.int32(problems)))
    others = np.flatnonzero(found).tolist()
    if others and not problems:
        raise ValueError(f"{_listed(others)} found {what}; see what is printed there.")


def _listed(processes):
    """Names processes, for example ``process 1 and process 3``."""
    return " and ".join(f"process {i}" for i in processes)


def leave(code: int) -> NoReturn:
    """Ends this process because of an error; soon, and with it all others.

    An orderly exit would wait for processes that wait for this one.

    Args:
        code: of the exit.
    """
    if not jax.distributed.is_initialized():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


_BARRIERS = itertools.count()
