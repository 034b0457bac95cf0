"""What the steps of an adaptation measured: looked at, and written row by row."""

import time
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console

from adarank_jax import errors
from adarank_jax.adaptation.collapse import CollapseGuard
from adarank_jax.adaptation.record import Record
from adarank_jax.adaptation.step import Metrics
from adarank_jax.errors import Message


class Rows:
    """Turns the metrics of steps into rows, in order.

    Args:
        name: of the adaptation.
        tasks: names, in the order of every task axis.
        on_collapse: what to do when the predictions of a task become one class.
        record: where rows go; None in all processes but the first.
        console: for warnings.
    """

    def __init__(
        self,
        name: str,
        tasks: Sequence[str],
        on_collapse: Literal["warn", "stop"],
        record: Record | None,
        console: Console,
    ):
        """Starts the clock of the first step."""
        self._name, self._tasks, self._on_collapse = name, tasks, on_collapse
        self._record, self._console = record, console
        self._guard: CollapseGuard | None = None
        self._told = time.perf_counter()

    def watch(
        self, num_classes: Sequence[int], batch_size: int, before: np.ndarray
    ) -> None:
        """Begins to look for collapse.

        Args:
            num_classes: of each task.
            batch_size: examples a task and step.
            before: entropy and marginal entropy of the steps of earlier starts,
                `(steps, 2, tasks)`; nothing is told of them again.
        """
        self._guard = CollapseGuard(self._tasks, num_classes, batch_size)
        for entropy, marginal_entropy in before:
            self._guard.update(entropy, marginal_entropy)

    def write(
        self, number: int, metrics: Metrics, waited: float, saving: float
    ) -> float:
        """Waits for the metrics of a step and writes them.

        Args:
            number: of the step.
            metrics: on the devices.
            waited: seconds that its batch was waited for.
            saving: seconds that the state before it took to be saved.

        Returns:
            The mean entropy.

        Raises:
            NumericsError: a loss is not finite, or the predictions of a task have
                collapsed and that shall stop the run.
        """
        metrics = jax.tree.map(np.asarray, metrics)
        now = time.perf_counter()
        seconds, self._told = now - self._told, now
        row = self._row(number, metrics)
        if self._record is not None:
            spent = {"seconds": seconds, "waited": waited, "saving": saving}
            row |= {key: round(value, 6) for key, value in spent.items()}
            self._record.append(row)
        self._look(number, metrics)
        return row["mean_entropy"]

    def _row(self, number, metrics) -> dict[str, Any]:
        """Turns the metrics of a step into a row, or raises if it is lost."""
        named = lambda values: dict(zip(self._tasks, values.tolist(), strict=True))
        bad = [
            task for task, loss in named(metrics.loss).items() if not np.isfinite(loss)
        ]
        if bad:
            raise errors.NumericsError(
                "E501",
                f"The loss of {bad} is not finite at step {number} of {self._name!r}",
                remedy="the newest saved state is still good: lower the learning rate, "
                "or check the inputs and heads of these tasks",
            )
        return {
            "run": self._name,
            "step": number,
            "loss": float(metrics.loss.sum()),
            "mean_entropy": float(metrics.entropy.mean()),
            "entropy": named(metrics.entropy),
            "marginal_entropy": named(metrics.marginal_entropy),
        }

    def _look(self, number, metrics):
        """Warns of predictions that collapse to one class, or stops."""
        if self._guard is None:
            return
        found = self._guard.update(metrics.entropy, metrics.marginal_entropy)
        for task, (entropy, bound) in found.items():
            message = Message(
                "W502",
                f"at step {number:,} the predictions of {task!r} have become nearly "
                f"all one class: the entropy of their mean is {entropy:.2g} nats",
                self._name,
                f"above {bound:.2g}",
                "lower the learning rate, or leave the task out",
            )
            if self._on_collapse == "stop":
                raise errors.NumericsError(*message._replace(code="E502"))
            if self._record is not None:
                self._record.warn(message, self._console)
