"""Alternating measurements, and what they were measured on."""

import os
import pathlib
import platform
import statistics
import subprocess
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp


def alternate(
    runs: dict[str, Callable[[], object]], repeats: int
) -> dict[str, list[float]]:
    """Times functions in turn, so that a busy machine is busy for all of them.

    A turn begins with a call that is not timed: the first one after the other library
    has run takes up to a seventh longer, and nobody runs the two in turn.

    Args:
        runs: by name; each has been called before.
        repeats: times that each is timed.

    Returns:
        Seconds of every call, by name.
    """
    seconds = {name: [] for name in runs}
    for i in range(repeats):
        for name in sorted(runs, reverse=bool(i % 2)):
            runs[name]()
            start = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Returns the median of the ratios of calls that were made side by side."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def gemm_rate(size: int = 2048, repeats: int = 5) -> float:
    """Measures the float32 operations a second of a large product in JAX."""
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest"))
    product(x, x).block_until_ready()
    best = min(
        _seconds(lambda: product(x, x).block_until_ready()) for _ in range(repeats)
    )
    return 2 * size**3 / best


def torch_gemm_rate(size: int = 2048, repeats: int = 5) -> float:
    """Measures the same in PyTorch."""
    import torch

    x = torch.ones(size, size)
    x @ x
    return 2 * size**3 / min(_seconds(lambda: x @ x) for _ in range(repeats))


def _seconds(function):
    """Times one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def commit() -> str:
    """Returns the commit of the checkout, with a mark if files differ from it."""
    here = pathlib.Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True)
    return done.stdout.strip() or "no commit"


def machine() -> str:
    """Describes the processor and the devices that JAX sees."""
    name = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        rows = [row for row in info.read_text().splitlines() if "model name" in row]
        name = rows[0].split(":")[1].strip() if rows else name
    kind = jax.local_devices()[0].device_kind
    return f"{name}, {os.cpu_count()} cores, JAX on {jax.local_device_count()} {kind}"
