"""Model merging by adaptive rank pruning (AdaRank) in JAX and Flax.

The names below are loaded when they are first used, so that importing the package takes
no time; `adarank_jax.decompose` and `from adarank_jax import decompose` both work.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from adarank_jax.adaptation.evaluate import Predictor
    from adarank_jax.adaptation.loop import AdaptationConfig, Problem, adapt
    from adarank_jax.adaptation.objectives import entropy, expert_labels
    from adarank_jax.adaptation.run_folder import RunFolder
    from adarank_jax.adaptation.step import Batch, make_step
    from adarank_jax.core.losses import (
        cross_entropy,
        marginal_entropy,
        softmax_entropy,
    )
    from adarank_jax.core.masks import kept_rank, soft, straight_through
    from adarank_jax.core.merge import (
        Variables,
        init_variables,
        merged_params,
        static_params,
    )
    from adarank_jax.core.svd import (
        SVDFactors,
        decompose,
        decompose_tree,
        energy_rank,
        reconstruct,
        truncate,
    )
    from adarank_jax.core.task_vectors import average, task_vectors
    from adarank_jax.mergers import MERGERS

_ROOMS = {
    "adaptation.evaluate": ("Predictor",),
    "adaptation.loop": ("AdaptationConfig", "Problem", "adapt"),
    "adaptation.objectives": ("entropy", "expert_labels"),
    "adaptation.run_folder": ("RunFolder",),
    "adaptation.step": ("Batch", "make_step"),
    "core.losses": ("cross_entropy", "marginal_entropy", "softmax_entropy"),
    "core.masks": ("kept_rank", "soft", "straight_through"),
    "core.merge": ("Variables", "init_variables", "merged_params", "static_params"),
    "core.svd": (
        *("SVDFactors", "decompose", "decompose_tree", "energy_rank"),
        *("reconstruct", "truncate"),
    ),
    "core.task_vectors": ("average", "task_vectors"),
    "mergers": ("MERGERS",),
}
_MODULES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "MERGERS",
    "AdaptationConfig",
    "Batch",
    "Predictor",
    "Problem",
    "RunFolder",
    "SVDFactors",
    "Variables",
    "adapt",
    "average",
    "cross_entropy",
    "decompose",
    "decompose_tree",
    "energy_rank",
    "entropy",
    "expert_labels",
    "init_variables",
    "kept_rank",
    "make_step",
    "marginal_entropy",
    "merged_params",
    "reconstruct",
    "soft",
    "softmax_entropy",
    "static_params",
    "straight_through",
    "task_vectors",
    "truncate",
]


def __getattr__(name: str) -> Any:
    """Loads a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'adarank_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"adarank_jax.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Lists the public names."""
    return sorted([*globals(), *__all__])
