"""Singular value decomposition of task vectors."""

import time

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from adarank_jax import tree
from adarank_jax.core import svd, svd_backends, task_vectors
from tests import helpers

SHAPES = ((3, 8, 5), (3, 5, 8), (2, 6, 6), (1, 4, 1), (2, 1, 4))
SEEDS = strategies.integers(0, 2**32 - 1)
BAD_VALUES = (np.nan, np.inf, -np.inf)
EMPTY = ((0, 3, 4), (2, 0, 4), (2, 3, 0))
LEADING = (
    # rank, ratio, kept
    (32, 0.16, 5),
    (768, 0.12, 92),
    (768, 0.32, 245),
    (768, 1.0, 768),
    (100, 0.29, 29),
    (1, 0.5, 1),
    (768, 1e-6, 1),
)
OUT_OF_RANGE = (0.0, -0.1, 1.0001, float("nan"))
ENERGY = (
    # singular values, energy, rank
    ((3.0, 1.0, 0.0), 0.9, 1),
    ((3.0, 1.0, 0.0), 0.95, 2),
    ((3.0, 1.0, 0.0), 1.0, 2),
    ((1.0, 1.0, 1.0, 1.0), 0.5, 2),
    ((1.0, 1.0, 1.0, 1.0), 0.51, 3),
    ((0.0, 0.0), 0.95, 1),
)


@pytest.mark.parametrize("shape", SHAPES)
def test_decompose_shapes(shape):
    tasks, rows, cols = shape
    rank = min(rows, cols)
    factors = svd.decompose(jnp.asarray(helpers.matrix(0, *shape)))
    chex.assert_shape(factors.u, (rows, tasks * rank))
    chex.assert_shape(factors.s, (tasks, rank))
    chex.assert_shape(factors.vt, (tasks * rank, cols))


