"""How far a decomposition is: a live bar on a terminal, a few plain lines elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


class SvdProgress:
    """Shows how many matrices are decomposed, and the time left.

    Inside `with` it is a `svd_backends.Report` of one decomposition. The bar disappears
    at the end; without a terminal, a decomposition of some seconds shows nothing.

    Args:
        console: where to write; standard error, if a result goes to standard output.
    """

    def __init__(self, console: Console):
        """Prepares the bar; `with` starts it."""
        self._console = console
        self._started = self._told = time.perf_counter()
        self._bar = Progress(
            TextColumn("task vectors"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("matrices decomposed, ETA"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("svd", total=None)

    def __enter__(self) -> "SvdProgress":
        """Starts the clock; the bar waits for the first matrix."""
        self._started = self._told = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Takes the bar away."""
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Shows that `done` matrices of `total` are decomposed."""
        self._bar.start()
        self._bar.update(self._task, completed=done, total=total)
        now = time.perf_counter()
        due = now - self._told >= _SECONDS and done < total
        if due and not self._console.is_terminal:
            self._told = now
            left = (now - self._started) / done * (total - done)
            self._console.print(
                f"{done:,} of {total:,} matrices decomposed, ETA {left:.0f} s",
                soft_wrap=True,
                highlight=False,
            )


_SECONDS = 15.0
"""Between two lines, where there is no terminal."""
