"""Whether CLIP's experts come from the base that they are merged with."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adarank_jax import errors
from adarank_jax.checkpoints import same_base
from adarank_jax.errors import Message


def check_same_base(base: Any, expert: Any) -> list[Message]:
    """Checks that an expert was fine-tuned from a base.

    Args:
        base: a `ClipCheckpoint`.
        expert: another, read with the same `qkv`.

    Returns:
        Warnings: the expert equals the base, is stored with fewer bits, or holds
        numbers of another order.

    Raises:
        InputError: the sizes or the configurations differ, or the weights are too far
            from those of the base.
    """
    names = f"`{base.source}`", f"`{expert.source}`"
    check_configs(base.config, expert.config, names)
    return same_base.check_distance(
        base.vision,
        expert.vision,
        names,
        _is_compared,
        (base.layout.dtype, expert.layout.dtype),
    )


def _is_compared(path, leaf):
    """Tells which leaves are matrices of the blocks."""
    return np.ndim(leaf) == 2 and ("/attn/" in path or "/mlp/" in path)


def find_twins(experts: Mapping[str, Any]) -> list[Message]:
    """Compares experts with each other.

    Args:
        experts: each a `ClipCheckpoint`, by task.

    Returns:
        A warning for each expert that equals one before it.
    """
    return same_base.find_twins({t: expert.vision for t, expert in experts.items()})


def check_configs(
    base: Mapping[str, Any], expert: Mapping[str, Any], names: tuple[str, str]
) -> None:
    """Checks that two configurations are of one image tower.

    Args:
        base: a configuration as `clip_config` returns it.
        expert: another; the fields that it had to infer are not compared.
        names: what to call the two in messages.

    Raises:
        InputError: the sizes differ, told in one line, or other fields, as a table.
    """
    one, two = base["vision"], expert["vision"]
    if one is None or two is None:
        raise errors.InputError(
            "E218",
            "both must have an image tower",
            where=f"{names[0]} and {names[1]}",
            remedy="pass a whole model or an image tower",
        )
    if any(one[field] != two[field] for field in _SIZES):
        raise errors.InputError(
            "E201",
            f"base and expert differ in size: base {_describe(one)}, {names[0]}, and "
            f"expert {_describe(two)}, {names[1]}",
            remedy="take models of one architecture, as no others can be merged",
        )
    unknown = {*base.get("inferred", ()), *expert.get("inferred", ())}
    fields = tuple(field for field in _FIELDS if f"vision/{field}" not in unknown)
    same_base.check_fields(one, two, fields, names)


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
