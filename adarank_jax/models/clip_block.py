"""The residual attention block of which both towers of CLIP are stacks.

Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
<https://arxiv.org/abs/2103.00020>`_, 2021. Every kernel is 2-D, ``(inputs, outputs)``.
Query, key and value are one kernel (``fused``, as in OpenAI's and open_clip's files) or
three (``split``, as in Hugging Face's); the outputs are the same, but the matrices that
AdaRank decomposes are not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from adarank_jax.models import transformer
from adarank_jax.models.transformer import Pick, layer_norm

COUNTS = ("width", "num_layers", "num_heads", "output_size")
"""Fields of both towers that count something."""

CHOICES = {"activation": ("quick_gelu", "gelu"), "qkv": ("fused", "split")}
"""By field of both towers, the values that it may have."""


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and added to what came in.

    Attributes:
        config: of a tower; read are its `width`, `num_heads`, `mlp_width`,
            `activation`, `layer_norm_epsilon` and `qkv`.
    """

    config: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        mask: Bool[Array, "rows 1 queries tokens"] | None = None,
        pick: Pick = transformer.every_token,
    ) -> Float[Array, "batch chosen width"]:
        """Maps the picked tokens; `mask` is as for `transformer.attend`."""
        config = self.config
        known = layer_norm(config, "ln_1")(x)
        x = pick(x) + _Attention(config, name="attn")(pick(known), known, mask)
        return x + _Mlp(config, name="mlp")(layer_norm(config, "ln_2")(x))


class _Attention(nn.Module):
    """Multi-head self-attention."""

    config: Any

    @nn.compact
    def __call__(self, chosen, x, mask):
        width, heads = self.config.width, self.config.num_heads
        if self.config.qkv == "fused":
            rows = transformer.FusedProjection(name="in_proj")(chosen, x)
        else:
            sources = {"q": chosen, "k": x, "v": x}
            rows = [
                nn.Dense(width, name=f"{part}_proj")(tokens)
                for part, tokens in sources.items()
            ]
        x = transformer.attend(*rows, heads, mask)
        return nn.Dense(width, name="out_proj")(x)


class _Mlp(nn.Module):
    """Two layers with the activation between them."""

    config: Any

    @nn.compact
    def __call__(self, x):
        config = self.config
        x = nn.Dense(config.mlp_width or 4 * config.width, name="c_fc")(x)
        x = transformer.ACTIVATIONS[config.activation](x)
        return nn.Dense(config.width, name="c_proj")(x)


def problems(
    config: Any, counts: Sequence[str], choices: Mapping[str, Sequence[str]]
) -> list[str]:
    """Lists what is wrong with a tower's config, one line a problem.

    Args:
        config: of a tower.
        counts: fields besides the shared ones that must be whole and above zero.
        choices: by field besides the shared ones, the values that it may have.
    """
    counts = [*counts, *COUNTS, *["mlp_width"] * (config.mlp_width is not None)]
    return transformer.problems(config, counts, {**CHOICES, **choices})
