"""BERT as a Linen module, its parameters named as in checkpoints.

Devlin et al., `BERT: Pre-training of Deep Bidirectional Transformers
<https://arxiv.org/abs/1810.04805>`_, 2019. MiniLM (Wang et al., `2020
<https://arxiv.org/abs/2002.10957>`_) is a smaller BERT.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adarank_jax.models import post_norm, sequences, transformer


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The sizes of one encoder.

    Attributes:
        vocabulary_size: number of token ids.
        width: length of a token's vector.
        num_layers: number of layers.
        num_heads: number of attention heads; divides `width`.
        mlp_width: length of a token between the two linear layers of a perceptron.
        max_positions: number of position vectors.
        num_token_types: number of kinds of segments (first and second text).
        activation: a key of `transformer.ACTIVATIONS`.
        layer_norm_epsilon: added to the variance.
    """

    vocabulary_size: int
    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    max_positions: int
    num_token_types: int = 2
    activation: str = "gelu"
    layer_norm_epsilon: float = 1e-12

    def __post_init__(self):
        """Refuses what no encoder can be built from, all problems in one message."""
        transformer.refuse(self, sequences.problems(self, ("num_token_types",)))

    @property
    def max_tokens(self) -> int:
        """Number of tokens of the longest text."""
        return self.max_positions


class Bert(nn.Module):
    """The encoder: embeddings, layers, and the pooler of the first token.

    Attributes:
        config: the sizes.
    """

    config: BertConfig

    @nn.compact
    def __call__(
        self, inputs: dict[str, Int[Array, "batch tokens"]]
    ) -> Float[Array, "batch width"]:
        """Maps texts to features.

        Args:
            inputs: `input_ids`, `attention_mask` (1 at tokens, 0 at padding) and
                `token_type_ids`. Ids that a table does not have raise no error inside a
                compiled function; they are checked when texts are tokenized.

        Returns:
            The hyperbolic tangent of the pooler.
        """
        config = self.config
        ids = sequences.checked_ids(inputs, config)
        positions = jnp.arange(ids.shape[1])[None]
        embeddings = post_norm.Embeddings(config, name="embeddings")
        x = embeddings(ids, inputs["token_type_ids"], positions)
        mask = transformer.padding_mask(inputs["attention_mask"])
        x = post_norm.Encoder(config, name="encoder")(x, mask)
        return _Pooler(config.width, name="pooler")(x)


class _Pooler(nn.Module):
    """A linear layer and the hyperbolic tangent."""

    width: int

    @nn.compact
    def __call__(self, x):
        return jnp.tanh(nn.Dense(self.width, name="dense")(x))


def is_decomposed(path: str, leaf: Any) -> bool:
    """Tells whether AdaRank decomposes a tensor: the matrices of layers and pooler.

    Args:
        path: of the tensor, for example ``encoder/layer_0/output/dense/kernel``.
        leaf: the tensor, or its shape.

    Returns:
        True for the six kernels of every layer and the one of the pooler.

    References:
        Lee et al., `AdaRank <https://arxiv.org/abs/2503.22178>`_, ICLR 2026, whose rule
        for RoBERTa this is; BERT is not in the paper.
    """
    return leaf.ndim == 2 and is_merged(path, leaf)


def is_merged(path: str, leaf: Any) -> bool:
    """Tells whether a tensor is merged at all: not so the embeddings.

    Args:
        path: of the tensor.
        leaf: the tensor, or its shape.

    Returns:
        False for everything under ``embeddings``, which stays that of the origin.
    """
    del leaf
    return not path.startswith("embeddings/")


def variant(name: str) -> BertConfig:
    """Returns the sizes of a named encoder.

    Args:
        name: a key of `VARIANTS`, for example ``minilm-l6``.

    Raises:
        KeyError: there is no such variant; the message has the nearest name.

    Examples:
        >>> variant("minilm-l6").width
        384
    """
    return transformer.named(name, VARIANTS)


VARIANTS = {
    "bert-base-uncased": BertConfig(30522, 768, 12, 12, 3072, 512),
    "minilm-l6": BertConfig(30522, 384, 6, 12, 1536, 512),
    "bert-tiny": BertConfig(60, 32, 2, 4, 48, 24),
}
