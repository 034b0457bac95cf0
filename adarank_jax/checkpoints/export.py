"""A merged model as a folder that plain transformers, or open_clip, loads.

Only the image tower differs from the base. Whatever else the base holds is written with
its names, dtypes and bytes: text tower, buffers, tokenizer, preprocessing.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from adarank_jax import errors
from adarank_jax.checkpoints import (
    clip,
    clip_names,
    clip_tensors,
    folders,
    head_files,
    model_files,
    model_folder,
    shards,
)
from adarank_jax.checkpoints.clip import ClipCheckpoint
from adarank_jax.tree import Tree

check_target, slugs = folders.check_target, model_folder.slugs
digest_tensors = model_folder.digest_tensors


class TaskHead(NamedTuple):
    """The head of one task.

    Attributes:
        task: its name, any text.
        weight: `(classes, features)`, the logit scale included.
        bias: `(classes,)`; None for none.
        class_names: in the order of the rows; None if they are not known.
        about: what else to record, for example `templates` and `profile`; plain values.
    """

    task: str
    weight: np.ndarray
    bias: np.ndarray | None = None
    class_names: Sequence[str] | None = None
    about: Mapping[str, Any] = {}


def write_model(
    folder: str | os.PathLike,
    base: ClipCheckpoint,
    vision: Tree,
    heads: Sequence[TaskHead] = (),
    *,
    with_open_clip: bool = False,
    dtype: str | None = None,
    max_shard_size: int | str = "5GB",
    files: Mapping[str, bytes] | None = None,
    record: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes a model folder, whole or not at all.

    Args:
        folder: to write; an untouched earlier export is replaced, nothing else is.
        base: checkpoint that the image tower belongs to.
        vision: merged parameters of the image tower.
        heads: one a task.
        with_open_clip: write the files of open_clip as well.
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
        InputError: the base cannot be written in the layout of Hugging Face, or a head
            does not fit.
    """
    target = check_target(folder)
    names = dict(zip(slugs([head.task for head in heads]), heads, strict=True))
    features = base.config["vision"]["output_size"]
    for head in heads:
        weight, bias = (np.asarray(x) if x is not None else None for x in head[1:3])
        head_files.check_head(
            *(weight, bias, head.class_names, features),
            source=f"The head of {head.task!r}",
        )
    states = {"model": weights(base, vision, dtype)}
    wide = base if dtype is None else model_folder.in_float32(base)
    texts = {"config.json": model_files.config(base, dtype)}
    if with_open_clip:
        states["open_clip_model"] = model_folder.cast(
            _open_clip_state(wide, vision), dtype
        )
        texts["open_clip_config.json"] = model_files.open_clip_config(base)
    texts |= model_files.beside(base)
    model_folder.check_names(files or {}, {*texts, "heads"})
    texts |= files or {}
    about = {"base": base.source, "revision": base.revision}
    about |= {"dtype": dtype or "as the base", **(record or {})}
    texts[folders.MARK] = model_folder.to_json(about)
    model_folder.check_room(target, sum(map(shards.num_bytes, states.values())))
    with folders.whole_folder(target) as new:
        for name, content in texts.items():
            (new / name).write_bytes(content)
        for stem, state in states.items():
            # open_clip reads no shards.
            limit = max_shard_size if stem == "model" else shards.num_bytes(state) + 1
            shards.write_state(new, state, stem, limit)
        for name, head in names.items():
            _write_head(new / "heads", name, head)
    return target


def check_base(base: ClipCheckpoint, with_open_clip: bool = False) -> None:
    """Checks, before any work, that a model like its base can be written.

    Args:
        base: checkpoint that will be exported with another image tower.
        with_open_clip: the files of open_clip will be written as well.

    Raises:
        InputError: a library has no such model, or a file beside the base is a link
            that leads elsewhere.
    """
    hugging_face_state(base, base.vision)
    model_files.config(base)
    model_files.beside(base)
    if with_open_clip:
        _open_clip_state(base, base.vision)
        model_files.open_clip_config(base)


def weights(
    base: ClipCheckpoint, vision: Tree, dtype: str | None = None
) -> dict[str, np.ndarray]:
    """Returns the tensors of model.safetensors.

    Args:
        base: checkpoint that the image tower belongs to.
        vision: merged parameters of the image tower.
        dtype: as for `write_model`.

    Raises:
        InputError: as for `write_model`.
        UsageError: as for `write_model`.
    """
    base = base if dtype is None else model_folder.in_float32(base)
    return model_folder.cast(hugging_face_state(base, vision), dtype)


def stored_vision(tensors: Mapping[str, np.ndarray], qkv: str) -> tuple[str, Tree]:
    """Returns the image tower of an export as a reader of it will see it.

    Args:
        tensors: as `weights` returns them.
        qkv: as for `clip.read_clip`.

    Returns:
        The dtype, or several joined by "and", and float32 parameters.
    """
    layout = clip_names.recognise(dict(tensors), "the export")
    names = [
        name
        for entry in clip_names.entries(layout)
        for name in entry.names
        if entry.path.startswith("vision/")
    ]
    dtypes = sorted({str(tensors[name].dtype) for name in names})
    params = clip_tensors.to_params(dict(tensors), layout, qkv, ("vision",))
    return " and ".join(dtypes), params["vision"]


def hugging_face_state(base: ClipCheckpoint, vision: Tree) -> dict[str, np.ndarray]:
    """Puts an image tower into the state dict of a class of transformers.

    Args:
        base: checkpoint that the tower belongs to.
        vision: parameters of the tower.

    Returns:
        Array by name. If the base is a plain file of transformers already, its other
        tensors are its own, byte for byte.

    Raises:
        InputError: the base has no projection, or the tower does not fit it.
    """
    layout = base.layout
    if layout.kind == "hugging_face":
        if not layout.has_projection:
            raise errors.InputError(
                "E202",
                "it has no projection, so images and classes cannot be compared",
                where=f"`{base.source}`",
                remedy="use as base the whole model that the experts came from",
            )
        state = clip.with_vision(base, vision)
        return {_plain_name(name, layout): array for name, array in state.items()}
    if base.text is not None:
        return clip.to_hugging_face(base, vision)
    alone = clip_names.full_layout("hugging_face", layout.vision_layers or 0, 0)
    alone = alone._replace(
        text_layers=None, has_text_projection=False, has_logit_scale=False
    )
    state = clip_tensors.to_state({"vision": vision}, alone)
    return model_folder.cast(state, None if layout.dtype == "mixed" else layout.dtype)


def _plain_name(name, layout):
    """Removes the prefix of a wrapper; names the image tower as the classes do."""
    name = name.removeprefix(layout.prefix)
    bare = layout.vision_prefix == "" and not name.startswith("visual_projection.")
    return f"vision_model.{name}" if bare else name


def _open_clip_state(base, vision):
    """Puts an image tower into the state dict of open_clip's CLIP."""
    layout = base.layout
    is_plain = layout.kind == "open_clip" and not layout.prefix and layout.text_layers
    return (clip.with_vision if is_plain else clip.to_open_clip)(base, vision)


def _write_head(folder, name, head):
    """Writes the tensors of a head, and what they are."""
    about = {"task": head.task, **head.about}
    head_files.write_head(
        folder / f"{name}.safetensors", head.weight, head.bias, head.class_names, about
    )
