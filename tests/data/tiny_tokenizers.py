"""Tokenizer folders of three families, trained on a few sentences."""

import json
import pathlib

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

SENTENCES = (
    "the cat sat on the mat",
    "an unbelievable story, and a good one",
    "is this sentence acceptable? it is not",
    "the film was awful; the actors were worse",
)
WORDS = " ".join(SENTENCES).split()


def bert(folder: pathlib.Path, config: bool = True) -> pathlib.Path:
    """Writes `vocab.txt` and `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=special, show_progress=False
    )
    made.train_from_iterator(SENTENCES, trainer)
    made.model.save(str(folder))
    if config:
        write(folder / "config.json", {"model_type": "bert"})
    return folder


def gpt2(folder: pathlib.Path) -> pathlib.Path:
    """Writes `vocab.json`, `merges.txt` and `config.json`."""
    _byte_level(folder, ["<|endoftext|>"])
    write(folder / "config.json", {"model_type": "gpt2"})
    return folder


def roberta(folder: pathlib.Path) -> pathlib.Path:
    """Writes `vocab.json`, `merges.txt` and `config.json`."""
    _byte_level(folder, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    write(folder / "config.json", {"model_type": "roberta"})
    return folder


def _byte_level(folder, special):
    """Trains byte-pair encoding on bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    made.model.save(str(folder))


def write(path: pathlib.Path, value) -> None:
    """Writes JSON."""
    path.write_text(json.dumps(value), encoding="utf-8")
