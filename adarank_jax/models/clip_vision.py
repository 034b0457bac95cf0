"""The image tower of CLIP as a Linen module, its parameters named as in checkpoints.

Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
<https://arxiv.org/abs/2103.00020>`_, 2021. The names follow open_clip's ``visual.``
state dict. Query, key and value are one kernel unless told otherwise, because that
fused matrix is what AdaRank decomposes.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adarank_jax.models import clip_block, transformer
from adarank_jax.models.clip_block import Block


@dataclasses.dataclass(frozen=True)
class ClipVisionConfig:
    """The sizes of one image tower.

    Attributes:
        image_size: side of the square input, in pixels; a multiple of `patch_size`.
        patch_size: side of a square patch, in pixels.
        width: length of a token.
        num_layers: number of transformer blocks.
        num_heads: number of attention heads; divides `width`.
        output_size: length of the image embedding.
        layer_norm_epsilon: added to the variance.
        activation: ``quick_gelu`` (OpenAI's weights) or ``gelu`` (LAION's and others).
            The wrong one lowers the accuracy and raises no error.
        mlp_width: length of a token inside the MLP; None for four times `width`.
        qkv: ``fused``, one kernel for query, key and value, or ``split``, three.
        pooling: ``class_token``, or ``average`` of the patches after the last norm.
    """

    image_size: int
    patch_size: int
    width: int
    num_layers: int
    num_heads: int
    output_size: int
    layer_norm_epsilon: float = 1e-5
    activation: str = "quick_gelu"
    mlp_width: int | None = None
    qkv: str = "fused"
    pooling: str = "class_token"

    def __post_init__(self):
        """Refuses what no tower can be built from, all problems in one message."""
        choices = {"pooling": ("class_token", "average")}
        lines = clip_block.problems(self, ("image_size", "patch_size"), choices)
        sides = self.image_size, self.patch_size
        if all(map(transformer.is_count, sides)) and sides[0] % sides[1]:
            lines.append(
                f"`image_size` must be a multiple of `patch_size`, got {sides[0]} "
                f"and {sides[1]}."
            )
        transformer.refuse(self, lines)

    @property
    def num_patches(self) -> int:
        """Number of patches of an image."""
        return (self.image_size // self.patch_size) ** 2


class ClipVision(nn.Module):
    """The image tower: patches, class token, transformer, norm, projection.

    Attributes:
        config: the sizes.
    """

    config: ClipVisionConfig

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch features"]:
        """Maps normalised images to embeddings (not yet of unit length)."""
        config = self.config
        x = nn.Dense(config.width, use_bias=False, name="conv1")(self._patches(images))
        scale = nn.initializers.normal(config.width**-0.5)
        class_token = self.param("class_embedding", scale, (config.width,))
        positions = self.param(
            "positional_embedding", scale, (config.num_patches + 1, config.width)
        )
        first = jnp.broadcast_to(class_token, (x.shape[0], 1, config.width))
        x = jnp.concatenate([first.astype(x.dtype), x], axis=1) + positions[None]
        x = transformer.layer_norm(config, "ln_pre")(x)
        picks = [transformer.every_token] * config.num_layers
        if config.pooling == "class_token":
            picks[-1] = transformer.first_token
        for i, pick in enumerate(picks):
            x = Block(config, name=f"resblocks_{i}")(x, None, pick)
        x = self._pool(x, transformer.layer_norm(config, "ln_post"))
        return x @ self.param("proj", scale, (config.width, config.output_size))

    def _patches(self, images):
        """Cuts images into rows of patches, each flattened as (height, width, 3)."""
        size, patch = self.config.image_size, self.config.patch_size
        if images.shape[1:] != (size, size, 3):
            raise ValueError(
                f"`images` must have shape (batch, {size}, {size}, 3), got "
                f"{images.shape}."
            )
        side = size // patch
        x = images.reshape(-1, side, patch, side, patch, 3)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, side**2, patch**2 * 3)

    def _pool(self, x, norm):
        """Makes one vector of the tokens, and norms it or them."""
        if self.config.pooling == "class_token":
            return norm(x[:, 0])
        return norm(x[:, 1:]).mean(axis=1)


def is_decomposed(path: str, leaf: Any) -> bool:
    """Tells whether AdaRank decomposes a tensor: the matrices of attention and MLP.

    Args:
        path: of the tensor, for example ``resblocks_0/attn/in_proj/kernel``.
        leaf: the tensor, or its shape.

    Returns:
        True for the kernels of every block: four, or six where `qkv` is ``split``.

    References:
        Lee et al., `AdaRank <https://arxiv.org/abs/2503.22178>`_, ICLR 2026.
    """
    return leaf.ndim == 2 and ("/attn/" in path or "/mlp/" in path)


def variant(name: str) -> ClipVisionConfig:
    """Returns the sizes of a named image tower.

    Args:
        name: a key of `VARIANTS`, for example ``vit-b-32``.

    Raises:
        KeyError: there is no such variant; the message has the nearest name.

    Examples:
        >>> variant("vit-b-32").num_patches
        49
    """
    return transformer.named(name, VARIANTS)


VARIANTS = {
    "vit-b-32": ClipVisionConfig(224, 32, 768, 12, 12, 512),
    "vit-b-16": ClipVisionConfig(224, 16, 768, 12, 12, 512),
    "vit-l-14": ClipVisionConfig(224, 14, 1024, 24, 16, 768),
    "vit-small-8": ClipVisionConfig(32, 8, 192, 2, 3, 64),
    "vit-tiny-8": ClipVisionConfig(32, 8, 32, 2, 4, 24),
}
