"""BERT, RoBERTa and GPT-2: what holds for every family of text encoders."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax import tree
from adarank_jax.models import bert, gpt2, language, roberta
from tests import helpers
from tests.models import language_oracle

TINY = {
    "bert": bert.variant("bert-tiny"),
    "roberta": roberta.variant("roberta-tiny"),
    "gpt2": gpt2.variant("gpt2-tiny"),
}
SIZES = (
    # family, config, parameters, tensors, decomposed matrices
    ("bert", bert.variant("bert-base-uncased"), 109_482_240, 199, 73),
    ("bert", bert.variant("minilm-l6"), 22_713_216, 103, 37),
    ("roberta", roberta.variant("roberta-base"), 124_055_040, 197, 72),
    ("gpt2", gpt2.variant("gpt2"), 124_439_808, 148, 48),
)
MASK_LOGITS = (
    # family, config, tasks, mask logits
    ("roberta", roberta.variant("roberta-base"), 7, 387_072),
    ("gpt2", gpt2.variant("gpt2"), 7, 258_048),
    ("bert", bert.variant("bert-base-uncased"), 7, 7 * 73 * 768),
)
PATHS = (
    # family, path, is merged, is decomposed
    ("bert", "embeddings/word_embeddings/embedding", False, False),
    ("bert", "embeddings/LayerNorm/scale", False, False),
    ("bert", "encoder/layer_0/attention/self/query/kernel", True, True),
    ("bert", "encoder/layer_0/attention/output/LayerNorm/scale", True, False),
    ("bert", "pooler/dense/kernel", True, True),
    ("bert", "pooler/dense/bias", True, False),
    ("roberta", "embeddings/token_type_embeddings/embedding", False, False),
    ("roberta", "embeddings/position_embeddings/embedding", False, False),
    ("roberta", "embeddings/LayerNorm/bias", False, False),
    ("roberta", "encoder/layer_1/attention/output/dense/kernel", True, True),
    ("roberta", "encoder/layer_1/intermediate/dense/kernel", True, True),
    ("roberta", "encoder/layer_1/output/dense/kernel", True, True),
    ("roberta", "encoder/layer_1/output/dense/bias", True, False),
    ("gpt2", "wte/embedding", False, False),
    ("gpt2", "wpe/embedding", False, False),
    ("gpt2", "h_0/attn/c_attn/kernel", True, True),
    ("gpt2", "h_1/mlp/c_proj/kernel", True, True),
    ("gpt2", "h_1/ln_2/scale", True, False),
    ("gpt2", "ln_f/bias", True, False),
)
CHANGES = (
    # what the recorded models are not, case
    ({"activation": "relu"}, "bert"),
    ({"activation": "gelu"}, "bert_other"),
    ({"layer_norm_epsilon": 1e-5}, "bert_other"),
    ({"layer_norm_epsilon": 1e-5}, "roberta_other"),
    ({"padding_id": 0}, "roberta"),
    ({"layer_norm_epsilon": 1e-5}, "gpt2_other"),
    ({"activation": "relu"}, "gpt2_other"),
    ({"num_heads": 2}, "gpt2"),
)


@functools.cache
def encoder_shapes(family, config):
    """Returns the parameter shapes of an encoder by path, without making arrays."""
    field = jax.ShapeDtypeStruct((1, 4), "i4")
    inputs = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), field)
    module = language.FAMILIES[family].module_class(config)
    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)
    return tree.flatten(shapes["params"])


@functools.cache
def tiny(family):
    """Returns a tiny encoder, its random parameters and three texts."""
    flat = encoder_shapes(family, TINY[family])
    drawn = helpers.params(1, {path: leaf.shape for path, leaf in flat.items()})
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * leaf), drawn)
    module = language.FAMILIES[family].module_class(TINY[family])
    return jax.jit(module.apply), {"params": params}, texts(TINY[family])


def texts(config):
    """Returns texts of 8, 5 and 2 tokens, the first a pair."""
    ids = np.random.default_rng(0).integers(5, 60, (3, 8)).astype(np.int32)
    mask = np.int32([[1] * 8, [1] * 5 + [0] * 3, [1] * 2 + [0] * 6])
    types = np.zeros_like(ids)
    if getattr(config, "num_token_types", 1) == 2:
        types[0, 3:] = 1
    ids = np.where(mask, ids, getattr(config, "padding_id", 0))
    return as_jax(input_ids=ids, attention_mask=mask, token_type_ids=types)


def as_jax(**fields):
    """Returns a batch of texts on the device."""
    return {name: jnp.asarray(x, jnp.int32) for name, x in fields.items()}


def run(case, **changes):
    """Returns the features and the logits of a recorded classifier."""
    recording = language_oracle.recording(case)
    family = language.family(recording.config["model_type"])
    params, head = language_oracle.params(recording.state, family.name)
    module = family.module_class(language_oracle.config(recording.config, **changes))
    features = jax.jit(module.apply)({"params": params}, as_jax(**recording.inputs))
    return features, family.classify(features, head)


@pytest.mark.parametrize(("family", "config", "count", "tensors", "matrices"), SIZES)
def test_encoders_have_the_published_sizes(family, config, count, tensors, matrices):
    flat = encoder_shapes(family, config)
    decomposed = language.FAMILIES[family].is_decomposed
    assert tree.num_parameters(flat) == count
    assert len(flat) == tensors
    assert sum(decomposed(path, leaf) for path, leaf in flat.items()) == matrices


@pytest.mark.parametrize(("family", "config", "tasks", "count"), MASK_LOGITS)
def test_is_decomposed_gives_the_number_of_mask_logits(family, config, tasks, count):
    ranks = [
        min(leaf.shape)
        for path, leaf in encoder_shapes(family, config).items()
        if language.FAMILIES[family].is_decomposed(path, leaf)
    ]
    assert tasks * sum(ranks) == count


@pytest.mark.parametrize(("family", "path", "merged", "decomposed"), PATHS)
def test_families_say_what_becomes_of_a_tensor(family, path, merged, decomposed):
    leaf = encoder_shapes(family, TINY[family])[path]
    assert language.FAMILIES[family].is_merged(path, leaf) == merged
    assert language.FAMILIES[family].is_decomposed(path, leaf) == decomposed


@pytest.mark.parametrize("family", language.FAMILIES)
def test_families_decompose_nothing_that_is_not_merged(family):
    found = language.FAMILIES[family]
    for path, leaf in encoder_shapes(family, TINY[family]).items():
        assert found.is_merged(path, leaf) or not found.is_decomposed(path, leaf)


@pytest.mark.parametrize("case", language_oracle.CASES)
def test_encoders_have_the_tensors_of_the_checkpoint(case):
    recording = language_oracle.recording(case)
    family = recording.config["model_type"]
    params, _ = language_oracle.params(recording.state, family)
    ours = encoder_shapes(family, language_oracle.config(recording.config))
    tree.check_same(tree.unflatten(ours), params, ("ours", "theirs"))


@pytest.mark.parametrize("case", language_oracle.CASES)
def test_encoders_agree_with_torch(case):
    ours, theirs = run(case)[0], language_oracle.recording(case).features
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert helpers.relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize("case", language_oracle.CASES)
def test_classifiers_agree_with_torch(case):
    ours, theirs = run(case)[1], language_oracle.recording(case).logits
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert helpers.relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize(("change", "case"), CHANGES)
def test_encoders_depend_on_their_config(change, case):
    theirs = language_oracle.recording(case).features
    assert helpers.relative_error(run(case, **change)[0], theirs) > 1e-4


@pytest.mark.parametrize("family", TINY)
def test_encoders_return_finite_features_one_a_text(family):
    apply, variables, inputs = tiny(family)
    features = apply(variables, inputs)
    chex.assert_shape(features, (3, TINY[family].width))
    chex.assert_tree_all_finite(features)


@pytest.mark.parametrize("family", TINY)
def test_encoders_do_the_same_without_jit(family):
    apply, variables, inputs = tiny(family)
    module = language.FAMILIES[family].module_class(TINY[family])
    plain = module.apply(variables, inputs)
    np.testing.assert_allclose(apply(variables, inputs), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", TINY)
def test_encoders_take_any_amount_of_padding(family):
    apply, variables, inputs = tiny(family)
    padding = {"input_ids": getattr(TINY[family], "padding_id", 0)}
    longer = {
        name: jnp.pad(x, ((0, 0), (0, 7)), constant_values=padding.get(name, 0))
        for name, x in inputs.items()
    }
    ours, theirs = apply(variables, longer), apply(variables, inputs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", TINY)
def test_encoders_do_not_see_what_the_padding_holds(family):
    apply, variables, inputs = tiny(family)
    # RoBERTa counts its positions by the padding id, but those of the tokens stay.
    other = jnp.where(inputs["attention_mask"] == 1, inputs["input_ids"], 17)
    ours = apply(variables, inputs | {"input_ids": other})
    np.testing.assert_allclose(ours, apply(variables, inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", TINY)
def test_encoders_take_every_text_by_itself(family):
    apply, variables, inputs = tiny(family)
    alone = {name: jnp.tile(x[1:2], (3, 1)) for name, x in inputs.items()}
    ours, theirs = apply(variables, alone)[0], apply(variables, inputs)[1]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", TINY)
def test_encoders_are_moved_by_the_mask(family):
    apply, variables, inputs = tiny(family)
    whole = inputs | {"attention_mask": jnp.ones_like(inputs["attention_mask"])}
    moved = jnp.abs(apply(variables, whole) - apply(variables, inputs)).max(axis=1)
    assert moved[0] == 0.0
    assert moved[1:].min() > 1e-3


@pytest.mark.parametrize("family", TINY)
def test_encoders_stay_finite_on_rows_of_padding(family):
    apply, variables, inputs = tiny(family)
    some = {name: x.at[1].set(0) for name, x in inputs.items()}

    def loss(variables):
        return (apply(variables, some) ** 2).sum()

    features, gradient = apply(variables, some), jax.grad(loss)(variables)
    chex.assert_tree_all_finite((features, gradient))
    expected = apply(variables, inputs)
    kept = jnp.array([0, 2])
    np.testing.assert_allclose(features[kept], expected[kept], rtol=0, atol=1e-5)


def test_bert_tells_the_two_texts_of_a_pair_apart():
    apply, variables, inputs = tiny("bert")
    one = inputs | {"token_type_ids": jnp.zeros_like(inputs["token_type_ids"])}
    moved = jnp.abs(apply(variables, one) - apply(variables, inputs)).max(axis=1)
    assert moved[0] > 1e-3
    assert moved[1:].max() == 0.0


@pytest.mark.parametrize("family", ("roberta", "gpt2"))
def test_encoders_without_types_do_not_read_them(family):
    apply, variables, inputs = tiny(family)
    types = {"token_type_ids": jnp.ones_like(inputs["token_type_ids"])}
    chex.assert_trees_all_equal(
        apply(variables, inputs | types), apply(variables, inputs)
    )


@pytest.mark.parametrize("name", language.FAMILIES)
def test_family_returns_the_table_entry(name):
    assert language.family(name) is language.FAMILIES[name]
    assert language.family(name).name == name


def test_family_names_the_nearest():
    with pytest.raises(KeyError, match="did you mean 'roberta'"):
        language.family("xlm-roberta")
