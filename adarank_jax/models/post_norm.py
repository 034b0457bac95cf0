"""Embeddings and layers that BERT and RoBERTa share: the norm follows the sum.

Devlin et al., `BERT <https://arxiv.org/abs/1810.04805>`_, 2019. Names are those of the
checkpoints. Every module takes a config with the fields of `bert.BertConfig`.
"""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from adarank_jax.models import transformer
from adarank_jax.models.transformer import ACTIVATIONS, embed, layer_norm


class Embeddings(nn.Module):
    """The sum of a token's word, type and position vectors, normed.

    Attributes:
        config: the sizes.
    """

    config: Any

    @nn.compact
    def __call__(
        self,
        ids: Int[Array, "batch tokens"],
        types: Int[Array, "batch tokens"],
        positions: Int[Array, "rows tokens"],
    ) -> Float[Array, "batch tokens width"]:
        """Maps token ids, their types and their positions to vectors."""
        config = self.config
        words = embed(config, config.vocabulary_size, "word_embeddings")(ids)
        kinds = embed(config, config.num_token_types, "token_type_embeddings")(types)
        places = embed(config, config.max_positions, "position_embeddings")(positions)
        return layer_norm(config, "LayerNorm")(words + kinds + places)


class Encoder(nn.Module):
    """A stack of layers.

    Attributes:
        config: the sizes.
    """

    config: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        mask: Bool[Array, "batch 1 1 tokens"],
    ) -> Float[Array, "batch width"]:
        """Maps tokens to the vector of the first; True in `mask` may be seen."""
        picks = [transformer.every_token] * self.config.num_layers
        picks[-1] = transformer.first_token
        for i, pick in enumerate(picks):
            x = _Layer(self.config, name=f"layer_{i}")(x, mask, pick)
        return x[:, 0]


class _Layer(nn.Module):
    """Attention and a perceptron, each added to what came in and then normed."""

    config: Any

    @nn.compact
    def __call__(self, x, mask, pick):
        config = self.config
        x = _Attention(config, name="attention")(pick(x), x, mask)
        hidden = _Dense(config.mlp_width, name="intermediate")(x)
        return _Output(config, name="output")(ACTIVATIONS[config.activation](hidden), x)


class _Attention(nn.Module):
    """Multi-head self-attention with its sum and norm."""

    config: Any

    @nn.compact
    def __call__(self, chosen, x, mask):
        mixed = _SelfAttention(self.config, name="self")(chosen, x, mask)
        return _Output(self.config, name="output")(mixed, chosen)


class _SelfAttention(nn.Module):
    """Query, key and value, three kernels."""

    config: Any

    @nn.compact
    def __call__(self, chosen, x, mask):
        sources = {"query": chosen, "key": x, "value": x}
        rows = [
            nn.Dense(self.config.width, name=name)(tokens)
            for name, tokens in sources.items()
        ]
        return transformer.attend(*rows, self.config.num_heads, mask)


class _Output(nn.Module):
    """A projection, added to what the sublayer took and normed."""

    config: Any

    @nn.compact
    def __call__(self, x, taken):
        x = nn.Dense(self.config.width, name="dense")(x)
        return layer_norm(self.config, "LayerNorm")(x + taken)


class _Dense(nn.Module):
    """A linear layer one name further down, as the checkpoints have it."""

    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width, name="dense")(x)
