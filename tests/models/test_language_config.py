"""Sizes of text encoders that are refused, and names that are looked up."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax.models import bert, gpt2, roberta

MODULES = (bert, roberta, gpt2)
TINY = {
    "bert": bert.variant("bert-tiny"),
    "roberta": roberta.variant("roberta-tiny"),
    "gpt2": gpt2.variant("gpt2-tiny"),
}
WRONG_FIELDS = (
    # field, value, message
    (
        "vocabulary_size",
        0,
        "`vocabulary_size` must be a whole number above zero, got 0",
    ),
    ("width", -32, "`width` must be a whole number above zero, got -32"),
    ("num_layers", True, "`num_layers` must be a whole number above zero, got True"),
    ("num_heads", 5, "`num_heads` must divide `width`, got 5 and 32"),
    ("mlp_width", 0, "`mlp_width` must be a whole number above zero, got 0"),
    ("max_positions", -1, "`max_positions` must be a whole number above zero, got -1"),
    ("activation", "gelu_10", "`activation` must be one of .*'relu'.*, got 'gelu_10'"),
    ("layer_norm_epsilon", 0.0, "`layer_norm_epsilon` must be above zero, got 0.0"),
)
WRONG_PADDING = (
    # padding id, message
    (-1, "`padding_id` must be a token id, 0 to 22 .*, got -1"),
    (23, "`padding_id` must be a token id, 0 to 22 .*, got 23"),
    (59, "`padding_id` must be a token id, 0 to 22 .*, got 59"),
)
NEAREST = (
    # module, wrong name, nearest
    (bert, "bert-base", "bert-base-uncased"),
    (bert, "MiniLM-L6", "minilm-l6"),
    (roberta, "roberta-bass", "roberta-base"),
    (gpt2, "gpt-2", "gpt2"),
)
NAMES = [(module, name) for module in MODULES for name in module.VARIANTS]
POSITIONS = (
    # ids, padding id, positions
    ([0, 8, 9, 1, 1], 1, [2, 3, 4, 1, 1]),
    ([1, 1, 0, 8, 2], 1, [1, 1, 2, 3, 4]),
    ([0, 1, 9, 2, 1], 1, [2, 1, 3, 4, 1]),
    ([0, 0, 0, 0, 0], 1, [2, 3, 4, 5, 6]),
    ([0, 0, 4, 4, 0], 0, [0, 0, 1, 2, 0]),
)
LAST = (
    # attention mask, last token
    ([1, 1, 1, 1], 3),
    ([1, 0, 0, 0], 0),
    ([1, 1, 0, 0], 1),
    ([0, 0, 1, 1], 3),
    ([0, 1, 1, 0], 2),
    ([0, 0, 0, 0], 0),
)


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize(("field", "value", "message"), WRONG_FIELDS)
def test_configs_refuse_a_wrong_field(family, field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY[family], **{field: value})


@pytest.mark.parametrize("family", ("bert", "roberta"))
def test_configs_refuse_no_token_types(family):
    with pytest.raises(ValueError, match="`num_token_types` must be .*, got 0"):
        dataclasses.replace(TINY[family], num_token_types=0)


@pytest.mark.parametrize(("padding_id", "message"), WRONG_PADDING)
def test_roberta_config_refuses_a_wrong_padding_id(padding_id, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY["roberta"], padding_id=padding_id)


def test_configs_list_all_problems():
    wrong = {"num_layers": 0, "padding_id": -1, "activation": "swish"}
    with pytest.raises(ValueError, match="RobertaConfig .* these 3 first") as error:
        dataclasses.replace(TINY["roberta"], **wrong)
    fields = [line.split("`")[1] for line in str(error.value).splitlines()[1:]]
    assert fields == list(
        sorted(fields, key=["num_layers", "activation", "padding_id"].index)
    )


@pytest.mark.parametrize(
    ("family", "count"), (("bert", 24), ("roberta", 22), ("gpt2", 24))
)
def test_configs_know_the_longest_text(family, count):
    assert TINY[family].max_tokens == count


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_variant_returns_the_table_entry(module, name):
    assert module.variant(name) == module.VARIANTS[name]


@pytest.mark.parametrize(("module", "name", "nearest"), NEAREST)
def test_variant_names_the_nearest(module, name, nearest):
    with pytest.raises(KeyError, match=f"got '{name}'; did you mean '{nearest}'"):
        module.variant(name)


@pytest.mark.parametrize(("ids", "padding_id", "expected"), POSITIONS)
def test_positions_count_what_is_no_padding(ids, padding_id, expected):
    found = roberta.positions(jnp.asarray([ids]), padding_id)
    np.testing.assert_array_equal(found, [expected])


@pytest.mark.parametrize(("mask", "expected"), LAST)
def test_last_token_is_found_by_the_mask(mask, expected):
    assert gpt2.last_token(jnp.asarray([mask])) == expected
