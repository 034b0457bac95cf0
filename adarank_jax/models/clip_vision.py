"""The image tower of CLIP as a Linen module, its parameters named as in checkpoints.

Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
<https://arxiv.org/abs/2103.00020>`_, 2021. The names follow open_clip's ``visual.``
state dict; every kernel is 2-D, ``(inputs, outputs)``, and query, key and value are one
kernel, because that fused matrix is what AdaRank decomposes.
"""

import dataclasses
import difflib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
    """

    image_size: int
    patch_size: int
    width: int
    num_layers: int
    num_heads: int
    output_size: int
    layer_norm_epsilon: float = 1e-5

    def __post_init__(self):
        """Checks that patches tile the image and heads tile the width."""
        if self.image_size % self.patch_size:
            raise ValueError(
                f"`image_size` must be a multiple of `patch_size`, got "
                f"{self.image_size} and {self.patch_size}."
            )
        if self.width % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide `width`, got {self.num_heads} and "
                f"{self.width}."
            )

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
        x = _norm(config, "ln_pre")(x)
        for i in range(config.num_layers):
            x = _Block(config, name=f"resblocks_{i}")(x)
        x = _norm(config, "ln_post")(x[:, 0])
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


class _Block(nn.Module):
    """One pre-norm transformer block."""

    config: ClipVisionConfig

    @nn.compact
    def __call__(self, x):
        config = self.config
        x = x + _Attention(config, name="attn")(_norm(config, "ln_1")(x))
        return x + _Mlp(config, name="mlp")(_norm(config, "ln_2")(x))


class _Attention(nn.Module):
    """Multi-head self-attention with one kernel for query, key and value."""

    config: ClipVisionConfig

    @nn.compact
    def __call__(self, x):
        width, heads = self.config.width, self.config.num_heads
        x = nn.Dense(3 * width, name="in_proj")(x)
        query, key, value = jnp.split(x, 3, axis=-1)
        split = (*x.shape[:-1], heads, width // heads)
        x = jax.nn.dot_product_attention(
            query.reshape(split), key.reshape(split), value.reshape(split)
        )
        return nn.Dense(width, name="out_proj")(x.reshape(*x.shape[:-2], width))


class _Mlp(nn.Module):
    """Two layers with the activation of the original CLIP, QuickGELU."""

    config: ClipVisionConfig

    @nn.compact
    def __call__(self, x):
        width = self.config.width
        x = nn.Dense(4 * width, name="c_fc")(x)
        x = x * jax.nn.sigmoid(1.702 * x)
        return nn.Dense(width, name="c_proj")(x)


def _norm(config, name):
    """Makes a layer norm with the variant's epsilon."""
    return nn.LayerNorm(epsilon=config.layer_norm_epsilon, name=name)


def is_decomposed(path: str, leaf: Any) -> bool:
    """Tells whether AdaRank decomposes a tensor: the matrices of attention and MLP.

    Args:
        path: of the tensor, for example ``resblocks_0/attn/in_proj/kernel``.
        leaf: the tensor, or its shape.

    Returns:
        True for the four kernels of every block.

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
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0.0)[0]
        raise KeyError(
            f"`name` must be one of {sorted(VARIANTS)}, got {name!r}; "
            f"did you mean {near!r}?"
        )
    return VARIANTS[name]


VARIANTS = {
    "vit-b-32": ClipVisionConfig(224, 32, 768, 12, 12, 512),
    "vit-b-16": ClipVisionConfig(224, 16, 768, 12, 12, 512),
    "vit-l-14": ClipVisionConfig(224, 14, 1024, 24, 16, 768),
    "vit-small-8": ClipVisionConfig(32, 8, 192, 2, 3, 64),
    "vit-tiny-8": ClipVisionConfig(32, 8, 32, 2, 4, 24),
}
