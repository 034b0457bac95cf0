"""Predictions and accuracies in batches of one shape, so that nothing recompiles."""

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
    """Compiles an encoder once, for any parameters and any number of examples.

    Args:
        encode: the model without its head.
        classify: the head of one task.
        batch_size: examples a call; the last batch is padded.
    """

    def __init__(self, encode: Encode, classify: Classify, batch_size: int = 256):
        """Wraps the two functions in `jax.jit`."""
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        self._encode = jax.jit(encode)
        self._classify = jax.jit(classify)
        self._batch_size = batch_size

    def features(self, params: Tree, inputs: Any) -> np.ndarray:
        """Encodes all examples.

        Args:
            params: of the encoder.
            inputs: `(examples, ...)` at every leaf, at least one example.

        Returns:
            Features `(examples, features)`.

        Raises:
            ValueError: there is no example.
        """
        count = len(jax.tree.leaves(inputs)[0])
        if not count:
            raise ValueError("`inputs` must hold at least one example, got none.")
        params = jax.device_put(params)
        leaves, structure = jax.tree.flatten(inputs)
        columns = [in_order(leaf, self._batch_size) for leaf in leaves]
        parts = []
        for batch in zip(*columns, strict=True):
            found = len(batch[0])
            padded = [_pad(leaf, self._batch_size) for leaf in batch]
            features = self._encode(params, jax.tree.unflatten(structure, padded))
            parts.append(np.asarray(features)[:found])
        return np.concatenate(parts)

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
            inputs: `(examples, ...)` at every leaf.
            labels: `(examples,)`.

        Raises:
            ValueError: the numbers of examples and labels differ.
        """
        return count(self.predict(params, head, inputs), labels)


def _pad(leaf, length):
    """Appends zeros up to a length, so that every batch has one shape."""
    widths = [(0, length - len(leaf))] + [(0, 0)] * (leaf.ndim - 1)
    return np.pad(leaf, widths)
