"""The names of CLIP's tensors in state dicts of torch, and the paths that we give them.

Two layouts are known, open_clip's (which is OpenAI's) and that of Hugging Face. What
happens to a tensor follows from its name alone, never from its shape, because square
matrices look the same both ways.
"""

import collections
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from adarank_jax import errors


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
        dtype: of the tensors, or ``mixed``.
    """

    kind: str
    prefix: str
    vision_prefix: str
    text_prefix: str
    vision_layers: int | None
    text_layers: int | None
    has_projection: bool = True
    has_text_projection: bool = True
    has_logit_scale: bool = True
    dtype: str = "float32"

    @property
    def model(self) -> str:
        """Name of the class that saves such a state dict."""
        tower = "Text" if self.vision_layers is None else "Vision"
        has_both = None not in (self.vision_layers, self.text_layers)
        if self.kind == "open_clip":
            return "CLIP" if has_both else f"{tower}Transformer"
        projection = {"Vision": self.has_projection, "Text": self.has_text_projection}
        end = "WithProjection" if projection[tower] else ""
        return "CLIPModel" if has_both else f"CLIP{tower}Model{end}"


class Entry(NamedTuple):
    """One tensor: our path, its names in the file, and what turns it to ours."""

    path: str
    names: tuple[str, ...]
    how: str


def full_layout(kind: str, vision_layers: int, text_layers: int) -> Layout:
    """Returns the layout of a whole CLIP model without a wrapper.

    Args:
        kind: ``hugging_face`` or ``open_clip``.
        vision_layers: number of blocks of the image tower.
        text_layers: the same of the text tower.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in _TOWER_PREFIXES:
        raise ValueError(
            f"`kind` must be one of {sorted(_TOWER_PREFIXES)}, got {kind!r}."
        )
    return Layout(kind, "", *_TOWER_PREFIXES[kind], vision_layers, text_layers)


def entries(layout: Layout) -> list[Entry]:
    """Lists the tensors of a layout.

    Args:
        layout: as `recognise` or `full_layout` returns it.

    Returns:
        Entries with paths ``vision/…``, ``text/…`` and ``logit_scale``.

    Examples:
        >>> entries(full_layout("open_clip", 12, 12))[0].names
        ('logit_scale',)
    """
    is_hub = layout.kind == "hugging_face"
    prefix = layout.prefix
    found = []
    if layout.has_logit_scale:
        found.append(Entry("logit_scale", (f"{prefix}logit_scale",), "copy"))
    if layout.vision_layers is not None:
        start = prefix + layout.vision_prefix
        found += _tower("vision", layout, start, _VISION, layout.vision_layers)
        if layout.has_projection:
            name = f"{prefix}visual_projection.weight" if is_hub else f"{start}proj"
            found.append(
                Entry("vision/proj", (name,), "transpose" if is_hub else "copy")
            )
    if layout.text_layers is not None:
        start = prefix + layout.text_prefix
        found += _tower("text", layout, start, _TEXT, layout.text_layers)
        if layout.has_text_projection:
            name = f"{prefix}text_projection.weight"
            name = name if is_hub else f"{start}text_projection"
            how = "transpose" if is_hub else "copy"
            found.append(Entry("text/text_projection", (name,), how))
    return found


def recognise(tensors: Mapping[str, Any], where: str = "the state dict") -> Layout:
    """Tells the layout of a state dict; every name has exactly one place in it.

    Args:
        tensors: array by name.
        where: what to call the state dict in messages.

    Returns:
        The layout. Names of things that are no weights of the towers (`IGNORED`) are
        passed over.

    Raises:
        InputError: the names are not those of a CLIP model, a prefix is unknown or
            ambiguous, or names are missing or left over; the message lists both sides.
    """
    kind, tower, start = _anchor(tensors, where)
    towers = dict(zip(("vision", "text"), _TOWER_PREFIXES[kind], strict=True))
    own = next((p for p in (towers[tower], "text.") if p and start.endswith(p)), "")
    prefix = start.removesuffix(own)
    if not _WRAPPER.fullmatch(prefix):
        raise errors.InputError(
            *("E212", f"it has names with the prefix {prefix!r}", where),
            expected=f"none or a chain of {_WRAPPERS}",
            remedy="remove the prefix from the names first",
        )
    if kind == "open_clip" and any(n.startswith(f"{prefix}text.") for n in tensors):
        towers["text"] = "text."
    layers: dict[str, int | None] = {"vision": None, "text": None}
    layers[tower] = _num_blocks(tensors, kind, start)
    if tower == "vision" and own:
        layers["text"] = _num_blocks(tensors, kind, prefix + towers["text"]) or None
    towers[tower] = own
    layout = Layout(kind, prefix, *towers.values(), *layers.values())
    if None in layers.values():
        # Of a whole model every part must be there; of one tower, what is there counts.
        projections = {
            entry.path: entry.names[0] in tensors for entry in entries(layout)
        }
        layout = layout._replace(
            has_projection=projections.get("vision/proj", False),
            has_text_projection=projections.get("text/text_projection", False),
            has_logit_scale=projections["logit_scale"],
        )
    _check_names(tensors, layout, where)
    names = (name for entry in entries(layout) for name in entry.names)
    dtypes = {str(tensors[name].dtype) for name in names}
    return layout._replace(dtype=dtypes.pop() if len(dtypes) == 1 else "mixed")


