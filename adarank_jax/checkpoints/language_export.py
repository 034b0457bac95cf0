"""A merged language model as a folder that plain transformers loads.

The folder is a bare encoder, named as transformers names it, with the tokenizer of its
base. `tasks/` has the configuration and the head of each task, or, on request, a whole
model of each task. Heads of language models are left out, since no task uses them.
"""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from adarank_jax import errors, tree
from adarank_jax.checkpoints import (
    folders,
    head_files,
    language,
    language_files,
    language_names,
    language_sizes,
    model_folder,
    shards,
)
from adarank_jax.checkpoints.language import LanguageCheckpoint
from adarank_jax.tree import Tree

check_target, slugs = folders.check_target, model_folder.slugs
digest_tensors = model_folder.digest_tensors


class LanguageHead(NamedTuple):
    """The head of one task.

    Attributes:
        task: its name, any text.
        tree: parameters, as `language.read_language` returns them.
        class_names: in the order of the rows; None if they are not known.
        about: what else to record, for example the metric; plain values.
    """

    task: str
    tree: Tree
    class_names: Sequence[str] | None = None
    about: Mapping[str, Any] = {}


def write_model(
    folder: str | os.PathLike,
    base: LanguageCheckpoint,
    encoder: Tree,
    heads: Sequence[LanguageHead] = (),
    *,
    per_task_copies: bool = False,
    dtype: str | None = None,
    max_shard_size: int | str = "5GB",
    files: Mapping[str, bytes] | None = None,
    record: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes a model folder, whole or not at all.

    Args:
        folder: to write; an untouched earlier export is replaced, nothing else is.
        base: checkpoint that the encoder belongs to.
        encoder: merged parameters.
        heads: one a task.
        per_task_copies: write a whole model for each task beside the encoder.
        dtype: of all weights: float32, float16 or bfloat16; None to keep those of the
            base.
        max_shard_size: bytes of a file of weights, or for example ``"5GB"``.
        files: more files by name, for example ``README.md``.
        record: plain values for `adarank_jax.json`, for example versions.

    Returns:
        The folder.

    Raises:
        MachineError: the disk has no room.
        UsageError: the folder holds something else, or a dtype does not fit.
        InputError: the base cannot be written, or the encoder or a head does not fit.
    """
    target = check_target(folder)
    for head in heads:
        _check_head(base, head)
    files_of = slugs([head.task for head in heads])
    state = weights(base, encoder, dtype)
    tokenizer = language_files.tokenizer(base)
    texts = {"config.json": language_files.config(base, dtype), **tokenizer}
    model_folder.check_names(files or {}, {*texts, "tasks"})
    texts |= files or {}
    about = {"base": base.source, "revision": base.revision, "family": base.family}
    about |= {"dtype": dtype or "as the base", "left_out": left_out(base)}
    about["tasks"] = {
        name: {"task": head.task, **head.about}
        for name, head in zip(files_of, heads, strict=True)
    }
    texts[folders.MARK] = model_folder.to_json({**about, **(record or {})})

    tasks = []
    for head in heads:
        values = language_files.config(base, dtype, _class_names(base, head))
        own = _head_state(base, head.tree, dtype)
        tasks.append((values, _whole(base, state, own) if per_task_copies else own))
    sizes = [shards.num_bytes(tensors) for tensors in (state, *(t for _, t in tasks))]
    model_folder.check_room(target, sum(sizes))
    with folders.whole_folder(target) as new:
        for name, content in texts.items():
            (new / name).write_bytes(content)
        shards.write_state(new, state, max_shard_size=max_shard_size)
        for name, (values, tensors) in zip(files_of, tasks, strict=True):
            place = new / "tasks" / name
            place.mkdir(parents=True)
            (place / "config.json").write_bytes(values)
            if not per_task_copies:
                shards.write_safetensors(place / "head.safetensors", tensors)
                continue
            for file, content in tokenizer.items():
                (place / file).write_bytes(content)
            shards.write_state(place, tensors, max_shard_size=max_shard_size)
    return target


def check_base(base: LanguageCheckpoint) -> None:
    """Checks, before any work, that a model like its base can be written.

    Args:
        base: checkpoint that will be exported with another encoder.

    Raises:
        InputError: as for `language_files`.
    """
    language_files.config(base)
    language_files.config(base, class_names=("no", "yes"))
    language_files.tokenizer(base)


def weights(
    base: LanguageCheckpoint, encoder: Tree, dtype: str | None = None
) -> dict[str, np.ndarray]:
    """Returns the tensors of model.safetensors, those of a bare encoder.

    Args:
        base: checkpoint that the encoder belongs to.
        encoder: merged parameters.
        dtype: as for `write_model`.

    Returns:
        Array by name; what did not change has the very bytes of the base, and so have
        buffers and a pooler that RoBERTa's classifier does not use.

    Raises:
        InputError: as for `write_model`.
        UsageError: as for `write_model`.
    """
    base = base if dtype is None else model_folder.in_float32(base)
    state = language.with_encoder(base, encoder)
    plain = {new: state[name] for name, new in _names(base).items()}
    return model_folder.cast(plain, dtype)


def left_out(base: LanguageCheckpoint) -> list[str]:
    """Lists the tensors of a base that its export does not hold.

    Args:
        base: checkpoint that is exported.

    Returns:
        Sorted names: heads of language models or of another task, and constants that
        transformers fills in itself.
    """
    return sorted(base.state.tensors.keys() - _names(base).keys())


def names(base: LanguageCheckpoint) -> dict[str, str]:
    """Returns what the parameters of the encoder are called in an export.

    Args:
        base: checkpoint that is exported.

    Returns:
        The name in model.safetensors of each path.
    """
    return {e.path: e.name for e in language_names.encoder_entries(_bare(base.layout))}


def stored_encoder(
    base: LanguageCheckpoint, tensors: Mapping[str, np.ndarray]
) -> tuple[str, Tree]:
    """Returns the encoder of an export as a reader of it will see it.

    Args:
        base: checkpoint that is exported.
        tensors: as `weights` returns them.

    Returns:
        The dtype, ``mixed`` if there are several, and float32 parameters.
    """
    state = base.state._replace(tensors=dict(tensors))
    found = language.from_state(state, "the export", base.folder)
    return found.layout.dtype, found.encoder


def has_pooler(base: LanguageCheckpoint) -> bool:
    """Tells whether the export of a base holds a pooler; GPT-2 never has one.

    Args:
        base: checkpoint that is exported.
    """
    return "pooler.dense.weight" in _names(base).values()


def _check_head(base, head):
    """Refuses a head that does not fit the encoder, or has less than two classes."""
    source = f"The head of {head.task!r}"
    count = _num_classes(base, head.tree)
    shapes = language_sizes.head_shapes(base.family, base.config["width"], count)
    wanted = tree.unflatten({p: np.empty(shape) for p, shape in shapes.items()})
    tree.check_same(wanted, head.tree, (f"A head of {base.family}", source))
    if count < 2:
        raise errors.InputError(
            *("E304", f"it has {count} class(es)", source, "at least two"),
            remedy="leave the task out: one class leaves nothing to predict",
        )
    tree.check_finite(head.tree, source)
    if head.class_names is not None:
        head_files.check_class_names(head.class_names, count, source)


def _class_names(base, head):
    """Returns the names of the classes, or what transformers calls them without."""
    if head.class_names is not None:
        return tuple(head.class_names)
    return tuple(f"LABEL_{i}" for i in range(_num_classes(base, head.tree)))


def _num_classes(base, head):
    """Counts the classes of a head; 0 if it is of another family."""
    kernel = tree.flatten(head).get(language_names.CLASS_KERNELS[base.family])
    return np.shape(kernel)[-1] if np.ndim(kernel) else 0


def _head_state(base, head, dtype):
    """Returns the tensors of a head under the names of transformers."""
    layout = language_names.full_layout(base.family, 0)
    flat, state = tree.flatten(head), {}
    for path, name, is_turned in language_names.head_entries(layout):
        array = np.asarray(flat[path], np.float32)
        state[name] = np.ascontiguousarray(array.T if is_turned else array)
    return model_folder.cast(state, _head_dtype(base, dtype))


def _head_dtype(base, dtype):
    """Chooses the dtype of heads: what was asked for, or that of the encoder."""
    own = base.layout.dtype
    return dtype or (own if own in ("float16", "bfloat16") else None)


def _whole(base, state, head):
    """Joins encoder and head to what a class with a head holds."""
    prefix = language_names.PREFIXES[base.family]
    kept = {f"{prefix}{n}": x for n, x in state.items() if _is_of_copy(base, n)}
    return kept | head


def _is_of_copy(base, name):
    """Tells whether a class with a head has a tensor; RoBERTa's has no pooler."""
    return base.family != "roberta" or not name.startswith("pooler.")


def _names(base):
    """Maps names in the base to those of a bare encoder, for all that is exported."""
    layout = base.layout
    entries = map(language_names.encoder_entries, (layout, _bare(layout)))
    names = {one.name: two.name for one, two in zip(*entries, strict=True)}
    start = layout.wrapper + layout.prefix
    for name in base.state.tensors:
        rest = name.removeprefix(start)
        if name.startswith(start) and _BESIDE.fullmatch(rest) and name not in names:
            names[name] = rest
    return names


def _bare(layout):
    """Returns the layout of a bare encoder as transformers writes it."""
    return layout._replace(wrapper="", prefix="", norm_ends=("weight", "bias"))


_BESIDE = re.compile(
    r"embeddings\.position_ids|pooler\.dense\.(weight|bias)|h\.\d+\.attn\.bias"
)
"""What else than weights of ours plain transformers takes without a word."""
