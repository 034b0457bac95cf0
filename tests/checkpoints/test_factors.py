import chex
import numpy as np
import pytest

from adarank_jax.checkpoints import factors
from adarank_jax.core import svd

VECTORS = {
    "block": {"kernel": np.random.default_rng(0).normal(size=(2, 5, 3))},
    "bias": np.ones((2, 3)),
}
VECTORS = {
    "block": {"kernel": VECTORS["block"]["kernel"].astype(np.float32)},
    "bias": VECTORS["bias"].astype(np.float32),
}


def is_kernel(path, leaf):
    return "kernel" in path


def test_cached_factors_equal_decomposed_ones_bit_for_bit(tmp_path):
    expected = svd.decompose_tree(VECTORS, is_kernel)
    for _ in range(2):
        found = factors.cached_factors(tmp_path, VECTORS, is_kernel)
        chex.assert_trees_all_equal(found, expected)
        assert svd.is_factors(found["block"]["kernel"])


def test_cached_factors_are_not_made_twice(tmp_path, monkeypatch):
    factors.cached_factors(tmp_path, VECTORS, is_kernel)
    monkeypatch.setattr(factors.svd, "decompose_tree", None)
    factors.cached_factors(tmp_path, VECTORS, is_kernel)


def test_cached_factors_depend_on_numbers_and_on_what_is_decomposed(tmp_path):
    factors.cached_factors(tmp_path, VECTORS, is_kernel)
    factors.cached_factors(tmp_path, VECTORS, lambda path, leaf: False)
    moved = {**VECTORS, "bias": VECTORS["bias"] + 1}
    factors.cached_factors(tmp_path, moved, is_kernel)
    assert len(list(tmp_path.iterdir())) == 3


def test_cached_factors_refuse_a_damaged_file(tmp_path):
    factors.cached_factors(tmp_path, VECTORS, is_kernel)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        factors.cached_factors(tmp_path, VECTORS, is_kernel)
