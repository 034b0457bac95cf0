"""Masks over singular directions."""

import functools

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from adarank_jax.core import masks
from tests.oracles import adarank

INIT = (
    # rank, ratio, number kept
    (5, 1.0, 5),
    (5, 0.4, 2),
    (5, 0.39, 1),
    (5, 0.01, 1),
)
TEMPERATURES = (1.0, 10.0)
LOGITS = strategies.lists(
    strategies.floats(-30.0, 30.0, width=32).filter(lambda x: abs(x) > 1e-4),
    min_size=6,
    max_size=6,
)


@pytest.mark.parametrize(("rank", "ratio", "kept"), INIT)
def test_init_logits_keep_the_leading_directions(rank, ratio, kept):
    logits = masks.init_logits(3, rank, ratio, 2.0, -1.0)
    np.testing.assert_array_equal(logits, [[2.0] * kept + [-1.0] * (rank - kept)] * 3)


def test_init_logits_start_close_to_the_threshold():
    logits = masks.init_logits(1, 2, 0.5)
    np.testing.assert_array_equal(logits, np.float32([[0.1, -0.1]]))


def test_init_logits_are_float32():
    assert masks.init_logits(1, 2, 0.5, 1.0, 0.0).dtype == jnp.float32


@pytest.mark.parametrize("ratio", (0.0, -1.0, 1.5))
def test_init_logits_refuse_a_ratio_out_of_range(ratio):
    with pytest.raises(ValueError, match=r"`rank_ratio` must be in \(0, 1\]"):
        masks.init_logits(2, 4, ratio)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@hypothesis.given(values=LOGITS)
def test_soft_agrees_with_oracle(temperature, values):
    ours = masks.soft(jnp.array([values]), temperature)
    theirs = [adarank.mask_value(b, temperature, is_soft=True) for b in values]
    np.testing.assert_allclose(ours[0], theirs, rtol=1e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("compiles", (False, True), ids=("eager", "jit"))
@hypothesis.given(values=LOGITS)
def test_straight_through_agrees_with_oracle_exactly(compiles, temperature, values):
    function = functools.partial(masks.straight_through, temperature=temperature)
    ours = (jax.jit(function) if compiles else function)(jnp.array([values]))
    theirs = [adarank.mask_value(b, temperature, is_soft=False) for b in values]
    np.testing.assert_array_equal(ours[0], theirs)


def test_straight_through_drops_a_tie():
    np.testing.assert_array_equal(masks.straight_through(jnp.zeros((1, 2))), [[0, 0]])


@pytest.mark.parametrize("temperature", TEMPERATURES)
@hypothesis.given(values=LOGITS)
def test_straight_through_has_the_gradient_of_the_sigmoid(temperature, values):
    weights = jnp.arange(1.0, 7.0)[None]

    def weighted(logits):
        return jnp.sum(weights * masks.straight_through(logits, temperature))

    soft = np.array([adarank.sigmoid(b / temperature) for b in values])
    theirs = np.arange(1.0, 7.0) * soft * (1.0 - soft) / temperature
    ours = jax.grad(weighted)(jnp.array([values]))
    np.testing.assert_allclose(ours[0], theirs, rtol=1e-3, atol=1e-6)


def test_straight_through_traces_once_for_two_calls():
    function = jax.jit(chex.assert_max_traces(masks.straight_through, n=1))
    function(jnp.ones((2, 3)))
    function(jnp.zeros((2, 3)))


def test_is_kept_is_strict():
    mask = jnp.array([[0.4, 0.5, 0.6]])
    assert masks.is_kept(mask).tolist() == [[False, False, True]]


@hypothesis.given(values=LOGITS)
def test_kept_rank_counts_the_binary_mask(values):
    logits = jnp.array([values, values[::-1], [1.0] * 6, [-1.0] * 6])
    count = masks.straight_through(logits).sum(axis=1)
    np.testing.assert_array_equal(masks.kept_rank(logits), count)
