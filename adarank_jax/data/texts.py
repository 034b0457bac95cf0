"""The door to all texts: what a source is, and how each kind is opened.

Every opener gives a `Texts`: `source[index]` is `((first, second or None), label)`.
"""

from adarank_jax.data.sources import NO_LABEL
from adarank_jax.data.text_files import open_csv, open_jsonl
from adarank_jax.data.text_parquet import from_hub, open_parquet
from adarank_jax.data.text_source import (
    Texts,
    TextSource,
    generic_numbers,
    missing,
    renumbered,
    shared_texts,
)
from adarank_jax.data.text_tfds import open_tfds

__all__ = [
    "NO_LABEL",
    "TextSource",
    "Texts",
    "from_hub",
    "generic_numbers",
    "missing",
    "open_csv",
    "open_jsonl",
    "open_parquet",
    "open_tfds",
    "renumbered",
    "shared_texts",
]
