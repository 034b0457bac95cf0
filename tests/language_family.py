"""A tiny family of text classifiers on disk: base, three experts, tokenizer and texts.

Folders are as `save_pretrained` of transformers writes them; weights are random, those
of the experts a few per cent away from the base's.
"""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from adarank_jax import tree
from adarank_jax.checkpoints import language, language_names
from adarank_jax.models.language import FAMILIES
from tests.data import tiny_tokenizers

WIDTH, LAYERS, TOKENS = 16, 2, 40
CLASSES = {
    "mood": ("bad", "good"),
    "pairs": ("entailment", "neutral", "contradiction"),
    "kind": ("statement", "question", "order", "call"),
}
NUM_TEXTS = {"mood": 24, "pairs": 18, "kind": 20}
_CLASSIFIERS = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "gpt2": "GPT2ForSequenceClassification",
}


def write(root, family="roberta"):
    """Writes base, experts and texts; returns the values of a configuration."""
    config, base = write_base(root / "base", family)
    for number, (name, classes) in enumerate(CLASSES.items(), 1):
        moved = near(base, number)
        head = draw_head(family, len(classes), number)
        write_model(root / "experts" / name, family, config, moved, head, classes)
    write_texts(root / "texts")
    return {
        "base": str(root / "base"),
        "experts": {
            "mood": {
                "model": str(root / "experts/mood"),
                "data": str(root / "texts/mood.csv"),
            },
            "pairs": {
                "model": str(root / "experts/pairs"),
                "data": {
                    "jsonl": str(root / "texts/pairs.jsonl"),
                    "columns": ["premise", "hypothesis"],
                },
            },
            "kind": {
                "model": str(root / "experts/kind"),
                "data": {"jsonl": str(root / "texts/kind.jsonl"), "columns": "text"},
                "metric": "matthews",
            },
        },
        "method": {"name": "adarank", "origin": "cart", "rank_ratio": 0.5},
        "compare": ["pretrained", "individual", "weight_averaging"],
        "adaptation": {"num_steps": 4, "checkpoint_every": 2},
        "max_length": 16,
        "buckets": [8],
        "offline": True,
    }


def write_base(folder, family):
    """Writes the pretrained model and its tokenizer; returns config and encoder."""
    getattr(tiny_tokenizers, family)(folder)
    size = _vocabulary_size(folder)
    kind = FAMILIES[family]
    fields = {field.name for field in dataclasses.fields(kind.config_class)}
    config = {
        "vocabulary_size": size,
        "width": WIDTH,
        "num_layers": LAYERS,
        "num_heads": 2,
        "mlp_width": 2 * WIDTH,
        "max_positions": TOKENS + 2 * (family == "roberta"),
        "num_token_types": 2 if family == "bert" else 1,
        "padding_id": 1,
        "activation": "gelu_new" if family == "gpt2" else "gelu",
        "layer_norm_epsilon": 1e-5,
    }
    config = {name: value for name, value in config.items() if name in fields}
    model = kind.module_class(kind.config_class(**config))
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = dict.fromkeys(names, jnp.ones((1, 4), jnp.int32))
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]
    rng = np.random.default_rng(0)
    encoder = tree.map_with_path(
        lambda path, leaf: _draw(rng, path, leaf.shape), shapes
    )
    write_model(folder, family, config, encoder)
    return config, encoder


def write_model(folder, family, config, encoder, head=None, classes=()):
    """Writes weights and configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    layout = language_names.full_layout(family, LAYERS)
    save_file(language.to_state(encoder, head, layout), folder / "model.safetensors")
    values = hugging_face(family, config)
    if family == "gpt2":
        values["eos_token_id"] = 0  # as its tokenizer has it
    if head is not None:
        values |= {
            "architectures": [_CLASSIFIERS[family]],
            "id2label": {str(i): name for i, name in enumerate(classes)},
        }
    (folder / "config.json").write_text(json.dumps(values))


def hugging_face(family, config):
    """Names the sizes as transformers does."""
    is_gpt2 = family == "gpt2"
    theirs = {
        "vocabulary_size": "vocab_size",
        "width": "n_embd" if is_gpt2 else "hidden_size",
        "num_layers": "n_layer" if is_gpt2 else "num_hidden_layers",
        "num_heads": "n_head" if is_gpt2 else "num_attention_heads",
        "mlp_width": "n_inner" if is_gpt2 else "intermediate_size",
        "max_positions": "n_positions" if is_gpt2 else "max_position_embeddings",
        "num_token_types": "type_vocab_size",
        "padding_id": "pad_token_id",
        "activation": "activation_function" if is_gpt2 else "hidden_act",
        "layer_norm_epsilon": "layer_norm_epsilon" if is_gpt2 else "layer_norm_eps",
    }
    return {"model_type": family} | {theirs[k]: v for k, v in config.items()}


def near(params, seed, share=0.03):
    """Moves every tensor by a few per cent of its norm, as fine-tuning does."""
    rng = np.random.default_rng([seed, 1])

    def moved(path, leaf):
        step = rng.normal(size=leaf.shape)
        size = share * np.linalg.norm(leaf) / np.linalg.norm(step)
        return (leaf + max(size, 1e-3) * step).astype(np.float32)

    return tree.map_with_path(moved, params)


def draw_head(family, num_classes, seed):
    """Draws a classifier."""
    rng = np.random.default_rng([seed, 2])
    last = {"kernel": 3.0 * rng.normal(size=(WIDTH, num_classes)).astype(np.float32)}
    if family == "gpt2":
        return last
    last["bias"] = 0.1 * rng.normal(size=num_classes).astype(np.float32)
    if family == "bert":
        return last
    kernel = rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)
    return {
        "dense": {"kernel": kernel, "bias": np.zeros(WIDTH, np.float32)},
        "out_proj": last,
    }


def write_texts(folder, seed=0):
    """Writes labelled texts: a CSV file, pairs and singles as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)

    def text(most=12):
        return " ".join(rng.choice(tiny_tokenizers.WORDS, size=rng.integers(1, most)))

    with open(folder / "mood.csv", "w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["text", "label"])
        for i in range(NUM_TEXTS["mood"]):
            rows.writerow([text(), CLASSES["mood"][i % 2]])
    pairs = [
        {"premise": text(), "hypothesis": text(6), "label": CLASSES["pairs"][i % 3]}
        for i in range(NUM_TEXTS["pairs"])
    ]
    kinds = [{"text": text(), "label": i % 4} for i in range(NUM_TEXTS["kind"])]
    for name, rows in (("pairs", pairs), ("kind", kinds)):
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def _vocabulary_size(folder):
    """Counts the tokens of a tokenizer."""
    if (folder / "vocab.json").is_file():
        return len(json.loads((folder / "vocab.json").read_text()))
    return len((folder / "vocab.txt").read_text().split("\n")) - 1


def _draw(rng, path, shape):
    """Draws a tensor of the usual size: norms near one, the rest small."""
    if path.endswith("scale"):
        return np.ones(shape, np.float32)
    scale = 0.02 if path.endswith("bias") else 2.0 / np.sqrt(shape[-1])
    return (scale * rng.normal(size=shape)).astype(np.float32)
