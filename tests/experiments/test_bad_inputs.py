"""The real command on a tiny CLIP family with one thing broken at a time.

Every case must be refused within five seconds by a message that says where, what was
found, what was expected and what to do, and must leave nothing behind.
"""

import copy
import io
import json
import math
import os
import pathlib
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load, save

from adarank_jax import errors
from experiments import cli, plan, run_vit
from tests import clip_family
from tests.checkpoints.test_hostile_pickles import CODE
from tests.checkpoints.test_torch_files import _text, archive, state_dict, tensor
from tests.experiments import tiny_family
from tests.experiments.tiny_family import CLASSES, SIZES

ROOT = pathlib.Path(__file__).parents[2]
TORCH_FILES = ROOT / "tests" / "data" / "torch_files"
ANIMALS = "experts/animals/model.safetensors"
FIRST = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"
INDEX = "base/model.safetensors.index.json"
QUERY = "encoder.layers.1.self_attn.q_proj.weight"


class Family:
    """A copy of the family that may be broken, and the command that reads it."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.config = tiny_family.config(root)

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.root / name

    def expert(self, name="animals"):
        return self.config["experts"][name]

    def options(self, *overrides, **flags):
        file = self.root / "my_merge.yaml"
        if not file.exists():
            file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        flags = {"run_dir": self.root / "run"} | flags
        return run_vit.Options(what=(str(file), *overrides), **flags)

    def listing(self):
        found = {}
        for path in sorted(self.root.rglob("*")):
            stat = path.lstat()
            found[str(path)] = (stat.st_mode, stat.st_size, stat.st_mtime_ns)
        return found

    def edit(self, file, change):
        """Changes the tensors of a safetensors file."""
        tensors = dict(load((self / file).read_bytes()))
        tensors = {name: np.array(array) for name, array in tensors.items()}
        changed = change(tensors)
        (self / file).write_bytes(save(tensors if changed is None else changed))

    def edit_json(self, file, change):
        """Changes the values of a JSON file."""
        values = json.loads((self / file).read_text())
        change(values)
        (self / file).write_text(json.dumps(values))

    def head(self, file="head.safetensors", **tensors):
        """Writes a head file and gives it to the first expert."""
        tensors = {"weight": np.eye(3, clip_family.VISION.output_size)} | tensors
        arrays = {k: np.asarray(v, np.float32) for k, v in tensors.items()}
        (self / file).write_bytes(save(arrays))
        self.expert()["head"] = str(self / file)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    tiny_family.write(root)
    return root


@pytest.fixture
def family(whole, tmp_path, monkeypatch):
    root = tmp_path / "family"
    shutil.copytree(whole, root)
    monkeypatch.setattr(tempfile, "tempdir", str(root / "tmp"))
    return Family(root)


class Case(NamedTuple):
    """One thing that is broken, and what the message must say of it."""

    name: str
    break_: Callable[[Family], Any]
    words: tuple[str, ...]


def refused(name, *words):
    """Registers a case under the number of its row."""

    def register(function):
        CASES.append(Case(name, function, words))
        return function

    return register


CASES: list[Case] = []


def rewrite(content, where=ANIMALS):
    """Returns a break that gives a file another content."""
    return lambda family: (family / where).write_bytes(content)


def header(entries, data=b"", where=ANIMALS):
    """Returns a break that gives a safetensors file another header."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return rewrite(struct.pack("<Q", len(text)) + text + data, where)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def case(name, break_, *words):
    CASES.append(Case(name, break_, words))


# A. Container and format.


@refused(
    "1_expert_typo",
    "E101",
    "no such file or folder",
    "did you mean",
    "experts/animals`",
)
def _(family):
    family.expert()["model"] = f"{family.root}/experts/anmals"


@refused("1_base_typo", "E101", "base: ", "bsae`", "did you mean", "/base`")
def _(family):
    family.config["base"] = f"{family.root}/bsae"


@refused("1_neither_path_nor_hub", "E132", "no name on the Hub either", "org/name")
def _(family):
    family.expert()["model"] = "nothing-there"


@refused(
    "1_hub_offline",
    "E106",
    "'tiny/unheard'",
    "not in the cache",
    "run once with a network",
)
def _(family):
    family.expert()["model"] = "tiny/unheard"


@refused(
    "1_head_typo",
    "E101",
    "experts.animals.head",
    "hed.safetensors",
    "head.safetensors`?",
)
def _(family):
    family.head()
    family.expert()["head"] = f"{family.root}/hed.safetensors"


case("2_empty", rewrite(b""), "E110", ANIMALS, "0 bytes", "download did not finish")


