"""RoBERTa as a Linen module, its parameters named as in checkpoints.

Liu et al., `RoBERTa: A Robustly Optimized BERT Pretraining Approach
<https://arxiv.org/abs/1907.11692>`_, 2019. It is BERT without a pooler, and its
positions are counted from the padding id on, as fairseq did.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adarank_jax.models import bert, post_norm, sequences, transformer


@dataclasses.dataclass(frozen=True)
class RobertaConfig(bert.BertConfig):
    """The sizes of one encoder.

    Attributes:
        num_token_types: rows of a table of which the first alone is used.
        layer_norm_epsilon: added to the variance.
        padding_id: token id of padding; the first token of a text has the position
            `padding_id` + 1, so that many position vectors are never a token's.
    """

    num_token_types: int = 1
    layer_norm_epsilon: float = 1e-5
    padding_id: int = 1

    def __post_init__(self):
        """Refuses what no encoder can be built from, all problems in one message."""
        lines = sequences.problems(self, ("num_token_types",))
        sizes = self.vocabulary_size, self.max_positions - 1
        if all(map(transformer.is_count, sizes)):
            if self.padding_id not in range(min(sizes)):
                lines.append(
                    f"`padding_id` must be a token id, 0 to {min(sizes) - 1} so that a "
                    f"position is left, got {self.padding_id!r}."
                )
        transformer.refuse(self, lines)

    @property
    def max_tokens(self) -> int:
        """Number of tokens of the longest text."""
        return self.max_positions - self.padding_id - 1


class Roberta(nn.Module):
    """The encoder: embeddings and layers; the first token stands for the text.

    Attributes:
        config: the sizes.
    """

    config: RobertaConfig

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
            The last hidden state of the first token.
        """
        config = self.config
        ids = sequences.checked_ids(inputs, config)
        embeddings = post_norm.Embeddings(config, name="embeddings")
        x = embeddings(ids, jnp.zeros_like(ids), positions(ids, config.padding_id))
        mask = transformer.padding_mask(inputs["attention_mask"])
        return post_norm.Encoder(config, name="encoder")(x, mask)


def positions(
    ids: Int[Array, "batch tokens"], padding_id: int
) -> Int[Array, "batch tokens"]:
    """Counts the tokens that are no padding, from the padding id on.

    Args:
        ids: of some texts.
        padding_id: token id of padding, whose position this is as well.

    Examples:
        >>> import jax.numpy as jnp
        >>> positions(jnp.array([[0, 31, 2, 1, 1]]), padding_id=1)
        Array([[2, 3, 4, 1, 1]], dtype=int32)
    """
    is_token = (ids != padding_id).astype(jnp.int32)
    return jnp.cumsum(is_token, axis=1, dtype=jnp.int32) * is_token + padding_id


def is_decomposed(path: str, leaf: Any) -> bool:
    """Tells whether AdaRank decomposes a tensor: the matrices of the layers.

    Args:
        path: of the tensor, for example ``encoder/layer_0/output/dense/kernel``.
        leaf: the tensor, or its shape.

    Returns:
        True for the six kernels of every layer.

    References:
        Lee et al., `AdaRank <https://arxiv.org/abs/2503.22178>`_, ICLR 2026.
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
    return bert.is_merged(path, leaf)


def variant(name: str) -> RobertaConfig:
    """Returns the sizes of a named encoder.

    Args:
        name: a key of `VARIANTS`, for example ``roberta-base``.

    Raises:
        KeyError: there is no such variant; the message has the nearest name.

    Examples:
        >>> variant("roberta-base").max_tokens
        512
    """
    return transformer.named(name, VARIANTS)


VARIANTS = {
    "roberta-base": RobertaConfig(50265, 768, 12, 12, 3072, 514),
    "roberta-tiny": RobertaConfig(60, 32, 2, 4, 48, 24),
}
