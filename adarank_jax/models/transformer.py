"""What every transformer here is made of: attention, norms, activations, checks.

Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_, 2017.
Every kernel is 2-D, ``(inputs, outputs)``, because that is what AdaRank decomposes.
"""

import difflib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Config = TypeVar("Config")


def attend(
    query: Float[Array, "batch chosen width"],
    key: Float[Array, "batch tokens width"],
    value: Float[Array, "batch tokens width"],
    num_heads: int,
    mask: Bool[Array, "rows 1 queries tokens"] | None = None,
) -> Float[Array, "batch chosen width"]:
    """Mixes the values of the tokens that each query may see.

    Args:
        query: of all heads, side by side; one a token, or of some tokens only.
        key: of all heads and tokens.
        value: likewise.
        num_heads: divides the width.
        mask: True where a query (axis 2) may see a token (axis 3); an axis of length 1
            holds for all. None: every token sees every token. A query that may see none
            sees all, so that rows of nothing but padding stay finite.

    Returns:
        The heads' outputs, side by side.
    """
    batch, num_chosen, width = query.shape
    size = width // num_heads
    # Heads before tokens: the products are then plain batched ones, which on a CPU take
    # three quarters of the time of `jax.nn.dot_product_attention`.
    query, key, value = (
        rows.reshape(batch, -1, num_heads, size).swapaxes(1, 2)
        for rows in (query * size**-0.5, key, value)
    )
    scores = jnp.einsum(
        "bhqd,bhtd->bhqt", query, key, preferred_element_type=jnp.float32
    )
    if mask is not None:
        mask = mask | ~mask.any(axis=-1, keepdims=True)
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores).astype(value.dtype)
    x = jnp.einsum("bhqt,bhtd->bhqd", weights, value)
    return x.swapaxes(1, 2).reshape(batch, num_chosen, width)


class FusedProjection(nn.Module):
    """Query, key and value by one linear layer, its kernel `(width, 3 * width)`."""

    @nn.compact
    def __call__(
        self,
        chosen: Float[Array, "batch chosen width"],
        x: Float[Array, "batch tokens width"],
    ) -> Sequence[Array]:
        """Makes queries of the `chosen` tokens, keys and values of all."""
        width = x.shape[-1]
        shape = (width, 3 * width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[1:])[None, None]
        if chosen is x:
            return jnp.split(x @ kernel + bias, 3, axis=-1)
        query = chosen @ kernel[:, :width] + bias[..., :width]
        others = x @ kernel[:, width:] + bias[..., width:]
        return query, *jnp.split(others, 2, axis=-1)


Pick = Callable[
    [Float[Array, "batch tokens width"]], Float[Array, "batch chosen width"]
]
"""Takes the tokens that a block maps; all of them are still attended to.

The last block needs only the one that the features are made of.
"""


def every_token(
    x: Float[Array, "batch tokens width"],
) -> Float[Array, "batch tokens width"]:
    """Picks all tokens."""
    return x


def first_token(x: Float[Array, "batch tokens width"]) -> Float[Array, "batch 1 width"]:
    """Picks the first token, that of the class."""
    return x[:, :1]


def through_causal(
    blocks: Sequence[Callable[..., Array]],
    x: Float[Array, "batch tokens width"],
    mask: Bool[Array, "rows 1 tokens tokens"],
    places: Int[Array, " batch"],
) -> Float[Array, "batch width"]:
    """Maps texts to one token each, whose place differs from text to text.

    Args:
        blocks: of `(x, mask, pick)`, one behind the other.
        x: the tokens.
        mask: as for `attend`, its rows those of the tokens.
        places: of the tokens that are wanted.

    Returns:
        What the last block makes of those.
    """
    *others, final = blocks
    for block in others:
        x = block(x, mask)
    places = places[:, None, None]
    rows = jnp.take_along_axis(mask, places[..., None], axis=2)
    pick = functools.partial(jnp.take_along_axis, indices=places, axis=1)
    return final(x, rows, pick)[:, 0]


def padding_mask(
    attention_mask: Array,
) -> Bool[Array, "batch 1 1 tokens"]:
    """Lets every token see the tokens that are no padding (1 in `attention_mask`)."""
    return (attention_mask != 0)[:, None, None]


def causal_mask(num_tokens: int) -> Bool[Array, "1 1 tokens tokens"]:
    """Lets a token see itself and those before it."""
    return jnp.tri(num_tokens, dtype=bool)[None, None]


def layer_norm(config: Any, name: str) -> nn.LayerNorm:
    """Makes a layer norm with the config's epsilon."""
    return nn.LayerNorm(epsilon=config.layer_norm_epsilon, name=name)


def embed(config: Any, size: int, name: str) -> nn.Embed:
    """Makes a table of `size` vectors."""
    scale = nn.initializers.normal(0.02)
    return nn.Embed(size, config.width, embedding_init=scale, name=name)


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Approximates GELU by a scaled sigmoid, as OpenAI's models do."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Weighs entries by the normal distribution function, exactly as torch does."""
    return jax.nn.gelu(x, approximate=False)


def problems(
    config: Any, counts: Sequence[str], choices: Mapping[str, Sequence[str]]
) -> list[str]:
    """Lists what is wrong with a transformer's config, one line a problem.

    Args:
        config: has `width`, `num_heads` and `layer_norm_epsilon`.
        counts: fields that must be whole and above zero.
        choices: by field, the values that it may have.
    """
    lines = [
        f"`{name}` must be a whole number above zero, got {getattr(config, name)!r}."
        for name in counts
        if not is_count(getattr(config, name))
    ]
    width, heads = config.width, config.num_heads
    if is_count(width) and is_count(heads) and width % heads:
        lines.append(f"`num_heads` must divide `width`, got {heads} and {width}.")
    epsilon = config.layer_norm_epsilon
    if not isinstance(epsilon, int | float) or not 0 < epsilon < math.inf:
        lines.append(f"`layer_norm_epsilon` must be above zero, got {epsilon!r}.")
    for name, values in choices.items():
        if getattr(config, name) not in values:
            lines.append(
                f"`{name}` must be one of {', '.join(map(repr, values))}, got "
                f"{getattr(config, name)!r}."
            )
    return lines


def is_count(value: Any) -> bool:
    """Tells whether a value is a whole number above zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def refuse(config: Any, lines: Sequence[str]) -> None:
    """Raises if a config has problems.

    Raises:
        ValueError: there are problems; the message has them all.
    """
    if lines:
        raise ValueError(
            f"{type(config).__name__} does not describe a model; mend these "
            f"{len(lines)} first:\n  " + "\n  ".join(lines)
        )


def named(name: str, variants: Mapping[str, Config]) -> Config:
    """Returns the config of that name.

    Raises:
        KeyError: there is no such variant; the message has the nearest name.
    """
    if name not in variants:
        near = difflib.get_close_matches(name, variants, n=1, cutoff=0.0)[0]
        raise KeyError(
            f"`name` must be one of {sorted(variants)}, got {name!r}; "
            f"did you mean {near!r}?"
        )
    return variants[name]


_tanh_gelu = functools.partial(jax.nn.gelu, approximate=True)

ACTIVATIONS = {
    "quick_gelu": quick_gelu,
    "gelu": gelu,
    # One formula, written in three ways in torch.
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}
"""The activations that a ``config.json`` may name, under its names."""
