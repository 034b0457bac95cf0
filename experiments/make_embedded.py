"""Makes the embedded suite: a base model, a frozen head and an expert for every task.

    python -m experiments.make_embedded                      # over an hour, two cores
    python -m experiments.make_embedded --tasks mnist signs  # some of the tasks only

The base is pretrained on classes that no task uses, the heads are fitted to its frozen
features, and the experts are fine-tuned under the frozen heads at a small learning
rate, so that their weights move by a few per cent only. The same command resumes.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import pathlib
import shlex
import sys
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console

from adarank_jax import errors, tree
from adarank_jax.adaptation.evaluate import Predictor
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.checkpoints import files
from adarank_jax.data import transforms
from adarank_jax.data.embedded import pretraining
from adarank_jax.data.embedded import tasks as embedded_tasks
from adarank_jax.models import clip_vision, heads
from adarank_jax.models.heads import Head
from adarank_jax.tree import Tree
from experiments import cli, lookup, manifest, training


@dataclasses.dataclass(frozen=True)
class Config:
    """Makes base, heads and experts of the embedded suite from one seed."""

    run_dir: pathlib.Path = pathlib.Path("runs/embedded_suite")
    """Folder of the weights and training states. The same command resumes, and one
    with more tasks adds them."""

    tasks: tuple[str, ...] = tuple(embedded_tasks.TASKS)
    """Tasks to make heads and experts for."""

    seed: int = 0
    """Of the initial weights, the pretraining images and the order of all batches."""

    model: str = "vit-small-8"
    """Variant of the image tower."""

    pretraining_images: int = 320_000
    """Number of rendered images, of about 1,200 classes."""

    pretraining_steps: int = 12_000
    """Steps of 128 images."""

    head_images: int = 100
    """Training images of a task that its head is fitted to: few, so that the base has
    much to gain, as a zero-shot head has."""

    logit_scale: float = 20.0
    """Of the heads."""

    finetuning_steps: int = 1_000
    """Steps of 64 images of the task and 64 pretraining images, for each expert."""

    finetuning_rate: float = 0.05
    """Peak learning rate of the experts; gradient descent, momentum 0.9, clipped at 1.

    Adam reached the same accuracies with twice the change of the weights."""

    rehearsal_weight: float = 5.0
    """Of the term that keeps the embeddings of pretraining images in place."""

    rehearsal_images: int = 20_000
    """Number of pretraining images that are kept in place."""

    restart: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Throw away what the folder holds."""


def main(config: Config) -> None:
    """Makes everything from top to bottom."""
    console = Console(stderr=True, highlight=False, markup=False)
    for name in config.tasks:
        classes = lookup.nearest("task", name, embedded_tasks.TASKS).classes
        if config.head_images < len(classes):
            raise errors.UsageError(
                "E011",
                f"`head_images` must be at least the {len(classes)} classes of {name}, "
                f"got {config.head_images}",
            )
    if not config.tasks or len(set(config.tasks)) != len(config.tasks):
        found = f"`tasks` must name each task once, got {config.tasks}"
        raise errors.UsageError("E302", found)
    model = clip_vision.ClipVision(clip_vision.variant(config.model))
    folder = RunFolder(config.run_dir, _decisive(config), config.restart)

    # The base, rounded to what is stored, so that experts start from the stored one.
    base = config.run_dir / "pretrained.safetensors"
    if not base.is_file():
        files.write(base, _pretrain(config, model, console)["tower"], np.float16)
    pretrained = files.read(base)

    # Experts leave the embeddings of pretraining images where they are.
    old_images, _ = pretraining.render(range(config.rehearsal_images), config.seed)
    old = (old_images, _unit_features(model, pretrained, old_images))

    # A head a task on frozen features, then an expert a task under its frozen head.
    report, directions = {}, {}
    for name in config.tasks:
        images, labels = embedded_tasks.render(name, "train")
        head = _fit_head(config, model, pretrained, images, labels)
        directions[name] = head.directions
        expert = config.run_dir / f"{name}.safetensors"
        if not expert.is_file():
            new = (images, labels)
            params = _finetune(config, model, pretrained, head, new, old, name, console)
            files.write(expert, params, np.float16)
        finetuned = files.read(expert)
        report[name] = _judge(model, head, name, pretrained, finetuned)
        console.print(f"{name}: {report[name]}")
    files.write(config.run_dir / "heads.safetensors", directions, np.float16)

    stems = ["pretrained", "heads", *config.tasks]
    digests = {
        f"{stem}.safetensors": files.digest(config.run_dir / f"{stem}.safetensors")
        for stem in stems
    }
    content = {
        "command": shlex.join(
            ["python", "-m", "experiments.make_embedded", *sys.argv[1:]]
        ),
        "config": _decisive(config),
        "made_with": manifest.describe(),
        "tasks": list(config.tasks),
        "model": dataclasses.asdict(model.config),
        "logit_scale": config.logit_scale,
        "report": report,
        "sha256": digests,
    }
    folder.write_json("manifest.json", content)


