"""The config.json of BERT, RoBERTa and GPT-2 -> the fields of our modules.

What a file leaves out has the default of transformers. What would change the model in
a way that is not modelled is refused by its key.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from adarank_jax import errors


def from_hugging_face(
    values: Mapping[str, Any], where: str = "config.json"
) -> tuple[str, dict[str, Any]]:
    """Reads the sizes of an encoder.

    Args:
        values: the parsed file.
        where: what to call it in messages.

    Returns:
        The family, ``bert``, ``roberta`` or ``gpt2``, and the fields of its module.

    Raises:
        InputError: the model is of no known family, needs code of its own, is
            quantised, or is built in a way that is not supported.

    Examples:
        >>> family, config = from_hugging_face({"model_type": "gpt2", "n_embd": 384})
        >>> family, config["mlp_width"], config["activation"]
        ('gpt2', 1536, 'gelu_new')
    """
    family = values.get("model_type")
    if not isinstance(family, str) or family not in _FIELDS:
        raise errors.InputError(
            *("E141", f"it has 'model_type' {family!r}", where),
            expected=f"one of {[*_FIELDS]}",
            remedy="take one of them, as other language models cannot be read",
        )
    lines = {
        key: f"{key!r} is {values[key]!r}, expected {usual!r}: {reason}"
        for key, (usual, reason) in (_REFUSED | _REFUSED_OF.get(family, {})).items()
        if values.get(key) not in (None, usual)
    }
    if lines:
        raise errors.InputError(
            next((code for key, code in _CODES.items() if key in lines), "E142"),
            f"it describes a {family} that is not supported:\n  "
            + "\n  ".join(lines.values()),
            where=where,
            remedy=f"take a plain {family}",
        )
    values = _one_spelling(values, family, where)
    config: dict[str, Any] = {
        ours: _checked(values.get(theirs), default, where, theirs)
        for ours, theirs, default in _FIELDS[family]
    }
    if config["mlp_width"] == 0:
        config["mlp_width"] = 4 * config["width"]
    if config["width"] % config["num_heads"]:
        raise errors.InputError(
            "E143",
            f"it has the width {config['width']} and {config['num_heads']} attention "
            "heads",
            where=where,
            expected="a number of heads that divides the width",
            remedy="get it again",
        )
    if family == "roberta" and config["max_positions"] < config["padding_id"] + 2:
        raise errors.InputError(
            "E143",
            f"it has {config['max_positions']} positions and the padding id "
            f"{config['padding_id']}; RoBERTa counts positions from the id + 1, so no "
            "token has a place",
            where=where,
            remedy="get it again",
        )
    return family, config


def class_names(
    values: Mapping[str, Any], num_classes: int, where: str = "config.json"
) -> tuple[str, ...] | None:
    """Reads the names of the classes.

    Args:
        values: the parsed file.
        num_classes: rows of the head.
        where: what to call the file in messages.

    Returns:
        A name a row; None if the file has none, or the placeholders ``LABEL_0``, ….

    Raises:
        InputError: the names do not fit the head.

    Examples:
        >>> class_names({"id2label": {"0": "no", "1": "yes"}}, 2)
        ('no', 'yes')
    """
    labels = values.get("id2label")
    if labels is None:
        return None
    ids = {str(i) for i in range(num_classes)}
    if not isinstance(labels, Mapping) or labels.keys() != ids:
        raise errors.InputError(
            *("E305", f"it has 'id2label' {labels!r}", where),
            expected=f"the ids 0 to {num_classes - 1} of the {num_classes} rows of the "
            "head",
            remedy="check whether the file belongs to the weights",
        )
    names = tuple(labels[str(i)] for i in range(num_classes))
    if names == tuple(f"LABEL_{i}" for i in range(num_classes)):
        return None
    is_text = all(isinstance(name, str) and name.strip() for name in names)
    if not is_text or len({*names}) < len(names):
        raise errors.InputError(
            *("E362", f"it has 'id2label' {labels!r}", where, "names that differ"),
            remedy="correct it, or leave it out",
        )
    return names


def check_classifies(
    values: Mapping[str, Any], num_classes: int, where: str = "config.json"
) -> None:
    """Checks that a head gives one class of several, whose entropy can be lowered.

    Args:
        values: the parsed file, empty if there is none.
        num_classes: rows of the head.
        where: what to call the checkpoint in messages.

    Raises:
        InputError: it is a regression, gives several labels at once, or is a head of
            another kind.
    """
    kind = values.get("problem_type")
    told = f"'problem_type' {kind!r}" if kind in _PROBLEMS else None
    if num_classes < 2:
        told = f"{told or 'a head'} with {num_classes} class, as regression has"
    if told:
        raise errors.InputError(
            *("E308", f"it has {told}: softmax entropy undefined", where),
            remedy="exclude it from the tasks that are merged",
        )
    named = values.get("architectures")
    named = named if isinstance(named, Sequence) and not isinstance(named, str) else ()
    others = [n for n in named if str(n).endswith(_OTHER_HEADS)]
    if others:
        raise errors.InputError(
            "E308",
            f"it is a {others[0]}, whose head is none of sequence classification; only "
            "those give one class a text",
            where=where,
            remedy="exclude it from the tasks that are merged",
        )


def _one_spelling(values, family, where):
    """Spells keys as their family does; transformers takes GPT-2's in two spellings."""
    values = dict(values)
    for usual, alias in _ALIASES.get(family, {}).items():
        given = [values[key] for key in (usual, alias) if values.get(key) is not None]
        if len(given) == 2 and given[0] != given[1]:
            raise errors.InputError(
                "E143",
                f"it has {usual!r} {given[0]!r} and {alias!r} {given[1]!r}, two names "
                "of one size",
                where=where,
                remedy="remove the wrong one",
            )
        values |= {usual: given[0]} if given else {}
    return values


