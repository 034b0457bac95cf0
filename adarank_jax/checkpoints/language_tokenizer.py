"""Whether a tokenizer belongs to a model: told by its files, without running it.

What it does with texts is compared where it is loaded, in `data.tokenizer_folder`.

A tokenizer of another model gives ids that mean other words, and no error: the model is
only worse. So vocabulary and special tokens are compared before anything is measured.
"""

import hashlib
import json
import pathlib
from typing import Any, NamedTuple

from adarank_jax import errors
from adarank_jax.checkpoints import formats
from adarank_jax.checkpoints.language import LanguageCheckpoint, has_tokenizer
from adarank_jax.errors import Message


class TokenizerFiles(NamedTuple):
    """What the files of a tokenizer say.

    Attributes:
        ids: id by token, added tokens included.
        special: token by role: ``pad``, ``bos``, ``eos``, ``cls``, ``sep``.
        merges: pairs of a byte-pair encoding, in order; empty for other kinds.
        steps: what else decides the ids, such as the normalizer, as JSON by name.
        sha256: digest of tokenizer.json; None without one.
    """

    ids: dict[str, int]
    special: dict[str, str]
    merges: list[tuple[str, ...]]
    steps: dict[str, str]
    sha256: str | None


def check_tokenizer(base: LanguageCheckpoint, folder: pathlib.Path) -> list[Message]:
    """Checks that the tokenizer in a folder is that of a model.

    Args:
        base: the model whose embeddings the ids go to.
        folder: of the base itself, or of an expert.

    Returns:
        Warnings: the tokenizers of folder and base have the same vocabulary but may
        cut texts in other ways.

    Raises:
        MissingError: the folder has no tokenizer.
        InputError: an id has no row in the embeddings, a special token has another id
            than a config.json says, or the vocabulary differs from that of the base;
            all of it in one message.
    """
    folder = pathlib.Path(folder)
    tokenizer = _with_usual(read_tokenizer(folder), base.family)
    beyond = _beyond(tokenizer, base)
    problems = beyond + _unknown(tokenizer)
    is_other = folder.resolve() != base.folder.resolve()
    for place in (base.folder, folder)[: 1 + is_other]:
        if (place / "config.json").is_file():
            problems += _special_ids(tokenizer, place / "config.json")
    warnings = []
    if is_other and has_tokenizer(base.folder):
        own = _with_usual(read_tokenizer(base.folder), base.family)
        problems += _vocabulary(tokenizer, own) + _roles(tokenizer, own)
        warnings = _steps(tokenizer, own, folder, base)
    if problems:
        raise errors.InputError(
            "E341" if problems == beyond else "E340",
            f"the tokenizer is not that of `{base.source}`:\n  "
            + "\n  ".join(problems),
            where=f"`{folder}`",
            remedy="take the tokenizer that the model was trained with",
        )
    return warnings


def read_tokenizer(folder: pathlib.Path) -> TokenizerFiles:
    """Reads the files of a tokenizer: data, no code.

    Args:
        folder: with tokenizer.json, or vocab.json and merges.txt, or vocab.txt.

    Raises:
        MissingError: there is none of them.
        InputError: a file is damaged.

    Returns:
        What they say.
    """
    if not has_tokenizer(folder):
        raise errors.MissingError(
            "E346",
            "it holds no tokenizer (tokenizer.json, vocab.json or vocab.txt)",
            where=f"`{folder}`",
            remedy="put that of the model there",
        )
    config = _json(folder, "tokenizer_config.json")
    whole = _json(folder, "tokenizer.json")
    sha256, merges, steps = None, [], {}
    if (folder / "tokenizer.json").is_file():
        sha256 = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
        model = whole.get("model")
        ids, merges = _model(model if isinstance(model, dict) else {}, folder)
        steps = {name: json.dumps(whole.get(name), sort_keys=True) for name in _STEPS}
    elif (folder / "vocab.json").is_file():
        ids = _json(folder, "vocab.json") | _json(folder, "added_tokens.json")
        merges = _merges_file(folder)
    else:
        lines = _lines(folder / "vocab.txt")
        ids = {token: i for i, token in enumerate(lines) if token or lines[i + 1 :]}
    ids |= _added(whole.get("added_tokens"))
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        ids |= _added([{**_dict(v), "id": _int(k)} for k, v in decoder.items()])
    wrong = [token for token, i in ids.items() if type(i) is not int or i < 0]
    if not ids or wrong:
        has = f"has no number for {wrong[:3]}" if wrong else "is empty"
        raise errors.InputError(
            *("E347", f"its tokenizer's vocabulary {has}", f"`{folder}`"),
            *("an id for each token", "get its files again"),
        )
    steps |= {key: json.dumps(config[key]) for key in _SWITCHES if key in config}
    special = _special(_json(folder, "special_tokens_map.json")) | _special(config)
    return TokenizerFiles(ids, special, merges, steps, sha256)


def _json(folder, name) -> dict[str, Any]:
    """Reads a JSON file; one that is not there is empty."""
    return formats.read_json(folder / name) if (folder / name).is_file() else {}


def _dict(value):
    """Returns a JSON object; anything else is an empty one."""
    return value if isinstance(value, dict) else {}


def _int(text):
    """Reads an id that is written as a key."""
    return int(text) if text.isdecimal() else None


