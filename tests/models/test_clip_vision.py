"""The image tower of CLIP."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax import tree
from adarank_jax.models import clip_vision
from adarank_jax.models.clip_vision import ClipVision, ClipVisionConfig
from tests import helpers
from tests.models import clip_oracle

COUNTS = (
    # variant, parameters, tensors, decomposed matrices
    ("vit-b-32", 87_849_216, 152, 48),
    ("vit-b-16", 86_192_640, 152, 48),
    ("vit-l-14", 303_966_208, 296, 96),
    ("vit-small-8", 943_104, 32, 8),
)
MASK_LOGITS = (
    # variant, tasks, mask logits
    ("vit-b-32", 8, 294_912),
    ("vit-b-32", 14, 516_096),
    ("vit-b-32", 20, 737_280),
    ("vit-l-14", 8, 786_432),
    ("vit-l-14", 14, 1_376_256),
    ("vit-l-14", 20, 1_966_080),
)
POOLED = (
    # pooling, recorded under
    ("class_token", "image_embeds"),
    ("average", "average_embeds"),
)
CHANGES = (
    # what the recorded models are not, case
    ({"activation": "gelu"}, "quick_gelu"),
    ({"activation": "quick_gelu"}, "gelu"),
    ({"layer_norm_epsilon": 1e-5}, "gelu"),
    ({"pooling": "average"}, "gelu"),
)
NEAREST = (
    # wrong name, nearest
    ("ViT-B-32", "vit-b-32"),
    ("vit-l14", "vit-l-14"),
    ("vit-smal-8", "vit-small-8"),
)
PATHS = (
    # path, is decomposed
    ("resblocks_0/attn/in_proj/kernel", True),
    ("resblocks_1/attn/out_proj/kernel", True),
    ("resblocks_0/mlp/c_fc/kernel", True),
    ("resblocks_1/mlp/c_proj/kernel", True),
    ("resblocks_0/attn/in_proj/bias", False),
    ("resblocks_0/mlp/c_proj/bias", False),
    ("resblocks_0/ln_1/scale", False),
    ("conv1/kernel", False),
    ("class_embedding", False),
    ("positional_embedding", False),
    ("proj", False),
)
TINY = clip_vision.VARIANTS["vit-tiny-8"]
WRONG_FIELDS = (
    # field, value, message
    ("image_size", 0, "`image_size` must be a whole number above zero, got 0"),
    ("patch_size", -8, "`patch_size` must be a whole number above zero, got -8"),
    ("num_layers", True, "`num_layers` must be a whole number above zero, got True"),
    ("num_heads", 0, "`num_heads` must be a whole number above zero, got 0"),
    ("mlp_width", 0, "`mlp_width` must be a whole number above zero, got 0"),
    ("layer_norm_epsilon", 0.0, "`layer_norm_epsilon` must be above zero, got 0.0"),
    ("layer_norm_epsilon", float("nan"), "must be above zero, got nan"),
    ("activation", "relu", "must be one of 'quick_gelu', 'gelu', got 'relu'"),
    ("qkv", "joined", "`qkv` must be one of 'fused', 'split', got 'joined'"),
    ("pooling", "argmax", "must be one of 'class_token', 'average', got 'argmax'"),
)
WRONG_SIZES = ((2, 8, 8, 3), (2, 32, 8, 3), (2, 64, 64, 3))


@functools.cache
def shapes(name, qkv="fused"):
    """Returns the parameter shapes of a variant, without making the arrays."""
    config = dataclasses.replace(clip_vision.variant(name), qkv=qkv)
    image = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), "f4")
    model = ClipVision(config)
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


@functools.cache
def tiny():
    """Returns a tiny model, random parameters and four images."""
    flat = tree.flatten(shapes("vit-tiny-8"))
    drawn = helpers.params(1, {path: leaf.shape for path, leaf in flat.items()})
    params = jax.tree.map(lambda leaf: jnp.asarray(0.2 * leaf), drawn)
    images = jnp.asarray(helpers.matrix(0, 4, 32, 32, 3))
    return jax.jit(ClipVision(TINY).apply), {"params": params}, images


def embed(case, qkv="fused", **changes):
    """Embeds the recorded images with the recorded parameters."""
    recording = clip_oracle.recording(case)
    config = clip_oracle.vision_config(recording.config, qkv=qkv, **changes)
    variables = {"params": clip_oracle.params(recording.state, "vision", qkv)}
    return jax.jit(ClipVision(config).apply)(variables, jnp.asarray(recording.images))


def formula(c):
    """Counts the parameters of an image tower."""
    norm = 2 * c.width
    patches = 3 * c.patch_size**2 * c.width
    positions = c.width + (c.num_patches + 1) * c.width
    attention = 4 * c.width**2 + 4 * c.width
    mlp = 8 * c.width**2 + 5 * c.width
    block = 2 * norm + attention + mlp
    projection = c.width * c.output_size
    return patches + positions + 2 * norm + c.num_layers * block + projection


@pytest.mark.parametrize(("name", "count", "tensors", "matrices"), COUNTS)
def test_clip_vision_has_the_published_number_of_parameters(
    name, count, tensors, matrices
):
    assert tree.num_parameters(shapes(name)) == count


@pytest.mark.parametrize("name", clip_vision.VARIANTS)
def test_clip_vision_has_the_number_of_parameters_of_the_formula(name):
    assert tree.num_parameters(shapes(name)) == formula(clip_vision.variant(name))


@pytest.mark.parametrize(("name", "count", "tensors", "matrices"), COUNTS)
def test_clip_vision_has_the_tensors_of_the_checkpoint(name, count, tensors, matrices):
    assert len(tree.flatten(shapes(name))) == tensors


@pytest.mark.parametrize(("name", "count", "tensors", "matrices"), COUNTS)
def test_is_decomposed_names_four_matrices_a_block(name, count, tensors, matrices):
    flat = tree.flatten(shapes(name))
    found = [
        path for path, leaf in flat.items() if clip_vision.is_decomposed(path, leaf)
    ]
    assert len(found) == matrices


@pytest.mark.parametrize(("name", "tasks", "count"), MASK_LOGITS)
def test_is_decomposed_gives_the_published_number_of_mask_logits(name, tasks, count):
    ranks = [
        min(leaf.shape)
        for path, leaf in tree.flatten(shapes(name)).items()
        if clip_vision.is_decomposed(path, leaf)
    ]
    assert tasks * sum(ranks) == count


@pytest.mark.parametrize(("name", "count"), (("vit-b-32", 442_368),))
def test_is_decomposed_names_six_matrices_a_split_block(name, count):
    ranks = [
        min(leaf.shape)
        for path, leaf in tree.flatten(shapes(name, "split")).items()
        if clip_vision.is_decomposed(path, leaf)
    ]
    assert len(ranks) == 6 * clip_vision.variant(name).num_layers
    assert 8 * sum(ranks) == count


@pytest.mark.parametrize("name", ("vit-b-32", "vit-l-14"))
def test_clip_vision_has_as_many_parameters_split(name):
    split, fused = shapes(name, "split"), shapes(name)
    assert tree.num_parameters(split) == tree.num_parameters(fused)


@pytest.mark.parametrize("qkv", clip_oracle.LAYOUTS)
@pytest.mark.parametrize(("pooling", "recorded"), POOLED)
@pytest.mark.parametrize("case", clip_oracle.CASES)
def test_clip_vision_agrees_with_torch(case, pooling, recorded, qkv):
    ours = embed(case, qkv, pooling=pooling)
    theirs = clip_oracle.recording(case).outputs[recorded]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert helpers.relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize(("change", "case"), CHANGES)
def test_clip_vision_depends_on_its_config(change, case):
    theirs = clip_oracle.recording(case).outputs["image_embeds"]
    assert helpers.relative_error(embed(case, **change), theirs) > 1e-3


@pytest.mark.parametrize(("path", "decomposed"), PATHS)
def test_is_decomposed_holds_for_attention_and_mlp_kernels(path, decomposed):
    leaf = tree.flatten(shapes("vit-tiny-8"))[path]
    assert clip_vision.is_decomposed(path, leaf) == decomposed


@pytest.mark.parametrize("name", clip_vision.VARIANTS)
def test_variant_returns_the_table_entry(name):
    assert clip_vision.variant(name) == clip_vision.VARIANTS[name]


@pytest.mark.parametrize(("name", "nearest"), NEAREST)
def test_variant_names_the_nearest(name, nearest):
    with pytest.raises(KeyError, match=f"got '{name}'; did you mean '{nearest}'"):
        clip_vision.variant(name)


def test_variant_refuses_an_empty_name():
    with pytest.raises(KeyError, match="`name` must be one of"):
        clip_vision.variant("")


def test_clip_vision_config_refuses_patches_that_do_not_tile():
    with pytest.raises(ValueError, match="multiple of `patch_size`, got 224 and 30"):
        ClipVisionConfig(224, 30, 768, 12, 12, 512)


def test_clip_vision_config_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="must divide `width`, got 7 and 768"):
        ClipVisionConfig(224, 32, 768, 12, 7, 512)


@pytest.mark.parametrize(("field", "value", "message"), WRONG_FIELDS)
def test_clip_vision_config_refuses_a_wrong_field(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **{field: value})


def test_clip_vision_config_lists_all_problems():
    with pytest.raises(ValueError, match="ClipVisionConfig .* these 4 first") as error:
        ClipVisionConfig(224, 30, 768, 0, 7, 512, qkv="both")
    lines = str(error.value).splitlines()[1:]
    fields = [line.split("`")[1] for line in lines]
    assert sorted(fields) == ["image_size", "num_heads", "num_layers", "qkv"]


@pytest.mark.parametrize(("size", "patch", "count"), ((224, 32, 49), (224, 14, 256)))
def test_clip_vision_config_counts_patches(size, patch, count):
    config = dataclasses.replace(TINY, image_size=size, patch_size=patch)
    assert config.num_patches == count


def test_clip_vision_starts_from_finite_parameters():
    images = jnp.zeros((1, 32, 32, 3))
    config = dataclasses.replace(TINY, num_layers=1)
    variables = jax.jit(ClipVision(config).init)(jax.random.key(0), images)
    chex.assert_tree_all_finite(variables)


def test_clip_vision_returns_one_embedding_an_image():
    apply, variables, images = tiny()
    chex.assert_shape(apply(variables, images), (4, TINY.output_size))


def test_clip_vision_embeds_every_image_by_itself():
    apply, variables, images = tiny()
    together = apply(variables, images)
    alone = apply(variables, jnp.tile(images[2:3], (4, 1, 1, 1)))
    np.testing.assert_allclose(together[2], alone[0], rtol=0, atol=1e-5)


def test_clip_vision_tells_patches_apart():
    apply, variables, images = tiny()
    moved = jnp.roll(images, TINY.patch_size, axis=1)
    features = apply(variables, images)
    difference = jnp.abs(features - apply(variables, moved)).max()
    assert difference > 1e-4 * jnp.abs(features).max()


@pytest.mark.parametrize("shape", WRONG_SIZES)
def test_clip_vision_refuses_images_of_another_size(shape):
    apply, variables, _ = tiny()
    with pytest.raises(ValueError, match=r"shape \(batch, 32, 32, 3\), got"):
        apply(variables, jnp.zeros(shape))


def test_clip_vision_traces_once_for_two_calls():
    _, variables, images = tiny()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def apply(variables, images):
        return ClipVision(TINY).apply(variables, images)

    apply(variables, images)
    apply(jax.tree.map(jnp.zeros_like, variables), images)
