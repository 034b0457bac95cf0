"""How far adaptation is: a live bar on a terminal, a few plain lines elsewhere."""

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


class AdaptationProgress:
    """Shows step, speed, time left and what is minimised.

    Args:
        name: of the run.
        first: step that it starts from.
        num_steps: step that it ends before.
        console: where to write; standard error, if a result goes to standard output.
        measure: what is shown of a step.
    """

    def __init__(
        self,
        name: str,
        first: int,
        num_steps: int,
        console: Console,
        measure: str = "entropy",
    ):
        """Prepares the bar; `with` starts it."""
        self._name, self._first, self._num_steps = name, first, num_steps
        self._console, self._measure = console, measure
        self._started = time.perf_counter()
        self._told = self._started
        self._bar = Progress(
            TextColumn(f"{name:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]:5.1f} it/s  ETA"),
            TimeRemainingColumn(),
            TextColumn(f"{measure} {{task.fields[value]:.3f}}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(
            name, total=num_steps, completed=first, speed=0.0, value=float("nan")
        )

    def __enter__(self) -> "AdaptationProgress":
        """Starts the live display."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops the live display."""
        self._bar.stop()

    def update(self, done: int, value: float) -> None:
        """Shows that `done` steps are finished and what was measured in the last."""
        now = time.perf_counter()
        speed = (done - self._first) / max(now - self._started, 1e-9)
        self._bar.update(self._task, completed=done, speed=speed, value=value)
        due = now - self._told >= _SECONDS_BETWEEN_LINES or done == self._num_steps
        if not self._console.is_terminal and due:
            self._told = now
            left = (self._num_steps - done) / max(speed, 1e-9)
            self._console.print(
                f"{self._name}: step {done:,} of {self._num_steps:,}, {speed:.1f} it/s,"
                f" ETA {left:.0f} s, {self._measure} {value:.3f}",
                soft_wrap=True,
                highlight=False,
            )


_SECONDS_BETWEEN_LINES = 15.0