def _decisive(config: Config) -> dict[str, Any]:
    """Lists, as plain values, all that decides the weights of a task."""
    values = dataclasses.asdict(config)
    for name in ("run_dir", "restart", "tasks"):
        del values[name]
    return values


def _pretrain(config: Config, model: Any, console: Console) -> Any:
    """Trains the tower to tell the pretraining classes apart."""
    chunks = [
        range(start, min(start + 10_000, config.pretraining_images))
        for start in range(0, config.pretraining_images, 10_000)
    ]
    spawn = multiprocessing.get_context("spawn")  # JAX has threads; forking would hang
    with concurrent.futures.ProcessPoolExecutor(mp_context=spawn) as pool:
        seeds = [config.seed] * len(chunks)
        parts = list(pool.map(pretraining.render, chunks, seeds))
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    init, loss = training.classifier_loss(model, pretraining.num_classes())
    params = init(jax.random.key(config.seed), images[:1])
    return training.train(
        params,
        loss,
        training.pretraining_optimizer(params, config.pretraining_steps),
        training.in_steps(
            training.random_batches(images, labels, 128, config.seed, shift=2)
        ),
        config.pretraining_steps,
        "pretraining",
        console,
        config.run_dir / "pretraining",
    )


def _fit_head(
    config: Config,
    model: Any,
    pretrained: Tree,
    images: np.ndarray,
    labels: np.ndarray,
) -> Head:
    """Fits a head to features of the pretrained tower, rounded to what is stored."""
    used = slice(0, config.head_images)
    features = _unit_features(model, pretrained, images[used])
    head = training.fit_head(features, labels[used], config.logit_scale)
    stored = np.asarray(head.directions, np.float16)
    return heads.make_head(jnp.asarray(stored), config.logit_scale)


def _finetune(
    config: Config,
    model: Any,
    pretrained: Tree,
    head: Head,
    new: tuple[np.ndarray, np.ndarray],
    old: tuple[np.ndarray, np.ndarray],
    name: str,
    console: Console,
) -> Tree:
    """Fine-tunes the whole tower on one task under its frozen head."""
    steps = config.finetuning_steps
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.finetuning_rate, steps // 10, steps
    )
    task_batch = training.random_batches(*new, 64, config.seed)
    old_batch = training.random_batches(*old, 64, config.seed + 1)
    return training.train(
        pretrained,
        training.finetuning_loss(model, head, config.rehearsal_weight),
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(schedule, momentum=0.9)),
        training.in_steps(lambda number: task_batch(number) + old_batch(number)),
        steps,
        name,
        console,
    )


def _judge(
    model: Any, head: Head, name: str, pretrained: Tree, finetuned: Tree
) -> dict[str, float]:
    """Measures base and expert on the test images, and how far the weights moved."""
    images, labels = embedded_tasks.render(name, "test")
    inputs = transforms.normalise(images)
    predictor = Predictor(_encode(model), heads.cosine_logits)
    before, after = tree.flatten(pretrained), tree.flatten(finetuned)
    moved = [
        (np.sum((after[path] - leaf) ** 2), np.sum(leaf**2))
        for path, leaf in before.items()
        if clip_vision.is_decomposed(path, leaf)
    ]
    change, size = np.sum(moved, axis=0)
    return {
        "pretrained": predictor.accuracy(pretrained, head, inputs, labels).share,
        "finetuned": predictor.accuracy(finetuned, head, inputs, labels).share,
        "relative_weight_change": float(np.sqrt(change / size)),
    }


def _unit_features(model: Any, params: Tree, images: np.ndarray) -> np.ndarray:
    """Embeds images and scales the embeddings to unit length."""
    predictor = Predictor(_encode(model), heads.cosine_logits)
    features = predictor.features(params, transforms.normalise(images))
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def _encode(model):
    """Turns a module into a function of parameters and inputs."""
    return lambda params, inputs: model.apply({"params": params}, inputs)


if __name__ == "__main__":
    cli.run(main, Config)