def _checked(value, default, where, key):
    """Checks that a value is of the kind of its default."""
    if value is None:
        return default
    if isinstance(default, str):
        if not isinstance(value, str) or value not in _ACTIVATIONS:
            raise errors.InputError(
                *("E142", f"it has {key!r} {value!r}", where),
                *(f"one of {[*_ACTIVATIONS]}", "take a model with one of them"),
            )
        return _ACTIVATIONS[value]
    is_real = isinstance(default, float)
    is_number = isinstance(value, (int, float) if is_real else int)
    least = 0 if key == "pad_token_id" else 1
    is_large = is_number and (value > 0 if is_real else value >= least)
    if isinstance(value, bool) or not is_large:
        raise errors.InputError(
            *("E143", f"it has {key!r} {value!r}", where),
            expected=f"a positive {'number' if is_real else 'integer'}"
            f"{' or 0' if least == 0 else ''}",
            remedy="get it again",
        )
    return value


# Spelling of transformers to ours: one formula has three names there.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}

# Ours, theirs, the default of the library.
_BERT = (
    ("vocabulary_size", "vocab_size", 30522),
    ("width", "hidden_size", 768),
    ("num_layers", "num_hidden_layers", 12),
    ("num_heads", "num_attention_heads", 12),
    ("mlp_width", "intermediate_size", 3072),
    ("max_positions", "max_position_embeddings", 512),
    ("num_token_types", "type_vocab_size", 2),
    ("activation", "hidden_act", "gelu"),
    ("layer_norm_epsilon", "layer_norm_eps", 1e-12),
)
_FIELDS = {
    "bert": _BERT,
    "roberta": (
        ("vocabulary_size", "vocab_size", 50265),
        *_BERT[1:],
        ("padding_id", "pad_token_id", 1),
    ),
    "gpt2": (
        ("vocabulary_size", "vocab_size", 50257),
        ("width", "n_embd", 768),
        ("num_layers", "n_layer", 12),
        ("num_heads", "n_head", 12),
        ("mlp_width", "n_inner", 0),
        ("max_positions", "n_positions", 1024),
        ("activation", "activation_function", "gelu_new"),
        ("layer_norm_epsilon", "layer_norm_epsilon", 1e-5),
    ),
}

_ALIASES = {
    "gpt2": {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
    }
}

# The only value that is modelled, and what another one means.
_REFUSED = {
    "auto_map": (
        {},
        "the model needs Python code from its repository, which is never run",
    ),
    "quantization_config": (
        {},
        "the weights are quantised; dequantise them first",
    ),
    "position_embedding_type": (
        "absolute",
        "relative positions change the attention",
    ),
    "is_decoder": (False, "a decoder masks what comes later; this is an encoder"),
    "add_cross_attention": (False, "attention to another model is not modelled"),
    "is_encoder_decoder": (False, "only one encoder is modelled"),
    "pruned_heads": ({}, "layers without some heads are not modelled"),
}
_REFUSED_OF = {
    "gpt2": {
        "scale_attn_weights": (True, "attention is divided by the root of its width"),
        "scale_attn_by_inverse_layer_idx": (
            False,
            "attention that is scaled by the layer is not modelled",
        ),
        "reorder_and_upcast_attn": (
            False,
            "attention in another order and precision is not modelled",
        ),
    },
}
_CODES = {"auto_map": "E140", "quantization_config": "E116"}
"""Code of what is refused; of all else it is E142."""
_PROBLEMS = ("regression", "multi_label_classification")
_OTHER_HEADS = ("ForTokenClassification", "ForMultipleChoice", "ForQuestionAnswering")
