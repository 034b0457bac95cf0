"""Predictions and accuracies in batches of few shapes, so that little recompiles."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from adarank_jax.adaptation.step import Classify, Encode
from adarank_jax.data.batches import in_order
from adarank_jax.tree import Tree


class Accuracy(NamedTuple):
    """How many predictions are right.

    Attributes:
        correct: number of right predictions.
        total: number of examples.
    """

    correct: int
    total: int

    @property
    def share(self) -> float:
        """Accuracy in [0, 1]."""
        return self.correct / self.total

    @property
    def standard_error(self) -> float:
        """Binomial standard error of the accuracy."""
        return float(np.sqrt(self.share * (1.0 - self.share) / self.total))


def count(predictions: np.ndarray, labels: np.ndarray) -> Accuracy:
    """Counts right predictions.

    Args:
        predictions: class numbers, `(examples,)`.
        labels: class numbers, `(examples,)`.

    Raises:
        ValueError: the numbers of examples and labels differ.
    """
    if len(predictions) != len(labels):
        raise ValueError(
            f"`labels` must hold one label an example, got {len(labels)} for "
            f"{len(predictions)}."
        )
    return Accuracy(int((predictions == labels).sum()), len(labels))


class Predictor:
    """Compiles an encoder once a shape, for any parameters and number of examples.

    Args:
        encode: the model without its head.
        classify: the head of one task.
        batch_size: most examples a call. The last batch is filled up, and fewer
            examples than a batch are filled up to a power of two.
        collate: applied to every batch before it is encoded, for example
            `tokens.trim` with its buckets; each shape that it gives is compiled once.

    Examples:
        >>> import numpy as np
        >>> scale = Predictor(lambda p, x: p["w"] * x, lambda f, h: f + h, batch_size=2)
        >>> inputs = np.array([[0.0, 2.0], [3.0, 1.0], [0.0, 5.0]])
        >>> scale.predict({"w": 2.0}, 0.0, inputs).tolist()
        [1, 0, 1]
    """

    def __init__(
        self,
        encode: Encode,
        classify: Classify,
        batch_size: int = 256,
        collate: Callable[[Any], Any] = lambda batch: batch,
    ):
        """Wraps the two functions in `jax.jit`."""
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        self._encode = jax.jit(encode)
        self._classify = jax.jit(classify)
        self._batch_size, self._collate = batch_size, collate

    def features(self, params: Tree, inputs: Any) -> np.ndarray:
        """Encodes all examples; a source with `lengths` from the longest to the rest.

        Args:
            params: of the encoder.
            inputs: `(examples, ...)` at every leaf, or a source whose slices are arrays
                or trees of them; at least one example.

        Returns:
            Features `(examples, features)`, in the order of the inputs.

        Raises:
            ValueError: there is no example, or the leaves differ in their number.
        """
        source = inputs if hasattr(inputs, "__getitem__") else None
        if source is None or isinstance(inputs, tuple | list | dict):
            source = _Columns(inputs)
        if not len(source):
            raise ValueError("`inputs` must hold at least one example, got none.")
        params, order = jax.device_put(params), _order(source)
        size = min(self._batch_size, 1 << (len(source) - 1).bit_length())
        parts = []
        for batch in in_order(source, size, order=order):
            batch = self._collate(batch)
            found = len(jax.tree.leaves(batch)[0])
            filled = jax.tree.map(lambda leaf: _fill(leaf, size), batch)
            parts.append(np.asarray(self._encode(params, filled))[:found])
        features = np.concatenate(parts)
        if order is None:
            return features
        restored = np.empty_like(features)
        restored[order] = features
        return restored

    def predict(self, params: Tree, head: Any, inputs: Any) -> np.ndarray:
        """Returns the most probable class of each example, `(examples,)` int32."""
        logits = self._classify(self.features(params, inputs), head)
        return np.asarray(logits).argmax(axis=-1).astype(np.int32)

    def accuracy(
        self, params: Tree, head: Any, inputs: Any, labels: np.ndarray
    ) -> Accuracy:
        """Counts right predictions of a model.

        Args:
            params: of the encoder.
            head: the task's classifier.
            inputs: as for `features`.
            labels: `(examples,)`.

        Raises:
            ValueError: the numbers of examples and labels differ.
        """
        return count(self.predict(params, head, inputs), labels)


class _Columns:
    """Arrays of one length, indexed together."""

    def __init__(self, arrays):
        """Checks the length."""
        lengths = {len(leaf) for leaf in jax.tree.leaves(arrays)}
        if len(lengths) != 1:
            raise ValueError(
                "`inputs` must hold as many examples at every leaf, got "
                f"{sorted(lengths)}."
            )
        self._arrays, (self._length,) = arrays, lengths

    def __len__(self):
        """Returns the number of examples."""
        return self._length

    def __getitem__(self, index):
        """Returns some examples."""
        return jax.tree.map(lambda leaf: leaf[index], self._arrays)


def _order(source):
    """Returns the examples from the longest to the shortest, None without lengths."""
    lengths = getattr(source, "lengths", None)
    if lengths is None:
        return None
    # The longest batch needs the most memory, so it comes first.
    return np.argsort(-np.asarray(lengths, np.int64), kind="stable")


def _fill(leaf, length):
    """Repeats the last example, so that every batch has one number of examples."""
    widths = [(0, length - len(leaf))] + [(0, 0)] * (leaf.ndim - 1)
    return np.pad(leaf, widths, mode="edge")
