"""Trees by path."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from adarank_jax import errors, tree
from tests import helpers

NESTED = {"b": {"w": 1, "c": {"x": 2}}, "a": 3, "b2": 4}
FLAT = {"a": 3, "b/c/x": 2, "b/w": 1, "b2": 4}
LEAF_AND_BRANCH = ({"a": 1, "a/b": 2}, {"a/b": 2, "a": 1})
BAD_VALUES = (np.nan, np.inf, -np.inf)


def test_flatten_joins_keys_with_slashes():
    assert tree.flatten(NESTED) == FLAT


def test_flatten_has_the_order_of_jax():
    assert list(tree.flatten(NESTED).values()) == jax.tree.leaves(NESTED)


def test_flatten_keeps_none_as_a_leaf():
    assert tree.flatten({"a": {"b": None}}) == {"a/b": None}


def test_flatten_refuses_a_slash_in_a_key():
    with pytest.raises(ValueError, match="slash in a key, got 'x/y'"):
        tree.flatten({"a": {"x/y": 1}})


def test_flatten_refuses_an_empty_branch():
    with pytest.raises(ValueError, match="empty branches, got one: 'b'"):
        tree.flatten({"a": {"b": {}}})


def test_unflatten_undoes_flatten():
    assert tree.unflatten(tree.flatten(NESTED)) == NESTED


@pytest.mark.parametrize("flat", LEAF_AND_BRANCH)
def test_unflatten_refuses_a_path_that_is_leaf_and_branch(flat):
    with pytest.raises(ValueError, match="'a'.* and also"):
        tree.unflatten(flat)


def test_map_with_path_passes_the_path_and_every_leaf():
    mapped = tree.map_with_path(
        lambda path, one, two: f"{path}:{one}{two}", {"a": {"b": 1}}, {"a": {"b": 2}}
    )
    assert mapped == {"a": {"b": "a/b:12"}}


@pytest.mark.parametrize("rest", ({}, {"a": 1, "b": 2}), ids=("fewer", "more"))
def test_map_with_path_refuses_other_paths(rest):
    with pytest.raises(ValueError, match=r"`tree` and `rest\[0\]`"):
        tree.map_with_path(lambda path, one, two: one, {"a": 1}, rest)


def test_check_same_paths_accepts_any_leaves():
    tree.check_same_paths({"a": {"b": 1}}, {"a": {"b": (1, 2)}}, ("one", "two"))


def test_check_same_accepts_equal_shapes():
    tree.check_same(helpers.params(0), helpers.params(1), ("one", "two"))


def test_check_same_lists_both_sides_and_every_shape_sorted():
    left = {"z": np.zeros(2), "b": np.zeros((2, 3)), "a": np.zeros(1)}
    right = {"y": np.zeros(2), "x": np.zeros(2), "b": np.zeros((3, 2)), "a": 1.0}
    with pytest.raises(ValueError) as caught:
        tree.check_same(left, right, ("one", "two"))
    assert str(caught.value).splitlines() == [
        "E210 one and two: they must have the same tensors, but 5 differ:",
        "  only in one: z",
        "  only in two: x",
        "  only in two: y",
        "  a: (1,) in one, () in two",
        "  b: (2, 3) in one, (3, 2) in two; take models of one architecture.",
    ]


def test_check_same_tells_shapes_from_names_by_the_code():
    one = {"a": np.zeros(1), "b": np.zeros(1)}
    with pytest.raises(errors.InputError, match="^E213 .*\n  a: "):
        tree.check_same(one, {"a": np.zeros(2), "b": np.zeros(1)}, ("one", "two"))
    with pytest.raises(errors.InputError, match="^E210 .*\n  only in one: b"):
        tree.check_same(one, {"a": np.zeros(1)}, ("one", "two"))


@pytest.mark.parametrize(
    "dtype", (np.float32, np.float64, np.int32, ml_dtypes.bfloat16)
)
def test_check_finite_accepts_numbers(dtype):
    tree.check_finite({"a": np.ones((2, 3), dtype)}, "`tree`")


@pytest.mark.parametrize("value", BAD_VALUES)
def test_check_finite_names_tensor_count_and_first_index(value):
    bad = np.zeros((3, 4), np.float32)
    bad[1, 2] = bad[2, 0] = value
    with pytest.raises(
        ValueError, match=r"^E220 .*\n  a/bad: 2 of 12, first at \(1, 2\);"
    ):
        tree.check_finite({"a": {"bad": bad, "good": np.ones(3)}}, "`tree`")


def test_check_finite_lists_every_bad_tensor():
    bad = np.full(2, np.nan, np.float32)
    with pytest.raises(ValueError, match=r"`tree`.* 2 tensors.*\n  x: .*\n  y: "):
        tree.check_finite({"y": bad, "x": bad}, "`tree`")


def test_num_parameters_counts_entries_and_skips_none():
    leaves = {"a": np.ones((2, 3)), "b": {"c": jnp.ones(()), "d": None}}
    assert tree.num_parameters(leaves) == 7


def test_num_parameters_takes_shapes():
    assert tree.num_parameters({"a": jax.ShapeDtypeStruct((2, 3), jnp.float32)}) == 6


def test_partition_and_join_undo_each_other():
    whole = {"a": {"x": 1, "y": None}, "b": 2}
    chosen, rest = tree.partition(whole, lambda path, leaf: path != "a/x")
    assert (chosen, rest) == ({"a": {"y": None}, "b": 2}, {"a": {"x": 1}})
    assert tree.join(rest, chosen) == whole
    assert tree.partition(whole, tree.everything) == (whole, {})


def test_join_refuses_a_path_that_both_have():
    with pytest.raises(ValueError, match="both: \\['a/x'\\]"):
        tree.join({"a": {"x": 1}}, {"a": {"x": 2, "y": 3}})
