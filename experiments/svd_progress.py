"""How far a decomposition is: a live bar on a terminal, a few plain lines elsewhere."""

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
)

from adarank_jax.adaptation.pace import Pace, clock


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
        self._pace = Pace()
        self._bar = Progress(
            TextColumn("task vectors"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("matrices decomposed{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("svd", total=None, left="")

    def __enter__(self) -> "SvdProgress":
        """Starts the wait for a line; the bar waits for the first matrix."""
        self._pace = Pace()
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
        speed = self._pace.report(done, total)
        left = "" if speed is None else f", ETA {clock(speed.left)}"
        self._bar.start()
        self._bar.update(self._task, completed=done, total=total, left=left)
        if self._console.is_terminal or done == total:
            return
        if self._pace.is_line_due():
            self._console.print(
                f"{done:,} of {total:,} matrices decomposed{left}",
                soft_wrap=True,
                highlight=False,
            )
