"""How far adaptation is: a live bar on a terminal, a few plain lines elsewhere."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from adarank_jax.adaptation.pace import Pace, clock


class AdaptationProgress:
    """Shows step, speed, time left and what is minimised.

    Until two steps are measured there is no speed, because the first one is compiled.
    On a narrow terminal the name is cut first, then the bar.

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
        self._name, self._num_steps = name, num_steps
        self._console, self._measure = console, measure
        self._pace = Pace()
        # Step, speed, time left and measure are never cut: they take this much.
        fixed = 2 * len(str(num_steps)) + len(measure) + _ROOM_OF_NUMBERS
        room = max(console.width - fixed, 0)
        width = min(_WIDEST_NAME, max(room - _NARROWEST_BAR, _NARROWEST_NAME))
        shown = name if len(name) <= width else f"{name[: width - 1]}…"
        bar = min(_WIDEST_BAR, room - width)
        self._bar = Progress(
            TextColumn(f"{shown:<{width}}", markup=False),
            *([BarColumn(bar_width=bar)] if bar > 0 else []),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        waiting = "compiling …" if first < num_steps else ""
        self._task = self._bar.add_task(
            name, total=num_steps, completed=first, shown=waiting
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
        speed = self._pace.report(done, self._num_steps)
        shown = f"{self._measure} {value:.3f}"
        if speed is not None:
            shown = f"{speed.rate:.1f} it/s, ETA {clock(speed.left)}, {shown}"
        self._bar.update(self._task, completed=done, shown=shown)
        if self._console.is_terminal:
            return
        if self._pace.is_line_due() or done == self._num_steps:
            self._console.print(
                f"{self._name}: step {done:,} of {self._num_steps:,}, {shown}",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )


_WIDEST_NAME, _NARROWEST_NAME = 24, 6
_WIDEST_BAR, _NARROWEST_BAR = 40, 10
_ROOM_OF_NUMBERS = 42
"""Of "/", "1234.5 it/s, ETA 123:45:67, ", " 0.123" and the spaces between columns."""
