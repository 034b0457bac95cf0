"""Batches that are on the devices before a step asks for them."""

import collections
import concurrent.futures
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Ready(NamedTuple):
    """A batch that was asked for.

    Attributes:
        batch: what `place` returned.
        waited: seconds between asking and having it.
    """

    batch: Any
    waited: float


def ahead(
    batches: Iterable[Any], place: Callable[[Any], Any], depth: int = 2
) -> Iterator[Ready]:
    """Takes and places the next batches in a thread, while a step runs.

    The order is that of `batches`, and an error in it comes when its batch is asked
    for, after all that are before it.

    Args:
        batches: read in one other thread, at most `depth` ahead.
        place: puts a batch on the devices.
        depth: batches in memory besides the one that is used.

    Yields:
        Each batch, and how long its step waited for it.

    Raises:
        ValueError: `depth` is too small.

    Examples:
        >>> [ready.batch for ready in ahead(range(3), lambda number: 10 * number)]
        [0, 10, 20]
    """
    if depth < 1:
        raise ValueError(f"`depth` must be at least 1, got {depth}.")
    iterator, end = iter(batches), object()

    def take():
        batch = next(iterator, end)
        return end if batch is end else place(batch)

    pool = concurrent.futures.ThreadPoolExecutor(1, "batches")
    try:
        waiting = collections.deque(pool.submit(take) for _ in range(depth))
        while True:
            asked = time.perf_counter()
            batch = waiting.popleft().result()
            if batch is end:
                return
            waiting.append(pool.submit(take))
            yield Ready(batch, time.perf_counter() - asked)
    finally:
        pool.shutdown(cancel_futures=True)


def idle_share(rows: Sequence[Mapping[str, Any]]) -> float:
    """Returns the share of time in which the loop waited for data.

    A device may still have been busy with the step before, so that it was idle for this
    share at most.

    Args:
        rows: of `metrics.jsonl`, of one run; leave the first out, because its time is
            that of compilation.

    Raises:
        ValueError: there is no row.

    Examples:
        >>> idle_share([{"seconds": 4.0, "waited": 1.0}])
        0.25
    """
    if not rows:
        raise ValueError("`rows` must hold at least one row, got none.")
    total = sum(row["seconds"] for row in rows)
    return sum(row["waited"] for row in rows) / total
