"""The residual attention block of which both towers of CLIP are stacks.

Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
<https://arxiv.org/abs/2103.00020>`_, 2021. Every kernel is 2-D, ``(inputs, outputs)``.
Query, key and value are one kernel (``fused``, as in OpenAI's and open_clip's files) or
three (``split``, as in Hugging Face's); the outputs are the same, but the matrices that
AdaRank decomposes are not.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Config = TypeVar("Config")

SHARED_COUNTS = ("width", "num_layers", "num_heads", "output_size")
"""Fields of both towers that count something."""


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and added to what came in.

    Attributes:
        config: of a tower; read are its `width`, `num_heads`, `mlp_width`,
            `activation`, `layer_norm_epsilon` and `qkv`.
        is_causal: a token attends to itself and to those before it only.
    """

    config: Any
    is_causal: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"]
    ) -> Float[Array, "batch tokens width"]:
        """Maps tokens to tokens."""
        config = self.config
        attention = _Attention(config, self.is_causal, name="attn")
        x = x + attention(layer_norm(config, "ln_1")(x))
        return x + _Mlp(config, name="mlp")(layer_norm(config, "ln_2")(x))


class _Attention(nn.Module):
    """Multi-head self-attention."""

    config: Any
    is_causal: bool

    @nn.compact
    def __call__(self, x):
        width, heads = self.config.width, self.config.num_heads
        if self.config.qkv == "fused":
            rows = jnp.split(nn.Dense(3 * width, name="in_proj")(x), 3, axis=-1)
        else:
            rows = [nn.Dense(width, name=f"{part}_proj")(x) for part in "qkv"]
        query, key, value = (
            row.reshape(*row.shape[:-1], heads, width // heads) for row in rows
        )
        x = jax.nn.dot_product_attention(query, key, value, is_causal=self.is_causal)
        return nn.Dense(width, name="out_proj")(x.reshape(*x.shape[:-2], width))


class _Mlp(nn.Module):
    """Two layers with the activation between them."""

    config: Any

    @nn.compact
    def __call__(self, x):
        config = self.config
        x = nn.Dense(config.mlp_width or 4 * config.width, name="c_fc")(x)
        return nn.Dense(config.width, name="c_proj")(ACTIVATIONS[config.activation](x))


def layer_norm(config: Any, name: str) -> nn.LayerNorm:
    """Makes a layer norm with the tower's epsilon."""
    return nn.LayerNorm(epsilon=config.layer_norm_epsilon, name=name)


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Approximates GELU by a scaled sigmoid, as OpenAI's models do."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Weighs entries by the normal distribution function, exactly as torch does."""
    return jax.nn.gelu(x, approximate=False)


def problems(
    config: Any, counts: Sequence[str], choices: Mapping[str, Sequence[str]]
) -> list[str]:
    """Lists what is wrong with a tower's config, one line a problem.

    Args:
        config: of a tower.
        counts: fields besides the shared ones that must be whole and above zero.
        choices: by field besides the shared ones, the values that it may have.
    """
    counts = [*counts, *SHARED_COUNTS, *["mlp_width"] * (config.mlp_width is not None)]
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
    shared = {"activation": tuple(ACTIVATIONS), "qkv": ("fused", "split")}
    for name, values in {**shared, **choices}.items():
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
            f"{type(config).__name__} does not describe a tower; mend these "
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


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}
