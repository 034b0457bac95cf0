"""What a result depends on besides its configuration: machine, versions, weights."""

import importlib.metadata
import os
import platform
from typing import Any

import jax

import adarank_jax


def describe() -> dict[str, Any]:
    """Lists versions, devices and layout, as plain values."""
    return {
        "adarank_jax": adarank_jax.__version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": [f"{d.platform}:{d.device_kind}" for d in jax.local_devices()],
        "cores": os.cpu_count(),
        "merge_precision": "highest",
        "qkv": "fused",
    }


_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
