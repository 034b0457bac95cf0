"""A suite: one pretrained model, an expert and a head a task, and unlabelled images."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from adarank_jax.checkpoints import files
from adarank_jax.data import transforms
from adarank_jax.data.embedded import tasks as embedded_tasks
from adarank_jax.models import clip_vision, heads
from adarank_jax.models.heads import Head
from adarank_jax.tree import Predicate, Tree
from experiments import presets

ASSETS = pathlib.Path(__file__).parent / "assets" / "embedded"


class Suite(NamedTuple):
    """Everything that a merge is made from and judged by.

    Attributes:
        name: of the suite.
        tasks: names, in the order of every other list here.
        encode: the model without its head.
        classify: the head of one task.
        is_decomposed: which tensors the method decomposes.
        pretrained: parameters before fine-tuning.
        finetuned: parameters of each expert.
        heads: classifier of each task.
        images: test images of each task, normalised, float32.
        labels: of the test images; used for the table only, never for a choice.
    """

    name: str
    tasks: Sequence[str]
    encode: Callable[[Tree, Any], Any]
    classify: Callable[[Any, Head], Any]
    is_decomposed: Predicate
    pretrained: Tree
    finetuned: Sequence[Tree]
    heads: Sequence[Head]
    images: Sequence[np.ndarray]
    labels: Sequence[np.ndarray]


def load_embedded(names: Sequence[str], assets: pathlib.Path = ASSETS) -> Suite:
    """Loads the embedded suite: committed weights, images rendered on the spot.

    Args:
        names: of the tasks; empty for all.
        assets: folder that `experiments.finetune` wrote.

    Raises:
        FileNotFoundError: a file of the assets is missing.
        KeyError: there is no such task; the message has the nearest.
        ValueError: a task is named twice, or a file is damaged.
    """
    manifest = read_manifest(assets)
    names = task_names(names, assets)

    def read(stem):
        return files.read(
            assets / f"{stem}.safetensors", manifest["sha256"][f"{stem}.safetensors"]
        )

    model = clip_vision.ClipVision(clip_vision.ClipVisionConfig(**manifest["model"]))
    directions, scale = read("heads"), manifest["logit_scale"]
    tests = [embedded_tasks.render(name, "test") for name in names]
    return Suite(
        name="embedded",
        tasks=names,
        encode=lambda params, images: model.apply({"params": params}, images),
        classify=heads.cosine_logits,
        is_decomposed=clip_vision.is_decomposed,
        pretrained=read("pretrained"),
        finetuned=[read(name) for name in names],
        heads=[heads.make_head(directions[name], scale) for name in names],
        images=[transforms.normalise(images) for images, _ in tests],
        labels=[labels for _, labels in tests],
    )


def task_names(names: Sequence[str], assets: pathlib.Path = ASSETS) -> list[str]:
    """Checks the names of tasks before anything is read or rendered.

    Args:
        names: of the tasks; empty for all.
        assets: folder that `experiments.finetune` wrote.

    Returns:
        At least one name.

    Raises:
        FileNotFoundError: there is no manifest.
        KeyError: there is no such task; the message has the nearest.
        ValueError: a task is named twice.
    """
    known = read_manifest(assets)["tasks"]
    for name in names:
        presets.nearest("task", name, dict.fromkeys(known))
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f"`tasks` must name each task once, got {twice} twice.")
    return list(names) or list(known)


def read_manifest(assets: pathlib.Path) -> dict[str, Any]:
    """Reads what `experiments.finetune` wrote beside the weights.

    Raises:
        FileNotFoundError: there is no manifest.
    """
    file = assets / "manifest.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no `{file}`; make the weights with "
            "`python -m experiments.finetune`."
        )
    return json.loads(file.read_text())
