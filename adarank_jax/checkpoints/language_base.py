"""Whether the experts of a language model come from the base they are merged with."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adarank_jax import errors
from adarank_jax.checkpoints import same_base
from adarank_jax.errors import Message


def check_same_base(base: Any, expert: Any) -> list[Message]:
    """Checks that an expert was fine-tuned from a base.

    Args:
        base: a `LanguageCheckpoint`.
        expert: another.

    Returns:
        Warnings: the expert equals the base, is stored with fewer bits, or holds
        numbers of another order.

    Raises:
        InputError: family, sizes or configurations differ, or the weights are too far
            from those of the base.
    """
    names = f"`{base.source}`", f"`{expert.source}`"
    families = base.family, expert.family
    check_configs(families, (base.config, expert.config), names)
    return same_base.check_distance(
        base.encoder,
        expert.encoder,
        names,
        _is_compared,
        (base.layout.dtype, expert.layout.dtype),
    )


def _is_compared(path, leaf):
    """Tells which leaves are matrices of the layers: no embeddings, no pooler."""
    return np.ndim(leaf) == 2 and path.startswith(("encoder/", "h_"))


def find_twins(experts: Mapping[str, Any]) -> list[Message]:
    """Compares experts with each other.

    Args:
        experts: each a `LanguageCheckpoint`, by task.

    Returns:
        A warning for each expert whose encoder equals one before it.
    """
    return same_base.find_twins({t: expert.encoder for t, expert in experts.items()})


def check_configs(
    families: tuple[str, str],
    configs: tuple[Mapping[str, Any], Mapping[str, Any]],
    names: tuple[str, str],
) -> None:
    """Checks that the configurations of a base and an expert are of one model.

    Args:
        families: of base and expert.
        configs: fields of their modules.
        names: what to call the two in messages.

    Raises:
        InputError: the families differ, the sizes, told in one line, the number of
            tokens, or other fields, as a table.
    """
    if families[0] != families[1]:
        raise errors.InputError(
            "E201",
            f"it is a {families[1]} and its base {names[0]} a {families[0]}",
            where=names[1],
            remedy="take models of one architecture, as no others can be merged",
        )
    one, two = configs
    if any(one[field] != two[field] for field in _SIZES):
        raise errors.InputError(
            "E201",
            f"base and expert differ in size: base {_describe(one)}, {names[0]}, and "
            f"expert {_describe(two)}, {names[1]}",
            remedy="take models of one architecture, as no others can be merged",
        )
    rows = one["vocabulary_size"], two["vocabulary_size"]
    if rows[0] != rows[1]:
        raise errors.InputError(
            "E216",
            f"it has embeddings of {rows[1]:,} tokens and its base {names[0]} of "
            f"{rows[0]:,}: tokens were {'added' if rows[1] > rows[0] else 'removed'} "
            "when it was fine-tuned, and tables of different tokens cannot be merged",
            where=names[1],
            remedy="take an expert with the base's own vocabulary, or cut its table "
            "down to it if the added rows are never used",
        )
    same_base.check_fields(one, two, tuple(one), names)


def _describe(config):
    """Names an encoder by its sizes."""
    return (
        f"width {config['width']}, {config['num_layers']} layers, MLP "
        f"{config['mlp_width']}"
    )


_SIZES = ("width", "num_layers", "mlp_width")
