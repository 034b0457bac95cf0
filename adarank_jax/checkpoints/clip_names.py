"""The names of CLIP's tensors: flat torch state dicts <-> parameter trees.

Two layouts are known, open_clip's (which is OpenAI's) and that of Hugging Face. Both
hold the same numbers: Linear weights as (outputs, inputs), the patch embedding as a
convolution, query, key and value in one matrix or in three. What happens to a tensor
follows from its name alone, never from its shape, because square matrices look the
same both ways.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from adarank_jax import tree
from adarank_jax.tree import Tree


class Layout(NamedTuple):
    """How a state dict holds a CLIP model.

    Attributes:
        kind: ``hugging_face`` or ``open_clip``.
        prefix: of every name, from wrappers such as ``module.``.
        vision_prefix: after it, of the image tower: ``visual.``, ``vision_model.`` or
            nothing.
        text_prefix: the same of the text tower.
        vision_layers: number of blocks of the image tower; None without the tower.
        text_layers: the same of the text tower.
        has_projection: whether the projection of the image tower is there.
        has_text_projection: whether that of the text tower is there.
        has_logit_scale: whether the logit scale is there.
        qkv: ``fused`` or ``split``, as in the file.
        dtype: of the tensors, or ``mixed``.
        model: name of the class that saves such a state dict.
    """

    kind: str
    prefix: str
    vision_prefix: str
    text_prefix: str
    vision_layers: int | None
    text_layers: int | None
    has_projection: bool
    has_text_projection: bool
    has_logit_scale: bool
    qkv: str
    dtype: str
    model: str


class Entry(NamedTuple):
    """One tensor of ours: where it goes, its names in the file, and what to do."""

    path: str
    names: tuple[str, ...]
    how: str


def recognise(tensors: Mapping[str, Any], where: str = "the state dict") -> Layout:
    """Tells the layout of a state dict and checks its names.

    Args:
        tensors: array by name.
        where: what to call the state dict in messages.

    Returns:
        The layout; with it every name has exactly one place, or is one of those that
        hold no weights (`IGNORED`).

    Raises:
        ValueError: the names are not those of a CLIP model, a prefix is unknown or
            ambiguous, or names are missing or left over; the message lists both sides.

    Examples:
        >>> layout = full_layout("hugging_face", 1, 1)
        >>> names = [name for entry in entries(layout) for name in entry.names]
        >>> recognise({f"module.{name}": np.ones(1) for name in names}).prefix
        'module.'
    """
    layout = _layout(tensors, where)
    expected = [name for entry in entries(layout) for name in entry.names]
    ignored = {name for name in tensors if _is_ignored(name, layout)}
    missing = [name for name in expected if name not in tensors]
    extra = [
        name for name in tensors if name not in ignored and name not in {*expected}
    ]
    if missing or extra:
        sides = [f"{len(missing)} names are missing{_group(missing, expected)}"]
        sides += [f"{len(extra)} names have no place{_group(extra, extra)}"]
        raise ValueError(
            f"{where} was taken for a {layout.model} in the layout of {layout.kind} "
            f"with the prefix {layout.prefix!r}, but "
            + "; ".join(side for side in sides if not side.startswith("0 "))
            + "; save the whole state dict of one CLIP model, and nothing else."
        )
    dtypes = {str(tensors[name].dtype) for name in expected}
    return layout._replace(dtype=dtypes.pop() if len(dtypes) == 1 else "mixed")


def full_layout(kind: str, vision_layers: int, text_layers: int) -> Layout:
    """Returns the layout of a whole CLIP model without a wrapper.

    Args:
        kind: ``hugging_face`` or ``open_clip``.
        vision_layers: number of blocks of the image tower.
        text_layers: the same of the text tower.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in _KINDS:
        raise ValueError(f"`kind` must be one of {list(_KINDS)}, got {kind!r}.")
    style = _KINDS[kind]
    return Layout(
        kind, "", style.vision_prefix, style.text_prefix, vision_layers, text_layers,
        True, True, True, style.qkv, "float32", style.model,
    )  # fmt: skip


