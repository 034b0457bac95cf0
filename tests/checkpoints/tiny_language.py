"""Tiny BERT, RoBERTa and GPT-2 models on disk, under the names of transformers."""

import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

FILE = pathlib.Path(__file__).parents[1] / "data" / "language_names.json"
NAMES = json.loads(FILE.read_text())
CONFIGS = {family: NAMES[f"{family} config"] for family in ("bert", "roberta", "gpt2")}
CLASSIFIERS = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "gpt2": "GPT2ForSequenceClassification",
}
BARE = {"bert": "BertModel", "roberta": "RobertaModel", "gpt2": "GPT2Model"}
WORDS = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(16))],
    "roberta": ["<s>", "<pad>", "</s>", *(f"w{i}" for i in range(17))],
    "gpt2": [*(f"w{i}" for i in range(19)), "<|endoftext|>"],
}
SPECIAL = {
    "bert": {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
    "roberta": {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"},
    "gpt2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
}


def family_of(model):
    """Names the family of a class."""
    return {"B": "bert", "R": "roberta", "G": "gpt2"}[model[0]]


def state(model, seed=0, dtype=np.float32):
    """Draws the state dict of a class."""
    random = np.random.default_rng(seed)
    return {
        name: random.normal(size=shape).astype(np.float32).astype(dtype)
        for name, shape in NAMES[model].items()
    }


def near(tensors, share=0.03, seed=5):
    """Moves every tensor by a few per cent of its norm, as fine-tuning does."""
    random = np.random.default_rng(seed)
    moved = {}
    for name, array in tensors.items():
        step = random.normal(size=array.shape)
        size = share * np.linalg.norm(array) / np.linalg.norm(step)
        moved[name] = np.asarray(array + size * step, array.dtype)
    return moved


def write(folder, model, tensors=None, changes=(), tokenizer=True, config=True):
    """Writes a folder as `save_pretrained` does; `changes` are those of config.json."""
    family = family_of(model)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        state(model) if tensors is None else tensors, folder / "model.safetensors"
    )
    if config:
        values = CONFIGS[family] | {"architectures": [model]} | dict(changes)
        (folder / "config.json").write_text(json.dumps(values))
    if tokenizer:
        write_tokenizer(folder, family)
    return str(folder)


def write_tokenizer(folder, family, words=None, special=None, **parts):
    """Writes the files of a fast tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    words = WORDS[family] if words is None else words
    special = SPECIAL[family] if special is None else special
    ids = {word: i for i, word in enumerate(words)}
    added = [
        {"id": ids[token], "content": token, "special": True}
        for token in dict.fromkeys(special.values())
        if token in ids
    ]
    whole = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "lowercase": True},
        "model": {"type": "WordPiece", "vocab": ids},
    }
    (folder / "tokenizer.json").write_text(json.dumps(whole | parts))
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
