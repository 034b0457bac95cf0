"""GPT-2 as a Linen module, its parameters named as in checkpoints.

Radford et al., `Language Models are Unsupervised Multitask Learners
<https://cdn.openai.com/better-language-models/language_models.pdf>`_, 2019. Query, key
and value are one kernel, and every kernel is stored as ``(inputs, outputs)``.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adarank_jax.models import sequences, transformer
from adarank_jax.models.transformer import ACTIVATIONS, embed, layer_norm


@dataclasses.dataclass(frozen=True)
class Gpt2Config:
    """The sizes of one decoder.

    Attributes:
        vocabulary_size: number of token ids.
        width: length of a token's vector.
        num_layers: number of blocks.
        num_heads: number of attention heads; divides `width`.
        mlp_width: length of a token between the two linear layers of a perceptron (four
            times `width` where a ``config.json`` has none).
        max_positions: number of position vectors.
        activation: a key of `transformer.ACTIVATIONS`.
        layer_norm_epsilon: added to the variance.
    """

    vocabulary_size: int
    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    max_positions: int
    activation: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5

    def __post_init__(self):
        """Refuses what no decoder can be built from, all problems in one message."""
        transformer.refuse(self, sequences.problems(self))

    @property
    def max_tokens(self) -> int:
        """Number of tokens of the longest text."""
        return self.max_positions


class Gpt2(nn.Module):
    """The decoder without its language head; the last token stands for the text.

    Attributes:
        config: the sizes.
    """

    config: Gpt2Config

    @nn.compact
    def __call__(
        self, inputs: dict[str, Int[Array, "batch tokens"]]
    ) -> Float[Array, "batch width"]:
        """Maps texts to features.

        Args:
            inputs: `input_ids`, `attention_mask` (1 at tokens, 0 at padding) and
                `token_type_ids`, which are not read. Ids that the table does not have
                raise no error inside a compiled function; they are checked when texts
                are tokenized.

        Returns:
            The last hidden state of the last token that is no padding, by the attention
            mask: the padding id is often that of a token as well.
        """
        config = self.config
        ids = sequences.checked_ids(inputs, config)
        x = embed(config, config.vocabulary_size, "wte")(ids)
        places = jnp.arange(ids.shape[1])[None]
        x = x + embed(config, config.max_positions, "wpe")(places)
        seen = inputs["attention_mask"]
        mask = transformer.causal_mask(ids.shape[1]) & transformer.padding_mask(seen)
        blocks = [_Block(config, name=f"h_{i}") for i in range(config.num_layers)]
        x = transformer.through_causal(blocks, x, mask, last_token(seen))
        return layer_norm(config, "ln_f")(x)


def last_token(
    attention_mask: Int[Array, "batch tokens"],
) -> Int[Array, " batch"]:
    """Finds the last token that is no padding; 0 where a text has none.

    Examples:
        >>> last_token(jnp.array([[1, 1, 0], [0, 1, 1], [0, 0, 0]]))
        Array([1, 2, 0], dtype=int32)
    """
    places = jnp.arange(attention_mask.shape[1])[None]
    return jnp.where(attention_mask != 0, places, 0).max(axis=1)


class _Block(nn.Module):
    """Attention and a perceptron, each behind a norm and added to what came in."""

    config: Gpt2Config

    @nn.compact
    def __call__(self, x, mask, pick=transformer.every_token):
        config = self.config
        known = layer_norm(config, "ln_1")(x)
        x = pick(x) + _Attention(config, name="attn")(pick(known), known, mask)
        return x + _Mlp(config, name="mlp")(layer_norm(config, "ln_2")(x))


class _Attention(nn.Module):
    """Multi-head self-attention."""

    config: Gpt2Config

    @nn.compact
    def __call__(self, chosen, x, mask):
        width = self.config.width
        rows = transformer.FusedProjection(name="c_attn")(chosen, x)
        x = transformer.attend(*rows, self.config.num_heads, mask)
        return nn.Dense(width, name="c_proj")(x)


class _Mlp(nn.Module):
    """Two layers with the activation between them."""

    config: Gpt2Config

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.config.mlp_width, name="c_fc")(x)
        x = ACTIVATIONS[self.config.activation](x)
        return nn.Dense(self.config.width, name="c_proj")(x)


def is_decomposed(path: str, leaf: Any) -> bool:
    """Tells whether AdaRank decomposes a tensor: the matrices of the blocks.

    Args:
        path: of the tensor, for example ``h_0/attn/c_attn/kernel``.
        leaf: the tensor, or its shape.

    Returns:
        True for the four kernels of every block.

    References:
        Lee et al., `AdaRank <https://arxiv.org/abs/2503.22178>`_, ICLR 2026.
    """
    return leaf.ndim == 2 and is_merged(path, leaf)


def is_merged(path: str, leaf: Any) -> bool:
    """Tells whether a tensor is merged at all: not so the two embeddings.

    Args:
        path: of the tensor.
        leaf: the tensor, or its shape.

    Returns:
        False for ``wte`` and ``wpe``, which stay those of the origin.
    """
    del leaf
    return not path.startswith(("wte/", "wpe/"))


def variant(name: str) -> Gpt2Config:
    """Returns the sizes of a named decoder.

    Args:
        name: a key of `VARIANTS`, for example ``gpt2``.

    Raises:
        KeyError: there is no such variant; the message has the nearest name.

    Examples:
        >>> variant("gpt2").max_positions
        1024
    """
    return transformer.named(name, VARIANTS)


VARIANTS = {
    "gpt2": Gpt2Config(50257, 768, 12, 12, 3072, 1024),
    "gpt2-tiny": Gpt2Config(60, 32, 2, 4, 48, 24),
}
