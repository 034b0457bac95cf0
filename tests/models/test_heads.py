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
BAD_WEIGHTS = (
    # weight, message
    (np.ones((1, 4)), r"at least two classes, got \(1, 4\)"),
    (np.ones(4), r"at least two classes, got \(4,\)"),
    (np.ones((2, 3, 4)), r"at least two classes, got \(2, 3, 4\)"),
    (np.array([[1.0, 0.0], [0.0, 0.0], [0.0, np.nan]]), "rows are wrong: 1, 2; save"),
    (np.zeros((9, 4)), "wrong: 0, 1, 2, 3, 4 and 4 more;"),
)
BAD_EMBEDDINGS = (
    # embeddings of classes, message
    ([np.ones((2, 4))], "at least two classes, got 1"),
    ([], "at least two classes, got 0"),
    ([np.ones((2, 4)), np.ones(4)], r"got the shapes \[\(2, 4\), \(4,\)\]"),
    ([np.ones((2, 4)), np.ones((2, 5))], r"got the shapes \[\(2, 4\), \(2, 5\)\]"),
    ([np.ones((2, 4)), np.ones((0, 4))], r"got the shapes \[\(0, 4\), \(2, 4\)\]"),
    ([np.eye(4), np.ones((2, 4)) * [[1], [0]]], "these classes have such: 1; check"),
    ([np.full((2, 4), np.inf), np.eye(4)], "these classes have such: 0; check"),
    ([np.eye(4), np.ones((2, 4)) * [[1], [-1]]], "finite and none of them zero"),
)
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


@pytest.mark.parametrize("make", (heads.make_head, heads.head_from_weight))
@pytest.mark.parametrize("bias", (np.ones(3), np.ones((4, 1)), 1.0))
def test_heads_refuse_a_bias_of_another_shape(make, bias):
    arguments = (1.0,) if make is heads.make_head else ()
    with pytest.raises(ValueError, match="E305.*each of 4 classes, got shape"):
        make(np.eye(4), *arguments, bias=bias)


def test_make_head_refuses_a_bias_that_is_not_finite():
    with pytest.raises(ValueError, match="E220 `bias` must be finite"):
        heads.make_head(np.eye(2), 1.0, np.array([0.0, np.nan]))


def test_make_head_has_no_bias_unless_given():
    np.testing.assert_array_equal(heads.make_head(np.eye(3), 1.0).bias, np.zeros(3))
    bias = np.array([1.0, -2.0, 0.5])
    np.testing.assert_array_equal(heads.make_head(np.eye(3), 1.0, bias).bias, bias)


@pytest.mark.parametrize("dtype", (np.float32, np.float16))
def test_head_from_weight_finds_unit_directions_and_their_scale(dtype):
    made = heads.make_head(draw(3, 70, 6), 100.0)
    weight = np.asarray(100.0 * made.directions.T, dtype)
    head = heads.head_from_weight(weight)
    lengths = jnp.linalg.norm(head.directions, axis=0)
    rounding = 1e-6 if dtype == np.float32 else 1e-3
    np.testing.assert_allclose(lengths, 1.0, rtol=rounding)
    np.testing.assert_allclose(head.logit_scale, 100.0, rtol=1e-4)
    np.testing.assert_allclose(head.directions, made.directions, rtol=0, atol=1e-3)
    assert {x.dtype for x in head} == {jnp.dtype(jnp.float32)}


@hypothesis.given(seed=SEEDS, length=LENGTHS)
def test_head_from_weight_has_the_logits_of_the_linear_layer(seed, length):
    features, weight = helpers.matrix([seed, 0], 5, 7), helpers.matrix([seed, 1], 3, 7)
    weight, bias = length * weight, helpers.matrix([seed, 2], 3)
    unit = np.float64(features) / np.linalg.norm(features, axis=1, keepdims=True)
    theirs = unit @ np.float64(weight).T + bias
    head = heads.head_from_weight(weight, bias)
    ours = heads.cosine_logits(jnp.asarray(features), head)
    assert helpers.relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize(("weight", "message"), BAD_WEIGHTS)
def test_head_from_weight_refuses_what_is_no_head(weight, message):
    with pytest.raises(ValueError, match=message):
        heads.head_from_weight(weight)


def test_head_from_weight_refuses_another_width_than_the_embeddings():
    weight = np.eye(4)
    with pytest.raises(
        ValueError, match="E306.*length 512, .* got 4; was .* projection"
    ):
        heads.head_from_weight(weight, features=512)
    assert heads.head_from_weight(weight, features=4).directions.shape == (4, 4)


def test_zero_shot_head_averages_unit_embeddings():
    blocks = [helpers.matrix([5, i], i + 1, 7) for i in range(3)]
    theirs = np.zeros((7, 3))
    for i, block in enumerate(np.float64(block) for block in blocks):
        mean = sum(row / np.sqrt(row @ row) for row in block) / len(block)
        theirs[:, i] = mean / np.sqrt(mean @ mean)
    head = heads.zero_shot_head(blocks, 100.0)
    np.testing.assert_allclose(head.directions, theirs, rtol=0, atol=1e-6)
    assert head.logit_scale == 100.0
    np.testing.assert_array_equal(head.bias, np.zeros(3))


def test_zero_shot_head_does_not_see_the_length_of_an_embedding():
    blocks = [helpers.matrix([6, i], 4, 7) for i in range(2)]
    longer = [block * np.float32([[1.0], [9.0], [0.2], [3.0]]) for block in blocks]
    ours, theirs = heads.zero_shot_head(longer, 1.0), heads.zero_shot_head(blocks, 1.0)
    np.testing.assert_allclose(ours.directions, theirs.directions, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("embeddings", "message"), BAD_EMBEDDINGS)
def test_zero_shot_head_refuses_what_makes_no_head(embeddings, message):
    with pytest.raises(ValueError, match=message):
        heads.zero_shot_head(embeddings, 100.0)


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


def test_cosine_logits_add_the_bias():
    vectors, bias = helpers.matrix(2, 7, 3), helpers.matrix(4, 3)
    features = draw(1, 5, 7)
    with_bias = heads.cosine_logits(features, heads.make_head(vectors, 15.0, bias))
    without = heads.cosine_logits(features, heads.make_head(vectors, 15.0))
    np.testing.assert_allclose(with_bias - without, np.tile(bias, (5, 1)), atol=1e-5)
