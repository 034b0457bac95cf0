"""The text tower of CLIP as a Linen module, its parameters named as in checkpoints.

Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
<https://arxiv.org/abs/2103.00020>`_, 2021. The names follow open_clip's state dict; the
blocks are those of the image tower, with a causal mask.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from adarank_jax import errors
from adarank_jax.models import clip_block, transformer
from adarank_jax.models.clip_block import Block


@dataclasses.dataclass(frozen=True)
class ClipTextConfig:
    """The sizes of one text tower.

    Attributes:
        vocabulary_size: number of token ids.
        context_length: number of tokens of the longest text.
        width: length of a token's vector.
        num_layers: number of transformer blocks.
        num_heads: number of attention heads; divides `width`.
        output_size: length of the text embedding.
        layer_norm_epsilon: added to the variance.
        activation: ``quick_gelu`` (OpenAI's weights) or ``gelu`` (LAION's and others).
        mlp_width: length of a token inside the MLP; None for four times `width`.
        qkv: ``fused``, one kernel for query, key and value, or ``split``, three.
        pooling: whose vector stands for the text: that of the largest id (``argmax``,
            the original rule) or of the first `end_token` (``end_token``, right also
            where ids were added above it).
        end_token: id that ends a text; read where `pooling` is ``end_token``.
    """

    vocabulary_size: int
    context_length: int
    width: int
    num_layers: int
    num_heads: int
    output_size: int
    layer_norm_epsilon: float = 1e-5
    activation: str = "quick_gelu"
    mlp_width: int | None = None
    qkv: str = "fused"
    pooling: str = "argmax"
    end_token: int = 49407

    def __post_init__(self):
        """Refuses what no tower can be built from, all problems in one message."""
        choices = {"pooling": ("argmax", "end_token")}
        counts = ("vocabulary_size", "context_length")
        lines = clip_block.problems(self, counts, choices)
        size = self.vocabulary_size
        if self.pooling == "end_token" and transformer.is_count(size):
            if self.end_token not in range(size):
                lines.append(
                    f"`end_token` must be a token id, 0 to {size - 1}, got "
                    f"{self.end_token!r}."
                )
        transformer.refuse(self, lines)


class ClipText(nn.Module):
    """The text tower: tokens, causal transformer, norm, pooling, projection.

    Attributes:
        config: the sizes.
    """

    config: ClipTextConfig

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "batch context"]
    ) -> Float[Array, "batch features"]:
        """Maps token ids to embeddings (not yet of unit length).

        No padding mask is needed: padding follows the pooled token, and the causal mask
        keeps it from what comes before. Ids that the vocabulary does not have raise no
        error inside a compiled function; see `check_tokens`.
        """
        config = self.config
        _check_length(tokens.shape, config)
        embed = nn.Embed(
            config.vocabulary_size,
            config.width,
            embedding_init=nn.initializers.normal(0.02),
            name="token_embedding",
        )
        positions = self.param(
            "positional_embedding",
            nn.initializers.normal(0.01),
            (config.context_length, config.width),
        )
        x = embed(tokens) + positions[None, : tokens.shape[1]]
        names = (f"resblocks_{i}" for i in range(config.num_layers))
        blocks = [Block(config, name=name) for name in names]
        mask = transformer.causal_mask(tokens.shape[1])
        x = transformer.through_causal(blocks, x, mask, self._last(tokens))
        x = transformer.layer_norm(config, "ln_final")(x)
        scale = nn.initializers.normal(config.width**-0.5)
        projection = self.param(
            "text_projection", scale, (config.width, config.output_size)
        )
        return x @ projection

    def _last(self, tokens):
        """Finds the position of the token that has seen the whole text."""
        if self.config.pooling == "end_token":
            tokens = tokens == self.config.end_token
        return jnp.argmax(tokens, axis=1)


def check_tokens(tokens: ArrayLike, config: ClipTextConfig) -> None:
    """Checks on the host what a compiled tower cannot: JAX never refuses an index.

    Args:
        tokens: ids of some texts, `(batch, context)`.
        config: of the tower that is to embed them.

    Raises:
        InputError: an id is not in the vocabulary, or a text lacks the token that it is
            pooled at.
        ValueError: the ids are not whole numbers, or of another shape than the tower
            takes.

    Examples:
        >>> check_tokens(np.array([[49406, 320, 49407, 0]]), variant("vit-b-32"))
    """
    tokens = np.asarray(tokens)
    if not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(f"`tokens` must be whole numbers, got {tokens.dtype}.")
    _check_length(tokens.shape, config)
    bad = np.argwhere((tokens < 0) | (tokens >= config.vocabulary_size))
    if len(bad):
        text, position = (int(i) for i in bad[0])
        raise errors.InputError(
            "E341",
            f"`tokens` must be ids from 0 to {config.vocabulary_size - 1}, got "
            f"{tokens[text, position]} at position {position} of text {text} "
            f"({len(bad)} such in all)",
            remedy="was another model's tokeniser used?",
        )
    if config.pooling == "end_token":
        open_ended = np.flatnonzero(~(tokens == config.end_token).any(axis=1))
        if len(open_ended):
            raise errors.InputError(
                "E340",
                f"`tokens` must have the end token {config.end_token} in every text, "
                f"got {len(open_ended)} without, the first is text {open_ended[0]}",
                remedy="truncate before the end token is added, not after",
            )


def _check_length(shape, config):
    """Refuses texts that the positions do not cover."""
    if len(shape) != 2 or not 0 < shape[1] <= config.context_length:
        raise ValueError(
            f"`tokens` must have shape (batch, context) with a context of 1 to "
            f"{config.context_length}, got {tuple(shape)}."
        )


def variant(name: str) -> ClipTextConfig:
    """Returns the sizes of the text tower that belongs to a named image tower.

    Args:
        name: a key of `VARIANTS`, for example ``vit-b-32``.

    Raises:
        KeyError: there is no such variant; the message has the nearest name.

    Examples:
        >>> variant("vit-l-14").width
        768
    """
    return transformer.named(name, VARIANTS)


VARIANTS = {
    "vit-b-32": ClipTextConfig(49408, 77, 512, 12, 8, 512),
    "vit-b-16": ClipTextConfig(49408, 77, 512, 12, 8, 512),
    "vit-l-14": ClipTextConfig(49408, 77, 768, 12, 12, 768),
    "vit-tiny-8": ClipTextConfig(64, 12, 24, 2, 3, 24),
}
