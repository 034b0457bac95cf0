"""Makes an expert: fine-tunes the image tower of a CLIP model on one data set.

    python -m experiments.finetune --data cars --out experts/cars
    python -m experiments.finetune --data ./train --classes cat dog --out experts/pets

For those who have no experts to merge. The classifier is frozen: texts embedded by the
base, or a head of one's own. Every tensor of the image tower is trained, its projection
included, as in Task Arithmetic; images are only resized, cropped and normalised as the
base expects, because flips and colours would spoil digits and signs. The same command
resumes. The folder that it writes is an expert for `experiments.run_vit`.

Ilharco et al., `Editing Models with Task Arithmetic <https://arxiv.org/abs/2212.04089>`_,
2023, whose code has the optimiser; the model cards of Tang et al., for example
`mnist <https://huggingface.co/tanganke/clip-vit-base-patch32_mnist>`_, steps and batch.
"""

import json
import os
import shutil
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console

import adarank_jax
from adarank_jax.adaptation import metrics_log, parallel, run_folder
from adarank_jax.adaptation.evaluate import Predictor
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.checkpoints import folders
from adarank_jax.checkpoints import recipe as recipes
from adarank_jax.data.batches import TaskBatches, Transformed
from adarank_jax.models import clip_vision, heads
from adarank_jax.models.heads import Head
from adarank_jax.tree import Tree
from experiments import (
    cli,
    clip_parts,
    expert_folder,
    messages,
    results,
    training,
    zero_shot,
)
from experiments.finetune_inputs import Config, Inputs, check


def main(config: Config) -> None:
    """Makes one expert from top to bottom."""
    console = Console(stderr=True, highlight=False, markup=False)

    # Everything that can be refused is refused here, before anything is written.
    parallel.check_batch_size(config.batch_size, jax.local_devices())
    folders.check_target(config.out)
    run_folder.check_folder(config.run_folder, config.restart)
    inputs = check(config)
    decisive = _decisive(config, inputs)
    if expert_folder.is_made(config, decisive):
        console.print(f"{config.out} is there already; --restart makes it again.")
        _show(config)
        return
    for warning in inputs.warnings:
        console.print(messages.warning(messages.told(warning)), soft_wrap=True)
    folder = RunFolder(config.run_folder, decisive, config.restart)

    # A frozen head, an image tower trained under it, both judged, and the folder.
    weight, bias = _head(config, inputs, folder)
    head = heads.head_from_weight(weight, bias)
    vision = _finetune(config, inputs, head, folder, console)
    facts = _judge(config, inputs, head, vision, folder)
    expert_folder.write(config, inputs, (weight, bias), vision, decisive, facts)
    shutil.rmtree(folder.path / _STATES, ignore_errors=True)
    console.print(f"{config.out}: {_sentence(facts)}", soft_wrap=True)
    _show(config)


def _decisive(config: Config, inputs: Inputs) -> dict[str, Any]:
    """Lists, as plain values, all that decides the weights of the expert."""
    named = ("num_steps", "batch_size", "learning_rate", "weight_decay")
    named += ("warmup_steps", "seed")
    values: dict[str, Any] = {name: getattr(config, name) for name in named}
    values |= {"version": adarank_jax.__version__, "data": config.data}
    values |= {
        "images": len(inputs.labels),
        "labels": recipes.digest({"labels": inputs.labels.astype(np.float32)}),
        "base": recipes.digest(inputs.base.vision),
    }
    if inputs.head is not None:
        head = {"weight": inputs.head.weight}
        if inputs.head.bias is not None:
            head["bias"] = inputs.head.bias
        values["head"] = recipes.digest(head)
    else:
        values["classes"] = list(inputs.wording.class_names)
        values["templates"] = list(inputs.wording.templates)
    return values


def _head(
    config: Config, inputs: Inputs, folder: RunFolder
) -> tuple[np.ndarray, np.ndarray | None]:
    """Takes the imported head, or builds one with the text tower."""
    if inputs.head is not None:
        return inputs.head.weight, inputs.head.bias
    base = inputs.base
    weight = zero_shot.cached_head(
        folder.path / "heads",
        *clip_parts.embedder(base, base.state.files[0].parent),
        inputs.wording.class_names,
        inputs.wording.templates,
        base.logit_scale,
        extra={"task": config.out.name, "profile": config.prompts},
    )
    return weight, None


