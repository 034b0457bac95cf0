"""TSV-M against the oracle."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax import tree
from adarank_jax.core import svd, task_vectors
from adarank_jax.mergers import tsv_factors, tsv_m
from adarank_jax.mergers.tsv_m import nearest_orthogonal
from tests import helpers
from tests.oracles import static


def draw_factors(num_tasks=helpers.NUM_TASKS):
    """Draws plain factors, and those of TSV-M."""
    vectors = task_vectors.task_vectors(*helpers.task_set(num_tasks=num_tasks))
    plain = svd.decompose_tree(vectors, helpers.is_decomposed)
    return tree.flatten(plain), tree.flatten(
        tsv_factors(vectors, helpers.is_decomposed)
    )


@pytest.mark.parametrize("coefficient", (1.0, 1.7))
@pytest.mark.parametrize("num_tasks", (3, 6))
def test_tsv_m_agrees_with_oracle(num_tasks, coefficient):
    pretrained, finetuned = helpers.task_set(num_tasks=num_tasks)
    theirs = static.tsv_m(
        helpers.flat64(pretrained),
        [helpers.flat64(model) for model in finetuned],
        helpers.DECOMPOSED,
        coefficient,
    )
    ours = tsv_m(pretrained, finetuned, helpers.is_decomposed, coefficient=coefficient)
    helpers.assert_close(ours, theirs, 1e-4)


def test_tsv_m_has_the_published_default():
    models = helpers.task_set()
    chex.assert_trees_all_equal(
        tsv_m(*models, helpers.is_decomposed),
        tsv_m(*models, helpers.is_decomposed, coefficient=1.0),
    )


def test_tsv_m_of_one_task_is_the_finetuned_model():
    pretrained, finetuned = helpers.task_set(num_tasks=1)
    ours = tsv_m(pretrained, finetuned, helpers.is_decomposed)
    chex.assert_trees_all_close(ours, finetuned[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("path", helpers.DECOMPOSED)
def test_tsv_factors_are_orthonormal_over_all_tasks(path):
    u, _, vt = draw_factors()[1][path]
    np.testing.assert_allclose(u.T @ u, np.eye(u.shape[1]), atol=1e-5)
    np.testing.assert_allclose(vt @ vt.T, np.eye(u.shape[1]), atol=1e-5)


@pytest.mark.parametrize(("num_tasks", "rank"), ((3, 2), (6, 1), (9, 1)))
def test_tsv_factors_keep_the_rank_over_the_tasks_at_least_one(num_tasks, rank):
    plain, ours = draw_factors(num_tasks)
    path = helpers.DECOMPOSED[0]
    chex.assert_trees_all_equal(ours[path].s, plain[path].s[:, :rank])


@pytest.mark.parametrize("path", ("embedding", "ln_post/scale"))
def test_tsv_factors_divide_dense_task_vectors_by_the_tasks(path):
    plain, ours = draw_factors()
    np.testing.assert_allclose(ours[path] * helpers.NUM_TASKS, plain[path], rtol=1e-6)


def test_nearest_orthogonal_keeps_orthonormal_columns():
    columns = np.linalg.qr(helpers.matrix(0, 7, 4))[0]
    np.testing.assert_allclose(
        nearest_orthogonal(jnp.asarray(columns)), columns, atol=1e-5
    )


def test_nearest_orthogonal_agrees_with_the_polar_factor():
    columns = helpers.matrix(1, 7, 4)
    theirs = static.polar(columns.astype(np.float64))
    ours = nearest_orthogonal(jnp.asarray(columns))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
