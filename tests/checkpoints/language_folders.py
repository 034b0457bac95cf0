"""Tiny BERT, RoBERTa and GPT-2 models on disk, as the Hub holds them."""

import json

import ml_dtypes
import numpy as np

from adarank_jax import tree
from adarank_jax.checkpoints import (
    language,
    language_names,
    language_sizes,
    shards,
)
from tests import helpers

FAMILIES = ("bert", "roberta", "gpt2")
KINDS = ("bare", "prefixed", "old", "half")
WORDS = ["a", "good", "bad", "film", "and", "not", "dull", "bright", "very", "it"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
BERT = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-6,
    "pad_token_id": 0,
}
VALUES = {
    "bert": {"model_type": "bert", **BERT},
    "roberta": {"model_type": "roberta", **BERT},
    "gpt2": {
        "model_type": "gpt2",
        **{"vocab_size": 20, "n_embd": 16, "n_layer": 2, "n_head": 2},
        **{"n_positions": 12, "n_inner": 40, "eos_token_id": 3, "bos_token_id": 3},
    },
}
ALSO = {
    "bert": {"cls.predictions.bias": (20,), "bert.embeddings.position_ids": None},
    "roberta": {
        **{"lm_head.bias": (20,), "lm_head.dense.weight": (16, 16)},
        **{"roberta.pooler.dense.weight": (16, 16), "roberta.pooler.dense.bias": (16,)},
    },
    "gpt2": {"lm_head.weight": (20, 16), "transformer.h.0.attn.masked_bias": ()},
}
"""What masked and causal language models hold beside the encoder."""


def encoder(family, seed=0):
    """Draws the parameters of an encoder."""
    config = language.language_config.from_hugging_face(VALUES[family])[1]
    shapes = language_sizes.encoder_shapes(family, config)
    flat = {
        path: np.float32(path.endswith("scale"))
        + np.float32(0.2) * helpers.matrix([seed, i], *shape)
        for i, (path, shape) in enumerate(shapes.items())
    }
    return tree.unflatten(flat)


def head(family, num_classes, seed=0):
    """Draws the parameters of a head."""
    shapes = language_sizes.head_shapes(family, 16, num_classes)
    return helpers.params(seed + 77, shapes)


def moved(params, seed):
    """Moves parameters a little: an expert, or a merge."""
    flat = tree.flatten(params).items()
    return tree.unflatten(
        {
            path: leaf + np.float32(0.02) * helpers.matrix([seed, i], *leaf.shape)
            for i, (path, leaf) in enumerate(flat)
        }
    )


def write(folder, family, kind="bare", params=None, own_head=None):
    """Writes a checkpoint with configuration and tokenizer.

    `bare` has no prefix, `prefixed` is that of a language model, `old` has the names of
    the first BERTs behind a wrapper, `half` is bfloat16.
    """
    folder.mkdir(parents=True)
    layout = language_names.full_layout(family, 2)
    if kind in ("bare", "half"):
        layout = layout._replace(prefix="")
    if kind == "old":
        layout = layout._replace(wrapper="module.", norm_ends=("gamma", "beta"))
    params = encoder(family) if params is None else params
    tensors = language.to_state(params, own_head, layout)
    if kind == "prefixed":
        for i, (name, shape) in enumerate(ALSO[family].items()):
            ids = np.arange(12, dtype=np.int64)[None]
            drawn = ids if shape is None else np.asarray(helpers.matrix([9, i], *shape))
            tensors[name] = drawn
    values = {"architectures": [_class(layout, kind, own_head)], **VALUES[family]}
    if kind == "half":
        tensors = {n: x.astype(ml_dtypes.bfloat16) for n, x in tensors.items()}
        values |= {"dtype": "bfloat16"}
    (folder / "config.json").write_bytes(json.dumps(values).encode() + b"\r\n")
    for name, content in tokenizer(family).items():
        (folder / name).write_bytes(content)
    (folder / "optimizer.bin").write_bytes(b"not for an export")
    shards.write_state(folder, tensors)
    return folder


def _class(layout, kind, own_head):
    """Names the class of transformers that wrote a checkpoint."""
    name = layout._replace(has_head=own_head is not None).model
    return name.replace("Model", "ForMaskedLM") if kind == "prefixed" else name


def tokenizer(family):
    """Makes the files of a tokenizer of words; GPT-2's has no token to pad with."""
    vocabulary = {token: i for i, token in enumerate(SPECIAL + WORDS)}
    added = [
        {"id": i, "content": token, "special": True, "single_word": False}
        | {"lstrip": False, "rstrip": False, "normalized": False}
        for i, token in enumerate(SPECIAL)
    ]
    one, two = ({"Sequence": {"id": x, "type_id": i}} for i, x in enumerate("AB"))
    marks = [{"SpecialToken": {"id": s, "type_id": 0}} for s in ("[CLS]", "[SEP]")]
    ids = {t: {"id": t, "ids": [vocabulary[t]], "tokens": [t]} for t in SPECIAL[2:]}
    document = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [marks[0], one, marks[1]],
            "pair": [marks[0], one, marks[1], two, marks[1]],
            "special_tokens": ids,
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    special = {"unk_token": "[UNK]", "eos_token": "[SEP]", "pad_token": "[PAD]"}
    if family == "gpt2":
        document["post_processor"] = None
        del special["pad_token"]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    settings |= {"model_input_names": ["input_ids", "attention_mask"]}
    return {
        "tokenizer.json": json.dumps(document).encode(),
        "tokenizer_config.json": json.dumps(settings, indent=1).encode(),
        "vocab.txt": "\n".join(vocabulary).encode(),
    }
