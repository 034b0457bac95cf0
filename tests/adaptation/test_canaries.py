import jax
import jax.numpy as jnp
import pytest

from adarank_jax import errors
from adarank_jax.adaptation import canaries


def test_host_passes():
    canaries.check(jax.devices()[0])


def test_product_of_few_bits_is_refused(monkeypatch):
    def matmul(a, b, precision):
        return (a.astype(jnp.bfloat16) @ b.astype(jnp.bfloat16)).astype(jnp.float32)

    monkeypatch.setattr(canaries.jnp, "matmul", matmul)
    with pytest.raises(errors.NumericsError, match="E504.*matrix product.*float32"):
        canaries.check(jax.devices()[0])


def test_wrong_svd_is_refused(monkeypatch):
    monkeypatch.setattr(
        canaries.svd, "decompose", lambda x, backend: svd_of(x * (1 + 1e-4))
    )
    with pytest.raises(errors.NumericsError, match="SVD"):
        canaries.check(jax.devices()[0], decomposes=True)


svd_of = canaries.svd.decompose
