import json
import os
import pathlib
import pickle
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save, save_file

from adarank_jax.checkpoints import containers
from adarank_jax.checkpoints.containers import read_state, to_float32
from adarank_jax.checkpoints.safetensors_files import read_tensors
from adarank_jax.checkpoints.torch_files import read_torch

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "torch_files"
ONE = {"a": np.float32([1, 2])}
TWO = {"b": np.float32([3])}


def test_read_tells_the_format_by_content_and_not_by_name(tmp_path):
    save_file(ONE, tmp_path / "m.bin")
    shutil.copy(FOLDER / "head.pt", tmp_path / "m.safetensors")
    assert read_state(tmp_path / "m.bin").format == "safetensors"
    state = read_state(tmp_path / "m.safetensors")
    assert state.format == "torch" and state.tensors.keys() == {"weight", "bias"}
    assert state.classes == ("src.modeling.ClassificationHead",)
    with pytest.raises(ValueError, match="read_state"):
        read_tensors(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="read_state"):
        read_torch(tmp_path / "m.bin")


@pytest.mark.parametrize("name", ["model.safetensors", "open_clip_model.safetensors"])
def test_read_finds_the_usual_names(tmp_path, name):
    save_file(ONE, tmp_path / name)
    shutil.copy(FOLDER / "head.pt", tmp_path / "pytorch_model.bin")
    state = read_state(tmp_path)
    assert (state.files, list(state.tensors)) == ((tmp_path / name,), ["a"])


def test_read_finds_torch_files_when_there_is_nothing_else(tmp_path):
    shutil.copy(FOLDER / "head.pt", tmp_path / "open_clip_pytorch_model.bin")
    assert read_state(str(tmp_path)).format == "torch"


def test_read_of_shards_of_torch():
    expected = read_tensors(FOLDER / "expected.safetensors")
    state = read_state(FOLDER / "sharded")
    assert len(state.files) == 3 and state.format == "torch"
    assert state.tensors.keys() == {"a.weight", "b.weight"}
    for name, array in state.tensors.items():
        np.testing.assert_array_equal(array, expected[f"sharded/{name}"])


