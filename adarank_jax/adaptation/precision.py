"""Half the memory of factors, or half the width of the encoder's numbers.

Merged weights are float32 in any case; what is measured and exported in the end is
merged from float32 factors.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adarank_jax import tree
from adarank_jax.adaptation.step import Encode
from adarank_jax.core import svd
from adarank_jax.tree import Tree


def bfloat16_factors(factors: Tree) -> Tree:
    """Rounds singular directions to bfloat16; singular values stay float32.

    A direction keeps eight bits: the merged update of a matrix is off by about 0.3 % of
    its norm, and products are as fast as the device multiplies bfloat16.

    Args:
        factors: as `svd.decompose_tree` returns.

    Returns:
        Host arrays; tensors that are not decomposed stay as they are.
    """

    def leaf_factors(_, leaf):
        if not svd.is_factors(leaf):
            return leaf
        u, vt = (np.asarray(part).astype(jnp.bfloat16) for part in (leaf.u, leaf.vt))
        return svd.SVDFactors(u, leaf.s, vt)

    return tree.map_with_path(leaf_factors, factors)


def bfloat16_encoder(encode: Encode) -> Encode:
    """Runs an encoder in bfloat16; its features are float32 again.

    Layer norms and softmax take their sums in float32.

    Args:
        encode: of float32 parameters and inputs.
    """

    def encode_in_bfloat16(params: Tree, inputs: Any):
        half = jax.tree.map(_half, (params, inputs))
        return encode(*half).astype(jnp.float32)

    return encode_in_bfloat16


def _half(leaf):
    """Rounds floating-point numbers; token ids and masks stay as they are."""
    is_float = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    return jnp.asarray(leaf, jnp.bfloat16) if is_float else leaf