def _tower(tower, layout, start, table, num_blocks):
    """Lists the tensors of one tower, projection excluded."""
    column = 2 if layout.kind == "hugging_face" else 1
    rows = [(row[0], row[column], row[3]) for row in table]
    for i in range(num_blocks):
        block = f"{_BLOCKS[layout.kind]}.{i}."
        for row in _BLOCK:
            rows.append((f"resblocks_{i}/{row[0]}", f"{block}{row[column]}", row[3]))
    for path, name, how in rows:
        names = [name.replace("*", part) for part in "qkv"] if "*" in name else [name]
        yield Entry(f"{tower}/{path}", tuple(start + name for name in names), how)


def _anchor(tensors, where):
    """Finds kind and tower by a tensor that each has, and what stands before it."""
    for tower, anchors in _ANCHORS:
        found = {
            (kind, name.removesuffix(anchor))
            for name in tensors
            for kind, anchor in anchors.items()
            if f".{name}".endswith(f".{anchor}")
        }
        # The name of Hugging Face ends like that of open_clip.
        found -= {
            ("open_clip", f"{start}embeddings.")
            for kind, start in found
            if kind == "hugging_face"
        }
        if len(found) > 1:
            starts = sorted(start for _, start in found)
            raise errors.InputError(
                "E212",
                f"it holds {len(found)} {tower} towers, whose names begin with "
                f"{starts}",
                where=where,
                expected="one",
                remedy="save one of them alone",
            )
        if found:
            kind, start = found.pop()
            return kind, tower, start
    raise errors.InputError(
        "E218",
        f"it is no CLIP model with a vision transformer: none of its {len(tensors)} "
        "names ends in 'class_embedding' or 'token_embedding.weight', the first are "
        f"{list(tensors)[:4]}",
        where=where,
        remedy="give a CLIP model with a vision transformer",
    )


def _num_blocks(tensors, kind, start):
    """Counts blocks by the highest number among their names."""
    block = re.compile(re.escape(f"{start}{_BLOCKS[kind]}.") + r"(\d{1,4})\.")
    numbers = [int(found[1]) for found in map(block.match, tensors) if found]
    return max(numbers, default=-1) + 1


def _check_names(tensors, layout, where):
    """Refuses names that are missing or have no place."""
    expected = [name for entry in entries(layout) for name in entry.names]
    missing = [name for name in expected if name not in tensors]
    extra = {*tensors} - {*expected}
    extra = [name for name in tensors if name in extra and not _ignored(name, layout)]
    lines = [f"{len(missing)} missing{_grouped(missing, expected)}"]
    lines += [f"{len(extra)} without a place{_grouped(extra, tensors)}"]
    if missing or extra:
        raise errors.InputError(
            "E210" if missing else "E211",
            f"it looks like a {layout.model} of {layout.kind} with the prefix "
            f"{layout.prefix!r}, but its names do not fit: "
            + " and ".join(line for line in lines if not line.startswith("0 ")),
            where=where,
            remedy="save the state dict of one whole model and nothing else",
        )


def _ignored(name, layout):
    """Tells whether a name may be there without being read."""
    if any(pattern.search(name) for pattern in IGNORED):
        return True
    # Task Arithmetic saves image towers with a text tower that has lost its blocks.
    rest = name.removeprefix(layout.prefix).removeprefix(layout.text_prefix)
    is_rest = layout.vision_prefix == "visual." and layout.text_layers is None
    return is_rest and rest in _TEXT_REST


def _grouped(names: Collection[str], everything: Collection[str]) -> str:
    """Lists names; a block of which all names are meant is one item."""
    sizes = collections.Counter(_block(name) for name in everything)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_block(name), []).append(name)
    items = []
    for block, members in groups.items():
        items += [block] if len(members) == sizes[block] > 1 else members
    shown = items[:12] + ([f"{len(items) - 12} more"] if len(items) > 12 else [])
    return (", all " if len(items) == 1 < len(names) else ": ") + ", ".join(shown)


