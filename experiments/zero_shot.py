"""Zero-shot heads: class names and templates through the text tower of the base.

Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
<https://arxiv.org/abs/2103.00020>`_, 2021, section 3.1.4. Published experts were
fine-tuned against such heads, so the head of a task is made from the pretrained text
tower, never from a fine-tuned one.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from adarank_jax import errors, tree
from adarank_jax.checkpoints import head_files
from adarank_jax.data import prompts
from adarank_jax.models import heads
from adarank_jax.tree import Tree

Tokenize = Callable[[Sequence[str]], np.ndarray]
TextEncode = Callable[[ArrayLike], ArrayLike]

BATCH_SIZE = 128


def zero_shot_weight(
    text_encode: TextEncode,
    tokenize: Tokenize,
    class_names: Sequence[str],
    templates: Sequence[str],
    logit_scale: float,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    r"""Builds the weight of a task's head.

    .. math:: w_c = e^{s}\,\frac{m_c}{|m_c|}, \qquad
        m_c = \frac1T \sum_t \frac{f(x_{ct})}{|f(x_{ct})|}

    with :math:`x_{ct}` template t filled with the name of class c.

    Args:
        text_encode: token ids `(batch_size, context)` to embeddings `(batch_size,
            features)`; always called with this one shape, so jit compiles it once.
        tokenize: texts to token ids, for example from `load_tokenizer`.
        class_names: in the order of the labels.
        templates: with `{}` for the name.
        logit_scale: the logarithm, as checkpoints store it (4.6052 for OpenAI's).
        batch_size: prompts embedded at once.

    Returns:
        `(classes, features)`, float32.

    Raises:
        InputError: there are fewer than two classes, a name is there twice, the scale
            is no logarithm, or an embedding is zero or not finite.
        UsageError: there is no template, or one has not one `{}`.
    """
    _check(class_names, templates, logit_scale)
    tokens = tokenize(_texts(class_names, templates))
    return _weight(text_encode, tokens, len(class_names), logit_scale, batch_size)


def _texts(class_names, templates):
    """Fills every template with every name, class by class."""
    return [prompts.fill(t, name) for name in class_names for t in templates]


def _check(class_names, templates, logit_scale):
    """Refuses what no head can be made of, before anything is embedded."""
    if len(class_names) < 2 or len(set(class_names)) < len(class_names):
        raise errors.InputError(
            "E304",
            "`class_names` must be at least two different names, got "
            f"{len(class_names)} of which {len(set(class_names))} differ",
        )
    if not templates:
        raise errors.UsageError(
            "E318",
            "`templates` must not be empty",
            remedy="write at least one; `{}` alone is a template",
        )
    if not math.isfinite(logit_scale) or logit_scale > math.log(1e4):
        raise errors.InputError(
            "E319",
            "`logit_scale` must be the logarithm of what cosines are multiplied by "
            f"(4.6052 for 100), got {logit_scale}",
            remedy="take its logarithm first",
        )


def _weight(text_encode, tokens, num_classes, logit_scale, batch_size):
    """Embeds the prompts and averages those of each class."""
    embeddings = _embed(text_encode, tokens, batch_size)
    blocks = np.split(embeddings, num_classes)
    head = heads.zero_shot_head(blocks, math.exp(logit_scale))
    return np.asarray((head.directions * head.logit_scale).T)


def _embed(text_encode, tokens, batch_size):
    """Embeds all prompts in batches of one shape; the last one is filled up."""
    padding = -len(tokens) % batch_size
    tokens = np.concatenate([tokens, np.repeat(tokens[-1:], padding, axis=0)])
    batches = tokens.reshape(-1, batch_size, tokens.shape[1])
    rows = [np.asarray(text_encode(jnp.asarray(b)), np.float32) for b in batches]
    return np.concatenate(rows)[: batch_size * len(batches) - padding]


def cached_head(
    folder: str | os.PathLike,
    tower_digest: str,
    text_encode: TextEncode,
    tokenize: Tokenize,
    class_names: Sequence[str],
    templates: Sequence[str],
    logit_scale: float,
    extra: dict[str, Any] | None = None,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Reads the weight of this head from the cache, or makes and writes it.

    Args:
        folder: of the cache; one file for each different head.
        tower_digest: of the text tower behind `text_encode`, from `digest_tower`.
        text_encode: as for `zero_shot_weight`; not called if the head is there.
        tokenize: as for `zero_shot_weight`; always called, because the token ids are
            part of what a head is known by.
        class_names: in the order of the labels.
        templates: with `{}` for the name.
        logit_scale: the logarithm, as checkpoints store it.
        extra: what else the file shall say, for example the data set and the profile.
        batch_size: prompts embedded at once.

    Returns:
        `(classes, features)`, float32.

    Raises:
        InputError: as for `zero_shot_weight`, or the file in the cache is damaged.
        UsageError: as for `zero_shot_weight`.
    """
    _check(class_names, templates, logit_scale)
    tokens = tokenize(_texts(class_names, templates))
    made_of = [tower_digest, list(class_names), list(templates), float(logit_scale)]
    key = hashlib.sha256(json.dumps([*made_of, tokens.shape]).encode())
    key.update(np.ascontiguousarray(tokens, "<i4").tobytes())
    file = pathlib.Path(folder) / f"head-{key.hexdigest()[:32]}.safetensors"
    if not file.is_file():
        weight = _weight(text_encode, tokens, len(class_names), logit_scale, batch_size)
        record = {"logit_scale": float(logit_scale), "templates": list(templates)}
        record |= {"text_tower": tower_digest, **(extra or {})}
        head_files.write_head(file, weight, None, class_names, record)
    return head_files.read_head(file).weight


def digest_tower(params: Tree, config: Any) -> str:
    """Returns a digest of a text tower: its numbers and its configuration.

    Args:
        params: of the tower.
        config: a dataclass, for example `ClipTextConfig`.

    Returns:
        32 hexadecimal digits.
    """
    fields = sorted(dataclasses.asdict(config).items())
    digest = hashlib.sha256(json.dumps(fields).encode())
    for path, leaf in sorted(tree.flatten(params).items()):
        array = np.ascontiguousarray(leaf, np.float32)
        digest.update(f"{path} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:32]


def load_tokenizer(
    folder: str | os.PathLike, context_length: int = 77, vocabulary_size: int = 49408
) -> Tokenize:
    """Loads CLIP's tokeniser from a folder on disk.

    Args:
        folder: with `tokenizer.json`, or with `vocab.json` and `merges.txt`.
        context_length: of the text tower; what is longer is cut, but ends as it should.
        vocabulary_size: of the text tower; larger ids are refused.

    Returns:
        A function from texts to int32 ids `(texts, context_length)`.

    Raises:
        MissingError: the folder or the files are not there.
        InputError: the files are no tokeniser of CLIP's kind.
    """
    folder = pathlib.Path(folder)
    _check_files(folder)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # torch is not missed
    from transformers import CLIPTokenizer  # slow to import

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises nothing more precise
        raise errors.InputError(
            "E347",
            f"the tokeniser cannot be read: {error}",
            where=f"`{folder}`",
            remedy="fetch it again",
        ) from error

    def tokenize(texts: Sequence[str]) -> np.ndarray:
        ids = tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=context_length,
            return_tensors="np",
        )["input_ids"]
        _check_ids(ids, texts, folder, vocabulary_size, tokenizer.eos_token_id)
        return ids.astype(np.int32)

    tokenize(["a photo"])
    return tokenize


def _check_files(folder):
    """Refuses a folder without the files of a tokeniser, and says which are missing."""
    pair = ("vocab.json", "merges.txt")
    missing = [name for name in pair if not (folder / name).is_file()]
    if missing and not (folder / "tokenizer.json").is_file():
        found = "no such folder"
        if folder.is_dir():
            found = sorted(entry.name for entry in folder.iterdir())[:10]
        raise errors.MissingError(
            "E346",
            f"no tokeniser: missing {['tokenizer.json', *missing]}, found {found}",
            where=f"`{folder}`",
            expected="`tokenizer.json`, or `vocab.json` and `merges.txt`",
            remedy="fetch them from the repository of the pretrained model",
        )


def _check_ids(ids, texts, folder, vocabulary_size, end_token):
    """Refuses ids that the tower has no row for, and texts that do not end."""
    if ids.max() >= vocabulary_size:
        text = texts[int(np.argmax(ids.max(axis=1)))]
        raise errors.InputError(
            "E341",
            f"the tokeniser gives the id {ids.max()} for {text!r}, but the text tower "
            f"has {vocabulary_size} tokens",
            where=f"`{folder}`",
            remedy="take the tokeniser that belongs to it",
        )
    if not (ids == end_token).any(axis=1).all():
        raise errors.InputError(
            "E340",
            f"the tokeniser does not close a text with its end token {end_token}, so "
            "it is not of CLIP's kind",
            where=f"`{folder}`",
            remedy="take that of the model",
        )
