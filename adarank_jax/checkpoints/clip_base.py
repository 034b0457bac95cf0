"""Whether experts come from the base that they are merged with.

A fine-tuned weight stays near the weight that it started from: it moves by a few
percent of its norm. Weights of two unrelated trainings of one architecture are as far
apart as two random vectors, about 1.4 norms.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adarank_jax import tree
from adarank_jax.checkpoints import recipe

LARGEST_RATIO = 0.5
"""Median of ||expert - base|| / ||base|| from which an expert is of another base."""


def check_same_base(base: Any, expert: Any) -> list[str]:
    """Checks that an expert was fine-tuned from a base.

    Args:
        base: a `ClipCheckpoint`.
        expert: another, read with the same `qkv`.

    Returns:
        Warnings: the expert equals the base, is stored with fewer bits, or holds
        numbers of another order.

    Raises:
        ValueError: the sizes or the configurations differ, or the weights are too far
            from those of the base.
    """
    names = f"`{base.source}`", f"`{expert.source}`"
    check_configs(base.config, expert.config, names)
    tree.check_same(base.vision, expert.vision, names)
    one, two = tree.flatten(base.vision), tree.flatten(expert.vision)
    ratios = [
        np.linalg.norm(two[path] - one[path]) / max(np.linalg.norm(one[path]), 1e-30)
        for path in one
        if np.ndim(one[path]) == 2 and ("/attn/" in path or "/mlp/" in path)
    ]
    ratio = float(np.median(ratios))
    if not ratio < LARGEST_RATIO:
        raise ValueError(
            f"{names[1]} does not come from the base {names[0]}: the median of "
            f"|expert - base| / |base| over {len(ratios)} matrices is {ratio:.2f}, "
            f"expected below {LARGEST_RATIO} (an unrelated model gives about 1.4); "
            "check which base the expert was fine-tuned from."
        )
    warnings = []
    if all(np.array_equal(one[path], two[path]) for path in one):
        warnings.append(
            f"{names[1]} equals the base {names[0]}: its task vector is zero, so there "
            "is nothing to keep or prune."
        )
    if _BITS.get(expert.layout.dtype, 32) < _BITS.get(base.layout.dtype, 32):
        warnings.append(
            f"{names[1]} is stored as {expert.layout.dtype} and the base {names[0]} as "
            f"{base.layout.dtype}: the task vector carries the noise of rounding."
        )
    peaks = {path: (np.abs(one[path]).max(), np.abs(two[path]).max()) for path in one}
    large = [
        f"{path} ({its:.3g}, the base {own:.3g})"
        for path, (own, its) in peaks.items()
        if its > _LARGEST_GROWTH * max(own, 1e-3)
    ]
    if large:
        warnings.append(
            f"{names[1]} holds numbers more than {_LARGEST_GROWTH:,} times as large as "
            f"those of the base {names[0]} in {', '.join(large[:3])}; is it damaged?"
        )
    return warnings


def find_twins(experts: Mapping[str, Any]) -> list[str]:
    """Compares experts with each other.

    Args:
        experts: each a `ClipCheckpoint`, by task.

    Returns:
        A warning for each expert that equals one before it.
    """
    warnings, seen = [], {}
    for task, expert in experts.items():
        twin = seen.setdefault(recipe.digest(expert.vision), task)
        if twin != task:
            warnings.append(
                f"The experts {twin!r} and {task!r} are identical; is one of the paths "
                "wrong?"
            )
    return warnings


def check_configs(
    base: Mapping[str, Any], expert: Mapping[str, Any], names: tuple[str, str]
) -> None:
    """Checks that two configurations are of one image tower.

    Args:
        base: a configuration as `clip_config` returns it.
        expert: another; the fields that it had to infer are not compared.
        names: what to call the two in messages.

    Raises:
        ValueError: the sizes differ, told in one line, or other fields, as a table.
    """
    one, two = base["vision"], expert["vision"]
    if one is None or two is None:
        raise ValueError(f"{names[0]} and {names[1]} must both have an image tower.")
    if any(one[field] != two[field] for field in _SIZES):
        raise ValueError(
            f"Base and expert differ in size: base {_describe(one)}, {names[0]}, and "
            f"expert {_describe(two)}, {names[1]}; only models of one architecture can "
            "be merged."
        )
    unknown = {*base.get("inferred", ()), *expert.get("inferred", ())}
    lines = [
        f"{field:20} {one[field]!s:14} {two[field]!s}"
        for field in _FIELDS
        if one[field] != two[field] and f"vision/{field}" not in unknown
    ]
    if lines:
        raise ValueError(
            f"The configurations of {names[0]} and {names[1]} differ, so the same "
            "weights would mean another model; use the base that the expert was "
            "fine-tuned from.\n  field                base           expert\n  "
            + "\n  ".join(lines)
        )


def _describe(part):
    """Names an image tower by its sizes."""
    letter = _LETTERS.get((part["width"], part["num_layers"]))
    name = f"ViT-{letter}/{part['patch_size']}" if letter else "ViT"
    return (
        f"{name} (width {part['width']}, {part['num_layers']} layers, patch "
        f"{part['patch_size']}, output {part['output_size']})"
    )


_SIZES = ("width", "num_layers", "patch_size", "mlp_width", "output_size")
_FIELDS = ("image_size", "num_heads", "activation", "layer_norm_epsilon", "pooling")
_LETTERS = {(384, 12): "S", (768, 12): "B", (1024, 24): "L", (1280, 32): "H"}
_LARGEST_GROWTH = 10_000
_BITS = {"float16": 16, "bfloat16": 16, "mixed": 16, "float32": 32, "float64": 64}
