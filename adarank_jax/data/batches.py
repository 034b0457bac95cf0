"""Endless batches of all tasks, each a pure function of its step number.

A grain `MapDataset` is indexed by step, so a resumed run needs no iterator state: the
position of the data is the step itself.
"""

import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np

from adarank_jax import errors


class TaskBatches:
    """Batches of every task, `(tasks, batch, ...)`, indexed by step.

    A task with fewer examples than a batch is repeated, each time in another order.

    Args:
        examples: for each task one column or several, drawn from together: arrays
            `(examples, ...)`, `Transformed` sources, or sources whose examples are
            trees of arrays, as `tokens.Tokens`; the tasks may differ in length.
        batch_size: examples a task and step.
        seed: the order is a pure function of the seed, the task's place and the step.
        shuffle: False to show the examples of every task as they come, and again from
            the first after the last; the seed then decides nothing.
        part: number of this process, which gets and reads its part of every batch only.
        num_parts: processes that share every batch.

    Raises:
        ValueError: there is no task, a task has no example, its columns differ in
            length, or the batch cannot be shared evenly.

    Examples:
        >>> import numpy as np
        >>> batches = TaskBatches([(np.arange(5),), (np.arange(7),)], 2, seed=0)
        >>> batches[0][0].shape
        (2, 2)
        >>> ahead = batches.stream(3)
        >>> bool((next(ahead)[0] == batches[3][0]).all())
        True
    """

    def __init__(
        self,
        examples: Sequence[tuple[Any, ...]],
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        part: int = 0,
        num_parts: int = 1,
    ):
        """Builds one repeated index stream a task."""
        if not examples:
            raise ValueError("`examples` must hold at least one task, got none.")
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        if batch_size % num_parts or not 0 <= part < num_parts:
            raise ValueError(
                f"`part` {part} of {num_parts} equal parts of {batch_size} examples "
                "does not exist; choose a batch size that the processes divide."
            )
        for i, columns in enumerate(examples):
            lengths = {len(column) for column in columns}
            if len(lengths) != 1 or 0 in lengths:
                raise ValueError(
                    f"`examples[{i}]` must hold arrays of one length above zero, got "
                    f"lengths {sorted(lengths)}."
                )
        self._examples = examples
        self._batch_size = batch_size
        size = batch_size // num_parts
        self._places = range(part * size, (part + 1) * size)
        orders = [grain.MapDataset.range(len(columns[0])) for columns in examples]
        if shuffle:
            orders = [
                order.seed(_task_seed(seed, i)).shuffle()
                for i, order in enumerate(orders)
            ]
        self._orders = [order.repeat() for order in orders]

    def __getitem__(self, step: int) -> tuple[Any, ...]:
        """Returns one stacked array, or tree of them, for each column of a task."""
        places = [step * self._batch_size + place for place in self._places]
        rows = [[order[place] for place in places] for order in self._orders]
        return tuple(
            _stack_trees(
                [column[row] for column, row in zip(columns, rows, strict=True)]
            )
            for columns in zip(*self._examples, strict=True)
        )

    def stream(
        self, first_step: int = 0, num_threads: int = 2, prefetch: int = 4
    ) -> Iterator[tuple[Any, ...]]:
        """Yields the batches from a step on, prepared ahead of time.

        Args:
            first_step: of the first batch; where a resumed run goes on.
            num_threads: batches in preparation at the same time.
            prefetch: batches that are held in memory at most.

        Returns:
            An endless iterator; its k-th item is `self[first_step + k]`.

        Raises:
            ValueError: a number is too small.
        """
        if first_step < 0:
            raise ValueError(f"`first_step` must be at least 0, got {first_step}.")
        steps = grain.MapDataset.range(first_step, _FOREVER)
        return _ahead(steps.map(self.__getitem__), num_threads, prefetch)


def _stack_trees(tasks):
    """Stacks what the tasks give, leaf by leaf."""
    try:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *tasks)
    except ValueError as error:
        shapes = [jax.tree.map(np.shape, task) for task in tasks]
        raise ValueError(
            "The examples of all tasks must have one shape; a batch has "
            + "; ".join(f"{shape} in task {i}" for i, shape in enumerate(shapes))
            + ". Prepare them alike (one size of images, one `max_length` of texts)."
        ) from error


