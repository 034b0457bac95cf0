"""Recorded and live classifiers of transformers, translated to our names."""

import functools
import json
import pathlib
from typing import NamedTuple

import numpy as np

from adarank_jax import tree
from adarank_jax.models import language
from tests import helpers

FILE = pathlib.Path(__file__).parents[1] / "data" / "language_tiny.npz"
CASES = ("bert", "bert_other", "roberta", "roberta_other", "gpt2", "gpt2_other")
PREFIXES = {"bert": "bert.", "roberta": "roberta.", "gpt2": "transformer."}
FIELDS = {
    "vocabulary_size": ("vocab_size",),
    "width": ("hidden_size", "n_embd"),
    "num_layers": ("num_hidden_layers", "n_layer"),
    "num_heads": ("num_attention_heads", "n_head"),
    "mlp_width": ("intermediate_size", "n_inner"),
    "max_positions": ("max_position_embeddings", "n_positions"),
    "activation": ("hidden_act", "activation_function"),
    "layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon"),
}


class Recording(NamedTuple):
    """A tiny classifier of transformers, and what it computed."""

    config: dict
    state: dict
    inputs: dict
    features: np.ndarray
    logits: np.ndarray


@functools.cache
def recording(case):
    """Reads one recorded classifier."""
    found = {"inputs": {}, "state": {}}
    with np.load(FILE) as arrays:
        for key in arrays:
            name, *rest = key.split("/")
            if name != case:
                continue
            if len(rest) == 2:
                found[rest[0]][rest[1]] = arrays[key]
            else:
                found[rest[0]] = arrays[key]
    config = json.loads(str(found.pop("config")))
    inputs = {name: x.astype(np.int32) for name, x in found.pop("inputs").items()}
    return Recording(config, inputs=inputs, **found)


def config(theirs, **changes):
    """Returns our config of one of theirs."""
    family = language.FAMILIES[theirs["model_type"]]
    fields = {
        ours: next(theirs[name] for name in names if name in theirs)
        for ours, names in FIELDS.items()
    }
    fields["mlp_width"] = fields["mlp_width"] or 4 * fields["width"]
    if family.name != "gpt2":
        fields["num_token_types"] = theirs["type_vocab_size"]
    if family.name == "roberta":
        fields["padding_id"] = theirs["pad_token_id"]
    return family.config_class(**fields | changes)


def params(state, family):
    """Returns the encoder and the head, named and laid out as ours."""
    encoder, head = {}, {}
    prefix = PREFIXES[family]
    for name, tensor in state.items():
        flat = encoder if name.startswith(prefix) else head
        path, leaf = ours(name.removeprefix(prefix), np.asarray(tensor), family)
        flat[path] = leaf
    return tuple(helpers.to_jax(tree.unflatten(flat)) for flat in (encoder, head))


def ours(name, tensor, family):
    """Translates the name and the layout of one tensor."""
    for layers in "encoder.layer.", "h.":
        name = name.replace(layers, layers[:-1] + "_")
    for head in "classifier.", "score.":
        name = name.removeprefix(head)
    path = name.replace(".", "/")
    if not path.endswith("weight"):
        return path, tensor
    path = path.removesuffix("weight")
    if tensor.ndim == 1:
        return path + "scale", tensor
    if "embeddings/" in path or path in ("wte/", "wpe/"):
        return path + "embedding", tensor
    is_conv1d = family == "gpt2" and path.startswith("h_")
    return path + "kernel", tensor if is_conv1d else tensor.T
