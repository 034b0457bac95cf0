import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax.core.products import weighted_product


def drawn(rows, cols, rank, kept):
    """Draws factors, and weights of which some are not zero, not side by side."""
    rng = np.random.default_rng(0)
    weights = np.zeros(rank, np.float32)
    weights[rng.permutation(rank)[:kept]] = rng.uniform(1, 2, kept)
    u, vt = (rng.normal(size=size) for size in ((rows, rank), (rank, cols)))
    return u.astype(np.float32), jnp.asarray(weights), vt.astype(np.float32)


@pytest.mark.parametrize("rank", [1, 2, 3, 16, 17, 40])
@pytest.mark.parametrize("share", [0.0, 0.16, 0.5, 0.51, 1.0])
@pytest.mark.parametrize(("rows", "cols"), [(3, 5), (5, 3)])
def test_weighted_product_is_that_of_all_directions(rows, cols, rank, share):
    u, weights, vt = drawn(rows, cols, rank, int(share * rank))
    found = jax.jit(weighted_product)(u, weights, vt)
    np.testing.assert_allclose(found, (u * weights[None]) @ vt, atol=1e-5)


@pytest.mark.parametrize("kept", [0, 3, 40])
def test_weighted_product_has_gradients_of_all_directions(kept):
    factors = tuple(map(jnp.asarray, drawn(3, 5, 40, kept)))
    grads = [
        jax.grad(lambda *x, f=f: (f(*x) ** 2).sum() + f(*x).sum(), (0, 1, 2))(*factors)
        for f in (weighted_product, lambda u, w, vt: (u * w[None]) @ vt)
    ]
    chex.assert_trees_all_close(*grads, atol=1e-4, rtol=1e-5)
    assert np.all(grads[0][1] != 0)


def test_weighted_product_of_few_directions_reads_no_other_one():
    u, weights, vt = drawn(3, 5, 64, 4)
    dropped = weights == 0
    # Of each part that is collected some fill up; all others stay unread.
    order = np.argsort(dropped, kind="stable")
    u[:, order[4:]] = np.nan
    assert np.isfinite(jax.jit(weighted_product)(u, weights, vt)).all()


@pytest.mark.parametrize("kept", [4, 64])
def test_weighted_product_of_bfloat16_factors_is_summed_in_float32(kept):
    u, weights, vt = drawn(3, 5, 64, kept)
    u, vt = jnp.asarray(u, jnp.bfloat16), jnp.asarray(vt, jnp.bfloat16)
    found = weighted_product(u, weights, vt)
    assert found.dtype == jnp.float32
    # The smaller factor is rounded again where it is scaled, the sums are not: rounded
    # to bfloat16 they would be off by more than 2e-2.
    scaled = jnp.asarray(np.asarray(u, np.float32) * weights[None], jnp.bfloat16)
    exact = np.asarray(scaled, np.float64) @ np.asarray(vt, np.float64)
    np.testing.assert_allclose(found, exact, atol=1e-5, rtol=0)


def test_weighted_product_compiles_once_for_any_number_kept():
    traced = []

    @jax.jit
    def product(u, weights, vt):
        traced.append(weights.shape)
        return weighted_product(u, weights, vt)

    for kept in (0, 5, 20, 64):
        product(*drawn(3, 5, 64, kept))
    assert len(traced) == 1


def test_weighted_product_outside_of_jit_compiles_once(caplog):
    first, second = (tuple(map(jnp.asarray, drawn(7, 9, 41, kept))) for kept in (3, 40))
    with jax.log_compiles():
        weighted_product(*first)
        assert "Compiling" in caplog.text
        caplog.clear()
        weighted_product(*second)
    assert caplog.text == ""
