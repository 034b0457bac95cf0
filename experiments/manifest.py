"""What a result depends on besides its configuration: machine, versions, weights."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

import adarank_jax


def describe() -> dict[str, Any]:
    """Lists versions, devices and layout, as plain values."""
    return {
        "adarank_jax": adarank_jax.__version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": [f"{d.platform}:{d.device_kind}" for d in jax.devices()],
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
        "merge_precision": "highest",
        "commit": commit(),
    }


def commit() -> str | None:
    """Returns the commit of a checkout of adarank_jax, ``-dirty`` if it was changed.

    None for an installed package, and where there is no git.
    """
    folder = pathlib.Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
