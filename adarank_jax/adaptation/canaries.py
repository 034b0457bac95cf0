"""Small computations whose result is known, before a long run trusts a device.

Some accelerators round factors of a product to fewer bits unless they are asked not to,
and compilers have been wrong before: a deterministic scatter of XLA once was.
"""

import jax
import jax.numpy as jnp
import numpy as np

from adarank_jax import errors
from adarank_jax.core import svd

_LARGEST_ERROR = 1e-5
"""Relative; float32 gives about 1e-7, bfloat16 about 3e-3, TF32 about 3e-4."""


def check(device: jax.Device, decomposes: bool = False) -> None:
    """Compares a product, a scatter and, if asked for, an SVD with the host's.

    Args:
        device: to be trusted.
        decomposes: whether the task vectors are decomposed on it.

    Raises:
        NumericsError: a result is wrong; the message says which and by how much.
    """
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(256, 256)).astype(np.float32) for _ in range(2))
    with jax.default_device(device):
        product = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
        found = {"matrix product": (product, a.astype(np.float64) @ b)}
        rows = rng.permutation(256)[:64]
        scattered = jax.jit(lambda a, b: a.at[rows].set(b[rows]))(a, b)
        expected = a.copy()
        expected[rows] = b[rows]
        found["scatter"] = scattered, expected
        if decomposes:
            factors = svd.decompose(a[None], "device")
            found["SVD"] = svd.reconstruct(factors)[0], a
    for name, (result, expected) in found.items():
        error = _relative(np.asarray(result, np.float64), expected)
        if not error < _LARGEST_ERROR:
            raise errors.NumericsError(
                "E504",
                f"a {name} in float32 is wrong by {error:.1g} of its norm",
                where=str(device),
                expected=f"below {_LARGEST_ERROR:g}",
                remedy="update its driver and jaxlib, or use another device "
                "(JAX_PLATFORMS=cpu)",
            )


def _relative(result, expected):
    """Returns the norm of the difference over that of what was expected."""
    return float(np.linalg.norm(result - expected) / np.linalg.norm(expected))
