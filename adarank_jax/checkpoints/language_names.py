"""The names of BERT's, RoBERTa's and GPT-2's tensors, and the paths that we give them.

Our paths are the names of the bare classes of transformers. Whether a kernel is turned
follows from the family: BERT and RoBERTa keep (outputs, inputs), GPT-2's Conv1D keeps
(inputs, outputs) as we do. A shape decides nothing, because square matrices look the
same both ways.
"""

import collections
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from adarank_jax import errors


class Layout(NamedTuple):
    """How a state dict holds a language model.

    Attributes:
        family: ``bert``, ``roberta`` or ``gpt2``.
        wrapper: of every name, such as ``module.``.
        prefix: after it, of the encoder: that of the family, or nothing.
        num_layers: number of transformer layers.
        has_head: whether there is a head of sequence classification.
        norm_ends: how the two tensors of BERT's LayerNorms end; old files have
            ``gamma`` and ``beta``.
        dtype: of the tensors of encoder and head, or ``mixed``.
    """

    family: str
    wrapper: str
    prefix: str
    num_layers: int
    has_head: bool
    norm_ends: tuple[str, str] = ("weight", "bias")
    dtype: str = "float32"

    @property
    def model(self) -> str:
        """Name of the class that has such tensors."""
        end = "ForSequenceClassification" if self.has_head else "Model"
        return _CLASSES[self.family] + end


class Entry(NamedTuple):
    """One tensor: our path, its name in the file, and whether it is turned."""

    path: str
    name: str
    is_turned: bool


def full_layout(family: str, num_layers: int, dtype: str = "float32") -> Layout:
    """Returns the layout of a whole model for sequence classification.

    Args:
        family: ``bert``, ``roberta`` or ``gpt2``.
        num_layers: number of transformer layers.
        dtype: of its tensors.

    Raises:
        ValueError: there is no such family.

    Examples:
        >>> encoder_entries(full_layout("gpt2", 12))[0].name
        'transformer.wte.weight'
    """
    check_family(family)
    return Layout(family, "", PREFIXES[family], num_layers, True, dtype=dtype)


def check_family(family: str) -> None:
    """Checks that a family of language models is known.

    Args:
        family: its name.

    Raises:
        ValueError: it is not; the message lists those that are.
    """
    if family not in PREFIXES:
        raise ValueError(f"`family` must be one of {[*PREFIXES]}, got {family!r}.")


def encoder_entries(layout: Layout) -> list[Entry]:
    """Lists the tensors of the encoder, in the order of the library.

    Args:
        layout: as `recognise` or `full_layout` returns it.
    """
    rows = [(path, path) for path in _BEFORE[layout.family]]
    for i in range(layout.num_layers):
        ours, theirs = _LAYERS[layout.family]
        rows += [
            (f"{ours}_{i}/{p}", f"{theirs}/{i}/{p}") for p in _LAYER[layout.family]
        ]
    rows += [(path, path) for path in _AFTER[layout.family]]
    start = layout.wrapper + layout.prefix
    return [
        Entry(path, start + _name(theirs, layout), _is_turned(path, layout))
        for path, theirs in rows
    ]


def head_entries(layout: Layout) -> list[Entry]:
    """Lists the tensors of the head for sequence classification.

    Args:
        layout: as `recognise` or `full_layout` returns it; it may be without a head.

    Examples:
        >>> [entry.name for entry in head_entries(full_layout("gpt2", 12))]
        ['score.weight']
    """
    start, paths = _HEADS[layout.family]
    return [
        Entry(
            path, layout.wrapper + _name(start + path, layout), path.endswith("kernel")
        )
        for path in paths
    ]


def recognise(
    tensors: Mapping[str, Any],
    family: str,
    where: str = "the state dict",
) -> Layout:
    """Finds out how a state dict holds a model of a family.

    Args:
        tensors: array by name.
        family: ``bert``, ``roberta`` or ``gpt2``.
        where: what to call the state dict in messages.

    Returns:
        The layout. Names of things that are neither encoder nor head (`IGNORED`) are
        passed over.

    Raises:
        InputError: the names are not those of such a model, a prefix is unknown or
            ambiguous, or names are missing or left over; the message lists both sides.
    """
    check_family(family)
    wrapper, prefix = _start(tensors, family, where)
    start = wrapper + prefix
    num_layers = _num_layers(tensors, start + _LAYERS[family][1].replace("/", "."))
    is_old = any(n.startswith(start) and n.endswith("LayerNorm.gamma") for n in tensors)
    ends = ("gamma", "beta") if is_old else ("weight", "bias")
    layout = Layout(family, wrapper, prefix, num_layers, True, ends)
    head = [entry.name in tensors for entry in head_entries(layout)]
    layout = layout._replace(has_head=any(head))
    _check_names(tensors, layout, where)
    dtypes = {str(tensors[entry.name].dtype) for entry in entries(layout)}
    return layout._replace(dtype=dtypes.pop() if len(dtypes) == 1 else "mixed")