def _shards(folder, weight_map):
    folder.mkdir(exist_ok=True)
    save_file(ONE, folder / "1.safetensors")
    save_file(TWO, folder / "2.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return index


def test_read_of_shards_by_folder_or_index(tmp_path):
    index = _shards(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    for path in (tmp_path, index):
        state = read_state(path)
        assert state.format == "safetensors" and state.tensors.keys() == {"a", "b"}


def test_read_lists_every_missing_shard(tmp_path):
    _shards(tmp_path, {"a": "1.safetensors", "b": "3.safetensors", "c": "4.bin"})
    with pytest.raises(FileNotFoundError, match=r"3 shards, 2 .*\n  3.safe.*\n  4.bin"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (
            {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"},
            "1 tensors.*\n  'c' is not in 1.safetensors",
        ),
        (
            {"a": "1.safetensors", "b": "1.safetensors"},
            "'b' is not in 1.safetensors",
        ),
        (
            {"a": "1.safetensors", "c": "2.safetensors"},
            "2 tensors.*\n  'b' is only in 2.safetensors\n  'c' is not in 2",
        ),
        ({}, "must have a `weight_map`"),
        ({"a": 3}, "must have a `weight_map`"),
        ({"a": ["1.safetensors"]}, "must have a `weight_map`"),
        (["a"], "must have a `weight_map`"),
    ],
)
def test_read_refuses_an_index_that_differs_from_its_shards(
    tmp_path, weight_map, message
):
    index = _shards(tmp_path, weight_map)
    with pytest.raises(ValueError, match=message) as error:
        read_state(tmp_path)
    assert str(index) in str(error.value)


@pytest.mark.parametrize(
    "shard",
    [
        "../m.safetensors",
        "/etc/passwd",
        "x/../../m.safetensors",
        "a\0b",
        "a\\b",
        "C:m.safetensors",
        "",
        ".",
        "a//b",
        "a\x1b[2Jb",
    ],
)
def test_read_refuses_a_shard_outside_the_folder(tmp_path, shard):
    save_file(ONE, tmp_path / "m.safetensors")
    _shards(tmp_path / "model", {"a": shard})
    with pytest.raises(ValueError, match="leaves its folder or is no file name"):
        read_state(tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"weight_map": ' + b"[" * 3000, "brackets"),
        (b'{"weight_map": ' + b"[" * 900, "no valid JSON|nested"),
        (b'{"weight_map": {"a": "1", "a": "2"}}', "'a' comes twice"),
        (b"[]", "must be a JSON object, got list"),
        (b"\xff\xfe", "no valid JSON"),
    ],
)
def test_read_refuses_a_damaged_index(tmp_path, content, message):
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_state(tmp_path)


def test_read_refuses_a_large_index(tmp_path):
    with (tmp_path / "model.safetensors.index.json").open("wb") as stream:
        stream.truncate(50_000_001)
    with pytest.raises(ValueError, match="50,000,001 bytes, expected at most 50,0"):
        read_state(tmp_path)


def _hub_cache(folder):
    """Makes a repository as the hub caches it; returns the folder of its snapshot."""
    snapshot = folder / "models--a--b" / "snapshots" / "123"
    snapshot.mkdir(parents=True)
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir()
    save_file(ONE, blobs / "e3b0")
    return snapshot


def test_read_follows_the_links_of_a_hub_cache(tmp_path):
    snapshot = _hub_cache(tmp_path)
    (snapshot / "model.safetensors").symlink_to("../../blobs/e3b0")
    assert list(read_state(snapshot).tensors) == ["a"]


def test_read_follows_a_link_inside_the_folder_and_to_the_folder(tmp_path):
    (tmp_path / "real").mkdir()
    save_file(ONE, tmp_path / "real" / "weights")
    (tmp_path / "real" / "model.safetensors").symlink_to("weights")
    (tmp_path / "link").symlink_to("real")
    assert list(read_state(tmp_path / "link").tensors) == ["a"]


@pytest.mark.parametrize("target", ["../../../secret", "../other/model.safetensors"])
def test_read_refuses_a_link_that_leaves_the_folder(tmp_path, target):
    snapshot = _hub_cache(tmp_path)
    save_file(ONE, tmp_path / "secret")
    (snapshot / "model.safetensors").symlink_to(target)
    with pytest.raises(ValueError, match="outside of its folder"):
        read_state(snapshot)


def test_read_refuses_a_shard_that_is_a_link_to_the_outside(tmp_path):
    _shards(tmp_path / "model", {"a": "1.safetensors", "b": "2.safetensors"})
    (tmp_path / "model" / "2.safetensors").rename(tmp_path / "2.safetensors")
    (tmp_path / "model" / "2.safetensors").symlink_to("../2.safetensors")
    with pytest.raises(ValueError, match="outside of its folder"):
        read_state(tmp_path / "model")


def test_read_refuses_links_to_nothing_and_to_themselves(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "model.safetensors").symlink_to("gone")
    for path in (tmp_path / "loop", tmp_path):
        with pytest.raises(FileNotFoundError, match="is a link to"):
            read_state(path)


def test_read_refuses_a_pipe_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(ValueError, match="no regular file"):
            read_state(path)


@pytest.mark.parametrize(
    ("path", "near"),
    [("svnh/model.safetensors", "svhn"), ("svhn/modl.safetensors", "svhn/model.safe")],
)
def test_read_names_the_nearest_path(tmp_path, path, near):
    (tmp_path / "svhn").mkdir()
    save_file(ONE, tmp_path / "svhn" / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=f"did you mean `{tmp_path / near}"):
        read_state(tmp_path / path)


def test_read_says_check_the_path_when_nothing_is_near(tmp_path):
    with pytest.raises(FileNotFoundError, match="check the path"):
        read_state(tmp_path / "zzz" / "y" / "x")
    with pytest.raises(ValueError, match="NUL"):
        read_state("a\0b")


TAR = bytes(257) + b"ustar" + bytes(250)
FORMATS = {
    "empty": (b"", r"empty \(0 bytes\): the download did not finish"),
    "page": (b"\n<!DOCTYPE html><html><title>Sign in", "a web page.*Sign in"),
    "xml": (b"<?xml version='1.0'?><Error>AccessDenied", "a web page"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12",
        "Git-LFS pointer.*git lfs pull",
    ),
    "json": (b'{"error": "Repository not found"}', "JSON text.*Repository not found"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(9), "HDF5"),
    "gguf": (b"GGUF\3\0\0\0" + bytes(9), "GGUF.*quantised"),
    "msgpack": (b"\x82\xa6params\x81\xa5Dense", "msgpack"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x03", "ONNX"),
    "tar": (TAR, "tar archive"),
    "gzip": (b"\x1f\x8b\x08" + bytes(9), "compressed archive"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(9), "compressed archive"),
    "pickle": (pickle.dumps({"a": [1, 2, 3]}), "bare pickle.*not read"),
    "legacy": ((FOLDER / "legacy.pt").read_bytes(), "before torch 1.6"),
    "script": ((FOLDER / "torchscript.pt").read_bytes(), "TorchScript"),
    "noise": (b"\xfe\xed\xfa\xce" * 5, "neither a safetensors file nor.*xfe.xed"),
    "short": (b"abc", "3 bytes"),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_read_says_what_a_file_is(tmp_path, name, suffix):
    content, message = FORMATS[name]
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    for read in (read_state, read_tensors, read_torch):
        with pytest.raises(ValueError, match=message) as error:
            read(path)
        assert str(path) in str(error.value) and "\x1b" not in str(error.value)
        if name in ("script", "short"):
            break


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "empty folder"),
        (["adapter_config.json", "adapter_model.safetensors"], "LoRA.*merge the ad"),
        (["config.json", "tf_model.h5"], "'tf_model.h5' .HDF5"),
        (["flax_model.msgpack"], "msgpack of Flax"),
        (["a.gguf", "b.gguf"], "GGUF"),
        (["model.onnx"], "ONNX"),
        (["finetuned.pt"], r"\['finetuned.pt'\]; give the path of that file"),
        (["notes.txt"], r"no checkpoint; it has \['notes.txt'\], expected one of"),
    ],
)
def test_read_says_what_a_folder_holds(tmp_path, names, message):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=message) as error:
        read_state(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_read_prefers_a_merged_model_to_the_adapter_beside_it(tmp_path):
    save_file(ONE, tmp_path / "model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert list(read_state(tmp_path).tensors) == ["a"]


def test_read_refuses_a_file_without_tensors(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(save({}))
    with pytest.raises(ValueError, match="holds no tensors"):
        read_state(tmp_path / "m.safetensors")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, jnp.bfloat16])
def test_to_float32_keeps_what_fits(dtype):
    array = np.array([1.5, -0.25, np.inf], dtype)
    converted = to_float32(array)
    assert converted.dtype == np.float32
    np.testing.assert_array_equal(converted, [1.5, -0.25, np.inf])
    assert (converted is array) == (dtype == np.float32)


def test_to_float32_makes_infinite_what_does_not_fit():
    assert to_float32(np.array([1e300]))[0] == np.inf


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.bool_, np.complex64])
def test_to_float32_refuses_the_rest(dtype):
    with pytest.raises(TypeError, match="floating point, got"):
        to_float32(np.zeros(2, dtype))


def test_the_usual_names_prefer_safetensors():
    is_torch = ["bin" in name for name in containers._NAMES]
    assert is_torch == sorted(is_torch)
