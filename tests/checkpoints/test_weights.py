import ml_dtypes
import numpy as np
import pytest

from adarank_jax.checkpoints import weights


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("rows", [(150,), (64,), (70, 3, 130)])
def test_float32_copies_turns_matrices_of_many_rows(rows, dtype):
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(count, 5)).astype(dtype) for count in rows]
    whole = np.concatenate(parts).astype(np.float32)
    found = weights.float32_copies({"turned": parts, "kept": parts}, {"turned"})
    np.testing.assert_array_equal(found["turned"], whole.T)
    np.testing.assert_array_equal(found["kept"], whole)
    for array in found.values():
        assert array.dtype == np.float32 and array.flags.c_contiguous


def test_float32_copies_shares_no_memory():
    given = np.ones((2, 3), np.float32)
    copied = weights.float32_copies({"a": [given], "b": [given]}, {"b"})
    assert not any(np.shares_memory(given, array) for array in copied.values())
