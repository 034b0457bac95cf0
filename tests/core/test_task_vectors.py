"""Task vectors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax.core import task_vectors
from tests import helpers
from tests.oracles import static

DTYPES = (jnp.float32, jnp.float16, jnp.bfloat16)


def test_average_agrees_with_oracle():
    _, finetuned = helpers.task_set()
    theirs = static.averaging([helpers.flat64(model) for model in finetuned])
    helpers.assert_close(task_vectors.average(finetuned), theirs)


def test_average_of_one_model_is_the_model():
    _, finetuned = helpers.task_set(num_tasks=1)
    chex.assert_trees_all_equal(task_vectors.average(finetuned), finetuned[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_average_is_float32(dtype):
    merged = task_vectors.average([{"w": jnp.ones(2, dtype)}] * 2)
    assert merged["w"].dtype == jnp.float32


def test_average_does_not_round_to_half_precision():
    models = [{"w": jnp.full(1, x, jnp.float16)} for x in (1.0, 1.0 + 2.0**-10)]
    assert task_vectors.average(models)["w"] == 1.0 + 2.0**-11


def test_average_refuses_no_model():
    with pytest.raises(ValueError, match="at least one model, got none"):
        task_vectors.average([])


def test_average_refuses_models_that_differ():
    _, finetuned = helpers.task_set()
    finetuned[2] = helpers.without(finetuned[2], "embedding")
    with pytest.raises(ValueError, match=r"only in `finetuned\[0\]`: embedding"):
        task_vectors.average(finetuned)


def test_task_vectors_subtract_the_origin():
    pretrained, finetuned = helpers.task_set()
    vectors = helpers.flat64(task_vectors.task_vectors(pretrained, finetuned))
    start = helpers.flat64(pretrained)
    for t, model in enumerate(finetuned):
        for path, end in helpers.flat64(model).items():
            np.testing.assert_allclose(
                vectors[path][t], end - start[path], rtol=0, atol=1e-6
            )


@pytest.mark.parametrize("dtype", DTYPES)
def test_task_vectors_are_float32(dtype):
    model = {"w": jnp.ones(2, dtype)}
    assert task_vectors.task_vectors(model, [model])["w"].dtype == jnp.float32


def test_task_vectors_subtract_in_float32():
    start, end = {"w": jnp.ones(1, jnp.bfloat16)}, {"w": np.float32([1.001])}
    vectors = task_vectors.task_vectors(start, [end])
    np.testing.assert_allclose(vectors["w"], [[0.001]], rtol=1e-3)


def test_task_vectors_of_the_average_sum_to_zero():
    _, finetuned = helpers.task_set()
    vectors = task_vectors.task_vectors(task_vectors.average(finetuned), finetuned)
    sums = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), vectors)
    chex.assert_trees_all_close(sums, jax.tree.map(jnp.zeros_like, sums), atol=1e-6)


def test_task_vectors_refuse_no_model():
    with pytest.raises(ValueError, match="at least one model, got none"):
        task_vectors.task_vectors(helpers.params(0), [])


def test_task_vectors_refuse_a_model_unlike_the_origin():
    pretrained, finetuned = helpers.task_set()
    finetuned[1] = helpers.without(finetuned[1], "ln_post/scale")
    message = r"(?s)`origin` and `finetuned\[1\]`.*only in `origin`: ln_post/scale"
    with pytest.raises(ValueError, match=message):
        task_vectors.task_vectors(pretrained, finetuned)


def test_task_vectors_refuse_another_shape():
    with pytest.raises(
        ValueError, match=r"w: \(2,\) in `origin`, \(3,\) in `finetuned"
    ):
        task_vectors.task_vectors({"w": np.ones(2)}, [{"w": np.ones(3)}])
