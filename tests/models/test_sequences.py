"""What encoders of texts refuse to take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax.models import bert, gpt2, roberta, sequences

BERT, ROBERTA = bert.variant("bert-tiny"), roberta.variant("roberta-tiny")
GPT2 = gpt2.variant("gpt2-tiny")
MODULES = ((bert.Bert, BERT), (roberta.Roberta, ROBERTA), (gpt2.Gpt2, GPT2))
LIMITS = ((BERT, 24), (ROBERTA, 22), (GPT2, 24))


def batch(rows=2, tokens=4):
    """Returns texts of zeros."""
    return {name: np.zeros((rows, tokens), np.int32) for name in sequences.FIELDS}


@pytest.mark.parametrize("field", sequences.FIELDS)
def test_checked_ids_names_a_missing_array(field):
    inputs = batch()
    del inputs[field]
    with pytest.raises(KeyError, match=f"lacks {field}; make the batch"):
        sequences.checked_ids(inputs, BERT)


@pytest.mark.parametrize(("config", "limit"), LIMITS)
def test_checked_ids_knows_how_long_a_text_may_be(config, limit):
    sequences.checked_ids(batch(tokens=limit), config)
    message = rf"1 to {limit} tokens, got \(2, {limit + 1}\); truncate"
    with pytest.raises(ValueError, match=message):
        sequences.checked_ids(batch(tokens=limit + 1), config)


@pytest.mark.parametrize("shape", ((4,), (2, 0), (1, 2, 4)))
def test_checked_ids_refuses_what_is_no_batch(shape):
    inputs = {name: np.zeros(shape, np.int32) for name in sequences.FIELDS}
    with pytest.raises(ValueError, match="shape .batch, tokens. with 1 to 24 tokens"):
        sequences.checked_ids(inputs, BERT)


@pytest.mark.parametrize("field", ("attention_mask", "token_type_ids"))
def test_checked_ids_names_an_array_of_another_shape(field):
    inputs = batch() | {field: np.zeros((2, 5), np.int32)}
    message = rf"`{field}` must have the shape of `input_ids`, \(2, 4\), got \(2, 5\)"
    with pytest.raises(ValueError, match=message):
        sequences.checked_ids(inputs, BERT)


@pytest.mark.parametrize(("module", "config"), MODULES)
def test_encoders_refuse_texts_that_the_positions_do_not_cover(module, config):
    inputs = {name: jnp.asarray(x) for name, x in batch(tokens=25).items()}
    with pytest.raises(ValueError, match="truncate longer texts"):
        jax.eval_shape(module(config).init, jax.random.key(0), inputs)


@pytest.mark.parametrize(("module", "config"), MODULES)
def test_encoders_never_hide_an_id_past_the_table(module, config):
    inputs = {name: jnp.asarray(x) for name, x in batch(rows=1).items()}
    inputs["attention_mask"] = inputs["attention_mask"] + 1
    encoder = module(config)
    apply = jax.jit(encoder.apply)
    variables = jax.jit(encoder.init)(jax.random.key(0), inputs)
    wrong = inputs | {"input_ids": inputs["input_ids"].at[0, 1].set(60)}
    assert jnp.isfinite(apply(variables, inputs)).all()
    assert jnp.isnan(apply(variables, wrong)).all()