@pytest.mark.parametrize("shape", SHAPES)
@hypothesis.given(seed=SEEDS)
def test_reconstruct_undoes_decompose(shape, seed):
    matrices = jnp.asarray(helpers.matrix(seed, *shape))
    rebuilt = svd.reconstruct(svd.decompose(matrices))
    np.testing.assert_allclose(rebuilt, matrices, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_decompose_agrees_with_numpy(shape):
    matrices = helpers.matrix(1, *shape)
    theirs = np.linalg.svd(matrices.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(svd.decompose(jnp.asarray(matrices)).s, theirs, 1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_decompose_orders_values_falling(shape):
    s = svd.decompose(jnp.asarray(helpers.matrix(2, *shape))).s
    assert (np.diff(s, axis=1) <= 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_decompose_directions_are_orthonormal_within_a_task(shape):
    factors = svd.decompose(jnp.asarray(helpers.matrix(3, *shape)))
    tasks, rank = factors.s.shape
    for u, vt in zip(
        np.split(factors.u, tasks, axis=1), np.split(factors.vt, tasks), strict=True
    ):
        np.testing.assert_allclose(u.T @ u, np.eye(rank), atol=1e-5)
        np.testing.assert_allclose(vt @ vt.T, np.eye(rank), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_decompose_puts_tasks_side_by_side(shape):
    matrices = helpers.matrix(4, *shape)
    u, s, vt = svd.decompose(jnp.asarray(matrices))
    update = (u * s.reshape(1, -1)) @ vt
    np.testing.assert_allclose(update, matrices.sum(axis=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", EMPTY)
def test_decompose_refuses_empty_matrices(shape):
    with pytest.raises(ValueError, match="none of them zero, got"):
        svd.decompose(jnp.zeros(shape))


@pytest.mark.parametrize("value", BAD_VALUES)
def test_decompose_refuses_what_is_not_finite(value):
    with pytest.raises(ValueError, match="must be finite, got NaN or infinity"):
        svd.decompose(jnp.ones((2, 3, 3)).at[1, 2, 0].set(value))


@pytest.mark.parametrize("value", BAD_VALUES)
def test_decompose_tree_refuses_before_any_svd(monkeypatch, value):
    def svd_called(*args, **kwargs):
        raise AssertionError("the SVD was called")

    monkeypatch.setattr(svd_backends, "decompose_stacks", svd_called)
    vectors = task_vectors.task_vectors(*helpers.task_set())
    vectors = helpers.with_entry(vectors, helpers.DECOMPOSED[1], value)
    with pytest.raises(ValueError, match="blocks_0/mlp/c_proj/kernel: 1 of 231"):
        svd.decompose_tree(vectors, helpers.is_decomposed)


def test_decompose_tree_refuses_infinity_in_less_than_five_seconds():
    vectors = {"w": np.zeros((1, 3072, 3072), np.float32)}
    vectors["w"][0, -1, -1] = np.inf
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"first at \(0, 3071, 3071\)"):
        svd.decompose_tree(vectors, lambda path, leaf: True)
    assert time.monotonic() - start < 5.0


def test_decompose_tree_checks_tensors_that_stay_dense():
    vectors = task_vectors.task_vectors(*helpers.task_set())
    vectors = helpers.with_entry(vectors, "ln_post/scale", np.nan)
    with pytest.raises(ValueError, match="ln_post/scale: 1 of 18"):
        svd.decompose_tree(vectors, helpers.is_decomposed)


def test_decompose_tree_decomposes_where_the_predicate_holds():
    vectors = task_vectors.task_vectors(*helpers.task_set())
    factors = tree.flatten(svd.decompose_tree(vectors, helpers.is_decomposed))
    assert {p for p, x in factors.items() if svd.is_factors(x)} == {*helpers.DECOMPOSED}


def test_decompose_tree_keeps_the_rest():
    vectors = tree.flatten(task_vectors.task_vectors(*helpers.task_set()))
    factors = svd.decompose_tree(tree.unflatten(vectors), helpers.is_decomposed)
    for path, leaf in tree.flatten(factors).items():
        if path not in helpers.DECOMPOSED:
            np.testing.assert_array_equal(leaf, vectors[path])


def test_decompose_tree_asks_once_a_leaf_about_one_task():
    asked = []

    def predicate(path, leaf):
        asked.append((path, leaf.shape))
        return False

    svd.decompose_tree(task_vectors.task_vectors(*helpers.task_set()), predicate)
    assert sorted(asked) == sorted(helpers.SHAPES.items())


def test_decompose_tree_refuses_what_is_not_a_matrix():
    with pytest.raises(ValueError, match=r"got 'a/bias' of shape \(4,\); reshape"):
        svd.decompose_tree({"a": {"bias": jnp.ones((2, 4))}}, lambda path, leaf: True)


def test_decompose_tree_returns_host_arrays_that_belong_to_no_device():
    *_, last = jax.devices("cpu")
    vectors = {"w": jax.device_put(jnp.ones((2, 3, 3)), last)}
    factors = svd.decompose_tree(vectors, lambda path, leaf: True)
    assert {type(array) for array in factors["w"]} == {np.ndarray}


def test_is_factors_tells_factors_from_arrays():
    factors = svd.decompose(jnp.ones((1, 2, 2)))
    assert [svd.is_factors(x) for x in (factors, factors.u)] == [True, False]


def test_truncate_to_all_is_the_identity():
    factors = svd.decompose(jnp.asarray(helpers.matrix(5, 3, 7, 4)))
    chex.assert_trees_all_equal(svd.truncate(factors, 4), factors)


@pytest.mark.parametrize("shape", ((3, 8, 5), (3, 5, 8)))
@pytest.mark.parametrize("rank", (1, 3))
def test_truncate_gives_the_best_approximation(shape, rank):
    matrices = helpers.matrix(6, *shape)
    factors = svd.decompose(jnp.asarray(matrices))
    rebuilt = svd.reconstruct(svd.truncate(factors, rank))
    errors = np.sum((matrices - rebuilt) ** 2, axis=(1, 2))
    s = np.linalg.svd(matrices.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(errors, np.sum(s[:, rank:] ** 2, axis=1), rtol=1e-4)


@pytest.mark.parametrize("rank", (-1, 0, 5))
def test_truncate_refuses_a_rank_out_of_range(rank):
    with pytest.raises(ValueError, match=f"from 1 to 4, got {rank}"):
        svd.truncate(svd.decompose(jnp.ones((2, 7, 4))), rank)


@pytest.mark.parametrize(("rank", "ratio", "kept"), LEADING)
def test_leading_rank_rounds_down_to_at_least_one(rank, ratio, kept):
    assert svd.leading_rank(rank, ratio) == kept


@pytest.mark.parametrize("ratio", OUT_OF_RANGE)
def test_leading_rank_refuses_a_ratio_out_of_range(ratio):
    with pytest.raises(ValueError, match=r"`rank_ratio` must be in \(0, 1\], got"):
        svd.leading_rank(8, ratio)


@pytest.mark.parametrize(("s", "energy", "rank"), ENERGY)
def test_energy_rank_is_the_smallest_that_holds_the_share(s, energy, rank):
    assert svd.energy_rank(jnp.array([s]), energy).tolist() == [rank]


def test_energy_rank_is_per_task():
    s = jnp.array([[3.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    assert svd.energy_rank(s, 0.9).tolist() == [1, 3]


@pytest.mark.parametrize("energy", OUT_OF_RANGE)
def test_energy_rank_refuses_a_share_out_of_range(energy):
    with pytest.raises(ValueError, match=r"`energy` must be in \(0, 1\], got"):
        svd.energy_rank(jnp.ones((1, 2)), energy)
