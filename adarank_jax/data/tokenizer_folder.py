"""Tokenizers from folders on disk, checked by what they do and not by what they state.

`transformers` builds some classes anew from the vocabulary and tokenizer_config.json
and passes over the rest of tokenizer.json. So the ids of a few texts are compared:
those of the tokenizer that is used with those of the file, or with another tokenizer's.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from adarank_jax import errors
from adarank_jax.data.class_order import listed

CLASSES = ("BertTokenizer", "RobertaTokenizer", "GPT2Tokenizer", "TokenizersBackend")
"""Classes of `transformers` that may be asked for, with or without ``Fast``; the old
name of the last is ``PreTrainedTokenizerFast``."""

PROBE = (
    "Hello World, hello WORLD",
    "naïve Café, RÉSUMÉ",
    "don't stop: 3.5% (of $10)!",
    " two  spaces, a\ttab ",
    "北京 and 東京",
)
"""Texts in which case, accents, marks, spaces and scripts tell tokenizers apart."""


def load_tokenizer(folder: str | os.PathLike) -> Any:
    """Loads a fast tokenizer from a folder on disk; no code of the folder is run.

    A tokenizer without a padding token, as GPT-2's, pads with its end token; the
    attention mask tells them apart. Padding is always on the right.

    Args:
        folder: with `tokenizer.json`, or `vocab.txt`, or `vocab.json` and `merges.txt`,
            beside a `config.json` or `tokenizer_config.json` that names the family.

    Returns:
        A tokenizer of `transformers`.

    Raises:
        MissingError: the folder or the files are not there.
        InputError: the files are damaged, contradict each other, are not of a fast
            tokenizer of a known class, need code of their own, or name neither a
            padding nor an end token.
    """
    folder = pathlib.Path(folder)
    tokenizer = _load(folder)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise errors.InputError(
                "E348",
                "the tokenizer names neither a padding nor an end token to pad with",
                where=f"`{folder}`",
                remedy="set `pad_token` in its `tokenizer_config.json`",
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def check_same(folder: str | os.PathLike, tokenizer: Any) -> None:
    """Checks that the tokenizer in a folder gives the ids of another one.

    Args:
        folder: of an expert. Bare vocabularies, with no file that names their class,
            cannot be run and are passed over.
        tokenizer: that will be used in its place.

    Raises:
        MissingError: there is no tokenizer.
        InputError: it cannot be loaded, or gives other ids or cuts on another side.
    """
    folder = pathlib.Path(folder)
    named = ("tokenizer.json", "tokenizer_config.json", "config.json")
    if not any((folder / name).is_file() for name in named):
        return
    own = _load(folder)
    refuse = lambda found: errors.InputError(
        "E340",
        f"the tokenizer is not that of the base: {found}",
        where=f"`{folder}`",
        remedy="merged models share one tokenizer. If the model was trained with that "
        "of the base, put the base's files there, or remove these",
    )
    texts = _texts(tokenizer)
    for text, ours, theirs in _differing(texts, _run(own), _run(tokenizer)):
        raise refuse(f"{text!r} has the ids {ours}, there {theirs}")
    sides = own.truncation_side, tokenizer.truncation_side
    if sides[0] != sides[1]:
        raise refuse(
            f"it cuts long texts on the {sides[0]}, there on the {sides[1]} "
            "(`truncation_side`)"
        )


def _load(folder):
    """Loads a fast tokenizer and compares it with its files."""
    _check_files(folder)
    _check_class(folder)
    with _few_words():
        from transformers import AutoTokenizer  # slow to import

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    except Exception as error:  # the library raises nothing more precise
        raise _unreadable(folder, error) from error
    if not getattr(tokenizer, "is_fast", False):
        raise errors.InputError(
            "E347",
            f"the tokenizer is a {type(tokenizer).__name__}",
            where=f"`{folder}`",
            expected="one of the library `tokenizers`",
            remedy="save it as `tokenizer.json` first",
        )
    if (folder / "tokenizer.json").is_file():
        _check_json(folder, tokenizer)
    else:
        _check_vocabulary(folder, tokenizer)
    return tokenizer


def _check_files(folder):
    """Refuses a folder without the files of a tokenizer, and says which are missing."""
    kinds = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
    if any(all((folder / name).is_file() for name in kind) for kind in kinds):
        return
    found = "there is no such folder"
    if folder.is_dir():
        found = f"it holds {listed(sorted(each.name for each in folder.iterdir()))}"
    raise errors.MissingError(
        "E346",
        f"no tokenizer ({found})",
        where=f"`{folder}`",
        expected="`tokenizer.json`, or `vocab.txt`, or `vocab.json` and `merges.txt`",
        remedy="fetch them from the repository of the pretrained model",
    )


def _check_class(folder):
    """Refuses to load a class that belongs to none of the families."""
    for name in ("tokenizer_config.json", "config.json"):
        file = folder / name
        try:
            text = file.read_text(encoding="utf-8") if file.is_file() else "{}"
            values = json.loads(text)
        except ValueError as error:
            raise _unreadable(folder, error) from error
        kind = values.get("tokenizer_class") if isinstance(values, dict) else None
        if kind is None:
            continue
        known = (*CLASSES, "PreTrainedTokenizer")
        if not isinstance(kind, str) or kind.removesuffix("Fast") not in known:
            raise errors.InputError(
                "E347",
                f"it names the `tokenizer_class` {kind!r}",
                where=f"`{file}`",
                expected=f"one of {', '.join(CLASSES)}",
                remedy="other tokenizers are not loaded. With a `tokenizer.json` that "
                "has all of it, write TokenizersBackend",
            )


@contextlib.contextmanager
def _few_words() -> Iterator[None]:
    """Keeps the library from saying, when it is imported, that torch is missing."""
    before = os.environ.get(_VERBOSITY)
    os.environ.setdefault(_VERBOSITY, "error")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VERBOSITY]


def _unreadable(folder, error):
    """Returns the error about files that cannot be read."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else error
    return errors.InputError(
        "E347",
        f"the tokenizer cannot be read: {reason}",
        where=f"`{folder}`",
        remedy="fetch it again, with the `config.json` and `tokenizer_config.json` of "
        "its model",
    )


