"""Which directions adaptation kept."""

import jax.numpy as jnp
import numpy as np

from adarank_jax import tree
from adarank_jax.core import masks
from adarank_jax.tree import Tree


def kept_rank_shares(mask_logits: Tree) -> dict[str, np.ndarray]:
    """Returns the share of directions kept, for every matrix and task.

    Args:
        mask_logits: `(tasks, rank)` at every decomposed matrix; other leaves are None
            or missing.

    Returns:
        Shares `(tasks,)` in [0, 1] by the path of the matrix.

    Examples:
        >>> import jax.numpy as jnp
        >>> kept_rank_shares({"w": jnp.array([[0.1, -0.1], [0.1, 0.1]])})["w"].tolist()
        [0.5, 1.0]
    """
    return {
        path: np.asarray(masks.kept_rank(jnp.asarray(logits))) / logits.shape[1]
        for path, logits in tree.flatten(mask_logits).items()
        if logits is not None
    }