def _model(model, folder):
    """Reads vocabulary and merges of a tokenizer.json."""
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, list):
        # Unigram models list tokens with their scores.
        pairs = [entry for entry in vocabulary if isinstance(entry, list) and entry]
        vocabulary = {str(token): i for i, (token, *_) in enumerate(pairs)}
    if not isinstance(vocabulary, dict):
        raise errors.InputError(
            "E347",
            "it has no vocabulary in 'model'",
            where=f"`{folder / 'tokenizer.json'}`",
            remedy="get it again",
        )
    merges = model.get("merges") or []
    if not isinstance(merges, list) or not all(map(_is_merge, merges)):
        raise errors.InputError(
            "E347",
            "it has merges that are no pairs",
            where=f"`{folder / 'tokenizer.json'}`",
            remedy="get it again",
        )
    # Old files write a pair with a space between, new ones as a list.
    return dict(vocabulary), [
        tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair)
        for pair in merges
    ]


def _is_merge(pair):
    """Tells whether a value of JSON is a pair of texts, in either spelling."""
    return _is_text(pair) or (isinstance(pair, list) and all(map(_is_text, pair)))


def _merges_file(folder):
    """Reads the merges of a byte-pair encoding beside vocab.json."""
    file = folder / "merges.txt"
    lines = _lines(file) if file.is_file() else []
    lines = lines[1:] if lines and lines[0].startswith("#version") else lines
    return [tuple(line.split(" ")) for line in lines if line]


def _lines(file):
    """Reads the lines of a text file."""
    try:
        return file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        found = f"it is no UTF-8 text: {error}"
        raise errors.InputError(
            "E347", found, f"`{file}`", remedy="get it again"
        ) from None


def _added(entries):
    """Reads tokens that were added to a vocabulary."""
    entries = [_dict(entry) for entry in (entries if isinstance(entries, list) else [])]
    return {e["content"]: e.get("id") for e in entries if _is_text(e.get("content"))}


def _is_text(value):
    """Tells whether a value of JSON is a text."""
    return isinstance(value, str)


def _special(values):
    """Reads which token has which role."""
    found = {role: values.get(f"{role}_token") for role in _ROLES}
    texts = {
        r: v.get("content") if isinstance(v, dict) else v for r, v in found.items()
    }
    return {role: text for role, text in texts.items() if _is_text(text)}


def _beyond(tokenizer, base):
    """Finds ids that have no row."""
    rows = base.config["vocabulary_size"]
    over = sorted((i, token) for token, i in tokenizer.ids.items() if i >= rows)
    if not over:
        return []
    shown = ", ".join(f"{token!r} ({i})" for i, token in over[:3])
    return [
        f"{len(over):,} of its {len(tokenizer.ids):,} tokens have no row in the "
        f"embeddings, which have {rows:,}: {shown}"
    ]


def _with_usual(tokenizer, family):
    """Names the special tokens of a family's own class if no file names any."""
    return tokenizer._replace(special=tokenizer.special or _USUAL[family])


def _unknown(tokenizer):
    """Finds special tokens without an id."""
    return [
        f"its {role} token {token!r} is not in its vocabulary"
        for role, token in tokenizer.special.items()
        if token not in tokenizer.ids
    ]


def _special_ids(tokenizer, file):
    """Compares the ids of special tokens with a config.json."""
    values, problems = formats.read_json(file), []
    for role, token in tokenizer.special.items():
        stated = values.get(f"{role}_token_id")
        wanted = stated if isinstance(stated, list) else [stated]
        found = tokenizer.ids.get(token)
        if None not in (stated, found) and found not in wanted:
            problems.append(
                f"its {role} token {token!r} has the id {found}, but `{file}` states "
                f"{stated}"
            )
    return problems


def _vocabulary(tokenizer, own):
    """Compares tokens, ids and merges with those of the base."""
    problems = []
    differing = sorted(
        token
        for token in tokenizer.ids.keys() | own.ids.keys()
        if tokenizer.ids.get(token) != own.ids.get(token)
    )
    if differing:
        shown = ", ".join(
            f"{token!r} {tokenizer.ids.get(token)} (base {own.ids.get(token)})"
            for token in differing[:3]
        )
        problems.append(
            f"{len(differing):,} tokens have other ids than in the base, with "
            f"{len(tokenizer.ids):,} tokens here and {len(own.ids):,} there: {shown}"
        )
    elif tokenizer.merges and own.merges and tokenizer.merges != own.merges:
        problems.append("its tokens are those of the base, but its merges are not")
    return problems


def _roles(tokenizer, own):
    """Compares which tokens are special with the base."""
    return [
        f"its {role} token is {token!r}, that of the base {own.special[role]!r}"
        for role, token in tokenizer.special.items()
        if own.special.get(role, token) != token
    ]


def _steps(tokenizer, own, folder, base):
    """Warns of what differs although the vocabulary is the same."""
    shared = tokenizer.steps.keys() & own.steps.keys()
    differing = sorted(n for n in shared if tokenizer.steps[n] != own.steps[n])
    if not differing:
        return []
    found = (
        f"the tokenizer has the vocabulary of `{base.source}` but differs in "
        f"{', '.join(differing)}, so it may cut texts in another way"
    )
    remedy = "check which of the two the model was trained with"
    return [Message("W347", found, f"`{folder}`", remedy=remedy)]


_ROLES = ("pad", "bos", "eos", "cls", "sep")
_USUAL = {
    "bert": {"pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]"},
    "roberta": {"pad": "<pad>", "bos": "<s>", "eos": "</s>"},
    "gpt2": {"bos": "<|endoftext|>", "eos": "<|endoftext|>"},
}
# Truncation and padding are set anew when texts are read.
_STEPS = ("normalizer", "pre_tokenizer", "post_processor")
_SWITCHES = (
    "tokenizer_class",
    "do_lower_case",
    "strip_accents",
    "tokenize_chinese_chars",
    "truncation_side",
    "add_prefix_space",
    "add_bos_token",
)
