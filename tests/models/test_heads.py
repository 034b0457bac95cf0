"""Cosine heads."""

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from adarank_jax.models import heads
from tests import helpers

SEEDS = strategies.integers(0, 2**32 - 1)
LENGTHS = strategies.floats(2.0**-10, 2.0**10, width=32)
BAD_VALUES = (np.nan, np.inf, -np.inf)
BAD_SCALES = (0.0, -1.0, float("nan"))


def draw(seed, *shape):
    """Draws a jax array."""
    return jnp.asarray(helpers.matrix(seed, *shape))


@hypothesis.given(seed=SEEDS, length=LENGTHS)
def test_make_head_has_unit_directions(seed, length):
    head = heads.make_head(length * draw(seed, 6, 4), 100.0)
    np.testing.assert_allclose(jnp.linalg.norm(head.directions, axis=0), 1.0, rtol=1e-5)


def test_make_head_keeps_directions_and_scale():
    head = heads.make_head(jnp.array([[3.0, 0.0], [4.0, -2.0]]), 15.0)
    np.testing.assert_allclose(head.directions, [[0.6, 0.0], [0.8, -1.0]], rtol=1e-6)
    assert head.logit_scale == 15.0


@pytest.mark.parametrize("dtype", (np.float64, np.float16))
def test_make_head_is_float32(dtype):
    head = heads.make_head(np.eye(3, dtype=dtype), 1.0)
    assert {x.dtype for x in head} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("num_classes", (0, 1))
def test_make_head_refuses_fewer_than_two_classes(num_classes):
    with pytest.raises(ValueError, match="at least two classes, got"):
        heads.make_head(jnp.ones((4, num_classes)), 1.0)


def test_make_head_refuses_a_zero_vector():
    with pytest.raises(ValueError, match="finite and none of them zero"):
        heads.make_head(jnp.eye(3).at[1, 1].set(0.0), 1.0)


@pytest.mark.parametrize("value", BAD_VALUES)
def test_make_head_refuses_what_is_not_finite(value):
    with pytest.raises(ValueError, match="finite and none of them zero"):
        heads.make_head(jnp.eye(3).at[0, 1].set(value), 1.0)


@pytest.mark.parametrize("scale", BAD_SCALES)
def test_make_head_refuses_a_scale_not_above_zero(scale):
    with pytest.raises(ValueError, match="`logit_scale` must be above zero, got"):
        heads.make_head(jnp.eye(3), scale)


@hypothesis.given(seed=SEEDS, length=LENGTHS)
def test_normalise_gives_unit_length(seed, length):
    lengths = jnp.linalg.norm(heads.normalise(length * draw(seed, 5, 7)), axis=1)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)


@hypothesis.given(seed=SEEDS, length=LENGTHS)
def test_normalise_does_not_see_the_length(seed, length):
    features = draw(seed, 5, 7)
    ours = heads.normalise(length * features)
    np.testing.assert_allclose(ours, heads.normalise(features), rtol=1e-4, atol=1e-6)


def test_cosine_logits_are_scaled_cosines():
    features, vectors = helpers.matrix(1, 5, 7), helpers.matrix(2, 7, 3)
    theirs = np.zeros((5, 3))
    for i, f in enumerate(np.float64(features)):
        for c, v in enumerate(np.float64(vectors).T):
            theirs[i, c] = 15.0 * f @ v / np.sqrt((f @ f) * (v @ v))
    head = heads.make_head(vectors, 15.0)
    ours = heads.cosine_logits(jnp.asarray(features), head)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_cosine_logits_of_a_class_vector_are_the_scale():
    head = heads.make_head(draw(3, 7, 3), 15.0)
    ours = heads.cosine_logits(4.0 * head.directions.T, head)
    np.testing.assert_allclose(jnp.diag(ours), 15.0, rtol=1e-5)