def _block(name):
    """Names the block that a name belongs to, or the name itself."""
    found = _IN_BLOCK.match(name)
    return f"{found[1]}*" if found else name


IGNORED = tuple(
    re.compile(pattern)
    for pattern in (
        r"(^|\.)(position_ids|attn_mask)$",
        r"^(input_resolution|context_length|vocab_size)$",
        r"^(module\.|model\.|_orig_mod\.)*(classification_head|classifier)\.",
        r"^(optimizer|optimizer_state|lr_scheduler|scaler)(\.|$)",
    )
)
"""Names that hold no weights of the towers: buffers, sizes, heads, optimizers."""

_WRAPPERS = ["module.", "model.", "_orig_mod.", "image_encoder.", "clip_model."]
_WRAPPER = re.compile("(" + "|".join(map(re.escape, _WRAPPERS)) + ")*")
_IN_BLOCK = re.compile(r"((?:.*\.)?(?:resblocks|layers)\.\d+\.)")

_TOWER_PREFIXES = {
    "hugging_face": ("vision_model.", "text_model."),
    "open_clip": ("visual.", ""),
}
_BLOCKS = {"hugging_face": "encoder.layers", "open_clip": "transformer.resblocks"}
_ANCHORS = (
    (
        "vision",
        {"hugging_face": "embeddings.class_embedding", "open_clip": "class_embedding"},
    ),
    (
        "text",
        {
            "hugging_face": "embeddings.token_embedding.weight",
            "open_clip": "token_embedding.weight",
        },
    ),
)
_TEXT_REST = {
    "token_embedding.weight",
    "positional_embedding",
    "text_projection",
    "ln_final.weight",
    "ln_final.bias",
}

# fmt: off
# Our path, open_clip's name, that of Hugging Face, and what turns it to ours.
_POSITIONS = (
    "positional_embedding", "positional_embedding",
    "embeddings.position_embedding.weight", "copy",
)
_VISION = (
    ("class_embedding", "class_embedding", "embeddings.class_embedding", "copy"),
    _POSITIONS,
    ("conv1/kernel", "conv1.weight", "embeddings.patch_embedding.weight", "patches"),
    ("ln_pre/scale", "ln_pre.weight", "pre_layrnorm.weight", "copy"),
    ("ln_pre/bias", "ln_pre.bias", "pre_layrnorm.bias", "copy"),
    ("ln_post/scale", "ln_post.weight", "post_layernorm.weight", "copy"),
    ("ln_post/bias", "ln_post.bias", "post_layernorm.bias", "copy"),
)
_TEXT = (
    (
        "token_embedding/embedding", "token_embedding.weight",
        "embeddings.token_embedding.weight", "copy",
    ),
    _POSITIONS,
    ("ln_final/scale", "ln_final.weight", "final_layer_norm.weight", "copy"),
    ("ln_final/bias", "ln_final.bias", "final_layer_norm.bias", "copy"),
)
_BLOCK = (
    ("ln_1/scale", "ln_1.weight", "layer_norm1.weight", "copy"),
    ("ln_1/bias", "ln_1.bias", "layer_norm1.bias", "copy"),
    (
        "attn/in_proj/kernel", "attn.in_proj_weight",
        "self_attn.*_proj.weight", "transpose",
    ),
    ("attn/in_proj/bias", "attn.in_proj_bias", "self_attn.*_proj.bias", "copy"),
    (
        "attn/out_proj/kernel", "attn.out_proj.weight",
        "self_attn.out_proj.weight", "transpose",
    ),
    ("attn/out_proj/bias", "attn.out_proj.bias", "self_attn.out_proj.bias", "copy"),
    ("ln_2/scale", "ln_2.weight", "layer_norm2.weight", "copy"),
    ("ln_2/bias", "ln_2.bias", "layer_norm2.bias", "copy"),
    ("mlp/c_fc/kernel", "mlp.c_fc.weight", "mlp.fc1.weight", "transpose"),
    ("mlp/c_fc/bias", "mlp.c_fc.bias", "mlp.fc1.bias", "copy"),
    ("mlp/c_proj/kernel", "mlp.c_proj.weight", "mlp.fc2.weight", "transpose"),
    ("mlp/c_proj/bias", "mlp.c_proj.bias", "mlp.fc2.bias", "copy"),
)
# fmt: on
