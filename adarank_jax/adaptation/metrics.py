"""Metrics of a task, each with its standard error."""

import math
from typing import NamedTuple

import numpy as np

from adarank_jax.adaptation import evaluate


class Score(NamedTuple):
    """A metric on the examples of a task.

    Attributes:
        value: of the metric; 1 is best.
        standard_error: over draws of the examples.
        total: number of examples.
    """

    value: float
    standard_error: float
    total: int


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> Score:
    """Computes the share of right predictions, with its binomial standard error.

    Args:
        predictions: class numbers, `(examples,)`.
        labels: class numbers, `(examples,)`.

    Raises:
        ValueError: the numbers of examples and labels differ, there is none, or a
            label is below 0.

    Examples:
        >>> import numpy as np
        >>> accuracy(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0])).value
        0.75
    """
    _check(predictions, labels)
    found = evaluate.count(np.asarray(predictions), np.asarray(labels))
    return Score(found.share, found.standard_error, found.total)


def matthews(predictions: np.ndarray, labels: np.ndarray) -> Score:
    r"""Computes Matthews' correlation of predictions and labels, of any classes.

    With the confusion matrix :math:`C` of n examples, its row sums :math:`t` (labels)
    and column sums :math:`p` (predictions),

    .. math::
        r = \frac{n \operatorname{tr} C - t \cdot p}
        {\sqrt{(n^2 - p \cdot p)(n^2 - t \cdot t)}}

    and 0 where the denominator is 0, because all predictions or all labels are one
    class. The standard error is the jackknife's: the value is computed again without
    each example, which the cells of the matrix give in closed form.

    Args:
        predictions: class numbers, `(examples,)`.
        labels: class numbers, `(examples,)`.

    Returns:
        The correlation in [-1, 1].

    Raises:
        ValueError: as for `accuracy`.

    Examples:
        >>> import numpy as np
        >>> matthews(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 1])).value
        1.0
        >>> matthews(np.array([1, 1, 1, 1]), np.array([0, 1, 1, 0])).value
        0.0

    References:
        Gorodkin, `Comparing two K-category assignments by a K-category correlation
        coefficient <https://doi.org/10.1016/j.compbiolchem.2004.09.006>`_, 2004.
        Efron and Stein, `The jackknife estimate of variance
        <https://doi.org/10.1214/aos/1176345462>`_, 1981.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    _check(predictions, labels)
    matrix = _confusion(predictions, labels)
    total = len(labels)
    value = _correlation(matrix)
    if total == 1:
        return Score(value, 0.0, 1)
    cells = np.argwhere(matrix)
    counts = matrix[tuple(cells.T)]
    without = np.array([_correlation(_less_one(matrix, cell)) for cell in cells])
    mean = counts @ without / total
    spread = counts @ (without - mean) ** 2
    error = float(np.sqrt((total - 1) / total * spread))
    return Score(value, error, total)


def _check(predictions, labels):
    """Refuses what no metric can be computed of."""
    if np.shape(predictions) != np.shape(labels) or np.ndim(labels) != 1:
        raise ValueError(
            f"`labels` must hold one label an example, got shape {np.shape(labels)} "
            f"for {np.shape(predictions)}."
        )
    if not len(labels):
        raise ValueError("`labels` must hold at least one example, got none.")
    if count := int((np.asarray(labels) < 0).sum()):
        raise ValueError(
            f"{count} of {len(labels)} `labels` are below 0, which means that an "
            "example has none; leave such examples out."
        )


def _confusion(predictions, labels):
    """Counts each pair of label and prediction, over the classes that occur."""
    classes, numbers = np.unique([labels, predictions], return_inverse=True)
    rows, cols = numbers.reshape(2, -1)
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(matrix, (rows, cols), 1)
    return matrix


def _less_one(matrix, cell):
    """Leaves one example out."""
    rest = matrix.copy()
    rest[tuple(cell)] -= 1
    return rest


def _correlation(matrix):
    """Computes the correlation; whole numbers of any size stay exact."""
    labels = [int(each) for each in matrix.sum(axis=1)]
    predictions = [int(each) for each in matrix.sum(axis=0)]
    total = sum(labels)
    products = zip(labels, predictions, strict=True)
    above = total * int(matrix.trace()) - sum(t * p for t, p in products)
    below = [total**2 - sum(x * x for x in each) for each in (labels, predictions)]
    if not below[0] or not below[1]:
        return 0.0
    return above / math.sqrt(below[0] * below[1])


METRICS = {"accuracy": accuracy, "matthews": matthews}