class Transformed:
    """A source whose images are decoded and transformed when they are asked for.

    It takes the place of an array `(examples, height, width, 3)` of all images: an
    index gives one image, a slice or several indices a batch, decoded in parallel.

    Args:
        source: `[index] -> (image, label)`, with a length.
        transform: turns an image into an array of the same shape for all images.
        num_threads: of its own that decode the images of a batch; by default those
            that all sources of the process share, one a core.

    Examples:
        >>> import numpy as np
        >>> images = Transformed([(np.zeros((2, 2, 3), np.uint8), 0)], np.float32)
        >>> images[0:1].shape
        (1, 2, 2, 3)
    """

    ndim = 4

    def __init__(
        self,
        source: Any,
        transform: Callable[[Any], np.ndarray],
        num_threads: int | None = None,
    ):
        """Keeps the parts; nothing is read."""
        self._source, self._transform = source, transform
        self._num_threads = num_threads

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._source)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Returns one image for a number, a batch for a slice or several numbers.

        Raises:
            IndexError: there is no such image.
            InputError: the images of a batch differ in shape.
        """
        if isinstance(index, int | np.integer):
            return self._one(int(index))
        if isinstance(index, slice):
            index = range(*index.indices(len(self)))
        return _stack([*self._pool.map(self._one, map(int, index))])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Refuses to fill the memory by accident."""
        raise TypeError(
            f"{len(self)} images would be decoded into one array; slice it, or go "
            "through `in_order`."
        )

    def _one(self, index):
        """Decodes one image."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no image {index} among {len(self)}.")
        return self._transform(self._source[index % len(self)][0])

    @functools.cached_property
    def _pool(self):
        """Starts the threads when the first batch is asked for."""
        if self._num_threads is None:
            return _shared_pool()
        return concurrent.futures.ThreadPoolExecutor(self._num_threads, "decode")


def _shared_pool():
    """Returns the threads that decode for all sources, and starts them once."""
    with _STARTING:
        return _start_pool()


@functools.cache
def _start_pool():
    """Starts them."""
    threads = min(16, os.cpu_count() or 1)
    return concurrent.futures.ThreadPoolExecutor(threads, "decode")


def in_order(
    examples: Any,
    batch_size: int,
    num_threads: int = 2,
    prefetch: int = 4,
    order: np.ndarray | None = None,
) -> Iterator[Any]:
    """Yields all examples once, in order, in batches that are prepared ahead of time.

    Args:
        examples: an array, or a source whose slices are arrays or trees of arrays.
        batch_size: examples a batch; the last batch may have fewer.
        num_threads: batches in preparation at the same time.
        prefetch: batches that are held in memory at most.
        order: numbers of the examples in another order, if that is wanted.

    Returns:
        An iterator over `(at most batch_size, ...)`, at every leaf of a tree.

    Raises:
        ValueError: a number is too small.

    Examples:
        >>> import numpy as np
        >>> [batch.tolist() for batch in in_order(np.arange(5), 2)]
        [[0, 1], [2, 3], [4]]
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    count = len(examples) if order is None else len(order)
    starts = grain.MapDataset.range(0, count, batch_size)

    def batch(start):
        places = slice(start, start + batch_size)
        return examples[places if order is None else order[places]]

    return _ahead(starts.map(batch), num_threads, prefetch)


def _ahead(batches, num_threads, prefetch):
    """Iterates over a data set in threads, a few items ahead."""
    for name, value in {"num_threads": num_threads, "prefetch": prefetch}.items():
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch)
    return iter(batches.to_iter_dataset(options))


def _stack(arrays):
    """Stacks images, or says that they differ."""
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise errors.InputError(
            "E330",
            f"the transform must give all images one shape, got {sorted(shapes)}",
            remedy="set its `crop`, or its `size` to a height and a width",
        )
    return np.stack(arrays)


def _task_seed(seed: int, task: int) -> int:
    """Mixes the seed of the run with the place of the task."""
    return int(np.random.SeedSequence([seed, task]).generate_state(1)[0])


_FOREVER = 2**40  # steps
_STARTING = threading.Lock()
