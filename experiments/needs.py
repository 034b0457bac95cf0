"""What a run needs of memory and disk, and what of that this machine does not have."""

import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import jax
import psutil

from adarank_jax.adaptation import memory, saved_states
from adarank_jax.errors import Message
from experiments import sizes, starts
from experiments.merge_config import MergeConfig
from experiments.suite import Inputs


class Needs(NamedTuple):
    """Bytes that a run takes.

    Attributes:
        host: memory of the machine.
        device: memory of each accelerator; 0 without one.
        disk: of the run folder.
        least_host: what no setting can spare of `host`.
        least_device: what no setting can spare of `device`.
    """

    host: int
    device: int
    disk: int
    least_host: int
    least_device: int


class Free(NamedTuple):
    """Bytes that a machine has left.

    Attributes:
        host: memory.
        total: memory with all that other programs have, and swap.
        device: memory of each accelerator; None where it is not known.
        disk: below the run folder, with what an earlier start wrote there.
    """

    host: int
    total: int
    device: int | None
    disk: int


def count(config: MergeConfig, inputs: Inputs) -> Needs:
    """Counts what a run needs.

    Args:
        config: of the run.
        inputs: with shapes and tower.
    """
    chosen = sizes.count(config, inputs)
    every = {m: sizes.count(config, inputs, m) for m in sizes.methods(config)}
    devices = jax.local_devices()
    whole = 4 * chosen.parameters
    # Base and experts, and beside them what the hungriest method adds.
    vectors = max(2 * each.dense + each.factors for each in every.values())
    host = least_host = whole * (1 + chosen.num_tasks) + vectors
    # Origin, merged weights and their gradient are whole on each device.
    adapted = [each for method, each in every.items() if method.is_adapted]
    halved = 2 if config.adaptation.factor_dtype == "bfloat16" else 1
    device = least_device = 0
    for each in adapted:
        shared = each.dense + 16 * each.logits
        parts = each.factors // halved + shared + each.activations
        device = max(device, 3 * whole + parts // len(jax.devices()))
        parts = each.factors // 2 + shared
        least_device = max(least_device, 3 * whole + parts // len(jax.devices()))
    if devices[0].platform == "cpu":
        host, device = host + device * len(devices), 0
    cached = {
        starts.get(method): each.factors + each.dense
        for method, each in every.items()
        if method.is_adapted and each.factors
    }
    # One more is there while the oldest is not dropped yet.
    states = sum((saved_states.KEPT + 1) * 12 * each.logits for each in adapted)
    copies = 2 * len(adapted) + config.export.num_copies(chosen.num_tasks)
    disk = sum(cached.values()) + states + copies * whole
    return Needs(host, device, disk, least_host, least_device)


def free(run_dir: pathlib.Path) -> Free:
    """Asks the machine what it has left.

    Args:
        run_dir: folder of the run, which need not be there.
    """
    whole, swap = psutil.virtual_memory(), psutil.swap_memory()
    device = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    disk = shutil.disk_usage(_existing(run_dir)).free + _written(run_dir)
    return Free(memory.free_on_host(), whole.total + swap.total, device, disk)


def _existing(path):
    """Returns the nearest folder that is there."""
    path = pathlib.Path(path).absolute()
    while not path.exists():
        path = path.parent
    return path


def _written(folder):
    """Counts the bytes that an earlier start left."""
    found = 0
    for place, _, names in os.walk(folder):
        found += sum(os.lstat(os.path.join(place, name)).st_size for name in names)
    return found


def shortages(
    config: MergeConfig, inputs: Inputs, run_dir: pathlib.Path
) -> Iterator[Message]:
    """Says what the machine does not have for a run.

    What is missing for certain is an error; what may be missing, because sizes are
    estimates and other programs may end, is a warning.

    Args:
        config: of the run.
        inputs: what was found.
        run_dir: folder of the run.

    Yields:
        Errors and warnings.
    """
    if inputs.shapes is None:
        return
    need, left = count(config, inputs), free(run_dir)
    if need.disk > left.disk:
        found, expected = f"{in_words(left.disk)} free", f"about {in_words(need.disk)}"
        remedy = "make room there, or choose another folder with --run-dir"
        yield Message("E401", found, f"disk of `{run_dir}`", expected, remedy)
    least, whole = need.least_host, left.total
    yield from _memory("memory of the host", need.host, left.host, least, whole)
    least, whole = need.least_device, left.device
    yield from _memory("memory of a device", need.device, left.device, least, whole)


def _memory(where, need, left, least, whole):
    """Compares what is needed of one kind of memory with what is there."""
    if left is None or need <= left:
        return
    if least > whole:
        found, expected = f"{in_words(whole)} in all", f"at least {in_words(least)}"
        yield Message("E410", found, where, expected, memory.LESS)
    else:
        found, expected = f"{in_words(left)} free", f"about {in_words(need)}"
        yield Message("W410", found, where, expected, memory.LESS)


def idle_devices() -> Iterator[Message]:
    """Says that this machine has a GPU that JAX does not use.

    Yields:
        A warning, if so.
    """
    is_chosen = os.environ.get("JAX_PLATFORMS") or os.environ.get("JAX_PLATFORM_NAME")
    if jax.default_backend() == "cpu" and _NVIDIA.exists() and not is_chosen:
        remedy = "install the extra cuda12 or cuda13, or set JAX_PLATFORMS=cpu"
        found = "there is an NVIDIA GPU, but JAX has the CPU only"
        yield Message("W412", found, "devices", remedy=remedy)


def in_words(number: float) -> str:
    """Shows a number of bytes.

    Args:
        number: of bytes.

    Examples:
        >>> in_words(87_849_216)
        '87.8 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


_NVIDIA = pathlib.Path("/proc/driver/nvidia/version")
