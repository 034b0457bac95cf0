"""Heads of text classifiers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax import tree
from adarank_jax.models import language, sequence_heads
from tests import helpers

WIDTH = 4
SHAPES = {
    "bert": {"kernel": (WIDTH, 3), "bias": (3,)},
    "gpt2": {"kernel": (WIDTH, 3)},
    "roberta": {
        "dense/kernel": (WIDTH, WIDTH),
        "dense/bias": (WIDTH,),
        "out_proj/kernel": (WIDTH, 3),
        "out_proj/bias": (3,),
    },
}
LAST = {"bert": "kernel", "gpt2": "kernel", "roberta": "out_proj/kernel"}
PAIRS = [(a, b) for a in SHAPES for b in SHAPES if a != b]


def head(family, **shapes):
    """Draws a head; `shapes` replace some of the family's, by path."""
    return helpers.params(0, SHAPES[family] | shapes)


def check(family, tensors, width=WIDTH):
    """Checks a head under a name."""
    language.FAMILIES[family].check_head(tensors, width, "the head of cola")


def test_linear_logits_are_those_of_a_linear_layer():
    x, tensors = helpers.matrix(1, 5, WIDTH), head("bert")
    expected = x.astype(np.float64) @ tensors["kernel"] + tensors["bias"]
    ours = sequence_heads.linear_logits(jnp.asarray(x), tensors)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_linear_logits_need_no_bias():
    x, tensors = helpers.matrix(1, 5, WIDTH), head("gpt2")
    ours = sequence_heads.linear_logits(jnp.asarray(x), tensors)
    expected = x.astype(np.float64) @ tensors["kernel"]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_roberta_logits_are_those_of_two_layers():
    x, tensors = helpers.matrix(1, 5, WIDTH), head("roberta")
    dense, last = tensors["dense"], tensors["out_proj"]
    hidden = np.tanh(x.astype(np.float64) @ dense["kernel"] + dense["bias"])
    ours = sequence_heads.roberta_logits(jnp.asarray(x), tensors)
    expected = hidden @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", SHAPES)
def test_num_classes_counts_the_outputs(family):
    assert sequence_heads.num_classes(head(family)) == 3


@pytest.mark.parametrize("family", SHAPES)
def test_check_head_takes_arrays_and_shapes(family):
    check(family, head(family))
    check(family, jax.eval_shape(lambda: helpers.to_jax(head(family))))


@pytest.mark.parametrize(("family", "other"), PAIRS)
def test_check_head_refuses_that_of_another_family(family, other):
    with pytest.raises(
        ValueError, match="E317 the head of cola: it must have the tensors"
    ):
        check(family, head(other))


@pytest.mark.parametrize("family", SHAPES)
def test_check_head_refuses_another_width(family):
    with pytest.raises(
        ValueError, match=r"E306.*shape \(5, .*was it trained on another"
    ):
        check(family, head(family), width=5)


@pytest.mark.parametrize("family", SHAPES)
def test_check_head_refuses_one_class(family):
    one = {path: (*shape[:-1], 1) for path, shape in SHAPES[family].items()}
    kept = {"dense/kernel", "dense/bias"}
    shapes = {path: shape for path, shape in one.items() if path not in kept}
    with pytest.raises(ValueError, match="E304.*at least two classes, got one: a re"):
        check(family, head(family, **shapes))


@pytest.mark.parametrize("family", ("bert", "roberta"))
def test_check_head_refuses_a_bias_of_other_classes(family):
    path = LAST[family].replace("kernel", "bias")
    with pytest.raises(ValueError, match=rf"E306.*'{path}' of shape \(3\), got \(2,"):
        check(family, head(family, **{path: (2,)}))


@pytest.mark.parametrize("family", SHAPES)
def test_check_head_refuses_a_kernel_that_is_no_matrix(family):
    path = LAST[family]
    with pytest.raises(ValueError, match=rf"E306.*'{path}' of shape \(4, classes\)"):
        check(family, head(family, **{path: (WIDTH,)}))


@pytest.mark.parametrize("value", (np.nan, np.inf))
@pytest.mark.parametrize("family", SHAPES)
def test_check_head_refuses_numbers_that_are_not_finite(family, value):
    flat = tree.flatten(head(family))
    flat[LAST[family]][1, 2] = value
    with pytest.raises(ValueError, match="E220 .*cola: ") as error:
        check(family, tree.unflatten(flat))
    assert f"{LAST[family]}: 1 of 12" in str(error.value)
