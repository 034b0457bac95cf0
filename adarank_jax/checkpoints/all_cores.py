"""One function over many arrays, on all cores: NumPy and hashing leave the lock."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Given = TypeVar("Given")
Made = TypeVar("Made")


def map_values(
    function: Callable[[Given], Made], items: Mapping[Key, Given]
) -> dict[Key, Made]:
    """Applies a function to the values of a mapping, in threads.

    Args:
        function: of a value; what it raises is raised here.
        items: value by key.

    Returns:
        What the function returned, by the same keys in the same order.

    Examples:
        >>> map_values(len, {"b": "two", "a": "four"})
        {'b': 3, 'a': 4}
    """
    with ThreadPoolExecutor(_num_cores()) as pool:
        return dict(zip(items, pool.map(function, items.values()), strict=True))


def _num_cores():
    """Counts the cores that this process may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()
