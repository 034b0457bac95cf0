"""Endless shuffled batches of all tasks, each a pure function of its step number.

A grain `MapDataset` is indexed by step, so a resumed run needs no iterator state: the
position of the data is the step itself.
"""

from collections.abc import Sequence

import grain
import numpy as np


class TaskBatches:
    """Batches of every task, `(tasks, batch, ...)`, indexed by step.

    Args:
        examples: for each task one array or several, `(examples, ...)`, drawn from
            together; the tasks may differ in length.
        batch_size: examples a task and step.
        seed: the order is a pure function of the seed, the task's place and the step.

    Raises:
        ValueError: there is no task, a task has no example, or its arrays differ in
            length.

    Examples:
        >>> import numpy as np
        >>> batches = TaskBatches([(np.arange(5),), (np.arange(7),)], 2, seed=0)
        >>> batches[0][0].shape
        (2, 2)
    """

    def __init__(
        self,
        examples: Sequence[tuple[np.ndarray, ...]],
        batch_size: int,
        seed: int,
    ):
        """Builds one shuffled, repeated index stream a task."""
        if not examples:
            raise ValueError("`examples` must hold at least one task, got none.")
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        for i, arrays in enumerate(examples):
            lengths = {len(array) for array in arrays}
            if len(lengths) != 1 or 0 in lengths:
                raise ValueError(
                    f"`examples[{i}]` must hold arrays of one length above zero, got "
                    f"lengths {sorted(lengths)}."
                )
        self._examples = examples
        self._batch_size = batch_size
        self._orders = [
            grain.MapDataset.range(len(arrays[0]))
            .seed(_task_seed(seed, i))
            .shuffle()
            .repeat()
            for i, arrays in enumerate(examples)
        ]

    def __getitem__(self, step: int) -> tuple[np.ndarray, ...]:
        """Returns one stacked array for each array of a task."""
        places = range(step * self._batch_size, (step + 1) * self._batch_size)
        rows = [[order[place] for place in places] for order in self._orders]
        return tuple(
            np.stack([array[row] for array, row in zip(column, rows, strict=True)])
            for column in zip(*self._examples, strict=True)
        )


def _task_seed(seed: int, task: int) -> int:
    """Mixes the seed of the run with the place of the task."""
    return int(np.random.SeedSequence([seed, task]).generate_state(1)[0])
