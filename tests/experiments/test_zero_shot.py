import dataclasses
import functools
import json
import math
import pathlib
import shutil
import socket

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.checkpoints import files
from adarank_jax.models import heads
from adarank_jax.models.clip_text import ClipText, ClipTextConfig
from experiments import clip_suite, zero_shot
from experiments.image_config import ImageMergeConfig
from tests import clip_family

DATA = pathlib.Path(__file__).parents[1] / "data" / "zero_shot_tiny"
EXPECTED = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
NAMES, TEMPLATES = EXPECTED["class_names"], EXPECTED["templates"]
LOGIT_SCALE = EXPECTED["logit_scale"]
CONFIG = ClipTextConfig(**EXPECTED["config"])
PAIR = ("vocab.json", "merges.txt")


@functools.cache
def params():
    return files.read(DATA / "text.safetensors")


@functools.cache
def load():
    return zero_shot.load_tokenizer(DATA, CONFIG.context_length, CONFIG.vocabulary_size)


class Encode:
    """The real text tower; remembers the shapes that it was called with."""

    def __init__(self):
        self.shapes = []
        self.apply = jax.jit(ClipText(CONFIG).apply)

    def __call__(self, tokens):
        self.shapes.append(tokens.shape)
        return self.apply({"params": params()}, tokens)


@pytest.mark.parametrize("batch_size", [8, 21, 64])
def test_head_is_that_of_torch(batch_size):
    encode = Encode()
    weight = zero_shot.zero_shot_weight(
        encode, load(), NAMES, TEMPLATES, LOGIT_SCALE, batch_size
    )
    assert weight.dtype == np.float32
    scale = math.exp(LOGIT_SCALE)
    np.testing.assert_allclose(
        weight / scale, np.array(EXPECTED["weight"]) / scale, rtol=0, atol=1e-5
    )
    assert set(encode.shapes) == {(batch_size, CONFIG.context_length)}
    assert len(encode.shapes) == -(-len(NAMES) * len(TEMPLATES) // batch_size)


def test_head_of_a_checkpoint_on_disk_is_that_of_torch(tmp_path):
    base = clip_family.base_params()
    clip_family.write_base(tmp_path / "base", base)
    expert = tmp_path / "expert.safetensors"
    clip_family.write_open_clip(expert, clip_family.expert_params(base, 1))
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 9, 9, 3), np.uint8))
    task = {"model": str(expert), "data": str(tmp_path / "a.npz")}
    config = ImageMergeConfig(
        base=str(tmp_path / "base"),
        experts={"a": task | {"classes": tuple(NAMES), "templates": tuple(TEMPLATES)}},
    )
    found = clip_suite.check(config)
    assert not found.problems
    (head,) = found.build(RunFolder(tmp_path / "run", {}, restart=False)).heads
    expected = np.array(EXPECTED["weight"]) / math.exp(LOGIT_SCALE)
    np.testing.assert_allclose(head.directions.T, expected, rtol=0, atol=1e-5)
    assert float(head.logit_scale) == pytest.approx(math.exp(LOGIT_SCALE), rel=1e-5)
    assert not head.bias.any()


def test_head_survives_the_way_through_a_linear_layer():
    weight = zero_shot.zero_shot_weight(Encode(), load(), NAMES, TEMPLATES, LOGIT_SCALE)
    head = heads.head_from_weight(weight, features=CONFIG.output_size)
    assert float(head.logit_scale) == pytest.approx(math.exp(LOGIT_SCALE), rel=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(weight, axis=1), math.exp(LOGIT_SCALE), rtol=1e-5
    )