def entries(layout: Layout) -> list[Entry]:
    """Lists the tensors of a layout: our paths, with their names in the file.

    Args:
        layout: as `recognise` or `full_layout` returns it.

    Returns:
        Entries with paths ``vision/…``, ``text/…`` and ``logit_scale``.
    """
    is_hub = layout.kind == "hugging_face"
    column = 2 if is_hub else 1
    found = []
    if layout.has_logit_scale:
        found.append(Entry("logit_scale", (f"{layout.prefix}logit_scale",), "copy"))
    towers = (
        ("vision", layout.vision_prefix, layout.vision_layers, _VISION),
        ("text", layout.text_prefix, layout.text_layers, _TEXT),
    )
    for tower, prefix, num_layers, table in towers:
        if num_layers is None:
            continue
        prefix = layout.prefix + prefix
        rows = [(row[0], row[column], row[3]) for row in table]
        for i in range(num_layers):
            block = f"{_BLOCKS[column]}.{i}."
            rows += [
                (f"resblocks_{i}/{r[0]}", _prefixed(block, r[column]), r[3])
                for r in _BLOCK
            ]
        for path, names, how in rows:
            names = (names,) if isinstance(names, str) else names
            names = tuple(prefix + name for name in names)
            found.append(Entry(f"{tower}/{path}", names, how))
    how = "transpose" if is_hub else "copy"
    end = ".weight" if is_hub else ""
    if layout.has_projection:
        name = f"visual_projection{end}" if is_hub else f"{layout.vision_prefix}proj"
        found.append(Entry("vision/proj", (layout.prefix + name,), how))
    if layout.has_text_projection:
        prefix = layout.prefix + ("" if is_hub else layout.text_prefix)
        name = f"{prefix}text_projection{end}"
        found.append(Entry("text/text_projection", (name,), how))
    return found


def shapes(
    tensors: Mapping[str, Any], layout: Layout, where: str = "the state dict"
) -> dict[str, tuple[int, ...]]:
    """Lists the shapes that the tensors will have, without touching a number.

    Args:
        tensors: array by name.
        layout: of the state dict.
        where: what to call the state dict in messages.

    Returns:
        Shape by path, query, key and value counted as one.

    Raises:
        ValueError: a patch embedding is no square RGB convolution, or query, key and
            value differ in shape.
    """
    found = {}
    for path, names, how in entries(layout):
        raw = [tuple(tensors[name].shape) for name in names]
        shape = raw[0]
        if len({*raw}) > 1 or (len(raw) > 1 and not shape):
            raise ValueError(
                f"{where} holds query, key and value of different shapes: "
                f"{dict(zip(names, raw, strict=True))}."
            )
        if len(raw) > 1:
            shape = (3 * shape[0], *shape[1:])
        if how == "patches":
            if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
                raise ValueError(
                    f"{where} holds {names[0]!r} with shape {shape}, expected (width, "
                    "3, patch, patch): a square patch of an RGB image."
                )
            shape = (3 * shape[2] * shape[3], shape[0])
        found[path] = shape[::-1] if how == "transpose" else shape
    return found


def to_params(
    tensors: Mapping[str, Any],
    layout: Layout,
    qkv: str = "fused",
    towers: Iterable[str] = ("vision", "text"),
) -> Tree:
    """Builds parameter trees from a state dict.

    Args:
        tensors: array by name.
        layout: of the state dict.
        qkv: ``fused`` for one matrix of query, key and value, ``split`` for three.
        towers: which of them to build.

    Returns:
        A nested dict with ``vision``, ``text`` and ``logit_scale``, as far as the state
        dict has them; float32, every array a copy.

    Raises:
        ValueError: there is no such `qkv`.
    """
    if qkv not in ("fused", "split"):
        raise ValueError(f"`qkv` must be 'fused' or 'split', got {qkv!r}.")
    flat, wanted = {}, {*towers, "logit_scale"}
    for path, names, how in entries(layout):
        if path.split("/")[0] not in wanted:
            continue
        rows = [np.asarray(tensors[name]).astype(np.float32) for name in names]
        paths = [path]
        if "/in_proj/" in path:
            rows = np.split(rows[0], 3) if len(rows) == 1 else rows
            rows = rows if qkv == "split" else [np.concatenate(rows)]
            paths = _split_paths(path) if qkv == "split" else paths
        flat |= {p: _to_ours(row, how) for p, row in zip(paths, rows, strict=True)}
    return tree.unflatten(flat)


