"""CLIP checkpoints as parameter trees, and back into the layout that is wanted."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from adarank_jax import errors
from adarank_jax.checkpoints import (
    clip_base,
    clip_config,
    clip_names,
    clip_sizes,
    clip_tensors,
    formats,
    hub,
    weights,
)
from adarank_jax.checkpoints.clip_names import Layout
from adarank_jax.checkpoints.containers import StateDict, read_state
from adarank_jax.errors import Message
from adarank_jax.tree import Tree


class ClipCheckpoint(NamedTuple):
    """A checkpoint as trees, with all that is needed to write it back.

    Attributes:
        source: as it was asked for.
        vision: float32 parameters of the image tower, projection included.
        text: those of the text tower; None if there is none or it was not asked for.
        logit_scale: logarithm of the factor of the logits; None if there is none.
        config: ``vision`` and ``text`` (or None), each with the fields of its module,
            and ``inferred``, the fields that no file states.
        layout: names in the file.
        state: the tensors of the file, as they are.
        from_base: paths that the file does not hold and that the base lent.
        revision: commit of the repository on the Hub; None for local files.
        warnings: what is assumed about the model, since neither a file nor a base
            states it.
    """

    source: str
    vision: Tree | None
    text: Tree | None
    logit_scale: float | None
    config: dict[str, Any]
    layout: Layout
    state: StateDict
    from_base: tuple[str, ...] = ()
    revision: str | None = None
    warnings: tuple[Message, ...] = ()


def read_clip(
    source: str,
    qkv: str = "fused",
    base: ClipCheckpoint | None = None,
    offline: bool = False,
    towers: Sequence[str] | None = None,
) -> ClipCheckpoint:
    """Reads a CLIP checkpoint of any known layout.

    Args:
        source: a file, a folder or ``org/name[@revision][:path]`` on the Hub.
        qkv: ``fused`` for one matrix of query, key and value, ``split`` for three.
        base: the checkpoint that an expert was fine-tuned from. It lends the projection
            to experts without one, and what no file states about the model.
        offline: take files of the Hub from its cache only.
        towers: to convert; None for both without a base, and for the image tower alone
            with one.

    Returns:
        The checkpoint; its trees are float32 copies.

    Raises:
        MissingError: there is no such source.
        InputError: the checkpoint is damaged, is no CLIP model, does not fit its
            configuration or the base, or holds numbers that are not finite.
    """
    resolved = hub.resolve(source, offline)
    state = read_state(resolved.path)
    # Folders of the Hub come with their configuration; a single file does not.
    hub.fetch_beside(resolved, whole=base is None, offline=offline)
    path = resolved.path
    folder = path if path.is_dir() else path.parent
    return from_state(state, source, qkv, base, towers, folder, resolved.revision)


def from_state(
    state: StateDict,
    source: str,
    qkv: str = "fused",
    base: ClipCheckpoint | None = None,
    towers: Sequence[str] | None = None,
    config_folder: pathlib.Path | None = None,
    revision: str | None = None,
) -> ClipCheckpoint:
    """Turns a state dict that was already read into a checkpoint.

    Args:
        state: names and arrays.
        source: what to call it.
        qkv: as for `read_clip`.
        base: as for `read_clip`.
        towers: as for `read_clip`.
        config_folder: where to look for the configuration; None to infer it.
        revision: commit on the Hub.

    Returns:
        The checkpoint.

    Raises:
        InputError: as for `read_clip`.
    """
    where = f"`{source}`"
    towers = towers or (("vision",) if base else ("vision", "text"))
    layout = clip_names.recognise(state.tensors, where)
    if layout.vision_layers is None and "vision" in towers:
        found = (
            f"it is a {layout.model} and has no image tower, which is what is merged"
        )
        raise errors.InputError(
            "E218", found, where, remedy="pass a whole model or an image tower"
        )
    weights.check_floating(state.tensors, _names(layout), where)
    shapes = clip_tensors.shapes(state.tensors, layout, where)
    config = _config(layout, shapes, base and base.config, config_folder, where)
    from_base: tuple[str, ...] = ()
    if config["vision"] and not layout.has_projection:
        from_base = ("proj",)
        config["vision"]["output_size"] = _lent(base, where).shape[1]
    if config["text"] and not layout.has_text_projection:
        config["text"]["output_size"] = None
    _check_shapes(shapes, config, layout, where)
    if base and config["vision"]:
        clip_base.check_configs(base.config, config, (f"`{base.source}`", where))
    for tower in ("vision", "text"):
        if config[tower]:
            config[tower]["qkv"] = qkv
    weights.check_finite(state, _names(layout, (*towers, "logit_scale")), where)
    params = clip_tensors.to_params(state.tensors, layout, qkv, towers)
    vision, scale = params.get("vision"), params.get("logit_scale")
    if from_base and vision is not None:
        vision["proj"] = np.array(_lent(base, where))
    return ClipCheckpoint(
        source=source,
        vision=vision,
        text=params.get("text"),
        logit_scale=None if scale is None else float(scale.reshape(())),
        config=config,
        layout=layout,
        state=state,
        from_base=from_base,
        revision=revision,
        warnings=() if base else _assumed(config, where),
    )


def with_vision(checkpoint: ClipCheckpoint, vision: Tree) -> dict[str, np.ndarray]:
    """Puts an image tower into the checkpoint's own state dict.

    Args:
        checkpoint: whose names, order, dtypes and other tensors are kept.
        vision: parameters of the image tower, query, key and value fused or split.

    Returns:
        Array by name; with the checkpoint's own parameters, the very bytes of the file.

    Raises:
        InputError: the tower has other tensors, is not finite in the dtype of the file,
            or changes a projection that the file has no place for.
    """
    layout = checkpoint.layout
    if layout.vision_layers is None or checkpoint.vision is None:
        raise errors.InputError(
            *("E218", "it has no image tower that was read", f"`{checkpoint.source}`"),
            remedy="read it with its image tower",
        )
    if not layout.has_projection:
        proj = vision.get("proj", checkpoint.vision["proj"])
        if not np.array_equal(proj, checkpoint.vision["proj"]):
            raise errors.InputError(
                "E202",
                "it has no place for the projection of the image tower, which differs "
                "from that of the base",
                where=f"`{checkpoint.source}`",
                remedy="write the result in the layout of the base",
            )
        vision = {key: value for key, value in vision.items() if key != "proj"}
    old = checkpoint.state.tensors
    new = clip_tensors.to_state({"vision": vision}, layout)
    return dict(old) | weights.cast(new, old, old, checkpoint.source, "The image tower")


def to_hugging_face(
    checkpoint: ClipCheckpoint, vision: Tree | None = None
) -> dict[str, np.ndarray]:
    """Writes a whole model as the state dict of `CLIPModel`.

    Args:
        checkpoint: with both towers.
        vision: image tower to write; None for the checkpoint's own.

    Returns:
        Array by name, in the dtypes of the checkpoint.

    Raises:
        InputError: the checkpoint has no text tower or no projection, or the tower does
            not fit it.
    """
    return _to_kind(checkpoint, vision, "hugging_face")


def to_open_clip(
    checkpoint: ClipCheckpoint, vision: Tree | None = None
) -> dict[str, np.ndarray]:
    """Writes a whole model as the state dict of open_clip's `CLIP`.

    Args:
        checkpoint: with both towers.
        vision: image tower to write; None for the checkpoint's own.

    Returns:
        Array by name, in the dtypes of the checkpoint.

    Raises:
        InputError: the checkpoint has no text tower or no projection, or the tower does
            not fit it.
    """
    return _to_kind(checkpoint, vision, "open_clip")


def _to_kind(checkpoint, vision, kind):
    """Writes both towers in one of the layouts."""
    layout = checkpoint.layout
    if None in (checkpoint.text, layout.vision_layers, layout.text_layers):
        raise errors.InputError(
            "E202",
            "it has no text tower that was read, and a whole CLIP model needs one",
            where=f"`{checkpoint.source}`",
            remedy="start from the base, read with both towers",
        )
    target = clip_names.full_layout(kind, layout.vision_layers, layout.text_layers)
    params = {
        "vision": checkpoint.vision if vision is None else vision,
        "text": checkpoint.text,
        "logit_scale": np.float32(checkpoint.logit_scale),
    }
    old = checkpoint.state.tensors
    names = {entry.path: entry.names for entry in clip_names.entries(layout)}
    sources = {
        name: names[entry.path][min(i, len(names[entry.path]) - 1)]
        for entry in clip_names.entries(target)
        for i, name in enumerate(entry.names)
        if entry.path in names
    }
    new = clip_tensors.to_state(params, target)
    where = f"What is written like `{checkpoint.source}`"
    shapes = clip_tensors.shapes(new, target, where)
    _check_shapes(shapes, checkpoint.config, target, where)
    like = {name: old[theirs] for name, theirs in sources.items()}
    return weights.cast(new, like, {}, checkpoint.source, "The model")


def _config(layout, shapes, base, folder, where):
    """Reads the configuration that lies beside the weights, or infers it."""
    config = _read_config(layout, folder)
    if config is None:
        return clip_sizes.infer(shapes, base, where)
    layers = {"vision": layout.vision_layers, "text": layout.text_layers}
    for tower, found in layers.items():
        if found is None:
            config[tower] = None
        elif config[tower] is None:
            inferred = clip_sizes.infer(shapes, base, where)
            config[tower] = inferred[tower]
            config["inferred"] += tuple(
                name for name in inferred["inferred"] if name.startswith(f"{tower}/")
            )
        elif config[tower]["num_layers"] != found:
            raise errors.InputError(
                "E210",
                f"it holds {found} blocks of the {tower} tower, but the config file in "
                f"`{folder}` states {config[tower]['num_layers']}: blocks are missing, "
                "or the file belongs to another model",
                where=where,
                remedy="take the weights and the config file from one place",
            )
    return config


def _read_config(layout, folder):
    """Reads the file of the layout's own library, or else that of the other."""
    for kind in sorted(_READERS, key=lambda kind: kind != layout.kind):
        name, key, reader = _READERS[kind]
        if folder is None or not (folder / name).is_file():
            continue
        values = formats.read_json(folder / name)
        if kind == layout.kind or key in values:
            return reader(values, f"`{folder / name}`")
    return None