def _check_json(folder, tokenizer):
    """Compares a tokenizer with the tokenizer.json that it was loaded from."""
    import tokenizers

    try:
        written = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises nothing more precise
        raise _unreadable(folder, error) from error
    written.no_truncation()
    written.no_padding()
    run = lambda texts, pairs: written.encode_batch(
        texts if pairs is None else [*zip(texts, pairs, strict=True)]
    )
    texts = _texts(tokenizer)
    for text, ours, theirs in _differing(texts, _run(tokenizer), run):
        raise errors.InputError(
            "E347",
            f"the files of the tokenizer contradict each other: {text!r} has the ids "
            f"{ours} as {type(tokenizer).__name__} with `tokenizer_config.json`, and "
            f"{theirs} by `tokenizer.json`",
            where=f"`{folder}`",
            remedy="fetch both again from the repository of the model, or make them "
            "agree",
        )


def _check_vocabulary(folder, tokenizer):
    """Refuses a class that does not read the vocabulary in its folder."""
    is_lines = (folder / "vocab.txt").is_file()
    file = folder / ("vocab.txt" if is_lines else "vocab.json")
    text = file.read_text(encoding="utf-8")
    tokens = text.split("\n") if is_lines else [*json.loads(text)]
    found = tokenizer.get_vocab()
    missing = [token for token in tokens if token.strip() and token not in found]
    if missing:
        raise errors.InputError(
            "E347",
            f"the tokenizer was loaded as {type(tokenizer).__name__}, which lacks "
            f"{len(missing):,} of the {len(tokens):,} tokens of `{file}`, such as "
            f"{listed(missing[:3])}",
            where=f"`{folder}`",
            remedy="correct `tokenizer_class`",
        )


def _texts(tokenizer):
    """Returns the probe, and words of the vocabulary in small and large letters."""
    words = {
        token.removeprefix("##").removeprefix("Ġ"): None
        for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    }
    words = [word for word in words if word.isalpha()]
    some = " ".join(words[:: max(1, len(words) // _NUM_WORDS)])
    return [*PROBE, some, some.upper()]


def _run(tokenizer):
    """Returns a function that gives encodings, nothing cut off."""
    options = {"padding": False, "truncation": False, "verbose": False}
    return lambda texts, pairs: tokenizer(texts, pairs, **options).encodings


def _differing(texts: Sequence[str], one, other) -> Iterator[tuple[str, list, list]]:
    """Yields texts, alone and as pairs, whose ids differ, from where they do."""
    for pairs in (None, [*reversed(texts)]):
        rows = zip(texts, one(texts, pairs), other(texts, pairs), strict=True)
        for text, left, right in rows:
            if left.ids == right.ids:
                continue
            both = zip(left.ids, right.ids, strict=False)
            same = [a == b for a, b in both]
            start = same.index(False) if False in same else len(same)
            start = max(start - 1, 0)
            ids = (each.ids[start : start + 6] for each in (left, right))
            yield text[:40], *ids


_NUM_WORDS = 200
_VERBOSITY = "TRANSFORMERS_VERBOSITY"