def to_state(params: Tree, layout: Layout) -> dict[str, np.ndarray]:
    """Turns parameter trees back to a state dict: undoes `to_params`.

    Args:
        params: a nested dict with ``vision``, ``text`` or ``logit_scale``; query, key
            and value fused or split.
        layout: to write.

    Returns:
        Float32 array by name, of those tensors that `params` has a branch for.

    Raises:
        ValueError: a tensor of a branch is missing or has no place in the layout.
    """
    flat = tree.flatten(params)
    state, used = {}, set()
    for path, names, how in entries(layout):
        if path.split("/")[0] not in params:
            continue
        paths = [path] if path in flat else _split_paths(path)
        if "/in_proj/" not in path or not all(p in flat for p in paths):
            paths = [path]
        if paths[0] not in flat:
            raise ValueError(f"`params` must hold {path!r} to be written as {names}.")
        used |= {*paths}
        rows = [_to_theirs(np.asarray(flat[p], np.float32), how) for p in paths]
        if len(rows) != len(names):
            rows = [np.concatenate(rows)] if len(rows) == 3 else np.split(rows[0], 3)
        for name, row in zip(names, rows, strict=True):
            state[name] = np.array(row, np.float32, order="C")
    if left := sorted(flat.keys() - used):
        raise ValueError(
            f"`params` holds {left}, which have no place in a {layout.model} in the "
            f"layout of {layout.kind}."
        )
    return state


def _layout(tensors, where):
    """Finds kind, prefixes and sizes from the names alone."""
    kind, head, has_vision = _head(tensors, where)
    style = _KINDS[kind]
    own = style.vision_prefix if has_vision else style.text_prefix
    own = own if own and head.endswith(own) else ""
    if kind == "open_clip" and not has_vision and head.endswith("text."):
        own = "text."
    prefix = head.removesuffix(own)
    if not _WRAPPERS.fullmatch(prefix):
        raise ValueError(
            f"{where} has names with the prefix {prefix!r}, expected none or a chain of "
            f"{_WRAPPER_NAMES}; remove it from the names first."
        )
    vision_prefix, text_prefix = (own, style.text_prefix) if has_vision else ("", own)
    if kind == "open_clip" and any(n.startswith(f"{prefix}text.") for n in tensors):
        text_prefix = "text."
    blocks = style.blocks
    text = None
    if not has_vision or vision_prefix:
        text = _num_layers(tensors, f"{prefix}{text_prefix}{blocks}.")
    hub, end = kind == "hugging_face", ".weight" if kind == "hugging_face" else ""
    if hub and has_vision:
        text = (
            text if any(n.startswith(prefix + text_prefix) for n in tensors) else None
        )
    vision = None
    if has_vision:
        vision = _num_layers(tensors, f"{prefix}{vision_prefix}{blocks}.") or 0
    proj = (
        f"{prefix}visual_projection.weight" if hub else f"{prefix}{vision_prefix}proj"
    )
    text_proj = f"{prefix}{'' if hub else text_prefix}text_projection{end}"
    both = vision is not None and text is not None
    layout = Layout(
        kind, prefix, vision_prefix, text_prefix, vision, text,
        has_vision and (both or proj in tensors),
        text is not None and (both or text_proj in tensors),
        both or f"{prefix}logit_scale" in tensors, style.qkv, "float32", style.model,
    )  # fmt: skip
    return layout._replace(model=_model(layout))


