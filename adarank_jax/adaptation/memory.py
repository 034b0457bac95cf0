"""Memory that a compiled step will take, compared with what is free, before it runs."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import psutil

from adarank_jax import errors

LESS = (
    "make `adaptation.batch_size` smaller, set `adaptation.tasks_at_once=1`, "
    "`adaptation.remat=true` or `adaptation.factor_dtype=bfloat16`, or merge fewer "
    "tasks"
)
"""What makes a run fit into less memory."""
_SHARE = 0.9
"""Of what is free that a step may take."""


class Needs(NamedTuple):
    """Bytes of a compiled step on one device.

    Attributes:
        arguments: what it is given.
        beyond: what it takes besides: temporary arrays and results that do not lie
            where arguments were.
    """

    arguments: int
    beyond: int


def needs(step: Any, *arguments: Any) -> Needs | None:
    """Compiles a step, as its first call would, and reads off what it takes.

    The peak that XLA gives itself leaves out temporary arrays on a CPU.

    Args:
        step: under `jax.jit` or `jax.pmap`; its first call finds the program.
        *arguments: of the call.

    Returns:
        Bytes; None where the device does not say.
    """
    found = step.lower(*arguments).compile().memory_analysis()
    if found is None:
        return None
    beyond = (
        found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )
    return Needs(found.argument_size_in_bytes, beyond)


def check(found: Needs | None, devices: Sequence[jax.Device]) -> None:
    """Checks that a step fits; its arguments are in memory already.

    Args:
        found: of the step on each device.
        devices: of the run.

    Raises:
        MachineError: it does not; the message says what would make it fit.
    """
    here = [d for d in devices if d.process_index == jax.process_index()]
    if found is None or not here:
        return
    if here[0].platform == "cpu":  # they share the memory of the host
        _compare(found.beyond * len(here), free_on_host(), "the host")
        return
    for device in here:
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
            _compare(found.beyond, free, str(device))


def _compare(need, free, where):
    """Raises if too much is needed."""
    if need > _SHARE * free:
        raise errors.MachineError(
            "E410",
            f"a step needs {need / 1e9:.2f} GB besides its arguments, and "
            f"{free / 1e9:.2f} GB are free",
            where=where,
            expected=f"at most {_SHARE:.0%} of what is free",
            remedy=LESS,
        )


def free_on_host(group: pathlib.Path = pathlib.Path("/sys/fs/cgroup")) -> int:
    """Returns the bytes that this process can still take, also in a container.

    Args:
        group: where Linux tells what the container may take.
    """
    free = psutil.virtual_memory().available
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        rows = (group / "memory.stat").read_text().split()
    except (OSError, ValueError):
        return free
    if limit == "max":
        return free
    # Pages of files are given back when somebody else wants them.
    held = int(rows[rows.index("inactive_file") + 1])
    return min(free, int(limit) - used + held)
