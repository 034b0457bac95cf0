import mmap

import chex
import jax
import numpy as np
import pytest
import safetensors.numpy

from adarank_jax.checkpoints import factors
from adarank_jax.core import svd

RNG = np.random.default_rng(0)
VECTORS = {
    "block": {"kernel": RNG.normal(size=(2, 5, 3)).astype(np.float32)},
    "bias": np.ones((2, 3), np.float32),
}


def make(vectors=VECTORS):
    return svd.decompose_tree(vectors, lambda path, leaf: "kernel" in path)


def never():
    raise AssertionError("made again")


def test_cached_factors_equal_made_ones_bit_for_bit(tmp_path):
    for _ in range(2):
        found = factors.cached_factors(tmp_path, [VECTORS], make, "svd")
        chex.assert_trees_all_equal(found, make())
        assert svd.is_factors(found["block"]["kernel"])


def test_cached_factors_are_not_made_twice(tmp_path):
    factors.cached_factors(tmp_path, [VECTORS], make, "svd")
    factors.cached_factors(tmp_path, [VECTORS], never, "svd")


def test_only_the_first_process_writes_factors(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    found = factors.cached_factors(tmp_path, [VECTORS], make, "svd")
    chex.assert_trees_all_equal(found, make())
    assert not list(tmp_path.iterdir())


def test_cached_factors_depend_on_numbers_and_name(tmp_path):
    factors.cached_factors(tmp_path, [VECTORS], make, "svd")
    moved = {**VECTORS, "bias": VECTORS["bias"] + 1}
    for models, name in (([VECTORS], "tsv"), ([moved], "svd"), ([VECTORS] * 2, "svd")):
        with pytest.raises(AssertionError, match="made again"):
            factors.cached_factors(tmp_path, models, never, name)


def test_cached_factors_refuse_one_flipped_bit(tmp_path):
    factors.cached_factors(tmp_path, [VECTORS], make, "svd")
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256"):
        factors.cached_factors(tmp_path, [VECTORS], make, "svd")


def test_cached_factors_refuse_another_name(tmp_path):
    factors.cached_factors(tmp_path, [VECTORS], make, "svd")
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes().replace(b"block/kernel/vt", b"block/kernel/vs"))
    with pytest.raises(ValueError, match="SHA-256|damaged"):
        factors.cached_factors(tmp_path, [VECTORS], make, "svd")


def test_cached_factors_refuse_half_a_file(tmp_path):
    factors.cached_factors(tmp_path, [VECTORS], make, "svd")
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match="missing; download or make it again"):
        factors.cached_factors(tmp_path, [VECTORS], make, "svd")


def test_cached_factors_are_mapped_not_copied(tmp_path):
    found = factors.cached_factors(tmp_path, [VECTORS], make, "svd")
    for array in jax.tree.leaves(found):
        while isinstance(array.base, np.ndarray):
            array = array.base
        assert isinstance(array.base, memoryview)
        assert isinstance(array.base.obj, mmap.mmap)


def test_cached_factors_are_a_safetensors_file(tmp_path):
    found = factors.cached_factors(tmp_path, [VECTORS], make, "svd")
    (file,) = tmp_path.glob("*.safetensors")
    arrays = safetensors.numpy.load_file(file)
    chex.assert_trees_all_equal(arrays["block/kernel/u"], found["block"]["kernel"].u)
    assert arrays.keys() == {f"block/kernel/{part}" for part in "u s vt".split()} | {
        "bias"
    }


def test_cached_factors_that_are_not_finite_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="bias: 1 of 6"):
        bad = {**VECTORS, "bias": np.array([[1, 1, np.nan]] + [[1] * 3], np.float32)}
        factors.cached_factors(tmp_path, [VECTORS], lambda: bad, "svd")
    assert not list(tmp_path.iterdir())
