"""Names in tables: the entry, or an error with the nearest name."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from adarank_jax import errors


def nearest(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    """Looks a name up.

    Args:
        kind: what is looked for, for the message.
        name: a key of the table.
        table: all there is.

    Raises:
        UsageError: there is no such name; the message has the nearest.
    """
    if name not in table:
        raise errors.UsageError(
            "E016",
            f"there is no {kind} {name!r}",
            expected=f"one of {', '.join(table)}" if len(table) <= 24 else "",
            remedy=f"did you mean {close(name, table)!r}?",
        )
    return table[name]


def close(name: str, known: Iterable[str]) -> str:
    """Returns the known name that is spelt most like a given one."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
