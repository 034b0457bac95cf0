"""What decides the last bits of a step, beside its inputs."""

import hashlib
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax


def describe(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Lists all that two runs must share to give equal bits.

    Args:
        devices: of the run.

    Returns:
        Plain values by name.
    """
    return {
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "processor": processor(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "matmul_precision": str(jax.config.values["jax_default_matmul_precision"]),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Says what differs.

    Args:
        then: plain values by name.
        now: others.

    Returns:
        One phrase a name, in the order of `now`.

    Examples:
        >>> differences({"devices": 1}, {"devices": 4})
        ['devices: 1 then, 4 now']
    """
    names = dict.fromkeys([*now, *then])
    return [
        f"{name}: {then.get(name)} then, {now.get(name)} now"
        for name in names
        if then.get(name) != now.get(name)
    ]


def processor() -> str:
    """Names the kind of processor: architecture, and a digest of what it can do."""
    rows = []
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        rows = info.read_text(errors="replace").splitlines()
    wanted = ("model name", "flags", "Features", "CPU part")
    found = [next((row for row in rows if row.startswith(key)), "") for key in wanted]
    digest = hashlib.sha256("\n".join(found).encode()).hexdigest()[:12]
    return f"{platform.machine()} {digest}"