@refused(
    "3_truncated", "E111", ANIMALS, "bytes found of", "needed", "% missing", "download"
)
def _(family):
    content = (family / ANIMALS).read_bytes()
    (family / ANIMALS).write_bytes(content[: len(content) * 2 // 3])


@refused(
    "3_truncated_header", "E111", ANIMALS, "bytes found of", "% missing", "download"
)
def _(family):
    (family / ANIMALS).write_bytes((family / ANIMALS).read_bytes()[:100])


@refused("4_trailing", "E112", ANIMALS, "7 extra bytes", "download or make it again")
def _(family):
    with (family / ANIMALS).open("ab") as file:
        file.write(b"trailer")


case(
    "5_header_length",
    rewrite(struct.pack("<Q", (1 << 63) - 1) + b'{"a": 1}'),
    *(
        "E113",
        ANIMALS,
        "header of 9,223,372,036,854,775,807 bytes",
        "at most",
        "download",
    ),
)
case(
    "6_overlap",
    header({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    *("E114", ANIMALS, "'b'", "overlaps 'a'", "damaged"),
)
case(
    "6_hole",
    header({"a": entry(), "b": entry(offsets=(16, 24))}, bytes(24)),
    *("E114", ANIMALS, "'b'", "hole of 8 bytes", "damaged"),
)
case(
    "6_negative",
    header({"a": entry(offsets=(-8, 0))}, bytes(8)),
    *("E114", ANIMALS, "'a'", "[-8, 0]", "0 <= begin", "damaged"),
)
case(
    "6_overflow",
    header({"a": entry(shape=(1 << 33, 1 << 33))}, bytes(8)),
    *("E114", ANIMALS, "'a'", "8589934592", "damaged"),
)
case(
    "7_duplicate",
    header(b'{"a": {"dtype": "F32"}, "a": {"dtype": "F32"}}'),
    *("E115", ANIMALS, "'a' comes twice", "get it again"),
)
case(
    "8_unknown_dtype",
    header({"a": entry("F99")}, bytes(8)),
    *("E116", ANIMALS, "'a'", "F99", "expected", "convert"),
)
case(
    "8_float8",
    header({"a": entry("F8_E4M3", (8,))}, bytes(8)),
    *("E116", ANIMALS, "'a'", "F8_E4M3", "quantised", "dequantise"),
)
case(
    "9_web_page",
    rewrite(b"<!DOCTYPE html><html><body>Log in</body></html>"),
    *("E117", ANIMALS, "web page", "Log in", "download again"),
)
case(
    "9_lfs_pointer",
    rewrite(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    *("E117", ANIMALS, "Git-LFS pointer", "git lfs pull"),
)
case(
    "9_json_error",
    rewrite(b'{"error": "Repository not found"}'),
    *("E117", ANIMALS, "JSON text", "Repository not found", "download again"),
)


@refused(
    "11_missing_shard", "E120", "index.json", "2 shards, 1 of them", SECOND, "download"
)
def _(family):
    (family / f"base/{SECOND}").unlink()


@refused("11_missing_shards", "E120", "2 of them are missing", FIRST, SECOND)
def _(family):
    (family / f"base/{FIRST}").unlink()
    (family / f"base/{SECOND}").unlink()


@refused(
    "12_not_in_shard",
    "E121",
    "index.json",
    f"'logit_scale' is not in {SECOND}",
    "again",
)
def _(family):
    family.edit_json(INDEX, lambda v: v["weight_map"].update(logit_scale=SECOND))


@refused(
    "12_not_in_index",
    "E121",
    "index.json",
    f"'logit_scale' is only in {FIRST}",
    "again",
)
def _(family):
    family.edit_json(INDEX, lambda v: v["weight_map"].pop("logit_scale"))


def map_to(name):
    def change(family):
        family.edit_json(INDEX, lambda v: v["weight_map"].update(logit_scale=name))

    return change


for number, name in enumerate(("../../etc/x", "/etc/passwd", "a\0b", "a\\b", "C:x")):
    case(
        f"13_shard_{number}",
        map_to(name),
        *("E122", "index.json", repr(name), "leaves its folder", "do not use it"),
    )
case(
    "14_deep_index",
    rewrite(b'{"weight_map": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", INDEX),
    *("E123", "index.json", "100,001 brackets", "at most 1,000"),
)
case(
    "14_empty_index",
    rewrite(b"{}", INDEX),
    *("E121", "index.json", "must have a `weight_map`", "check that it is the index"),
)


@refused(
    "14_large_index", "E123", "index.json", "60,000,000 bytes", "at most 50,000,000"
)
def _(family):
    os.truncate(family / INDEX, 60_000_000)


def only(name, content=b"x"):
    """Returns a break that leaves one foreign file in the folder of an expert."""

    def change(family):
        (family / ANIMALS).unlink()
        (family / "experts/animals" / name).write_bytes(content)

    return change


for name, kind in (
    ("tf_model.h5", "HDF5"),
    ("flax_model.msgpack", "msgpack"),
    ("model.gguf", "GGUF"),
    ("model.onnx", "ONNX"),
    ("model.ckpt.index", "TensorFlow"),
    ("last.ckpt", "Lightning"),
):
    case(
        f"16_{name}",
        only(name),
        *("E125", "experts/animals", name, kind, "safetensors first"),
    )
case(
    "16_lora",
    only("adapter_config.json", b"{}"),
    *(
        "E125",
        "experts/animals",
        "LoRA adapter",
        "merge the adapter into its base first",
    ),
)


@refused(
    "16_empty_folder",
    "E108",
    "experts/animals",
    "empty folder",
    "give the folder or file",
)
def _(family):
    shutil.rmtree(family / "experts/animals")
    (family / "experts/animals").mkdir()


@refused(
    "16_no_weights", "E108", "holds no checkpoint", "'config.json'", "model.safetensors"
)
def _(family):
    (family / ANIMALS).unlink()


@refused(
    "16_other_name",
    "E108",
    "under its usual name",
    "'weights.safetensors'",
    "give the path",
)
def _(family):
    (family / ANIMALS).rename(family / "experts/animals/weights.safetensors")


def torch_expert(content, **members):
    """Returns a break that makes an expert a torch file."""

    def change(family):
        archive(family / "expert.pt", content, **members)
        family.expert()["model"] = str(family / "expert.pt")

    return change


def zipped(write):
    """Returns a break that makes an expert a zip file of its own kind."""

    def change(family):
        with zipfile.ZipFile(family / "expert.pt", "w") as file:
            write(file)
        family.expert()["model"] = str(family / "expert.pt")

    return change


def deflated(file):
    file.writestr("a/data.pkl", bytes(50_000_000), zipfile.ZIP_DEFLATED)


case(
    "17_bomb",
    zipped(deflated),
    "E126",
    "expert.pt",
    "compressed",
    "50,000,000 bytes",
    "do not",
)
case(
    "17_member_outside",
    zipped(lambda file: file.writestr("../../evil/data.pkl", b"N.")),
    *("E126", "expert.pt", "do not use it"),
)


@refused("17_checksum", "E126", "expert.pt", "data/0", "checksum", "get it again")
def _(family):
    torch_expert(state_dict(tensor()))(family)
    file = family / "expert.pt"
    ones = np.arange(6, dtype=np.float32).tobytes()
    file.write_bytes(file.read_bytes().replace(ones, bytes(len(ones))))


def from_torch(name):
    def change(family):
        family.expert()["model"] = str(TORCH_FILES / name)

    return change


case(
    "18_legacy",
    from_torch("legacy.pt"),
    "E127",
    "legacy.pt",
    "torch 1.6",
    "weights_only=True",
)
case(
    "18_torchscript",
    from_torch("torchscript.pt"),
    *("E127", "torchscript.pt", "TorchScript", "convert it once"),
)


@refused("19_digest", "E130", "head.json", "`sha256` is 00", "head.safetensors")
def _(family):
    family.head()
    (family / "head.json").write_text('{"sha256": "00"}')


# B. Keys, shapes, base.


@refused(
    "21_other_base",
    "E203",
    *(
        "experts.sizes.model",
        SIZES,
        "does not come from the base",
        "is 1.",
        "below 0.5",
    ),
    "check which base",
)
def _(family):
    other = clip_family.expert_params(clip_family.base_params(seed=9), 3)
    clip_family.write_open_clip(family / SIZES, other)


def resized(**sizes):
    """Returns a break that gives an expert other sizes than the base."""

    def change(family):
        vision = clip_family.VISION
        other = vision.__class__(**vars(vision) | sizes)
        image = jnp.zeros((1, other.image_size, other.image_size, 3))
        model = clip_family.ClipVision(other)
        shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
        params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
        layout = clip_family.clip_names.full_layout("open_clip", other.num_layers, 2)
        state = clip_family.clip_tensors.to_state({"vision": params}, layout)
        (family / SIZES).write_bytes(save(state))

    return change


for name, sizes, words in (
    ("22_width", {"width": 64}, ("width 64", "width 32")),
    ("22_depth", {"num_layers": 3}, ("3 layers", "2 layers")),
    ("23_patch", {"patch_size": 4}, ("patch 4", "patch 8")),
):
    case(
        name,
        resized(**sizes),
        *(
            "E201",
            "experts.sizes.model",
            SIZES,
            "differ in size",
            *words,
            "one architecture",
        ),
    )


@refused(
    "24_block_missing",
    "E210",
    "experts/animals",
    "holds 1 blocks",
    "config",
    "states 2",
)
def _(family):
    def change(tensors):
        return {k: v for k, v in tensors.items() if "encoder.layers.1." not in k}

    family.edit(ANIMALS, change)


@refused(
    "24_half_a_block", "E210", SIZES, "6 missing: ", "0.mlp.c_fc.weight", "whole model"
)
def _(family):
    def change(tensors):
        gone = "resblocks.0.mlp", "resblocks.0.ln_2"
        return {k: v for k, v in tensors.items() if not any(g in k for g in gone)}

    family.edit(SIZES, change)


@refused(
    "24_one_missing",
    "E210",
    "experts/animals",
    f"1 missing: {QUERY}",
    "save the state dict",
)
def _(family):
    family.edit(
        ANIMALS, lambda tensors: {k: v for k, v in tensors.items() if k != QUERY}
    )


def added(**arrays):
    def change(family):
        family.edit(ANIMALS, lambda tensors: tensors | arrays)

    return change


case(
    "25_without_a_place",
    added(**{"encoder.layers.1.layer_scale.weight": np.ones(3, np.float32)}),
    *(
        "E211",
        "experts/animals",
        "1 without a place",
        "encoder.layers.1.layer_scale.weight",
    ),
)


@refused(
    "26_prefix", "E212", "experts/animals", "prefix 'student.'", "'module.'", "remove"
)
def _(family):
    family.edit(ANIMALS, lambda t: {f"student.{k}": v for k, v in t.items()})


@refused(
    "26_two_towers", "E212", "experts/animals", "2 vision towers", "save one of them"
)
def _(family):
    family.edit(ANIMALS, lambda t: t | {f"ema.{k}": v for k, v in t.items()})


@refused(
    "27_shape",
    "E213",
    "experts/animals",
    "fc1.weight",
    "(32, 100)",
    "(32, 128)",
    "belong",
)
def _(family):
    name = "encoder.layers.0.mlp.fc1.weight"
    family.edit(ANIMALS, lambda t: t | {name: t[name][:100]})


@refused("29_query_and_key", "E214", "experts/animals", "q_proj", "(16, 32)", "again")
def _(family):
    family.edit(ANIMALS, lambda t: t | {QUERY: t[QUERY][:16]})


@refused(
    "30_activation",
    "E215",
    *(
        "experts.animals.model",
        "configurations differ",
        "activation",
        "quick_gelu",
    ),
    "use the base",
)
def _(family):
    file = "experts/animals/config.json"
    family.edit_json(file, lambda v: v.update(hidden_act="gelu"))


@refused(
    "31_vocabulary",
    "E216",
    "base",
    "token_embedding",
    "expected",
    "whether the weights belong",
)
def _(family):
    def change(values):
        values["text_config"]["vocab_size"] += 1

    family.edit_json("base/config.json", change)


case(
    "34_quantised",
    lambda f: f.edit(ANIMALS, lambda t: t | {QUERY: t[QUERY].astype(np.int8)}),
    *("E116", "experts/animals", QUERY, "int8", "dequantise"),
)
case(
    "35_remote_code",
    lambda f: f.edit_json(
        "base/config.json", lambda v: v.update(auto_map={"AutoModel": "evil.Model"})
    ),
    *("E140", "config.json", "'auto_map'", "never run"),
)
case(
    "35_broken_config",
    rewrite(b'{"model_type": ', "base/config.json"),
    *("E129", "base/config.json", "no valid JSON"),
)
case(
    "35_no_clip",
    lambda f: f.edit_json("base/config.json", lambda v: v.update(model_type="siglip")),
    *("E141", "base/config.json", "'siglip'", "expected 'clip'"),
)


# C. Values.


def planted(value, where=ANIMALS, name=QUERY):
    """Returns a break that plants one number in a tensor."""

    def change(family):
        def plant(tensors):
            tensors[name].flat[5] = value

        family.edit(where, plant)

    return change


@refused(
    "37_nan",
    "E220",
    "experts/animals",
    "model.safetensors",
    QUERY,
    "first at (0, 5)",
    "again",
)
def _(family):
    planted(np.nan)(family)


@refused("38_inf", "E220", "experts/animals", QUERY, "1 of 1024", "infinity", "again")
def _(family):
    planted(-np.inf)(family)


@refused(
    "38_inf_in_base", "E220", "base", "class_embedding", "first at (5,)", "infinity"
)
def _(family):
    name = "vision_model.embeddings.class_embedding"
    shards = json.loads((family / INDEX).read_text())["weight_map"]
    planted(np.inf, f"base/{shards[name]}", name)(family)


# D. Tasks and heads.


@refused(
    "56_one_class",
    "E304",
    "head.safetensors",
    "1 class(es)",
    "at least two",
    "regression",
)
def _(family):
    family.head(weight=np.ones((1, clip_family.VISION.output_size)))


@refused("56_one_class_name", "experts.animals", "classes", "at least two", "got 1")
def _(family):
    family.expert()["classes"] = ["cat"]


@refused("57_names", "E305", "head.safetensors", "4 rows", "3 class names", "same task")
def _(family):
    family.head(weight=np.eye(4, clip_family.VISION.output_size))


def arrays(family, file="images.npz", **held):
    """Writes an npz file and gives it to the first expert."""
    np.savez(family / file, **held)
    family.expert()["data"] = f"{family.root}/{file}"


@refused("57_some_labels", "E312", "images.npz", "1 of 3 images", "all images or for n")
def _(family):
    arrays(family, images=np.zeros((3, 8, 8), np.uint8), labels=[0, 1, -1])


@refused("57_label_below_0", "E313", "images.npz", "from -2 to 1", "count its classes")
def _(family):
    arrays(family, images=np.zeros((3, 8, 8), np.uint8), labels=[0, 1, -2])


@refused("57_other_number_of_labels", "E312", "images.npz", "(2,)", "one an image")
def _(family):
    arrays(family, images=np.zeros((3, 8, 8), np.uint8), labels=[0, 1])


@refused("57_file_of_names", "E343", "names.txt", "not UTF-8", "a class a line")
def _(family):
    (family / "names.txt").write_bytes("café\nthé\n".encode("latin-1"))
    family.expert()["classes"] = f"{family.root}/names.txt"


@refused(
    "57_labels",
    "E305",
    "images.npz",
    "labels from 0 to 3",
    "expected 0 to 1",
    "same task",
)
def _(family):
    pixels = np.zeros((5, 8, 8, 3), np.uint8)
    np.savez(family / "images.npz", images=pixels, labels=[0, 1, 2, 3, 0])
    family.expert("sizes")["data"] = f"{family.root}/images.npz"


@refused("58_width", "E306", "head.safetensors", "length 7", "makes", "before or after")
def _(family):
    family.head(weight=np.eye(3, 7))


@refused("61_no_head", "experts.animals", "needs `head`", "`classes`")
def _(family):
    del family.expert()["classes"]


@refused("62_nan", "E220", "head.safetensors", "`weight`", "first at (0, 1)", "again")
def _(family):
    weight = np.eye(3, clip_family.VISION.output_size)
    weight[0, 1] = np.nan
    family.head(weight=weight)


@refused("62_nan_bias", "E220", "head.safetensors", "`bias`", "first at (2,)", "again")
def _(family):
    family.head(bias=[0, 0, np.inf])


@refused(
    "62_bias_shape", "E317", "head.safetensors", "bias of shape (2,)", "expected (3,)"
)
def _(family):
    family.head(bias=[0, 0])


@refused(
    "61_model_as_head",
    "E317",
    ANIMALS,
    "no head file",
    "expected `weight`",
    "give the file",
)
def _(family):
    family.expert()["head"] = f"{family.root}/{ANIMALS}"


@refused("61_no_text_tower", "E309", "no text tower", "give `head` to every expert")
def _(family):
    params = {"vision": clip_family.base_params()["vision"]}
    shutil.rmtree(family / "base")
    clip_family.write_expert(family / "base", params, "CLIPVisionModelWithProjection")


@refused(
    "77_no_tokenizer", "E346", "base", "no tokeniser", "tokenizer.json", "fetch them"
)
def _(family):
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (family / "base" / name).unlink()


# E. Images.


@refused(
    "63_no_folder", "E101", "experts.animals.data", "imges", "did you mean", "/images`"
)
def _(family):
    family.expert()["data"] = f"{family.root}/imges"


@refused(
    "63_no_npz",
    "E101",
    "experts.animals.data",
    "digits.npz",
    "did you mean",
    "digit.npz",
)
def _(family):
    np.savez(family / "digit.npz", images=np.zeros((3, 8, 8, 3), np.uint8))
    family.expert()["data"] = f"{family.root}/digits.npz"


@refused(
    "63_no_data_set",
    "E314",
    "experts.animals.data",
    "'mnits'",
    "did you mean",
    "./mnits",
)
def _(family):
    family.expert()["data"] = "mnits"


@refused("63_no_images", "E320", "images/animals", "2 .txt", "expected files", ".jpg")
def _(family):
    shutil.rmtree(family / "images/animals")
    (family / "images/animals/cat").mkdir(parents=True)
    (family / "images/animals/cat/a.txt").write_text("")
    (family / "images/animals/cat/b.txt").write_text("")


@refused(
    "63_empty_folder", "E320", "images/animals", "nothing at all", "expected files"
)
def _(family):
    shutil.rmtree(family / "images/animals")
    (family / "images/animals").mkdir()


@refused("63_empty_npz", "E320", "images.npz", "no image", "(0, 8, 8, 3)")
def _(family):
    np.savez(family / "images.npz", images=np.zeros((0, 8, 8, 3), np.uint8))
    family.expert()["data"] = f"{family.root}/images.npz"


@refused("63_damaged_npz", "E160", "images.npz", "no npz file", "np.savez")
def _(family):
    arrays(family, images=np.zeros((3, 8, 8), np.uint8))
    (family / "images.npz").write_bytes((family / "images.npz").read_bytes()[:100])


@refused("63_other_names_in_npz", "E160", "images.npz", "['x']", "`images`", "np.savez")
def _(family):
    arrays(family, x=np.zeros((3, 8, 8), np.uint8))


@refused("63_other_arrays_in_npz", "E333", "images.npz", "int32", "uint8 or uint16")
def _(family):
    arrays(family, images=np.zeros((3, 8, 8), np.int32))


def parquet(family, file="set/test.parquet", split="test", **columns):
    """Writes a parquet file and gives its folder to the first expert."""
    (family / file).parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), family / file)
    place = str((family / file).parent)
    family.expert()["data"] = {"parquet": place, "split": split}


@refused("63_damaged_parquet", "E162", "test.parquet", "no whole parquet", "fetch it")
def _(family):
    parquet(family, image=[b"x"])
    (family / "set/test.parquet").write_bytes(b"PAR1")


@refused("63_no_split", "E163", "split 'val'", "test.parquet", "check split")
def _(family):
    parquet(family, image=[b"x"], split="val")


@refused("63_missing_shard", "E164", "lacks 1 of 2", "number 1", "fetch it again")
def _(family):
    parquet(family, "set/test-00000-of-00002.parquet", image=[b"x"])


@refused("63_no_column_of_images", "E344", "test.parquet", "['pixels']", "name the col")
def _(family):
    parquet(family, pixels=[b"x"])


@refused("63_paths_for_images", "E350", "column 'image'", "string", "bytes of image")
def _(family):
    parquet(family, image=["cat/000.png"])


@refused("63_no_row", "E320", "set", "no row")
def _(family):
    parquet(family, image=pa.array([], pa.binary()))


@refused(
    "65_corrupt",
    "E331",
    *("3 of 9 images", "cat/000.png", "0 bytes", "dog/001.png", "horse/002.png"),
    *("on_bad_image", "skip"),
)
def _(family):
    folder = family / "images/animals"
    (folder / "cat/000.png").write_bytes(b"")
    whole = (folder / "dog/001.png").read_bytes()
    (folder / "dog/001.png").write_bytes(whole[: len(whole) // 2])
    (folder / "horse/002.png").write_bytes(b"<html>no picture</html>")


@refused(
    "65_too_many_skipped", "E322", "1 of 9", "more than 1%", "cat/000.png", "again"
)
def _(family):
    (family / "images/animals/cat/000.png").write_bytes(b"")
    folder = f"{family.root}/images/animals"
    family.expert()["data"] = {"folder": folder, "on_bad_image": "skip"}


@refused("68_float", "E324", "cat/float.tiff", "floating point", "scale it")
def _(family):
    pixels = np.zeros((9, 9), np.float32)
    Image.fromarray(pixels).save(family / "images/animals/cat/float.tiff")


@refused("71_bomb", "E326", "cat/bomb.png", "pixels", "limit", "make it smaller")
def _(family):
    image = Image.new("1", (10_000, 10_000))
    image.save(family / "images/animals/cat/bomb.png")


@refused("73_link_outside", "E328", "1 symbolic links", "cat/out.png", "copy the files")
def _(family):
    target = family / "images/numbers/one/000.png"
    (family / "images/animals/cat/out.png").symlink_to(target)


@refused(
    "73_file_as_folder", "E101", "experts.animals.data", "000.png", "no such folder"
)
def _(family):
    family.expert()["data"] = {"folder": f"{family.root}/images/animals/cat/000.png"}


@refused(
    "74_loose",
    "E332",
    "images/animals",
    "beside folders",
    "loose.png",
    "put every image",
)
def _(family):
    shutil.copy(
        family / "images/animals/cat/000.png", family / "images/animals/loose.png"
    )


@refused(
    "57_class_folders",
    "E310",
    *("experts.animals.data", "4 folders of classes and the head 3 classes"),
    *("only there: 'bird', 'owl'", "only in the head: 'cat'", "name the folders"),
)
def _(family):
    folder = family / "images/animals"
    (folder / "cat").rename(folder / "bird")
    shutil.copytree(folder / "bird", folder / "owl")


@refused("57_other_class", "E310", "only there: 'bird'", "only in the head: 'unicorn'")
def _(family):
    folder = family / "images/animals"
    (folder / "cat").rename(folder / "bird")
    family.expert()["classes"] = ["horse", "unicorn", "dog"]


@refused(
    "30_preprocessing", "E330", "preprocessor_config.json", "8 x 8|(8, 8, 3)", "16 x 16"
)
def _(family):
    file = "base/preprocessor_config.json"
    family.edit_json(file, lambda values: values.update(size=8, crop_size=8))


@refused("76_no_crop", "E330", "preprocessor_config.json", "(16, 32, 3)", "belong")
def _(family):
    file = "base/preprocessor_config.json"
    family.edit_json(file, lambda values: values.update(do_center_crop=False))


@refused("76_unknown_step", "E330", "preprocessor_config.json", "'do_blur'", "ClipTra")
def _(family):
    file = "base/preprocessor_config.json"
    family.edit_json(file, lambda values: values.update(do_blur=True))


@refused("76_other_shape", "E333", "animals.data", "(8, 8, 3)", "(16, 16, 3)", "8-bit")
def _(family):
    arrays(family, images=np.full((3, 8, 8, 3), -0.5, np.float32))


@refused("62_nan_in_images", "E220", "images.npz", "1 of 3", "number 2", "again")
def _(family):
    images = np.full((3, 16, 16, 3), -0.5, np.float32)
    images[2, 0, 0, 0] = np.nan
    arrays(family, images=images)


# G. Configuration, beside tests/experiments/test_yaml_config.py.


@refused("52_no_experts", "E301", "no experts given", "for example", "model:")
def _(family):
    family.config["experts"] = {}


@refused("54_twice", "E302", "'ANIMALS'", "one name twice")
def _(family):
    family.config["experts"]["ANIMALS"] = copy.deepcopy(family.expert())


@refused("55_empty_name", "E303", "name of an expert is empty", "' '")
def _(family):
    family.config["experts"][" "] = copy.deepcopy(family.expert())


@refused("55_control", "E303", r"'a\x1b[2Jb'", "cannot be shown", "letters, digits")
def _(family):
    family.config["experts"]["a\x1b[2Jb"] = copy.deepcopy(family.expert())


@refused("83_unknown_key", "E010", "my_merge.yaml:", "modle", "did you mean `model`")
def _(family):
    family.expert()["modle"] = family.expert().pop("model")


@refused("84_negative", "E011", "my_merge.yaml:", "num_steps", "at least 0", "-3")
def _(family):
    family.config["adaptation"]["num_steps"] = -3


@refused("84_rate", "E011", "my_merge.yaml:", "at most 10", "1000")
def _(family):
    family.config["adaptation"]["learning_rate"] = 1e3


@refused("84_not_a_number", "E011", "my_merge.yaml:", "learning_rate", "nan")
def _(family):
    family.config["adaptation"]["learning_rate"] = math.nan


@refused("84_temperature", "E011", "my_merge.yaml:", "temperature", "above 0", "got 0")
def _(family):
    family.config["adaptation"]["temperature"] = 0


@refused("84_type", "E011", "my_merge.yaml:", "`seed` is 'many'", "integer")
def _(family):
    family.config["seed"] = "many"


def plain_file(text):
    """Returns a break that puts text before the configuration."""

    def change(family):
        text_of_all = text + yaml.safe_dump(family.config, sort_keys=False)
        (family / "my_merge.yaml").write_text(text_of_all)

    return change


for name, text, words in (
    ("tag", "seed: !!python/object/apply:os.system ['touch MARK']\n", ":1:7: tag "),
    ("alias", "seed: &a 1\ndata_dir: *a\n", ":2:11: aliases (*a) are not supported"),
    ("twice", "base: other\n", "'base' is there twice"),
    ("tab", "adaptation:\n\tnum_steps: 1\n", ":2:1: not valid YAML"),
):
    case(f"85_{name}", plain_file(text), "E012", "my_merge.yaml:", words)


@refused("86_conflict", "E013", "my_merge.yaml:", "tsv_m has no origin", "leave it out")
def _(family):
    family.config["method"] = {"name": "tsv_m", "origin": "cart"}


# I. Hostile.


@refused("104_link", "E154", "link to", "outside of its folder", "give the path")
def _(family):
    secret = family / "secret.safetensors"
    (family / ANIMALS).rename(secret)
    (family / ANIMALS).symlink_to(secret)


@refused(
    "100_pickle",
    "E150",
    "expert.pt",
    "contains code",
    "posix.system",
    "nothing was run",
)
def _(family):
    torch_expert(b"cposix\nsystem\nVtouch MARK\n\x85R.")(family)


case(
    "102_negative_stride",
    torch_expert(state_dict(tensor(stride=(-3, 1)))),
    *("E152", "expert.pt", "'w0'", "negative offset, size or stride", "do not use it"),
)
case(
    "102_beyond_its_storage",
    torch_expert(state_dict(tensor(offset=1))),
    *("E152", "expert.pt", "'w0'", "reaches element 6 of a storage of 6"),
)
case(
    "103_opcodes",
    torch_expert(b"N0" * 600_000 + b"N."),
    *("E153", "expert.pt", "more than 500,000 opcodes", "save the state dict"),
)
case(
    "103_long_integer",
    torch_expert(b"\x8b" + (4000).to_bytes(4, "little") + b"\x7f" * 4000 + b"."),
    *("E153", "expert.pt", "an integer of 31,999 bits", "do not use it"),
)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_refused(case, family):
    case.break_(family)
    options = family.options()
    before = family.listing()
    started = time.process_time()
    with pytest.raises(errors.AdaRankError) as caught:
        run_vit.main(options)
    seconds = time.process_time() - started
    message = str(caught.value)
    missing = [
        words
        for words in case.words
        if not any(each in message for each in words.split("|"))
    ]
    assert not missing, message
    assert not (family / "run").exists()
    assert family.listing() == before
    assert seconds < 5


def test_all_problems_are_listed_at_once(family):
    (family / "experts/animals/model.safetensors").unlink()
    name = f"vision_model.{QUERY}"
    planted(np.nan, "experts/numbers/model.safetensors", name)(family)
    shutil.rmtree(family / "images/sizes")
    (family / "images/sizes").mkdir()
    family.config["adaptation"]["batch_size"] = 12
    family.head(weight=np.eye(3, 7))
    with pytest.raises(errors.Problems) as caught:
        run_vit.main(family.options())
    found = caught.value.messages
    assert [each.where.split(": ")[0] for each in found[:4]] == [
        "experts.animals.model",
        "experts.animals.head",
        "experts.numbers.model",
        "experts.sizes.data",
    ]
    assert len(found) == 5 and "batch_size" in str(found[4])
    assert caught.value.exit_code == 3
    assert str(caught.value) == "\n".join(map(str, found))


def test_problems_of_experts_are_listed_beside_those_of_the_base(family):
    (family / f"base/{SECOND}").unlink()
    (family / ANIMALS).write_bytes(b"<html>")
    with pytest.raises(errors.Problems) as caught:
        run_vit.main(family.options())
    assert len(caught.value.messages) == 2
    assert caught.value.messages[0].where.startswith("base")
    assert "web page" in str(caught.value)


def test_five_mistakes_of_a_file_are_told_by_one_command(family, capsys):
    family.expert()["modle"] = family.expert().pop("model")
    family.config |= {"adaptation": {"batch_sise": 8}, "seed": "many"}
    family.config["method"] = {"name": "tsv_m", "origin": "cart"}
    family.expert("sizes")["classes"] = ["small"]
    options = family.options()
    before = family.listing()
    with pytest.raises(SystemExit) as stopped:
        cli.run(run_vit.main, run_vit.Options, [*options.what, "--plan"])
    shown = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and shown[-1] == "6 problems."
    found = sorted(line[6:10] for line in shown if line.startswith("error "))
    # The model that is spelt wrong is also missing.
    assert found == ["E010", "E010", "E011", "E013", "E015", "E304"]
    where = [line for line in shown if line.startswith("  where ")]
    assert len(where) == 6 and all("my_merge.yaml:" in line for line in where)
    assert family.listing() == before


# What stops nothing is told.

WARNINGS: list[Case] = []


def warned(name, *words):
    def register(function):
        WARNINGS.append(Case(name, function, words))
        return function

    return register


def torch_of(tensors):
    """Writes arrays as the pickle of a torch file, all of them in one storage."""
    content, offset = b"\x80\x02}(", 0
    for name, array in tensors.items():
        strides = [stride // array.itemsize for stride in array.strides]
        parts = (array.size, offset, array.shape, strides)
        content += _text(name) + tensor(
            sum(a.size for a in tensors.values()), *parts[1:]
        )
        offset += array.size
    data = np.concatenate([array.ravel() for array in tensors.values()])
    return content + b"u.", data.astype(np.float32).tobytes()


@warned(
    "10_torch_named_safetensors", "W118", ANIMALS, "torch file in spite of its name"
)
def _(family):
    tensors = load((family / ANIMALS).read_bytes())
    archive(family / ANIMALS, *torch_of(tensors))


@warned("10_safetensors_named_torch", "W118", "expert.pt", "safetensors file in spite")
def _(family):
    (family / SIZES).rename(family / "expert.pt")
    family.expert("sizes")["model"] = f"{family.root}/expert.pt"


@warned(
    "15_both_formats", "W124", "model.safetensors, which was read", "pytorch_model.bin"
)
def _(family):
    (family / "experts/animals/pytorch_model.bin").write_bytes(b"anything")


@warned("101_classes", "W151", ANIMALS, "not imported: my.Config", "only its tensors")
def _(family):
    content, data = torch_of(load((family / ANIMALS).read_bytes()))
    thing = _text("config") + b"cmy\nConfig\n)\x81u."
    archive(family / ANIMALS, content.removesuffix(b"u.") + thing, data)


def cast(dtype, some=""):
    def change(family):
        def to(tensors):
            return {k: v.astype(dtype) if some in k else v for k, v in tensors.items()}

        family.edit(ANIMALS, to)

    return change


for name, function, word in (
    ("40_float16", cast(np.float16), "float16"),
    ("40_bfloat16", cast(ml_dtypes.bfloat16), "bfloat16"),
    ("41_mixed", cast(np.float16, "fc1"), "mixed"),
):
    words = "W222", ANIMALS[:15], word, "float32", "rounding"
    WARNINGS.append(Case(name, function, words))


@warned("42_equals_base", "W223", SIZES, "equals the base", "task vector is zero")
def _(family):
    clip_family.write_open_clip(family / SIZES, clip_family.base_params())


@warned("43_identical", "W224", "'animals' and 'numbers' are identical", "path")
def _(family):
    family.expert("numbers")["model"] = family.expert()["model"]


@warned("51_magnitude", "W227", SIZES, "10,000 times", "ln_pre/scale (1e+20", "damaged")
def _(family):
    planted(1e20, SIZES, "model.visual.ln_pre.weight")(family)


@warned("53_one_task", "W301", "one task", "nothing to merge")
def _(family):
    family.config["tasks"] = ["animals"]


@warned(
    "57_no_image_of_a_class", "W305", "experts.animals.data", "1 of 3 classes", "'dog'"
)
def _(family):
    shutil.rmtree(family / "images/animals/dog")


@warned("59_no_scale", "W307", "head.safetensors", "length 1", "logit scale (100")
def _(family):
    family.head()


@warned(
    "64_few_images", "W321", "experts.sizes.data", "6 images", "batch of 8", "twice"
)
def _(family):
    pass


def picture(mode, size=(12, 12), **options):
    """Returns a break that adds a picture of some mode."""

    def change(family):
        Image.new(mode, size).save(family / "images/animals/cat/new.png", **options)

    return change


for name, function, words in (
    (
        "67_transparent",
        picture("RGBA"),
        ("W323", "1 of 10 images", "transparent", "white"),
    ),
    (
        "67_palette",
        picture("P", transparency=0),
        ("W323", "1 of 10 images", "transparent"),
    ),
    ("72_tiny", picture("RGB", (1, 50)), ("W327", "1 of 10 images", "below 8 pixels")),
):
    WARNINGS.append(Case(name, function, ("images/animals", *words)))


@warned("65_skipped", "W322", "1 of 130 images", "left out", "000.png", "0 bytes")
def _(family):
    folder = family / "images/animals"
    clip_family.write_images(folder, CLASSES["animals"], 43, 0)
    Image.new("RGB", (9, 9)).save(folder / "cat/more.png")
    (folder / "cat/000.png").write_bytes(b"")
    family.expert()["data"] = {"folder": str(folder), "on_bad_image": "skip"}


@warned("70_animated", "W325", "1 of 10 images", "several frames", "the first is taken")
def _(family):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    file = family / "images/animals/cat/moving.gif"
    frames[0].save(file, save_all=True, append_images=frames[1:])


@warned("73_fifo", "W328", "images/animals", "1 entries", "no regular files")
def _(family):
    os.mkfifo(family / "images/animals/cat/pipe.png")
    loop = family / "images/animals/dog/loop"
    loop.symlink_to(loop)
    (family / "images/animals/dog/up").symlink_to(family / "images/animals")


@warned("76_only_scaled", "W330", "experts.animals.data", "below 0", "only scaled")
def _(family):
    arrays(family, images=np.full((9, 16, 16, 3), 0.5, np.float32))


@warned("57_order_on_trust", "W311", "0 of 3 class names", "0 is 'katze' there")
def _(family):
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "PNG")
    names = ["katze", "hund", "pferd"]
    info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    made = pa.table({"image": [file.getvalue()] * 8, "label": [0, 1, 2, 0, 1, 2, 0, 1]})
    (family / "set").mkdir()
    kept = made.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(kept, family / "set/test.parquet")
    family.expert()["data"] = {"parquet": f"{family.root}/set"}


@warned("74_same_images", "W329", "'animals' and 'numbers'", "9 of the 9", "in common")
def _(family):
    family.expert("numbers")["data"] = family.expert()["data"]
    family.expert("numbers")["classes"] = [*CLASSES["animals"]]


@pytest.fixture
def quick_plan(monkeypatch):
    """Leaves out the product and the SVD that a plan times."""
    monkeypatch.setattr(plan, "_seconds", lambda call: 1e-3)


@pytest.mark.parametrize("case", WARNINGS, ids=[case.name for case in WARNINGS])
def test_warned(case, family, capsys, quick_plan):
    case.break_(family)
    options = family.options(plan=True)
    before = family.listing()
    with pytest.raises(SystemExit) as stopped:
        run_vit.main(options)
    shown = capsys.readouterr().out
    assert stopped.value.code == 0, shown
    warnings = [line for line in shown.splitlines() if line.startswith("warning")]
    assert any(all(word in line for word in case.words) for line in warnings), shown
    assert family.listing() == before


def _module(family):
    family.edit(ANIMALS, lambda t: {f"module.model.{k}": v for k, v in t.items()})


def _buffers(family):
    extra = {"embeddings.position_ids": np.arange(5), "optimizer.step": np.ones(1)}
    family.edit(ANIMALS, lambda tensors: tensors | extra)


def _modes(family):
    folder = family / "images/animals/cat"
    for mode in ("1", "L", "I;16", "P", "CMYK", "YCbCr"):
        ending = "jpg" if mode in ("CMYK", "YCbCr") else "png"
        Image.new(mode, (12, 9)).save(folder / f"{mode.replace(';', '')}.{ending}")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (12, 9)).save(folder / "sideways.jpg", exif=exif)


def _flat(family):
    folder = family / "images/flat"
    folder.mkdir()
    for number, file in enumerate(sorted((family / "images/animals").rglob("*.png"))):
        file.rename(folder / f"{number}.png")
    family.expert()["data"] = str(folder)


def _numbered(family):
    for number, name in enumerate(CLASSES["animals"]):
        folder = family / "images/animals"
        (folder / name).rename(folder / str(number))


@pytest.mark.parametrize(
    "change", [_module, _buffers, _modes, _flat, _numbered], ids=lambda f: f.__name__
)
def test_harmless_oddities_are_accepted(change, family, capsys, quick_plan):
    change(family)
    with pytest.raises(SystemExit) as stopped:
        run_vit.main(family.options(plan=True))
    shown = capsys.readouterr().out
    assert stopped.value.code == 0, shown
    warnings = [line for line in shown.splitlines() if line.startswith("warning")]
    assert len(warnings) == 2
    assert "6 images are fewer" in warnings[0]
    assert "2 steps at a rate of 0.001 cannot flip a mask" in warnings[1]


# Nothing that is read runs.

WATCH = """
import encodings.cp437, json, pathlib, sys, tempfile
from adarank_jax import errors
from experiments import run_vit
config, folder, pickles = sys.argv[1:4]
tempfile.tempdir = folder + "/tmp"
def door(*overrides):
    try:
        run_vit.main(run_vit.Options(what=(config, *overrides),
            run_dir=pathlib.Path(folder, "run"), plan=not overrides))
    except SystemExit: return "planned"
    except errors.AdaRankError as error: return str(error)
    return "ran"
cases = json.loads(pathlib.Path(pickles).read_text())
answers, seen = {"good": door(), "again": door("experts.animals.model=/none")}, None
def hook(event, args):
    if seen is None: return
    if event == "open" and (args[1] or "r") in ("r", "rb"): return
    if event == "open" and args[0] == folder: return  # asks whether it is writable
    if event == "compile" and args[1] == "<unknown>": return  # literals, by numpy
    if event in HARMLESS: return
    seen.append([event, repr(args)[:300]])
HARMLESS = set("object.__getattr__ os.listdir os.scandir os.walk mmap.__new__ "
    "os.remove tempfile.mkstemp tempfile.mkdtemp sys._getframe builtins.id".split())
sys.addaudithook(hook)
seen = []
for name, override in cases.items():
    answers[name] = door(override)
events, seen = seen, []
__import__("os").system("true")
sys.stdout.write("\\n" + json.dumps([answers, events, [e for e, _ in seen]]))
"""


class _Evil:
    def __reduce__(self):
        return os.system, ("touch MARK",)


def test_hostile_files_fire_no_audit_event(family):
    cases = {}
    for name, (content, _) in CODE.items():
        archive(family / f"{name}.pt", content)
        cases[f"{name}.pt"] = f"experts.animals.model={family.root}/{name}.pt"
    archive(family / "evil_head.pt", CODE["reduce"][0])
    cases["evil_head.pt"] = f"experts.animals.head={family.root}/evil_head.pt"
    (family / "shards").mkdir()
    archive(family / "shards/pytorch_model.bin", CODE["reduce"][0])
    cases["pytorch_model.bin"] = f"experts.animals.model={family.root}/shards"
    np.savez(family / "evil.npz", images=np.array([_Evil()]))
    cases["evil.npz"] = f"experts.animals.data={family.root}/evil.npz"
    (family / "bare.pt").write_bytes(pickle.dumps(_Evil()))
    cases["bare.pt"] = f"experts.animals.model={family.root}/bare.pt"
    cases["!!python"] = "experts.animals.model=!!python/object/apply:os.system [true]"
    (family / "cases.json").write_text(json.dumps(cases))
    config = str(family.options().what[0])
    process = subprocess.run(
        [sys.executable, "-c", WATCH, config, str(family.root), family / "cases.json"],
        cwd=family.root / "tmp",
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    answers, events, control = json.loads(process.stdout.splitlines()[-1])
    assert events == []
    assert control == ["os.system"]
    assert not [*family.root.rglob("MARK")] and not (family / "run").exists()
    assert answers.pop("good") == "planned" and "/none" in answers.pop("again")
    assert answers.keys() == cases.keys()
    for name, answer in answers.items():
        assert name.removesuffix("python") in answer, answer
        words = (
            "contains code",
            "bare pickle",
            "no npz file of plain",
            "is not supported",
        )
        assert any(word in answer for word in words), answer


# Exit codes, and what a terminal gets.


def command(*arguments, cwd=None, platform="cpu"):
    return subprocess.run(
        [sys.executable, "-m", "experiments.run_vit", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": platform},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_refused_inputs_exit_with_3_and_no_escape_reaches_the_terminal(family):
    folder = family / "images/animals"
    (folder / "cat").rename(folder / "\x1b[2J\x1b]0;owned\x07")
    shutil.copytree(folder / "dog", folder / "\u202egnp.tac")
    options = family.options()
    before = family.listing()
    shown = command(*options.what, "--run-dir", options.run_dir)
    assert shown.returncode == 3
    assert "\n  where     experts.animals.data" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert r"\x1b[2J" in shown.stderr and r"\u202egnp.tac" in shown.stderr
    assert not {"\x1b", "\x07", "\u202e"} & {*shown.stderr, *shown.stdout}
    assert family.listing() == before


def test_broken_configuration_exits_with_2(tmp_path):
    (tmp_path / "my_merge.yaml").write_text("base: [unclosed\nexperts:\n")
    shown = command("my_merge.yaml", cwd=tmp_path)
    assert shown.returncode == 2
    assert shown.stderr.startswith("error E012: The file is not plain YAML\n")
    assert "\n  where     my_merge.yaml:2:" in shown.stderr
    assert "Traceback" not in shown.stderr and os.listdir(tmp_path) == ["my_merge.yaml"]


def test_device_that_is_not_there_exits_with_4(tmp_path):
    shown = command("--plan", cwd=tmp_path, platform="no_such_device")
    assert shown.returncode == 4, shown.stderr
    assert "error E412: " in shown.stderr and "Traceback" not in shown.stderr
    assert "\n  where     JAX_PLATFORMS=no_such_device\n" in shown.stderr
    assert not os.listdir(tmp_path)


def raising(error):
    def main(options):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.UsageError("E011", "no"), 2, "error E011: "),
        (errors.InputError("E101", "a\x1b[31mb"), 3, "found     a\\x1b[31mb\n"),
        (errors.MissingError("E101", "gone"), 3, "error E101: "),
        (errors.DamageError("E650", "gone"), 6, "error E650: "),
        (FileNotFoundError(2, "No such file", "a.pt"), 4, "error E400: "),
        (PermissionError(13, "Permission denied", "/x"), 4, "where     `/x`\n"),
        (PermissionError(13, "Permission denied", "/x"), 4, "error E402: "),
        (OSError(30, "Read-only file system", "/x"), 4, "error E402: "),
        (OSError(28, "No space left on device"), 4, "found     no space left"),
        (OSError(28, "No space left on device", "/x"), 4, "error E401: "),
        (MemoryError(), 4, "error E411: "),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 GB"), 4, "`adaptation.remat=true`"),
        (RuntimeError("Unable to initialize backend 'tpu'"), 4, "error E412: "),
        (FloatingPointError("NaN at step 3."), 5, "found     NaN at step 3.\n"),
        (KeyboardInterrupt(), 130, "Stopped; the same command goes on"),
    ],
    ids=lambda value: (
        str(value)[:30] if isinstance(value, BaseException) else str(value)[:10].strip()
    ),
)
def test_exit_code_tells_whose_turn_it_is(error, code, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run_vit"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(raising(error), run_vit.Options)
    shown = capsys.readouterr().err
    assert stopped.value.code == code and message in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    "error", [ValueError("a\x1b[31mb"), KeyError("x"), RuntimeError("no"), TypeError()]
)
def test_error_that_nobody_foresaw_asks_for_a_report(error, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.run(raising(error), run_vit.Options, [])
    shown = capsys.readouterr().err
    assert stopped.value.code == 1 and "\x1b" not in shown
    trace, _, block = shown.partition("error E001: ")
    assert trace.startswith("Traceback") and "in main" in trace
    assert f"  found     {type(error).__name__}" in block
    assert "  try       report it" in block


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_adds_the_traceback_wherever_it_is_written(place, capsys):
    words = ["seed=1", "--plan"]
    seen = []

    def main(options):
        seen.append(options)
        raise errors.UsageError("E011", "no")

    def shown(words):
        with pytest.raises(SystemExit) as stopped:
            cli.run(main, run_vit.Options, words)
        assert stopped.value.code == 2
        return capsys.readouterr().err

    plain = shown(words)
    words.insert(place, "--debug")
    debugged = shown(words)
    assert debugged.startswith("Traceback") and debugged.endswith(plain)
    assert "Traceback" not in plain and seen[0] == seen[1]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--preset", "vit-b32-8-cart-adarnk"), 2),
        (("--run-dri", "x"), 2),
        (("tasks=[shaeps]",), 2),
        (("nowhere.yaml",), 2),
        (("one.yaml", "two.yaml"), 2),
        (("--run-dir", "/dev/null/run"), 4),
        (("--run-dir", str(ROOT / "tests")), 4),
    ],
    ids=lambda value: " ".join(value)[-30:] if isinstance(value, tuple) else "",
)
def test_options_exit_with(arguments, code, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run_vit", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.run(run_vit.main, run_vit.Options)
    assert stopped.value.code == code
    assert "Traceback" not in capsys.readouterr().err


def test_help_lists_the_exit_codes(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run_vit", "--help"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(run_vit.main, run_vit.Options)
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert cli.EXIT_CODES in shown


# Odd names, few images and labels in a run from top to bottom.

ODD = ("../x", "CON", "<script>alert(1)</script> $\\frac{$")


def odd(family, shift=0):
    """Gives the tasks odd names, and labelled images; labels may be shifted."""
    experts = family.config["experts"].values()
    family.config["experts"] = dict(zip(ODD, experts, strict=True))
    for number, expert in enumerate(family.config["experts"].values()):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (5, 12, 12, 3), np.uint8)
        labels = (np.arange(5) + shift) % len(expert["classes"])
        np.savez(family / f"{number}.npz", images=pixels, labels=labels)
        expert["data"] = f"{family.root}/{number}.npz"


@pytest.fixture(scope="module")
def finished(whole, tmp_path_factory):
    root = tmp_path_factory.mktemp("odd") / "family"
    shutil.copytree(whole, root)
    family = Family(root)
    odd(family)
    run_vit.main(family.options())
    return family


def merged(family):
    return (family / "run/merged.safetensors").read_bytes()


def test_odd_names_are_kept_and_name_no_file(finished):
    results = json.loads((finished / "run/results.json").read_text())
    assert results["tasks"] == list(ODD)
    assert {path.name for path in finished.root.iterdir()} == {
        *("base", "experts", "images", "my_merge.yaml", "run", "tmp"),
        *(f"{number}.npz" for number in range(3)),
    }
    for path in (finished / "run").rglob("*"):
        assert path.name.isprintable() and path.stem.casefold() != "con"
        assert not {*"<>$/\\"} & {*path.name}


def test_odd_names_are_kept_in_the_export(finished):
    heads = finished / "run/export/heads"
    kept = {file.stem: json.loads(file.read_text()) for file in heads.glob("*.json")}
    assert {name: head["task"] for name, head in kept.items()} == dict(
        zip(("x", "task-con", "script-alert-1-script-frac"), ODD, strict=True)
    )
    card = (finished / "run/export/README.md").read_text()
    tables = [line for line in card.splitlines() if line.startswith("|")]
    assert any("&lt;script&gt;" in line for line in tables)
    assert not any("<script>" in line for line in tables)


def test_labels_change_no_bit_of_the_merge(finished, family):
    odd(family, shift=1)
    run_vit.main(family.options())
    assert merged(family) == merged(finished)
    rows = [
        json.loads((each / "run/results.json").read_text())["rows"]
        for each in (finished, family)
    ]
    assert rows[0][0]["per_task"] != rows[1][0]["per_task"]


def test_flipped_weight_does_not_resume(finished):
    content = (finished / SIZES).read_bytes()
    (finished / SIZES).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(ValueError, match="sha256.*there, .*now") as caught:
            run_vit.main(finished.options())
    finally:
        (finished / SIZES).write_bytes(content)
    assert ODD[2] in str(caught.value) and ODD[0] not in str(caught.value)


def test_changed_labels_do_not_resume(finished):
    odd(finished, shift=1)
    try:
        with pytest.raises(ValueError, match="labels.*there, .*now"):
            run_vit.main(finished.options())
    finally:
        finished.config["experts"] = {}