def entries(layout: Layout) -> list[Entry]:
    """Lists the tensors of encoder and head, as far as there is a head.

    Args:
        layout: as `recognise` or `full_layout` returns it.
    """
    head = head_entries(layout) if layout.has_head else []
    return encoder_entries(layout) + head


def _name(path, layout):
    """Turns our path to a name of torch."""
    *branches, last = path.split("/")
    if last == "embedding" or last == "kernel":
        last = "weight"
    elif branches[-1] == "LayerNorm":
        last = layout.norm_ends[last == "bias"]
    elif last == "scale":
        last = "weight"
    return ".".join([*branches, last])


def _is_turned(path, layout):
    """Tells whether torch keeps a tensor as (outputs, inputs)."""
    return layout.family != "gpt2" and path.endswith("/kernel")


def _start(tensors, family, where):
    """Finds wrapper and prefix by a tensor that each model of the family has."""
    anchor = _ANCHORS[family]
    starts = [n.removesuffix(anchor) for n in tensors if f".{n}".endswith(f".{anchor}")]
    if not starts:
        raise errors.InputError(
            "E218",
            f"it is no {_CLASSES[family]}: none of its {len(tensors)} names ends in "
            f"{anchor!r}, the first are {list(tensors)[:4]}",
            where=where,
            remedy="check whether weights and config.json belong together",
        )
    if len(starts) > 1:
        raise errors.InputError(
            "E212",
            f"it holds {len(starts)} encoders, whose names begin with {sorted(starts)}",
            where=where,
            expected="one",
            remedy="save one of them alone",
        )
    found = _own_start(starts[0], family)
    if found is None:
        raise errors.InputError(
            *("E212", f"it has names with the prefix {starts[0]!r}", where),
            expected=f"that of a {_CLASSES[family]} ({PREFIXES[family]!r} or none) "
            f"after any of {_WRAPPERS}",
            remedy="remove the prefix from the names, unless it is another kind of "
            "model",
        )
    return found


def _own_start(start, family):
    """Splits what stands before the names into wrapper and prefix; None if unknown."""
    prefix = PREFIXES[family]
    own = prefix if f".{start}".endswith(f".{prefix}") else ""
    wrapper = start.removesuffix(own)
    return (wrapper, own) if _WRAPPER.fullmatch(wrapper) else None


def _num_layers(tensors, start):
    """Counts layers by the highest number among their names."""
    layer = re.compile(re.escape(start) + r"\.(\d{1,4})\.")
    numbers = [int(found[1]) for found in map(layer.match, tensors) if found]
    return max(numbers, default=-1) + 1


def _check_names(tensors, layout, where):
    """Refuses names that are missing or have no place."""
    expected = [entry.name for entry in entries(layout)]
    missing = [name for name in expected if name not in tensors]
    extra = {*tensors} - {*expected}
    extra = [name for name in tensors if name in extra and not is_ignored(name, layout)]
    if not missing and not extra:
        return
    lines = [f"{len(missing)} missing{_grouped(missing, expected)}"] if missing else []
    if extra:
        lines.append(f"{len(extra)} without a place{_grouped(extra, tensors)}")
    found = (
        f"it looks like a {layout.model} with the prefix "
        f"{layout.wrapper + layout.prefix!r}, but its names do not fit: "
        + " and ".join(lines)
    )
    if missing and all(".pooler.dense." in f".{name}" for name in missing):
        raise errors.InputError(
            "E210",
            f"{found}; the model was saved without its pooler (as masked language "
            "models and token classifiers are), which BertForSequenceClassification "
            "needs",
            where=where,
            remedy="take a checkpoint with a pooler, nothing is made up for it",
        )
    raise errors.InputError(
        *("E210" if missing else "E211", found, where),
        expected="an encoder and perhaps the head of sequence classification",
        remedy="save the state dict of one whole model and nothing else",
    )