def _finetune(
    config: Config, inputs: Inputs, head: Head, folder: RunFolder, console: Console
) -> Tree:
    """Trains the whole image tower by cross-entropy under the frozen head."""
    name, encode = config.out.name, _encode(inputs.base)

    def loss(params, images, labels):
        logits = heads.cosine_logits(encode(params, images), head)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    images = Transformed(inputs.source, inputs.transform)
    batches = TaskBatches([(images, inputs.labels)], config.batch_size, config.seed)
    threads = min(16, os.cpu_count() or 1)

    rows = []

    def stream(first):
        file = folder.path / "metrics.jsonl"
        end = metrics_log.end_before(file, name, first)
        rows.append(metrics_log.MetricsLog(file, name, end))
        ahead = batches.stream(first, threads, 2 * threads)
        return (tuple(column[0] for column in columns) for columns in ahead)

    def log(number, value):
        rows[-1].append({"run": name, "step": number, "loss": value})

    return training.train(
        inputs.base.vision,
        loss,
        _optimizer(config),
        stream,
        config.num_steps,
        name,
        console,
        folder.path / _STATES,
        config.checkpoint_every,
        log,
        jax.local_devices(),
    )


def _optimizer(config: Config) -> optax.GradientTransformation:
    """Builds AdamW with a warm-up, a cosine and clipped gradients."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        min(config.warmup_steps, config.num_steps // 2),
        config.num_steps,
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, weight_decay=config.weight_decay),
    )


def _encode(base):
    """Turns the image tower into a function of parameters and images."""
    sizes = clip_vision.ClipVisionConfig(**base.config["vision"])
    model = clip_vision.ClipVision(sizes)
    return lambda params, images: model.apply({"params": params}, images)


class _Some:
    """A few images of a source, evenly spaced."""

    def __init__(self, source, limit):
        """Chooses the places."""
        self._source = source
        count = min(limit, len(source))
        self.places = np.linspace(0, len(source) - 1, count).astype(int)

    def __len__(self):
        """Returns the number of images."""
        return len(self.places)

    def __getitem__(self, index):
        """Returns an image and its label."""
        return self._source[int(self.places[index])]


def _judge(
    config: Config, inputs: Inputs, head: Head, vision: Tree, folder: RunFolder
) -> dict[str, Any]:
    """Measures base and expert on training images, and reads the losses."""
    some = _Some(inputs.source, _JUDGED_IMAGES)
    images, labels = Transformed(some, inputs.transform), inputs.labels[some.places]
    size = min(256, len(some))
    predictor = Predictor(_encode(inputs.base), heads.cosine_logits, size)
    before = predictor.accuracy(inputs.base.vision, head, images, labels)
    after = predictor.accuracy(vision, head, images, labels)
    lines = (folder.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    few = max(1, min(100, len(losses) // 2))
    return {
        "images": len(inputs.labels),
        "classes": len(head.bias),
        "judged_images": len(some),
        "accuracy_of_base": before.share,
        "accuracy": after.share,
        "loss_at_start": float(np.mean(losses[:few])),
        "loss_at_end": float(np.mean(losses[-few:])),
        "loss_steps": few,
    }


def _sentence(facts):
    """Says in one line what training did."""
    return (
        f"accuracy {facts['accuracy_of_base']:.1%} before, {facts['accuracy']:.1%} "
        f"after, on {facts['judged_images']:,} training images; loss "
        f"{facts['loss_at_start']:.3f} at the start, {facts['loss_at_end']:.3f} at the "
        f"end (means of {facts['loss_steps']} steps)"
    )


def _show(config):
    """Prints what belongs into my_merge.yaml."""
    console, text = results.table_console(), expert_folder.snippet(config)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


_STATES = "checkpoints"
_JUDGED_IMAGES = 2_000


if __name__ == "__main__":
    cli.run(main, Config)