def _assumed(config, where):
    """Says what OpenAI's CLIP lends to a model that came without a configuration."""
    towers = dict.fromkeys(name.split("/")[0] for name in config["inferred"])
    if not towers:
        return ()
    heads = ", ".join(f"{config[tower]['num_heads']} ({tower})" for tower in towers)
    found = (
        "no configuration was found beside it: QuickGELU, epsilon 1e-5 and heads of 64 "
        f"are assumed, as in OpenAI's CLIP, so {heads} heads"
    )
    remedy = "give a folder with config.json or open_clip_config.json if that is wrong"
    return (Message("W140", found, where, remedy=remedy),)


def _lent(base, where):
    """Returns the projection of the base."""
    if base is None or base.vision is None:
        raise errors.InputError(
            *("E210", "it holds an image tower without its projection", where),
            remedy="pass as `base` the checkpoint that it was fine-tuned from, which "
            "has it",
        )
    return base.vision["proj"]


def _check_shapes(shapes, config, layout, where):
    """Compares the shapes in the file with those of the configuration."""
    names = {entry.path: entry.names for entry in clip_names.entries(layout)}
    expected = clip_sizes.shapes_of(config)
    lines = {
        path: f"{names[path][0]} gives {path} {shape}, expected {expected[path]}"
        for path, shape in shapes.items()
        if path in expected and shape != expected[path]
    }
    if lines:
        raise errors.InputError(
            "E216" if lines.keys() == {"text/token_embedding/embedding"} else "E213",
            f"it has {len(lines)} tensors whose shapes do not fit its configuration:"
            "\n  " + "\n  ".join([*lines.values()][:12]),
            where=where,
            remedy="check whether the weights belong to it",
        )


def _names(layout, branches=None):
    """Lists the names of the weights, or of those of some branches of the tree."""
    return [
        name
        for entry in clip_names.entries(layout)
        for name in entry.names
        if branches is None or entry.path.split("/")[0] in branches
    ]


_READERS = {
    "hugging_face": ("config.json", "model_type", clip_config.from_hugging_face),
    "open_clip": ("open_clip_config.json", "model_cfg", clip_config.from_open_clip),
}
