"""Losses on logits."""

import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from adarank_jax.core import losses
from tests import helpers
from tests.oracles import adarank

CLASSES = (2, 5, 10)
SEEDS = strategies.integers(0, 2**32 - 1)
SCALES = strategies.floats(0.0, 1e4)
EXTREME = ([1e30, -1e30], [-1e30, -1e30], [1e4, 0.0])


def draw(seed, scale, num_classes):
    """Draws four rows of logits."""
    return jnp.asarray(np.float32(scale) * helpers.matrix(seed, 4, num_classes))


@pytest.mark.parametrize("num_classes", CLASSES)
@hypothesis.given(seed=SEEDS, scale=SCALES)
def test_softmax_entropy_agrees_with_oracle(num_classes, seed, scale):
    logits = draw(seed, scale, num_classes)
    theirs = [adarank.entropy([float(z) for z in row]) for row in logits]
    np.testing.assert_allclose(
        losses.softmax_entropy(logits), theirs, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("num_classes", CLASSES)
@hypothesis.given(seed=SEEDS, scale=SCALES)
def test_softmax_entropy_is_from_zero_to_log_classes(num_classes, seed, scale):
    entropy = losses.softmax_entropy(draw(seed, scale, num_classes))
    assert (entropy >= 0.0).all() and (entropy <= math.log(num_classes) + 1e-5).all()


@pytest.mark.parametrize("num_classes", CLASSES)
def test_softmax_entropy_of_equal_logits_is_log_classes(num_classes):
    entropy = losses.softmax_entropy(jnp.full((1, num_classes), 3.0))
    np.testing.assert_allclose(entropy, math.log(num_classes), rtol=1e-6)


@pytest.mark.parametrize("row", EXTREME)
def test_softmax_entropy_of_extreme_logits_has_a_finite_gradient(row):
    gradient = jax.grad(lambda z: losses.softmax_entropy(z)[0])(jnp.array([row]))
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("num_classes", CLASSES)
@hypothesis.given(seed=SEEDS)
def test_softmax_entropy_gradient_agrees_with_oracle(num_classes, seed):
    logits = draw(seed, 2.0, num_classes)
    ours = jax.grad(lambda z: losses.softmax_entropy(z).sum())(logits)
    theirs = [adarank.entropy_gradient([float(z) for z in row]) for row in logits]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_softmax_entropy_adds_up_in_float32():
    logits = jnp.asarray(helpers.matrix(0, 4, 100), jnp.bfloat16)
    theirs = [adarank.entropy([float(z) for z in row]) for row in logits]
    np.testing.assert_allclose(losses.softmax_entropy(logits), theirs, rtol=1e-5)


def test_marginal_entropy_is_that_of_the_mean_prediction():
    logits = draw(0, 3.0, 5)
    p = np.mean([np.exp(z) / np.exp(z).sum() for z in np.float64(logits)], axis=0)
    theirs = adarank.entropy(list(np.log(p)))
    np.testing.assert_allclose(losses.marginal_entropy(logits), theirs, rtol=1e-5)


@pytest.mark.parametrize("num_classes", CLASSES)
@hypothesis.given(seed=SEEDS, scale=SCALES)
def test_marginal_entropy_is_from_the_mean_entropy_to_log_classes(
    num_classes, seed, scale
):
    logits = draw(seed, scale, num_classes)
    marginal = losses.marginal_entropy(logits)
    mean = losses.softmax_entropy(logits).mean()
    assert mean - 1e-5 <= marginal <= math.log(num_classes) + 1e-5


def test_marginal_entropy_of_collapsed_predictions_is_zero():
    logits = jnp.array([[1e3, 0.0, 0.0]] * 4)
    np.testing.assert_allclose(losses.marginal_entropy(logits), 0.0, atol=1e-6)


def test_marginal_entropy_of_sure_and_balanced_predictions_is_log_classes():
    np.testing.assert_allclose(
        losses.marginal_entropy(1e3 * jnp.eye(4)), math.log(4), rtol=1e-6
    )


@pytest.mark.parametrize("num_classes", CLASSES)
@hypothesis.given(seed=SEEDS)
def test_cross_entropy_is_minus_the_log_probability_of_the_label(num_classes, seed):
    logits = draw(seed, 2.0, num_classes)
    labels = np.arange(4) % num_classes
    z = np.asarray(logits, np.float64)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    theirs = [-log_p[i, label] for i, label in enumerate(labels)]
    ours = losses.cross_entropy(logits, jnp.asarray(labels))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@hypothesis.given(seed=SEEDS)
def test_cross_entropy_averaged_over_predicted_labels_is_the_entropy(seed):
    logits = draw(seed, 2.0, 5)
    p = jax.nn.softmax(logits)
    labels = [jnp.full(4, c) for c in range(5)]
    by_class = jnp.stack([losses.cross_entropy(logits, y) for y in labels], axis=1)
    np.testing.assert_allclose(
        (p * by_class).sum(axis=1), losses.softmax_entropy(logits), rtol=1e-4
    )


def test_softmax_entropy_refuses_one_class():
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        losses.softmax_entropy(jnp.ones((3, 1)))


def test_marginal_entropy_refuses_one_class():
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        losses.marginal_entropy(jnp.ones((3, 1)))


def test_cross_entropy_refuses_one_class():
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        losses.cross_entropy(jnp.ones((3, 1)), jnp.zeros(3, jnp.int32))
