import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from adarank_jax.checkpoints import safetensors_files
from adarank_jax.checkpoints.safetensors_files import parse_tensors, read_tensors

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(4, dtype=np.float64) / 3,
    "c": np.array([1.5, -2], ml_dtypes.bfloat16),
    "d": np.array([True, False]),
    "e": np.array(-7),
    "f": np.zeros((0, 3), np.float16),
    "g": np.array([-3, 4], np.int8),
}


def _file(header, data=b"", length=None):
    """Builds a file by hand; `header` is a dict or a text."""
    text = header if isinstance(header, str) else json.dumps(header)
    length = len(text) if length is None else length
    return length.to_bytes(8, "little") + text.encode() + data


def _entry(begin, end, shape=None, dtype="F32"):
    shape = [(end - begin) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_read_gives_names_dtypes_and_bits(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(save(TENSORS, {"format": "np"}))
    read = read_tensors(tmp_path / "m.safetensors")
    assert read.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(read[name], array)
        assert not read[name].flags.writeable


def test_read_maps_and_does_not_copy():
    content = save(TENSORS)
    whole = np.frombuffer(content, np.uint8)
    assert np.shares_memory(parse_tensors(content, "m")["a"], whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\x10\0\0", "3 bytes"),
        (_file({}, length=2**64 - 1), "header of 18,446,744,073,709,551,615 bytes"),
        (_file({}, length=90_000_000), "header of 90,000,000 bytes"),
        (_file({"a": _entry(0, 8)}, length=500), r"of 508 needed, 8\d % missing"),
        (_file({"a": _entry(0, 8)}, bytes(6)), "6 bytes found of 8 needed, 25 % miss"),
        (_file({"a": _entry(0, 8)}, bytes(11)), "3 extra bytes after the last tensor"),
        (
            _file({"a": _entry(0, 8), "b": _entry(4, 12)}, bytes(12)),
            "'b'.*overlaps 'a'",
        ),
        (
            _file({"a": _entry(0, 8), "b": _entry(12, 16)}, bytes(16)),
            "'b'.*hole of 4 bytes after 'a'",
        ),
        (_file({"a": _entry(4, 8)}, bytes(8)), "'a'.*hole of 4 bytes after the header"),
        (_file({"a": _entry(8, 4, [1])}, bytes(8)), "'a'.*0 <= begin <= end"),
        (_file({"a": _entry(-4, 4)}, bytes(8)), "'a'.*0 <= begin <= end"),
        (_file({"a": _entry(0, 4.0, [1])}, bytes(4)), "'a'.*0 <= begin <= end"),
        (_file({"a": _entry(0, 4, [True])}, bytes(4)), "'a'.*shape of integers"),
        (_file({"a": _entry(0, 4, [-1, -1])}, bytes(4)), "'a'.*shape of integers"),
        (_file({"a": _entry(0, 4, [1] * 40)}, bytes(4)), "'a'.*at most 32"),
        (_file({"a": _entry(0, 4, [2])}, bytes(4)), r"'a'.*\(2,\).*need 8 bytes"),
        (_file({"a": _entry(0, 0, [2**32, 2**32])}), "'a'.*shape.*damaged"),
        (_file({"a": _entry(0, 0, [0, 2**62])}), "'a'.*shape.*damaged"),
        (_file({"a": _entry(0, 2**62)}, bytes(8)), "'a'.*shape.*damaged"),
        (_file({"a": _entry(0, 4, dtype="F99")}, bytes(4)), "'a'.*'F99', expected one"),
        (_file({"a": _entry(0, 4, [4], "F8_E4M3")}, bytes(4)), "'a'.*F8.*quantised"),
        (_file({"a": _entry(0, 4, [8], "F4")}, bytes(4)), "'a'.*quantised"),
        (_file({"a": _entry(0, 4, dtype=["F32"])}, bytes(4)), "'a'.*expected one of"),
        (_file({"a": {"dtype": "F32"}}), "'a'.*must have the fields"),
        (_file({"a": 3}), "'a'.*must have the fields"),
        (
            _file('{"a":%s,"a":%s}' % ((json.dumps(_entry(0, 4)),) * 2), bytes(4)),
            "'a' comes twice",
        ),
        (_file('{"a":' + "[" * 90_000 + "]" * 90_000 + "}"), "nested too deeply"),
        (_file('{"a":[' + "[]," * 1_000_001 + "[]]}"), "brackets"),
        (_file('{"a"'), "no valid JSON"),
        (_file('{"\ud800'.encode("utf-8", "surrogatepass").decode("latin-1")), "JSON"),
    ],
)
def test_read_says_what_is_wrong(tmp_path, content, message):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_tensors(tmp_path / "m.safetensors")
    assert "m.safetensors" in str(error.value)
    assert len(str(error.value)) < 500


def test_read_refuses_a_header_that_is_no_object(tmp_path):
    with pytest.raises(ValueError, match="must be a JSON object, got list"):
        parse_tensors(_file("[1, 2]"), "m")


@given(st.data())
def test_damage_outside_the_numbers_is_a_value_error(data):
    content = bytearray(save(TENSORS, {"format": "np"}))
    start = 8 + int.from_bytes(content[:8], "little")
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            where = data.draw(st.integers(0, min(start, len(content)) - 1))
            content[where] ^= data.draw(st.integers(1, 255))
    try:
        read = parse_tensors(bytes(content), "m")
    except ValueError:
        return
    sizes = [array.nbytes for array in read.values()]
    assert 8 + int.from_bytes(content[:8], "little") + sum(sizes) == len(content)


def test_every_dtype_of_the_table_is_one_that_numpy_knows():
    for dtype in safetensors_files.DTYPES.values():
        assert np.zeros(1, dtype).tobytes() == bytes(np.dtype(dtype).itemsize)
