"""Several processes that run one program, on one machine or on many.

Every process is started with the same command. All compute, process 0 leads: it alone
writes, and what it read or decided goes to the others. Alone, a process leads itself,
and everything here does nothing.
"""

import collections
import hashlib
import itertools
import os
import sys
from typing import Any, NoReturn

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from adarank_jax import errors
from adarank_jax.adaptation import roll_call


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: float = 300.0,
) -> None:
    """Joins the other processes; before anything is computed, in every process.

    Args:
        coordinator: address of process 0 and a free port there, ``10.0.0.1:1234``;
            None on a TPU slice and under Slurm or Open MPI, which know all three.
        num_processes: of the run.
        process_id: of this process, from 0.
        timeout: seconds to wait for the others.

    Raises:
        ConnectionError: the others cannot be reached or did not come, or the port is
            in use; the message says which, where that can be told.
        RuntimeError: JAX has computed something already, or has been started.
        ValueError: only some of the three are given and the rest is not known; they
            are out of range; the processes were given other numbers of processes, or
            have other numbers of devices.
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
    if not missing:
        _check(**given)
        roll_call.hold(**given, timeout=timeout)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM for itself: `signals` looks after that.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            *given.values(), initialization_timeout=max(round(timeout), 1)
        )
    except ValueError as error:
        raise ValueError(
            f"The other processes are not known here ({error}); give coordinator, "
            "num_processes and process_id."
        ) from error
    except jax.errors.JaxRuntimeError as error:
        raise ConnectionError(
            f"JAX could not connect this process to the others: {error}"
        ) from error
    devices()


def _check(coordinator, num_processes, process_id):
    """Checks what this process was given, by itself."""
    host, _, port = coordinator.rpartition(":")
    if not host:
        raise ValueError(
            f"`coordinator` must be an address and a port, got {coordinator!r}; "
            f"write {coordinator}:1234, say."
        )
    if not (port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(
            "The port of `coordinator` must be a number from 1 to 65535, got "
            f"{coordinator!r}."
        )
    if num_processes < 1:
        raise ValueError(f"`num_processes` must be at least 1, got {num_processes}.")
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"`process_id` must be from 0 to {num_processes - 1} (`num_processes` is "
            f"{num_processes}), got {process_id}."
        )


def is_lead() -> bool:
    """Tells whether this process writes and decides."""
    return jax.process_index() == 0


def devices() -> list[jax.Device]:
    """Lists the devices of all processes, those of each side by side.

    Raises:
        ValueError: some processes have more devices than others; in every process.
    """
    found = sorted(jax.devices(), key=lambda each: (each.process_index, each.id))
    counts = collections.Counter(each.process_index for each in found)
    if len(set(counts.values())) > 1:
        wait()  # or the first to leave would end others before they say why
        rows = ", ".join(f"process {i} has {n}" for i, n in sorted(counts.items()))
        raise ValueError(
            f"Every process must have the same number of devices, but {rows}; use "
            "machines of one kind, or show each process the same number "
            "(CUDA_VISIBLE_DEVICES, or JAX_NUM_CPU_DEVICES on CPUs)."
        )
    return found


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
        InputError: the content differs; in every process.
    """
    if jax.process_count() == 1:
        return
    wait()
    digest = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
    found = np.asarray(multihost_utils.process_allgather(digest))
    others = [i for i, row in enumerate(found) if (row != found[0]).any()]
    if others:
        raise errors.InputError(
            "E630", f"Process 0 and {roll_call.listed(others)} differ in {what}"
        )


def check_none(problems: int, what: str) -> None:
    """Stops every process if one has a problem.

    Args:
        problems: how many this process has.
        what: they are.

    Raises:
        InputError: this process has none, but others have; they say which.
    """
    if jax.process_count() == 1:
        return
    wait()
    found = np.asarray(multihost_utils.process_allgather(np.int32(problems)))
    others = np.flatnonzero(found).tolist()
    if others and not problems:
        raise errors.InputError(
            "E631",
            f"{roll_call.listed(others)} found {what}",
            remedy="see what is printed there",
        )


def largest(number: int) -> int:
    """Returns the largest number of all processes, in every process.

    Args:
        number: of this process.
    """
    if jax.process_count() == 1:
        return number
    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


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
