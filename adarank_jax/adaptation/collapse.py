"""A guard against collapse: predictions that all become one class while the loss falls.

Entropy minimisation can be won by predicting one class for everything. The entropy of
the mean prediction over a batch tells, without labels.
"""

import math
from collections.abc import Sequence

import numpy as np

SHARE = 0.1
"""Collapsed: the marginal entropy is below this share of its largest value."""


class CollapseGuard:
    """Compares windows of steps.

    Args:
        tasks: names.
        num_classes: of each task.
        batch_size: examples a task and step.
        window: steps that are averaged.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        num_classes: Sequence[int],
        batch_size: int,
        window: int = 50,
    ):
        """Starts with an empty window."""
        self._tasks, self._window = list(tasks), window
        # The mean of few predictions cannot be spread over more classes than those.
        largest = [math.log(min(count, batch_size)) for count in num_classes]
        self._bound = SHARE * np.asarray(largest)
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        self._first: tuple[np.ndarray, np.ndarray] | None = None
        self._told: set[str] = set()

    def update(
        self, entropy: np.ndarray, marginal_entropy: np.ndarray
    ) -> dict[str, tuple[float, float]]:
        """Takes the metrics of a step.

        Args:
            entropy: mean of each task, `(tasks,)`, in nats.
            marginal_entropy: of the mean prediction of each task, `(tasks,)`, in nats.

        Returns:
            Tasks that have collapsed in the window that ends here, each told once: the
            marginal entropy and the bound that it is below.
        """
        self._rows.append((np.asarray(entropy), np.asarray(marginal_entropy)))
        if len(self._rows) < self._window:
            return {}
        mean, marginal = (
            np.mean(column, axis=0) for column in zip(*self._rows, strict=True)
        )
        self._rows.clear()
        if self._first is None:
            self._first = mean, marginal
        # Examples that come class by class have a low marginal entropy all along.
        have_fallen = (mean < self._first[0]) & (marginal < self._first[1] / 2)
        is_lower = have_fallen & (marginal < self._bound)
        found = {
            task: (float(marginal[i]), float(self._bound[i]))
            for i, task in enumerate(self._tasks)
            if is_lower[i] and task not in self._told
        }
        self._told |= found.keys()
        return found