def _head(tensors, where):
    """Finds what stands before the first tensor of a tower."""
    for has_vision, anchors in _ANCHORS:
        heads = {
            (kind, name.removesuffix(anchor))
            for name in tensors
            for kind, anchor in anchors
            if name == anchor or name.endswith(f".{anchor}")
        }
        hub = {head for kind, head in heads if kind == "hugging_face"}
        heads = [
            (kind, head)
            for kind, head in sorted(heads)
            if kind == "hugging_face" or head.removesuffix("embeddings.") not in hub
        ]
        if len(heads) > 1:
            raise ValueError(
                f"{where} holds several towers of one kind, expected one; their prefixes "
                f"are {[head for _, head in heads]}; save one of them alone."
            )
        if heads:
            return *heads[0], has_vision
    raise ValueError(
        f"{where} is not a CLIP model with vision transformer: none of its "
        f"{len(tensors)} names ends in 'class_embedding' or 'token_embedding.weight'; "
        f"the first are {list(tensors)[:4]}."
    )


def _num_layers(tensors, start):
    """Counts blocks by the highest number that follows a prefix."""
    numbers = [
        name[len(start) :].split(".")[0] for name in tensors if name.startswith(start)
    ]
    numbers = [int(number) for number in numbers if number.isdecimal()]
    return max(numbers) + 1 if numbers else None


def _model(layout):
    """Names the class that saves such a state dict."""
    if layout.kind == "open_clip":
        return "CLIP" if layout.text_layers is not None else "VisionTransformer"
    if layout.vision_layers is None:
        end = "WithProjection" if layout.has_text_projection else ""
        return f"CLIPTextModel{end}"
    if layout.text_layers is not None:
        return "CLIPModel"
    return "CLIPVisionModel" + ("WithProjection" if layout.has_projection else "")


def _is_ignored(name, layout):
    """Tells whether a name may be there without being read."""
    if any(pattern.search(name) for pattern in IGNORED):
        return True
    if layout.kind != "open_clip" or layout.text_layers is not None:
        return False
    # The text tower without its blocks is what Task Arithmetic leaves in a file.
    rest = name.removeprefix(layout.prefix).removeprefix(layout.text_prefix)
    return layout.vision_prefix == "visual." and rest in _TEXT_REMAINS


def _group(names, everything):
    """Lists names in a message; a block that is there in whole is one item."""
    blocks: dict[str, list[str]] = {}
    for name in names:
        found = _IN_BLOCK.match(name)
        blocks.setdefault(f"{found[1]}.*" if found else name, []).append(name)
    items = []
    for block, members in blocks.items():
        whole = [n for n in everything if n.startswith(block[:-1])]
        is_whole = block.endswith(".*") and len(whole) == len(members)
        items += [block] if is_whole else members
    most = items[:12] + ([f"and {len(items) - 12} more"] if len(items) > 12 else [])
    return (", all " if len(items) == 1 and len(names) > 1 else ": ") + ", ".join(most)


def _prefixed(start, names):
    """Puts a prefix before one name or before each of three."""
    if isinstance(names, str):
        return start + names
    return tuple(start + name for name in names)


def _split_paths(path):
    """Names the three parts of a fused tensor."""
    return [path.replace("/in_proj/", f"/{part}_proj/") for part in "qkv"]


def _to_ours(array, how):
    """Turns a float32 tensor of the file to ours."""
    if how == "patches":
        array = array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return np.ascontiguousarray(array.T if how == "transpose" else array)


def _to_theirs(array, how):
    """Undoes `_to_ours`."""
    if how == "patches":
        patch = round((array.shape[0] / 3) ** 0.5)
        return array.reshape(patch, patch, 3, -1).transpose(3, 2, 0, 1)
    return array.T if how == "transpose" else array


class _Style(NamedTuple):
    """What all state dicts of one kind have in common."""

    vision_prefix: str
    text_prefix: str
    blocks: str
    qkv: str
    model: str


_KINDS = {
    "hugging_face": _Style(
        "vision_model.", "text_model.", "encoder.layers", "split", "CLIPModel"
    ),
    "open_clip": _Style("visual.", "", "transformer.resblocks", "fused", "CLIP"),
}
_BLOCKS = (None, "transformer.resblocks", "encoder.layers")

