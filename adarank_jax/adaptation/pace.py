"""How fast something goes, from its own reports, and when to write a line about it."""

import time
from collections.abc import Callable
from typing import NamedTuple


class Speed(NamedTuple):
    """How fast something goes.

    Attributes:
        rate: of what is counted, a second.
        left: seconds until all is done.
    """

    rate: float
    left: float


class Pace:
    """Measures between reports, never from the start, which may be long before.

    Args:
        now: seconds of a clock.

    Examples:
        >>> times = iter([0.0, 100.0, 102.0])
        >>> pace = Pace(lambda: next(times))
        >>> pace.report(1, 10)
        >>> pace.report(2, 10)
        Speed(rate=0.5, left=16.0)
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        """Starts the wait for the first line."""
        self._now = now
        self._told = self._last = now()
        self._first: tuple[int, float] | None = None

    def report(self, done: int, total: int) -> Speed | None:
        """Takes how much is done; there is no speed until more is than at first."""
        self._last = self._now()
        begun, started = self._first = self._first or (done, self._last)
        if done == begun:
            return None
        rate = (done - begun) / max(self._last - started, 1e-9)
        return Speed(rate, (total - done) / max(rate, 1e-9))

    def is_line_due(self) -> bool:
        """Tells whether the last line is long ago, and if so, counts from now."""
        is_due = self._last - self._told >= SECONDS_BETWEEN_LINES
        if is_due:
            self._told = self._last
        return is_due


def clock(seconds: float) -> str:
    """Shows a time left as hours, minutes and seconds.

    Examples:
        >>> clock(3725.4)
        '1:02:05'
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


SECONDS_BETWEEN_LINES = 15.0
"""Where there is no terminal."""