def test_order_of_templates_does_not_matter_and_that_of_names_does():
    make = functools.partial(zero_shot.zero_shot_weight, Encode(), load())
    weight = make(NAMES, TEMPLATES, 0.0)
    np.testing.assert_allclose(make(NAMES, TEMPLATES[::-1], 0.0), weight, atol=1e-6)
    turned = make(NAMES[::-1], TEMPLATES, 0.0)
    np.testing.assert_allclose(turned, weight[::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("names", "templates", "scale", "message"),
    [
        (["cat"], ["a {}"], 4.6, "E304.*at least two different names, got 1"),
        (["cat", "dog", "cat"], ["a {}"], 4.6, "E304.*got 3 of which 2 differ"),
        (["cat", "dog"], [], 4.6, "E318 `templates` must not be empty"),
        (["cat", "dog"], ["a photo"], 4.6, "E318.*expected once"),
        (["cat", "dog"], ["a {}"], 100.0, "E319.*take its logarithm"),
        (["cat", "dog"], ["a {}"], math.nan, "must be the logarithm"),
    ],
)
def test_problems_are_told_before_anything_is_embedded(
    tmp_path, names, templates, scale, message
):
    encode = Encode()
    with pytest.raises(ValueError, match=message):
        zero_shot.zero_shot_weight(encode, load(), names, templates, scale)
    with pytest.raises(ValueError, match=message):
        zero_shot.cached_head(tmp_path, "0", encode, load(), names, templates, scale)
    assert not encode.shapes
    assert not list(tmp_path.iterdir())


def test_embeddings_that_are_not_finite_are_refused():
    def broken(tokens):
        return jnp.full((len(tokens), 4), jnp.nan)

    with pytest.raises(ValueError, match="E220.*finite"):
        zero_shot.zero_shot_weight(broken, load(), NAMES, TEMPLATES, LOGIT_SCALE)


def cached(folder, encode, **changes):
    arguments = {
        "tower_digest": zero_shot.digest_tower(params(), CONFIG),
        "tokenize": load(),
        "class_names": NAMES,
        "templates": TEMPLATES,
        "logit_scale": LOGIT_SCALE,
    }
    return zero_shot.cached_head(folder, text_encode=encode, **(arguments | changes))


def test_cache_embeds_once_and_reads_the_same_bits(tmp_path):
    encode = Encode()
    first = cached(tmp_path, encode, extra={"profile": "official"})
    calls = len(encode.shapes)
    np.testing.assert_array_equal(cached(tmp_path, encode), first)
    assert len(encode.shapes) == calls == 1
    (sidecar,) = tmp_path.glob("*.json")
    described = json.loads(sidecar.read_text(encoding="utf-8"))
    assert described["profile"] == "official"
    assert described["class_names"] == NAMES
    assert described["templates"] == TEMPLATES


def shifted(texts):
    return np.roll(load()(texts), 1, axis=1)


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": NAMES[::-1]},
        {"templates": TEMPLATES[:2]},
        {"templates": TEMPLATES[::-1]},
        {"logit_scale": 1.0},
        {"tower_digest": "another"},
        {"tokenize": shifted},
    ],
)
def test_cache_knows_a_head_by_everything_it_depends_on(tmp_path, change):
    encode = Encode()
    cached(tmp_path, encode)
    cached(tmp_path, encode, **change)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_cache_notices_a_damaged_file(tmp_path):
    cached(tmp_path, Encode())
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="sha256"):
        cached(tmp_path, Encode())


def test_digest_of_the_tower_sees_numbers_and_configuration():
    changed = params() | {"text_projection": -params()["text_projection"]}
    gelu = dataclasses.replace(CONFIG, activation="gelu")
    digests = {
        zero_shot.digest_tower(params(), CONFIG),
        zero_shot.digest_tower(changed, CONFIG),
        zero_shot.digest_tower(params(), gelu),
    }
    assert len(digests) == 3


@pytest.mark.parametrize("names", [("tokenizer.json",), PAIR])
def test_tokeniser_is_the_same_from_either_kind_of_files(tmp_path, names):
    for name in names:
        shutil.copy(DATA / name, tmp_path / name)
    tokenize = zero_shot.load_tokenizer(tmp_path, 28, CONFIG.vocabulary_size)
    texts = [*NAMES, "", "It's 42 °C!"]
    tokens = tokenize(texts)
    assert tokens.dtype == np.int32
    assert tokens.shape == (len(texts), 28)
    np.testing.assert_array_equal(tokens, load()(texts))


def test_tokeniser_starts_ends_cuts_and_fills_as_clip_does():
    start, end = CONFIG.vocabulary_size - 2, CONFIG.vocabulary_size - 1
    short, long = load()(["photo", "photo " * 50])
    photo = short[1]
    assert short.tolist() == [start, photo] + [end] * 26
    assert long.tolist() == [start] + [photo] * 26 + [end]
    assert np.array_equal(*load()(["A  Photo\n", "a photo"]))


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ([], r"\['tokenizer.json', 'vocab.json', 'merges.txt'\], found \[\]"),
        (["vocab.json"], r"\['tokenizer.json', 'merges.txt'\], found \['vocab.json'\]"),
    ],
)
def test_missing_files_of_a_tokeniser_are_listed(tmp_path, present, missing):
    for name in present:
        shutil.copy(DATA / name, tmp_path / name)
    with pytest.raises(FileNotFoundError, match=f"E346.*{missing}"):
        zero_shot.load_tokenizer(tmp_path)


def test_loading_a_tokeniser_needs_no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert zero_shot.load_tokenizer(DATA, 28, 535)(["cat"]).shape == (1, 28)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="E346.*gone.*no such folder"):
        zero_shot.load_tokenizer(tmp_path / "gone")


def test_ids_beyond_the_vocabulary_are_refused():
    with pytest.raises(ValueError, match="E341.*gives the id 534 .*has 500 tokens"):
        zero_shot.load_tokenizer(DATA, 28, 500)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json"])
def test_a_damaged_tokeniser_is_named(tmp_path, name):
    for other in PAIR if name in PAIR else [name]:
        shutil.copy(DATA / other, tmp_path / other)
    (tmp_path / name).write_bytes((DATA / name).read_bytes()[:1000])
    with pytest.raises(ValueError, match="E347.*tokeniser cannot be read"):
        zero_shot.load_tokenizer(tmp_path, 28)