IGNORED = tuple(
    re.compile(pattern)
    for pattern in (
        r"(^|\.)position_ids$",
        r"(^|\.)attn_mask$",
        r"^(input_resolution|context_length|vocab_size)$",
        r"^(module\.|model\.|_orig_mod\.)*(classification_head|classifier)\.",
        r"^(optimizer|optimizer_state|lr_scheduler)(\.|$)",
    )
)
"""Names that hold no weights of the towers: buffers, sizes, heads, optimizers."""

_WRAPPER_NAMES = ["module.", "model.", "_orig_mod.", "image_encoder.", "clip_model."]
_WRAPPERS = re.compile("(" + "|".join(map(re.escape, _WRAPPER_NAMES)) + ")*")
_IN_BLOCK = re.compile(r"(.*\b(?:resblocks|layers)\.\d+)\.")

_ANCHORS = (
    (
        True,
        (
            ("hugging_face", "embeddings.class_embedding"),
            ("open_clip", "class_embedding"),
        ),
    ),
    (
        True,
        (
            ("hugging_face", "embeddings.patch_embedding.weight"),
            ("open_clip", "visual.conv1.weight"),
        ),
    ),
    (
        False,
        (
            ("hugging_face", "embeddings.token_embedding.weight"),
            ("open_clip", "token_embedding.weight"),
        ),
    ),
)

_TEXT_REMAINS = {
    "token_embedding.weight",
    "positional_embedding",
    "text_projection",
    "ln_final.weight",
    "ln_final.bias",
}

# Ours, open_clip's, Hugging Face's, what to do.
_VISION = (
    ("class_embedding", "class_embedding", "embeddings.class_embedding", "copy"),
    (
        "positional_embedding",
        "positional_embedding",
        "embeddings.position_embedding.weight",
        "copy",
    ),
    ("conv1/kernel", "conv1.weight", "embeddings.patch_embedding.weight", "patches"),
    ("ln_pre/scale", "ln_pre.weight", "pre_layrnorm.weight", "copy"),
    ("ln_pre/bias", "ln_pre.bias", "pre_layrnorm.bias", "copy"),
    ("ln_post/scale", "ln_post.weight", "post_layernorm.weight", "copy"),
    ("ln_post/bias", "ln_post.bias", "post_layernorm.bias", "copy"),
)
_TEXT = (
    (
        "token_embedding/embedding",
        "token_embedding.weight",
        "embeddings.token_embedding.weight",
        "copy",
    ),
    (
        "positional_embedding",
        "positional_embedding",
        "embeddings.position_embedding.weight",
        "copy",
    ),
    ("ln_final/scale", "ln_final.weight", "final_layer_norm.weight", "copy"),
    ("ln_final/bias", "ln_final.bias", "final_layer_norm.bias", "copy"),
)
_BLOCK = (
    ("ln_1/scale", "ln_1.weight", "layer_norm1.weight", "copy"),
    ("ln_1/bias", "ln_1.bias", "layer_norm1.bias", "copy"),
    (
        "attn/in_proj/kernel",
        "attn.in_proj_weight",
        tuple(f"self_attn.{part}_proj.weight" for part in "qkv"),
        "transpose",
    ),
    (
        "attn/in_proj/bias",
        "attn.in_proj_bias",
        tuple(f"self_attn.{part}_proj.bias" for part in "qkv"),
        "copy",
    ),
    (
        "attn/out_proj/kernel",
        "attn.out_proj.weight",
        "self_attn.out_proj.weight",
        "transpose",
    ),
    ("attn/out_proj/bias", "attn.out_proj.bias", "self_attn.out_proj.bias", "copy"),
    ("ln_2/scale", "ln_2.weight", "layer_norm2.weight", "copy"),
    ("ln_2/bias", "ln_2.bias", "layer_norm2.bias", "copy"),
    ("mlp/c_fc/kernel", "mlp.c_fc.weight", "mlp.fc1.weight", "transpose"),
    ("mlp/c_fc/bias", "mlp.c_fc.bias", "mlp.fc1.bias", "copy"),
    ("mlp/c_proj/kernel", "mlp.c_proj.weight", "mlp.fc2.weight", "transpose"),
    ("mlp/c_proj/bias", "mlp.c_proj.bias", "mlp.fc2.bias", "copy"),
)
