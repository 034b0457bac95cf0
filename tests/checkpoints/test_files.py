import numpy as np
import pytest
from safetensors.numpy import save_file

from adarank_jax import tree
from adarank_jax.checkpoints import files

PARAMS = {
    "block": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 8},
    "scale": np.float32(2.5),
}


def test_read_undoes_write_bit_for_bit(tmp_path):
    digest = files.write(tmp_path / "m.safetensors", PARAMS)
    params = files.read(tmp_path / "m.safetensors", digest)
    assert tree.flatten(params).keys() == tree.flatten(PARAMS).keys()
    for path, leaf in tree.flatten(PARAMS).items():
        np.testing.assert_array_equal(tree.flatten(params)[path], leaf)


def test_write_rounds_to_the_dtype_asked_for(tmp_path):
    files.write(tmp_path / "m.safetensors", {"w": np.float32([1 / 3])}, np.float16)
    assert files.read(tmp_path / "m.safetensors")["w"][0] == np.float16(1 / 3)


def test_write_refuses_what_does_not_fit_the_dtype(tmp_path):
    with pytest.raises(ValueError, match=r"m\.safetensors.*\n  w: 1 of 2"):
        with np.errstate(over="ignore"):
            files.write(
                tmp_path / "m.safetensors", {"w": np.float32([1e6, 1])}, np.float16
            )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_read_refuses_numbers_that_are_not_finite(tmp_path, bad):
    save_file({"a/w": np.float32([0, bad])}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"m\.safetensors.*\n  a/w: 1 of 2.*\(1,\)"):
        files.read(tmp_path / "m.safetensors")


def test_read_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.safetensors"):
        files.read(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("keep", [0, 7, 60, -1])
def test_read_refuses_a_truncated_file(tmp_path, keep):
    file = tmp_path / "m.safetensors"
    files.write(file, PARAMS)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        files.read(file)


def test_read_notices_one_flipped_bit(tmp_path):
    file = tmp_path / "m.safetensors"
    digest = files.write(file, PARAMS)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256"):
        files.read(file, digest)


def test_read_refuses_integers(tmp_path):
    save_file({"w": np.arange(3)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="'w' as int64"):
        files.read(tmp_path / "m.safetensors")


def test_write_whole_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    files.write_whole(file, b"old")
    monkeypatch.setattr(files.os, "replace", _no_space)
    with pytest.raises(OSError, match="full"):
        files.write_whole(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def _no_space(*_):
    raise OSError(28, "full")