def is_ignored(name: str, layout: Layout) -> bool:
    """Tells whether a name may be there without being read.

    Args:
        name: of a tensor.
        layout: of the state dict.
    """
    wrapper, start = layout.wrapper, layout.wrapper + layout.prefix
    pattern, of_encoder = IGNORED[layout.family]
    return bool(
        (name.startswith(wrapper) and pattern.match(name.removeprefix(wrapper)))
        or (name.startswith(start) and of_encoder.match(name.removeprefix(start)))
    )


def _grouped(names, everything):
    """Lists names; a layer of which all names are meant is one item."""
    sizes = collections.Counter(_layer(name) for name in everything)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_layer(name), []).append(name)
    items = []
    for layer, members in groups.items():
        items += [layer] if len(members) == sizes[layer] > 1 else members
    shown = items[:12] + ([f"{len(items) - 12} more"] if len(items) > 12 else [])
    return (", all " if len(items) == 1 < len(names) else ": ") + ", ".join(shown)


def _layer(name):
    """Names the layer that a name belongs to, or the name itself."""
    found = _IN_LAYER.match(name)
    return f"{found[1]}*" if found else name


PREFIXES = {"bert": "bert.", "roberta": "roberta.", "gpt2": "transformer."}
"""What stands before the names of the encoder in a model with a head."""

CLASS_KERNELS = {"bert": "kernel", "roberta": "out_proj/kernel", "gpt2": "kernel"}
"""Our path of the kernel of a head that has a column a class."""

IGNORED = {
    "bert": (
        re.compile(r"cls\."),
        re.compile(r"embeddings\.(position_ids|token_type_ids)$"),
    ),
    "roberta": (
        re.compile(r"lm_head\."),
        re.compile(r"embeddings\.(position_ids|token_type_ids)$|pooler\.dense\."),
    ),
    "gpt2": (
        re.compile(r"lm_head\.weight$|multiple_choice_head\."),
        re.compile(r"h\.\d+\.attn\.(bias|masked_bias)$"),
    ),
}
"""Names that are kept aside, outside and inside the encoder: heads of language models,
buffers, and the pooler of a bare RoBERTa, which its classifier does not use."""

_CLASSES = {"bert": "Bert", "roberta": "Roberta", "gpt2": "GPT2"}
_WRAPPERS = ["module.", "model.", "_orig_mod."]
_WRAPPER = re.compile("(" + "|".join(map(re.escape, _WRAPPERS)) + ")*")
_IN_LAYER = re.compile(r"((?:.*\.)?(?:encoder\.layer|h)\.\d+\.)")
_ANCHORS = {
    "bert": "embeddings.word_embeddings.weight",
    "roberta": "embeddings.word_embeddings.weight",
    "gpt2": "wte.weight",
}
_LAYERS = {
    "bert": ("encoder/layer", "encoder/layer"),
    "roberta": ("encoder/layer", "encoder/layer"),
    "gpt2": ("h", "h"),
}


def _dense(*names):
    """Lists kernel and bias of some layers."""
    return [f"{name}/{end}" for name in names for end in ("kernel", "bias")]


def _norm(name):
    """Lists scale and bias of a LayerNorm."""
    return [f"{name}/scale", f"{name}/bias"]


_EMBEDDINGS = [
    *(
        f"embeddings/{n}_embeddings/embedding"
        for n in ("word", "position", "token_type")
    ),
    *_norm("embeddings/LayerNorm"),
]
_BEFORE = {
    "bert": _EMBEDDINGS,
    "roberta": _EMBEDDINGS,
    "gpt2": ["wte/embedding", "wpe/embedding"],
}
_BERT_LAYER = [
    *_dense("attention/self/query", "attention/self/key", "attention/self/value"),
    *_dense("attention/output/dense"),
    *_norm("attention/output/LayerNorm"),
    *_dense("intermediate/dense", "output/dense"),
    *_norm("output/LayerNorm"),
]
_GPT2_LAYER = [
    *_norm("ln_1"),
    *_dense("attn/c_attn", "attn/c_proj"),
    *_norm("ln_2"),
    *_dense("mlp/c_fc", "mlp/c_proj"),
]
_LAYER = {"bert": _BERT_LAYER, "roberta": _BERT_LAYER, "gpt2": _GPT2_LAYER}
_AFTER = {"bert": _dense("pooler/dense"), "roberta": [], "gpt2": _norm("ln_f")}
_HEADS = {
    "bert": ("classifier/", ["kernel", "bias"]),
    "roberta": ("classifier/", _dense("dense", "out_proj")),
    "gpt2": ("score/", ["kernel"]),
}
