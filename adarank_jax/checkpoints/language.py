"""Checkpoints of BERT, RoBERTa and GPT-2 as parameter trees, and back into their files.

An encoder and the head of sequence classification are read, float32 each; what else a
file holds (heads of language models, buffers) is kept aside as it is.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from adarank_jax import errors, tree
from adarank_jax.checkpoints import (
    formats,
    hub,
    language_base,
    language_config,
    language_names,
    language_sizes,
    weights,
)
from adarank_jax.checkpoints.containers import StateDict, read_state
from adarank_jax.checkpoints.language_names import Entry, Layout
from adarank_jax.errors import Message
from adarank_jax.tree import Tree


class LanguageCheckpoint(NamedTuple):
    """A checkpoint as trees, with all that is needed to write it back.

    Attributes:
        source: as it was asked for.
        family: ``bert``, ``roberta`` or ``gpt2``.
        encoder: float32 parameters, named as in the bare class of transformers.
        head: those of the head of sequence classification; None if there is none.
        config: the fields of the family's module.
        class_names: of the rows of the head; None if no file names them.
        layout: names in the file.
        state: the tensors of the file, as they are.
        folder: where the tokenizer lies: that of the checkpoint, or that of the base if
            it has none of its own.
        revision: commit of the repository on the Hub; None for local files.
        warnings: what is taken from the base, since the checkpoint does not have it.
    """

    source: str
    family: str
    encoder: Tree
    head: Tree | None
    config: dict[str, Any]
    class_names: tuple[str, ...] | None
    layout: Layout
    state: StateDict
    folder: pathlib.Path
    revision: str | None = None
    warnings: tuple[Message, ...] = ()


def read_language(
    source: str, base: LanguageCheckpoint | None = None, offline: bool = False
) -> LanguageCheckpoint:
    """Reads a BERT, RoBERTa or GPT-2 encoder, with its head if it has one.

    Args:
        source: a file, a folder or ``org/name[@revision][:path]`` on the Hub.
        base: the checkpoint that an expert was fine-tuned from. It lends config.json
            and tokenizer to experts without them, never a tensor.
        offline: take files of the Hub from its cache only.

    Returns:
        The checkpoint; its trees are float32 copies.

    Raises:
        MissingError: there is no such source.
        InputError: the checkpoint is damaged, is of no known family, does not fit its
            configuration, holds numbers that are not finite, or its head does not give
            one class of several.
    """
    resolved = hub.resolve(source, offline)
    state = read_state(resolved.path)
    hub.fetch_beside(resolved, offline=offline)
    path = resolved.path
    folder = path if path.is_dir() else path.parent
    return from_state(state, source, folder, base, resolved.revision)


def from_state(
    state: StateDict,
    source: str,
    folder: pathlib.Path,
    base: LanguageCheckpoint | None = None,
    revision: str | None = None,
) -> LanguageCheckpoint:
    """Turns a state dict that was already read into a checkpoint.

    Args:
        state: names and arrays.
        source: what to call it.
        folder: where config.json and the tokenizer may lie.
        base: as for `read_language`.
        revision: commit on the Hub.

    Returns:
        The checkpoint.

    Raises:
        InputError: as for `read_language`.
    """
    where = f"`{source}`"
    file = folder / "config.json"
    values = formats.read_json(file) if file.is_file() else None
    told = f"`{file}`"
    family, config, warnings = _config(values, told, base, where)
    layout = language_names.recognise(state.tensors, family, where)
    entries = language_names.entries(layout)
    weights.check_floating(state.tensors, [entry.name for entry in entries], where)
    _check_shapes(state.tensors, layout, config, where)
    if layout.has_head:
        num_classes = _num_classes(state.tensors, layout)
        language_config.check_classifies(values or {}, num_classes, where)
        names = language_config.class_names(values or {}, num_classes, told)
    else:
        names = None
    weights.check_finite(state, [entry.name for entry in entries], where)
    if base and not has_tokenizer(folder) and has_tokenizer(base.folder):
        found = f"it has no tokenizer: that of `{base.source}` is used"
        remedy = "put its own there if it has another"
        warnings.append(Message("W340", found, where, remedy=remedy))
        folder = base.folder
    head = language_names.head_entries(layout)
    return LanguageCheckpoint(
        source=source,
        family=family,
        encoder=_to_tree(state.tensors, language_names.encoder_entries(layout)),
        head=_to_tree(state.tensors, head) if layout.has_head else None,
        config=config,
        class_names=names,
        layout=layout,
        state=state,
        folder=folder,
        revision=revision,
        warnings=tuple(warnings),
    )


def has_tokenizer(folder: pathlib.Path) -> bool:
    """Tells whether a folder holds the vocabulary of a tokenizer.

    Args:
        folder: of a checkpoint.
    """
    return any((folder / name).is_file() for name in _VOCABULARIES)


def to_state(encoder: Tree, head: Tree | None, layout: Layout) -> dict[str, np.ndarray]:
    """Turns parameter trees to a state dict of torch.

    Args:
        encoder: parameters of the encoder.
        head: those of the head; None to write none.
        layout: to write.

    Returns:
        Float32 array by name, in the order of the library.

    Raises:
        ValueError: a tensor is missing, or has no place in the layout.

    Examples:
        >>> layout = language_names.full_layout("gpt2", 0)
        >>> norm = {"scale": np.ones(2), "bias": np.zeros(2)}
        >>> table = {"embedding": np.ones((3, 2))}
        >>> encoder = {"wte": table, "wpe": table, "ln_f": norm}
        >>> state = to_state(encoder, {"kernel": np.ones((2, 5))}, layout)
        >>> state["score.weight"].shape
        (5, 2)
    """
    state = _to_names(encoder, language_names.encoder_entries(layout), "encoder")
    if head is not None:
        state |= _to_names(head, language_names.head_entries(layout), "head")
    return state


def with_encoder(
    checkpoint: LanguageCheckpoint, encoder: Tree
) -> dict[str, np.ndarray]:
    """Puts an encoder into the checkpoint's own state dict.

    Args:
        checkpoint: whose names, order, dtypes and other tensors are kept.
        encoder: parameters of the encoder.

    Returns:
        Array by name; with the checkpoint's own parameters, the very bytes of the file.

    Raises:
        InputError: the encoder has other tensors, or is not finite in the dtype of the
            file.
    """
    tree.check_same(
        checkpoint.encoder, encoder, (f"`{checkpoint.source}`", "`encoder`")
    )
    new = to_state(encoder, None, checkpoint.layout)
    old = checkpoint.state.tensors
    return dict(old) | weights.cast(new, old, old, checkpoint.source, "The encoder")


def _config(values, told, base, where):
    """Reads family and sizes from the checkpoint's own file, or takes the base's."""
    if values is not None:
        family, config = language_config.from_hugging_face(values, told)
        if base:
            pairs = (base.family, family), (base.config, config)
            language_base.check_configs(*pairs, (f"`{base.source}`", where))
        return family, config, []
    if base is None:
        raise errors.InputError(
            "E144",
            f"there is no {told} beside the weights, which do not tell the number of "
            "heads",
            where=where,
            remedy="put the file there, or name the base that has it",
        )
    warning = Message(
        "W140",
        f"it has no config.json: that of `{base.source}` is taken, and the names of "
        "its classes are not known",
        where=where,
        remedy="put the file there if it has one",
    )
    return base.family, dict(base.config), [warning]


def _num_classes(tensors, layout):
    """Counts the rows of the head."""
    kernel = language_names.CLASS_KERNELS[layout.family]
    names = {path: name for path, name, _ in language_names.head_entries(layout)}
    shape = tensors[names[kernel]].shape
    return shape[0] if shape else 0


def _check_shapes(tensors, layout, config, where):
    """Compares the shapes in the file with those of the configuration."""
    if layout.num_layers != config["num_layers"]:
        raise errors.InputError(
            "E210",
            f"it holds {layout.num_layers} layers, but its config.json states "
            f"{config['num_layers']}: layers are missing, or the file belongs to "
            "another model",
            where=where,
            remedy="take weights and config.json from one place",
        )
    table = tensors[language_names.encoder_entries(layout)[0].name].shape
    stated = config["vocabulary_size"]
    if len(table) == 2 and table[0] != stated:
        raise errors.InputError(
            "E216",
            f"it holds embeddings of {table[0]:,} tokens, but its configuration states "
            f"{stated:,}: tokens were added or removed",
            where=where,
            remedy="give config.json of the very weights; an expert must have the "
            "tokens of its base",
        )
    expected = language_sizes.encoder_shapes(layout.family, config)
    rows = _shapes(tensors, language_names.encoder_entries(layout), expected)
    if layout.has_head:
        num_classes = _num_classes(tensors, layout)
        expected = language_sizes.head_shapes(
            layout.family, config["width"], num_classes
        )
        rows += _shapes(tensors, language_names.head_entries(layout), expected)
    if rows:
        raise errors.InputError(
            "E213",
            f"it has {len(rows)} tensors whose shapes do not fit its configuration:"
            "\n  " + "\n  ".join(rows[:12]),
            where=where,
            remedy="check whether the weights belong to it",
        )


def _shapes(tensors, entries, expected):
    """Lists the tensors that have another shape than is expected."""
    lines = []
    for path, name, is_turned in entries:
        shape = tuple(tensors[name].shape)
        wanted = expected[path][::-1] if is_turned else expected[path]
        if shape != wanted:
            lines.append(f"{name} is {shape}, expected {wanted}")
    return lines


def _to_tree(tensors: Mapping[str, Any], entries: Iterable[Entry]) -> Tree:
    """Builds a tree of float32 copies."""
    entries = list(entries)
    flat = {entry.path: [tensors[entry.name]] for entry in entries}
    turned = {entry.path for entry in entries if entry.is_turned}
    return tree.unflatten(weights.float32_copies(flat, turned))


def _to_names(params, entries, what):
    """Lists the leaves of a tree under the names of torch: undoes `_to_tree`."""
    flat = tree.flatten(params)
    wanted = {entry.path: entry for entry in entries}
    if flat.keys() != wanted.keys():
        missing, extra = sorted(wanted.keys() - flat), sorted(flat.keys() - wanted)
        raise ValueError(
            f"`{what}` does not fit the layout: missing are {missing}, and {extra} "
            "have no place; is it of another family or size?"
        )
    state = {}
    for path, name, is_turned in entries:
        array = np.array(flat[path], np.float32)
        state[name] = np.ascontiguousarray(array.T) if is_turned else array
    return state


_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")
