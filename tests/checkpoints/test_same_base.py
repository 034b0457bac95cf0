import numpy as np

from adarank_jax.checkpoints import same_base


def expert(end):
    """An expert whose tensors begin alike and end with a number."""
    leaf = np.append(np.ones(5, np.float32), np.float32(end))
    return {"a": {"kernel": leaf.reshape(2, 3)}, "b": leaf}


def test_experts_that_only_begin_alike_are_no_twins():
    assert same_base.find_twins({"first": expert(1), "second": expert(2)}) == []


def test_twin_is_named_that_is_equal_and_not_only_begins_alike():
    experts = {"first": expert(1), "second": expert(2), "third": expert(2)}
    (warning,) = same_base.find_twins(experts)
    assert "'second' and 'third' are identical" in str(warning)
