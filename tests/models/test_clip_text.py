"""The text tower of CLIP."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax import tree
from adarank_jax.models import clip_text, clip_vision, heads
from adarank_jax.models.clip_text import ClipText, ClipTextConfig
from adarank_jax.models.clip_vision import ClipVision
from tests import helpers
from tests.models import clip_oracle

CHANGES = (
    # what the recorded models are not, case
    ({"activation": "gelu"}, "quick_gelu"),
    ({"activation": "quick_gelu"}, "gelu"),
    ({"layer_norm_epsilon": 1e-5}, "gelu"),
    ({"pooling": "argmax"}, "gelu"),
)
NEAREST = (("ViT-L-14", "vit-l-14"), ("vit-b32", "vit-b-32"))
TINY = clip_text.VARIANTS["vit-tiny-8"]
TOTALS = (
    # variant, parameters of both towers and the logit scale
    ("vit-b-32", 151_277_313),
    ("vit-b-16", 149_620_737),
    ("vit-l-14", 427_616_513),
)
WRONG_FIELDS = (
    # field, value, message
    ("vocabulary_size", 0, "`vocabulary_size` must be a whole number above zero"),
    ("context_length", 0, "`context_length` must be a whole number above zero"),
    ("num_heads", 7, "`num_heads` must divide `width`, got 7 and 24"),
    ("activation", "relu", "must be one of 'quick_gelu', 'gelu', got 'relu'"),
    ("pooling", "last", "must be one of 'argmax', 'end_token', got 'last'"),
    ("pooling", "end_token", "must be a token id, 0 to 63, got 49407"),
)
WRONG_TOKENS = (
    # tokens, message
    (np.ones((2, 13), int), r"shape \(batch, context\) .* 1 to 12, got \(2, 13\)"),
    (np.ones((2, 0), int), r"shape \(batch, context\) .* 1 to 12, got \(2, 0\)"),
    (np.ones(12, int), r"shape \(batch, context\) .* 1 to 12, got \(12,\)"),
    (np.ones((2, 12)), "must be whole numbers, got float64"),
    (np.array([[1, 2], [3, -1]]), "0 to 63, got -1 at position 1 of text 1"),
    (np.array([[64, 65], [3, 1]]), r"0 to 63, got 64 .* text 0 \(2 such in all\)"),
)


@functools.cache
def shapes(config):
    """Returns the parameter shapes of a tower, without making the arrays."""
    tokens = jax.ShapeDtypeStruct((1, config.context_length), "i4")
    return jax.eval_shape(ClipText(config).init, jax.random.key(0), tokens)["params"]


def embed(case, qkv="fused", tokens=None, **changes):
    """Embeds texts with recorded parameters."""
    recording = clip_oracle.recording(case)
    config = clip_oracle.text_config(recording.config, qkv=qkv, **changes)
    variables = {"params": clip_oracle.params(recording.state, "text", qkv)}
    tokens = recording.tokens if tokens is None else tokens
    return jax.jit(ClipText(config).apply)(variables, jnp.asarray(tokens))


def formula(c):
    """Counts the parameters of a text tower."""
    norm = 2 * c.width
    attention = 4 * c.width**2 + 4 * c.width
    mlp = 8 * c.width**2 + 5 * c.width
    embeddings = (c.vocabulary_size + c.context_length) * c.width
    blocks = c.num_layers * (2 * norm + attention + mlp)
    return embeddings + blocks + norm + c.width * c.output_size


@pytest.mark.parametrize("qkv", clip_oracle.LAYOUTS)
@pytest.mark.parametrize("case", clip_oracle.CASES)
def test_clip_text_agrees_with_torch(case, qkv):
    ours = embed(case, qkv)
    theirs = clip_oracle.recording(case).outputs["text_embeds"]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert helpers.relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize(("change", "case"), CHANGES)
def test_clip_text_depends_on_its_config(change, case):
    theirs = clip_oracle.recording(case).outputs["text_embeds"]
    assert helpers.relative_error(embed(case, **change), theirs) > 1e-3


@pytest.mark.parametrize("case", clip_oracle.CASES)
def test_zero_shot_logits_agree_with_torch(case):
    recording = clip_oracle.recording(case)
    config = clip_oracle.vision_config(recording.config)
    params = clip_oracle.params(recording.state, "vision", "fused")
    images = jnp.asarray(recording.images)
    features = jax.jit(ClipVision(config).apply)({"params": params}, images)
    head = heads.zero_shot_head(
        list(embed(case)[:, None]), clip_oracle.logit_scale(recording.state)
    )
    theirs = recording.outputs["logits_per_image"]
    ours = heads.cosine_logits(features, head)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "total"), TOTALS)
def test_both_towers_have_the_published_number_of_parameters(name, total):
    vision = clip_vision.variant(name)
    image = jax.ShapeDtypeStruct((1, vision.image_size, vision.image_size, 3), "f4")
    params = jax.eval_shape(ClipVision(vision).init, jax.random.key(0), image)["params"]
    text = shapes(clip_text.variant(name))
    assert tree.num_parameters(params) + tree.num_parameters(text) + 1 == total


@pytest.mark.parametrize("qkv", clip_oracle.LAYOUTS)
@pytest.mark.parametrize("name", clip_text.VARIANTS)
def test_clip_text_has_the_number_of_parameters_of_the_formula(name, qkv):
    config = dataclasses.replace(clip_text.variant(name), qkv=qkv)
    assert tree.num_parameters(shapes(config)) == formula(config)


@pytest.mark.parametrize("name", clip_text.VARIANTS)
def test_clip_text_embeds_into_the_space_of_its_image_tower(name):
    images, texts = clip_vision.variant(name), clip_text.variant(name)
    assert texts.output_size == images.output_size


@pytest.mark.parametrize(("qkv", "matrices"), (("fused", 8), ("split", 12)))
def test_is_decomposed_holds_for_the_blocks_of_a_text_tower(qkv, matrices):
    flat = tree.flatten(shapes(dataclasses.replace(TINY, qkv=qkv)))
    found = [p for p, leaf in flat.items() if clip_vision.is_decomposed(p, leaf)]
    assert len(found) == matrices
    assert all(path.startswith("resblocks_") for path in found)


@pytest.mark.parametrize("case", clip_oracle.CASES)
def test_clip_text_ignores_what_follows_the_pooled_token(case):
    tokens = np.array(clip_oracle.recording(case).tokens[3:])
    assert list(tokens[0, 5:]) == [57, 9, 0, 0, 0]
    other = tokens.copy()
    other[0, 6:] = [0, 4, 4, 1]
    difference = embed(case, tokens=tokens) - embed(case, tokens=other)
    np.testing.assert_allclose(difference, 0.0, atol=1e-6)


@pytest.mark.parametrize("case", clip_oracle.CASES)
def test_clip_text_sees_all_before_the_pooled_token(case):
    tokens = np.tile(clip_oracle.recording(case).tokens[3], (6, 1))
    np.fill_diagonal(tokens[:5, :5], 33)
    features = embed(case, tokens=tokens)
    differences = jnp.abs(features[:5] - features[5:]).max(axis=1)
    assert (differences > 1e-3).all()


@pytest.mark.parametrize("case", clip_oracle.CASES)
def test_clip_text_takes_texts_cut_after_the_pooled_token(case):
    tokens = np.array(clip_oracle.recording(case).tokens[3:])
    cut = embed(case, tokens=tokens[:, :6])
    np.testing.assert_allclose(cut, embed(case, tokens=tokens), rtol=0, atol=1e-5)


def test_clip_text_refuses_longer_texts_than_it_has_positions():
    with pytest.raises(ValueError, match=r"context of 1 to 10, got \(4, 11\)"):
        embed("gelu", tokens=np.ones((4, 11), np.int32))


@pytest.mark.parametrize(("field", "value", "message"), WRONG_FIELDS)
def test_clip_text_config_refuses_a_wrong_field(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **{field: value})


def test_clip_text_config_lists_all_problems():
    with pytest.raises(ValueError, match="ClipTextConfig .* these 3 first"):
        ClipTextConfig(64, 12, 24, 2, 7, 24, pooling="end_token", end_token=64, qkv="")


@pytest.mark.parametrize(("tokens", "message"), WRONG_TOKENS)
def test_check_tokens_refuses_what_the_tower_cannot_embed(tokens, message):
    with pytest.raises(ValueError, match=message):
        clip_text.check_tokens(tokens, TINY)


def test_check_tokens_refuses_texts_without_the_end_token():
    config = dataclasses.replace(TINY, pooling="end_token", end_token=63)
    tokens = np.array([[1, 63], [1, 62], [63, 0], [0, 0]])
    with pytest.raises(ValueError, match="E340.*end token 63 .* 2 without, .* text 1;"):
        clip_text.check_tokens(tokens, config)


@pytest.mark.parametrize("dtype", (np.int64, np.int32, np.uint16))
def test_check_tokens_accepts_every_id_of_the_vocabulary(dtype):
    clip_text.check_tokens(np.arange(60, dtype=dtype).reshape(5, 12) + 4, TINY)
    clip_text.check_tokens(np.zeros((1, 1), dtype), TINY)


@pytest.mark.parametrize("name", clip_text.VARIANTS)
def test_variant_returns_the_table_entry(name):
    assert clip_text.variant(name) == clip_text.VARIANTS[name]


@pytest.mark.parametrize(("name", "nearest"), NEAREST)
def test_variant_names_the_nearest(name, nearest):
    with pytest.raises(KeyError, match=f"got '{name}'; did you mean '{nearest}'"):
        clip_text.variant(name)
