"""What every encoder of texts takes, and the checks of it.

A batch of texts is a dict of three int32 arrays, ``(batch, tokens)``: `input_ids`,
`attention_mask` (1 at tokens, 0 at padding) and `token_type_ids` (0 in the first text
of a pair, 1 in the second; 0 where a family has no such types).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adarank_jax.models import transformer

FIELDS = ("input_ids", "attention_mask", "token_type_ids")
"""The arrays of a batch of texts."""


def problems(config: Any, counts: Sequence[str] = ()) -> list[str]:
    """Lists what is wrong with an encoder's config, one line a problem.

    Args:
        config: of an encoder of texts.
        counts: fields besides the shared ones that must be whole and above zero.
    """
    choices = {"activation": tuple(transformer.ACTIVATIONS)}
    return transformer.problems(config, [*_COUNTS, *counts], choices)


def checked_ids(inputs: Mapping[str, Any], config: Any) -> Any:
    """Returns the token ids of a batch, its names and shapes checked.

    Args:
        inputs: the batch, its arrays traced or not.
        config: of the encoder that takes it.

    Raises:
        KeyError: an array is missing.
        ValueError: an array has another shape than the token ids, or the texts have
            more tokens than the encoder has positions for.
    """
    missing = [name for name in FIELDS if name not in inputs]
    if missing:
        raise KeyError(
            f"`inputs` must have {', '.join(FIELDS)}, but lacks {', '.join(missing)}; "
            "make the batch with `data.tokens.tokenize`."
        )
    shape = np.shape(inputs["input_ids"])
    if len(shape) != 2 or not 0 < shape[1] <= config.max_tokens:
        raise ValueError(
            "`input_ids` must have shape (batch, tokens) with 1 to "
            f"{config.max_tokens} tokens, got {shape}; truncate longer texts."
        )
    for name in FIELDS:
        if np.shape(inputs[name]) != shape:
            raise ValueError(
                f"`{name}` must have the shape of `input_ids`, {shape}, got "
                f"{np.shape(inputs[name])}."
            )
    return inputs["input_ids"]


_COUNTS = (
    "vocabulary_size",
    "width",
    "num_layers",
    "num_heads",
    "mlp_width",
    "max_positions",
)
