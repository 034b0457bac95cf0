"""Damaged files and configurations: only errors of ours, and never a change of theirs.

A few hundred cases by default; thousands in the slow tests.
"""

import json
import os
import pathlib
import random
import string
import time

import psutil
import pytest
import yaml

from adarank_jax import errors
from adarank_jax.checkpoints import containers, factors, files, recipe
from experiments import yaml_config
from experiments.image_config import ImageMergeConfig
from experiments.text_config import TextMergeConfig
from tests.experiments import tiny_family

TORCH_FILES = pathlib.Path(__file__).parents[1] / "data" / "torch_files"
SECONDS = 2.0
BYTES = 200_000_000


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Files of every kind that is read, with what reads them."""
    folder = tmp_path_factory.mktemp("samples")
    tiny_family.write(folder)
    files.write(folder / "weights.safetensors", {"a": {"b": [[1.0, 2.0]]}, "c": [3.0]})
    read = containers.read_state
    return [
        (folder / "weights.safetensors", files.read),
        (folder / "weights.safetensors", factors.check),
        (folder / tiny_family.SIZES, read),
        (folder / "base" / "model.safetensors.index.json", read),
        (TORCH_FILES / "head.pt", read),
        (TORCH_FILES / "state_dict.pt", read),
        (TORCH_FILES / "image_encoder.pt", read),
        (folder / "weights.safetensors", recipe.read_recipe),
    ]


def mutated(content, rng):
    """Changes a content: bits, bytes, runs of bytes, length, or pieces of itself."""
    content = bytearray(content)
    # The beginning decides most: headers, names, sizes.
    place = lambda: rng.randrange(min(len(content), rng.choice([64, 2000, 10**9])))
    for _ in range(rng.randint(1, 4)):
        kind, where = rng.randrange(6), place()
        if kind == 0:
            content[where] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[where] = rng.randrange(256)
        elif kind == 2:
            content[where : where + rng.randint(1, 9)] = rng.randbytes(
                rng.randint(0, 9)
            )
        elif kind == 3 and len(content) > 1:
            del content[rng.randrange(1, len(content)) :]
        elif kind == 4:
            content[where:where] = content[place() :][: rng.randint(1, 40)]
        else:
            number = rng.choice([0, 1, 2**31, 2**63 - 1, 2**64 - 1])
            content[where : where + 8] = number.to_bytes(8, "little")
        if not content:
            return b""
    return bytes(content)


def fuzz_files(samples, folder, count, seed):
    """Reads mutated files; returns how many were refused."""
    rng, refused, process = random.Random(seed), 0, psutil.Process()
    for number in range(count):
        file, read = samples[number % len(samples)]
        copy = folder / "here" / file.name
        copy.parent.mkdir(exist_ok=True)
        if file.name.endswith(".index.json"):
            for shard in file.parent.glob("*.safetensors"):
                if not (copy.parent / shard.name).exists():
                    os.link(shard, copy.parent / shard.name)
        content = mutated(file.read_bytes(), rng)
        copy.write_bytes(content)
        before, begun = process.memory_info().rss, time.process_time()
        try:
            read(copy)
        except errors.AdaRankError as error:
            refused += 1
            assert error.message.code in errors.TITLES
            assert len(str(error)) < 5000
        assert time.process_time() - begun < SECONDS
        assert process.memory_info().rss - before < BYTES + 2 * len(content)
        assert copy.read_bytes() == content
    assert sorted(path.name for path in folder.iterdir()) == ["here"]
    return refused


def mutated_config(config, rng):
    """Changes values, keys and text of a configuration."""
    config = json.loads(json.dumps(config))
    for _ in range(rng.randint(0, 3)):
        node = config
        while True:
            key = rng.choice([*node]) if node else "x"
            if isinstance(node.get(key), dict) and node[key] and rng.random() < 0.7:
                node = node[key]
                continue
            break
        value = rng.choice(VALUES)
        if rng.random() < 0.3:
            key = "".join(rng.choices(string.printable, k=rng.randint(0, 12)))
        node[key] = value() if callable(value) else value
    text = yaml.safe_dump(config, sort_keys=False)
    for _ in range(rng.choice([0, 0, 1, 3])):
        where = rng.randrange(len(text))
        inserted = rng.choice(PIECES)
        text = text[:where] + inserted + text[where + rng.randint(0, 3) :]
    return text


VALUES = [
    *(None, True, -1, 0, 1e300, 10**30, float("nan"), float("inf"), "", "x", "1e-3"),
    *([], {}, [1, [2]], {"a": {"b": None}}, "../../x", "\0", "é́", "-h", "x" * 10_000),
    lambda: {"k" * 3: [{}] * 5},
]
PIECES = [
    *("!!python/object:os.system ", "&a ", "*a", "{", "}", "[", "\t", ":", "- ", "\0"),
    *("\n", "'", '"', "#", "? ", "| ", ">", "%YAML 9\n", "\ufeff", "\x1b[2J", "<<: "),
]
KINDS = (ImageMergeConfig, TextMergeConfig)


def fuzz_configs(folder, count, seed):
    """Reads mutated configurations; returns how many were refused."""
    rng, refused = random.Random(seed), 0
    file, whole = folder / "merge.yaml", tiny_family.config(pathlib.Path("family"))
    for number in range(count):
        text = mutated_config(whole, rng)
        file.write_text(text, encoding="utf-8", errors="replace")
        begun = time.process_time()
        try:
            yaml_config.read_config(KINDS[number % 2], file, [])
        except errors.AdaRankError as error:
            refused += 1
            assert str(error)
        assert time.process_time() - begun < SECONDS
    assert [path.name for path in folder.iterdir()] == ["merge.yaml"]
    return refused


def test_two_hundred_damaged_files_give_only_errors_of_ours(samples, tmp_path):
    assert fuzz_files(samples, tmp_path, 200, 0) > 100


def test_hundred_damaged_configurations_give_only_errors_of_ours(tmp_path):
    assert fuzz_configs(tmp_path, 100, 0) > 30


@pytest.mark.slow
def test_five_thousand_damaged_files_give_only_errors_of_ours(samples, tmp_path):
    assert fuzz_files(samples, tmp_path, 5_000, 1) > 2_500


@pytest.mark.slow
def test_two_thousand_damaged_configurations_give_only_errors_of_ours(tmp_path):
    assert fuzz_configs(tmp_path, 2_000, 1) > 600
