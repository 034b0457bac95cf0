"""Texts as token ids: ragged in memory, one shape when asked for, few when trimmed.

What a model cannot take is refused on the host, because JAX never raises for an index
that is out of range.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from adarank_jax import errors
from adarank_jax.data.text_source import TextSource
from adarank_jax.data.tokenizer_folder import load_tokenizer

__all__ = [
    "BUCKETS",
    "Tokens",
    "bucket_lengths",
    "load_tokenizer",
    "longest_first",
    "tokenize",
    "trim",
]

BUCKETS = (32, 64, 128, 256, 512)
"""Usual lengths that batches are cut to."""


class Tokens:
    """Token ids of texts, an array-like of examples.

    Args:
        ids: of all texts, one after the other.
        types: of all tokens, 0 or 1, as `ids`.
        lengths: tokens of each text, `(texts,)`.
        max_length: tokens of an example with its padding.
        padding: id of the padding.
        num_truncated: texts that were cut.
        num_empty: texts without a token of their own.

    Attributes:
        lengths: tokens of each text, `(texts,)` int32.
        num_truncated: texts that were cut.
        num_empty: texts without a token of their own.

    Raises:
        ValueError: the lengths do not fit the ids.

    Examples:
        >>> import numpy as np
        >>> ids = np.array([7, 8, 9], np.uint16)
        >>> tokens = Tokens(ids, np.zeros(3, np.uint8), np.array([2, 1]), 4, padding=0)
        >>> tokens[:]["input_ids"].tolist()
        [[7, 8, 0, 0], [9, 0, 0, 0]]
        >>> tokens[1]["attention_mask"].tolist()
        [1, 0, 0, 0]
    """

    def __init__(
        self,
        ids: np.ndarray,
        types: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        padding: int,
        num_truncated: int = 0,
        num_empty: int = 0,
    ):
        """Computes where each text begins."""
        self.lengths = np.asarray(lengths, np.int32)
        if not (len(ids) == len(types) == int(self.lengths.sum(dtype=np.int64))):
            raise ValueError(
                f"`lengths` must add up to the number of ids, got {len(ids)} ids, "
                f"{len(types)} types and lengths of {self.lengths.sum()} in all."
            )
        if any(not 1 <= length <= max_length for length in self.lengths):
            raise ValueError("`lengths` must be from 1 to `max_length`.")
        self.max_length, self._padding = max_length, padding
        self.num_truncated, self.num_empty = num_truncated, num_empty
        self._ids, self._types = ids, types
        ends = np.cumsum(self.lengths, dtype=np.int64)
        self._starts = ends - self.lengths

    def __len__(self) -> int:
        """Returns the number of texts."""
        return len(self.lengths)

    def __getitem__(self, index: Any) -> dict[str, np.ndarray]:
        """Returns padded texts: `(max_length,)` for a number, else `(n, max_length)`.

        Raises:
            IndexError: there is no such text.
        """
        rows = np.arange(len(self))[index]
        places = np.arange(self.max_length)
        mask = places < self.lengths[rows][..., None]
        there = (self._starts[rows][..., None] + places)[mask]
        inputs = {"attention_mask": mask.astype(np.int32)}
        for name, values, padding in (
            ("input_ids", self._ids, self._padding),
            ("token_type_ids", self._types, 0),
        ):
            inputs[name] = np.full(mask.shape, padding, np.int32)
            inputs[name][mask] = values[there]
        return inputs

    def content(self) -> Iterator[bytes]:
        """Yields what the texts are known by after they became numbers."""
        yield repr((self.max_length, self._padding)).encode()
        for array in (self._ids, self._types, self.lengths):
            yield np.ascontiguousarray(array).astype("<i4").data.cast("B")


def bucket_lengths(
    max_length: int, buckets: Sequence[int] = BUCKETS
) -> tuple[int, ...]:
    """Returns the lengths below the largest, and the largest itself.

    Args:
        max_length: tokens of an example with its padding.
        buckets: lengths in any order; each is one more compiled program.

    Raises:
        ValueError: a length is below 1.

    Examples:
        >>> bucket_lengths(100)
        (32, 64, 100)
    """
    if min([max_length, *buckets]) < 1:
        raise ValueError(
            f"`buckets` and `max_length` must be at least 1, got {list(buckets)} and "
            f"{max_length}."
        )
    return (*sorted({each for each in buckets if each < max_length}), max_length)


def trim(inputs: Any, buckets: Sequence[int] = BUCKETS) -> Any:
    """Cuts padding off, to the smallest bucket that holds all tokens of a batch.

    Args:
        inputs: arrays `(..., tokens)` with an `attention_mask`, on the host.
        buckets: lengths; a batch that no bucket holds stays as it is.

    Returns:
        The same tree; every leaf is cut along its last axis.

    Examples:
        >>> import numpy as np
        >>> mask = np.array([[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
        >>> trim({"attention_mask": mask}, (2, 4))["attention_mask"].shape
        (2, 4)
    """
    mask = np.asarray(inputs["attention_mask"])
    used = np.flatnonzero(mask.any(axis=tuple(range(mask.ndim - 1))))
    needed = int(used[-1]) + 1 if len(used) else 1
    length = min((each for each in buckets if each >= needed), default=mask.shape[-1])
    return jax.tree.map(lambda leaf: leaf[..., :length], inputs)


def tokenize(
    source: TextSource,
    tokenizer: Any,
    max_length: int,
    vocabulary_size: int | None = None,
    max_positions: int | None = None,
    num_token_types: int | None = None,
    name: str | None = None,
) -> Tokens:
    """Turns texts or pairs of texts into token ids, cut as `transformers` cuts them.

    A text that has no token at all, as the empty one has none for GPT-2, becomes one
    padding token: `transformers` reads the same one. GPT-2 as it is pads with its end.

    Args:
        source: of texts, as `texts.Texts`.
        tokenizer: from `load_tokenizer`.
        max_length: tokens of a text or pair with all that the tokenizer adds.
        vocabulary_size: rows of the model's embedding, if larger ids shall be refused.
        max_positions: tokens that the model takes at most (RoBERTa: its rows of
            positions less two).
        num_token_types: rows of the model's token types; None where it has none.
        name: of the source in messages; by default its own.

    Returns:
        Their ids; `num_truncated` and `num_empty` count what may surprise.

    Raises:
        InputError: an id or a type has no row in the model.
        UsageError: `max_length` is too small or too large.
        ValueError: some examples are pairs and some are not.

    References:
        Truncation is the `longest_first` of the library `tokenizers`: of a pair, the
        longer text is cut.
    """
    if max_positions is not None and max_length > max_positions:
        raise errors.UsageError(
            "E349",
            f"`max_length` must be at most {max_positions}, the tokens that the model "
            f"has positions for, got {max_length}",
        )
    name = name or getattr(source, "name", "the texts")
    rows = _Rows(tokenizer, max_length, name)
    chunk, size = [], 0
    for index in range(len(source)):
        chunk.append(source[index][0])
        size += sum(len(text or "") for text in chunk[-1])
        if len(chunk) == _CHUNK_TEXTS or size >= _CHUNK_LETTERS:
            rows.add(chunk, vocabulary_size, num_token_types)
            chunk, size = [], 0
    if chunk:
        rows.add(chunk, vocabulary_size, num_token_types)
    return rows.tokens()


class _Rows:
    """Collects the ids of texts, a chunk at a time."""

    def __init__(self, tokenizer, max_length, name):
        """Starts with nothing."""
        self._tokenizer, self._max_length, self._name = tokenizer, max_length, name
        self._has_types = "token_type_ids" in tokenizer.model_input_names
        self._is_pair, self._num_truncated, self._num_empty = None, 0, 0
        self._ids, self._types, self._lengths = [], [], []

    def add(self, texts, vocabulary_size, num_types):
        """Tokenizes one chunk."""
        rows = [*map(self._row, self._encode(texts))]
        first = sum(map(len, self._lengths))
        self._lengths.append(np.array([len(ids) for ids, _ in rows], np.int32))
        for values, i in ((self._ids, 0), (self._types, 1)):
            values.append(np.array([x for row in rows for x in row[i]], np.int32))
        self._check("token id", self._ids[-1], vocabulary_size, first)
        self._check("token type", self._types[-1], num_types, first)
        # 16 bits hold every usual vocabulary; NumPy widens them where they do not.
        if self._ids[-1].max() < 2**16:
            self._ids[-1] = self._ids[-1].astype(np.uint16)
        self._types[-1] = self._types[-1].astype(np.uint8)

    def tokens(self):
        """Returns all of them."""
        parts = (self._ids, self._types, self._lengths)
        columns = [np.concatenate(part) if part else np.zeros(0) for part in parts]
        return Tokens(
            *columns,
            max_length=self._max_length,
            padding=self._tokenizer.pad_token_id,
            num_truncated=self._num_truncated,
            num_empty=self._num_empty,
        )

    def _encode(self, texts):
        """Runs the tokenizer without cutting anything."""
        kinds = {second is not None for _, second in texts}
        if self._is_pair is None:
            self._is_pair = True in kinds
            self._num_added = self._tokenizer.num_special_tokens_to_add(self._is_pair)
            least = self._num_added + 1 + self._is_pair
            if self._max_length < least:
                raise errors.UsageError(
                    "E349",
                    f"`max_length` must be at least {least}, of which the tokenizer "
                    f"adds {self._num_added}, got {self._max_length}",
                )
        if kinds != {self._is_pair}:
            raise ValueError(
                f"Some examples of {self._name} are pairs of texts and some are single "
                "texts; a task has one kind."
            )
        firsts = [first for first, _ in texts]
        seconds = [second for _, second in texts] if self._is_pair else None
        options = {"padding": False, "truncation": False, "verbose": False}
        return self._tokenizer(firsts, seconds, **options).encodings

    def _row(self, encoding):
        """Returns ids and types of one text, cut if need be."""
        ids = encoding.ids
        types = encoding.type_ids if self._has_types else [0] * len(ids)
        if len(ids) <= self._num_added:
            self._num_empty += 1
        if len(ids) > self._max_length:
            self._num_truncated += 1
            kept = self._kept(encoding.sequence_ids)
            ids, types = [ids[i] for i in kept], [types[i] for i in kept]
        return (ids, types) if ids else ([self._tokenizer.pad_token_id], [0])

    def _kept(self, sequences):
        """Returns the places of what is kept: all that was added, and of the texts."""
        places = [[i for i, each in enumerate(sequences) if each == k] for k in (0, 1)]
        room = self._max_length - (len(sequences) - sum(map(len, places)))
        kept = {i for i, each in enumerate(sequences) if each is None}
        counts = longest_first(*map(len, places), room)
        for own, count in zip(places, counts, strict=True):
            is_left = self._tokenizer.truncation_side == "left"
            kept.update(own[len(own) - count :] if is_left else own[:count])
        return sorted(kept)

    def _check(self, what, values, limit, first):
        """Refuses what the model has no row for."""
        if limit is None or values.max() < limit:
            return
        place = int(np.argmax(values >= limit))
        ends = np.cumsum(self._lengths[-1])
        text = first + int(np.searchsorted(ends, place, side="right"))
        raise errors.InputError(
            "E341",
            f"it has the {what} {values[place]}, but the model has {limit}, 0 to "
            f"{limit - 1}",
            where=f"text {text} of {self._name}",
            remedy="take the tokenizer that belongs to it",
        )


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Says how much of a pair is kept where both do not fit: the longer is cut.

    Args:
        first: tokens of the first text.
        second: tokens of the second, 0 if there is none.
        room: tokens that fit, without what the tokenizer adds.

    Returns:
        Tokens kept of each; an odd one goes to the longer, or else to the second.

    Examples:
        >>> longest_first(100, 3, 21), longest_first(100, 50, 21)
        ((18, 3), (11, 10))
    """
    if first + second <= room:
        return first, second
    short = min(first, second, room // 2)
    return (room - short, short) if first > second else (short, room - short)


_CHUNK_TEXTS = 1_000  # tokenized at once
_CHUNK_LETTERS = 1_000_000  # likewise, for long texts
