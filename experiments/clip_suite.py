"""A suite of CLIP checkpoints: base, experts, heads and images from disk or Hub.

`check` reads and compares everything and lists every problem; nothing is written and no
head is built before that.
"""

import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adarank_jax import tree
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.checkpoints import (
    clip,
    clip_base,
    export,
    files,
    hub,
    recipe,
)
from adarank_jax.checkpoints.clip import ClipCheckpoint
from adarank_jax.checkpoints.head_files import HeadFile
from adarank_jax.data import registry, sources
from adarank_jax.data.batches import Transformed
from adarank_jax.data.transforms import ClipTransform
from adarank_jax.models import clip_vision, heads
from experiments import (
    clip_parts,
    image_checks,
    messages,
    task_checks,
    task_heads,
    task_images,
    zero_shot,
)
from experiments.check_log import CheckLog
from experiments.image_config import Expert, ImageMergeConfig
from experiments.suite import Inputs, Suite
from experiments.task_heads import Wording


class TaskInputs(NamedTuple):
    """What was found of one task; None where there is a problem or nothing.

    Attributes:
        expert: the fine-tuned checkpoint.
        head: as imported.
        wording: for a head that is built.
        source: of the images.
        labels: of the images, if they have any.
    """

    expert: ClipCheckpoint | None
    head: HeadFile | None
    wording: Wording | None
    source: Any
    labels: np.ndarray | None


class ClipInputs(NamedTuple):
    """Everything that a run reads, beside what all suites share.

    Attributes:
        base: the pretrained checkpoint, both towers.
        folder: of its configuration and tokenizer.
        tasks: by name.
        transform: from an image to what the tower takes.
    """

    base: ClipCheckpoint
    folder: pathlib.Path
    tasks: dict[str, TaskInputs]
    transform: ClipTransform


def check(config: ImageMergeConfig, may_fetch: bool = True) -> Inputs:
    """Reads and compares base, experts, heads and images; writes nothing of its own.

    Args:
        config: of the run.
        may_fetch: whether files may be fetched from the Hub; without, those that are
            not here yet are listed.

    Returns:
        What was found, with every problem.
    """
    log = CheckLog(config, may_fetch)
    base = log.read(
        "base", config.base, lambda: _read(log, "base", config.base, config.qkv)
    )
    tasks = {
        name: _check_task(log, config, name, config.experts[name], base)
        for name in config.task_names
    }
    task_checks.check_relations(log, base, tasks, clip_base, sources.shared_images)
    transform, folder = None, None
    if base is not None:
        folder = base.state.files[0].parent
        transform = log.attempt("base", lambda: clip_parts.read_transform(base))
        needs_text = any(task.head is None for task in tasks.values())
        if needs_text:
            log.attempt("base", lambda: clip_parts.check_text(base, folder))
        if config.export.enabled:
            both = config.export.open_clip
            log.attempt("export", lambda: export.check_base(base, both))
    found, sizes = None, _sizes(config, base)
    if base is not None and transform is not None:
        found = ClipInputs(base, folder, tasks, transform)
    return Inputs(
        problems=log.problems,
        warnings=[*map(messages.told, log.warnings)],
        facts=_facts(config, base, tasks) | _preparation(transform, folder),
        shapes=_shapes(sizes),
        tower=None if sizes is None else clip_parts.tower(sizes),
        num_examples={
            name: _num_images(config, name, task) for name, task in tasks.items()
        },
        to_fetch=tuple(log.to_fetch),
        is_decomposed=clip_vision.is_decomposed,
        build=functools.partial(_build, config, found),
        lines=[clip_parts.layout_line(config)],
    )


def _read(log, where, source, qkv, base=None):
    """Reads a checkpoint."""
    checkpoint = clip.read_clip(source, qkv, base, log.offline)
    log.warn(where, *checkpoint.state.warnings, *checkpoint.warnings)
    return checkpoint


def _check_task(
    log: CheckLog,
    config: ImageMergeConfig,
    name: str,
    expert: Expert,
    base: ClipCheckpoint | None,
) -> TaskInputs:
    """Reads what belongs to one task."""
    where = f"experts.{name}"
    read = functools.partial(
        _read, log, f"{where}.model", expert.model, config.qkv, base
    )
    checkpoint = log.read(
        f"{where}.model",
        expert.model,
        lambda: task_checks.read_expert(log, expert.model, base, read),
    )
    dataset = expert.data.dataset
    profile = config.prompts
    if dataset is not None and not log.attempt(
        f"{where}.data", lambda: task_heads.prompts_key(dataset, profile)
    ):
        return TaskInputs(checkpoint, None, None, None, None)
    wording = log.attempt(
        f"{where}.classes", lambda: task_heads.find_wording(expert, profile)
    )
    head = None
    if expert.head is not None:
        width = base.config["vision"]["output_size"] if base is not None else None
        head = log.attempt(
            f"{where}.head", lambda: task_heads.read_head(expert.head, width, wording)
        )
        if head is not None:
            log.warn(f"{where}.head", *task_heads.doubts(expert.head, head))
    names = task_heads.class_names(head, wording)
    source, labels = _check_images(log, config, name, names, head, base)
    return TaskInputs(checkpoint, head, wording, source, labels)


def _check_images(log, config, name, names, head, base):
    """Opens the images of one task; returns them with their labels, if any."""
    where, data = f"experts.{name}.data", config.experts[name].data
    opened = log.read(
        where,
        task_images.hub_name(data, config.prompts),
        lambda: task_images.open_images(
            data, names, config.prompts, config.data_dir, log.offline
        ),
    )
    if opened is None:
        return None, None
    source, warnings = opened
    log.warn(where, *warnings)
    if base is not None and task_images.is_preprocessed(source):
        side = base.config["vision"]["image_size"]
        log.attempt(where, lambda: task_images.check_preprocessed(source, side))
        log.warn(where, *task_images.doubts(source))
    rows = len(head.weight) if head is not None else len(names or ())
    labels = log.attempt(where, lambda: task_images.find_labels(data, source, rows))
    batch = config.adaptation.batch_size
    log.warn(where, *image_checks.shortages(len(source), batch, labels, names or ()))
    return source, labels


def _facts(config, base, tasks):
    """Lists, as plain values, what the run is made from."""
    return {
        "base": None if base is None else _origin(base),
        "experts": task_checks.describe_experts(tasks, _origin),
        "heads": {name: _head_facts(config, task) for name, task in tasks.items()},
        "images": {
            name: None if task.source is None else _image_facts(task.source)
            for name, task in tasks.items()
        },
        "labels": {
            name: None if task.labels is None else recipe.digest({"": task.labels})
            for name, task in tasks.items()
        },
        "qkv": config.qkv,
        "prompts": config.prompts,
    }


def _preparation(transform, folder):
    """Lists, as plain values, how images and texts are turned to numbers."""
    tokenizer = None if folder is None else folder / "tokenizer.json"
    is_there = tokenizer is not None and tokenizer.is_file()
    return {
        "preprocessing": None if transform is None else _plain(transform),
        "tokenizer": files.digest(tokenizer) if is_there else None,
    }


def _plain(transform):
    """Turns a transform to values that YAML reads back equal."""
    values = dataclasses.asdict(transform)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _origin(checkpoint):
    """Says where a checkpoint is from and what its image tower is."""
    return {
        "source": checkpoint.source,
        "revision": checkpoint.revision,
        "layout": checkpoint.layout.kind,
        "sha256": recipe.digest(checkpoint.vision),
        "text_sha256": checkpoint.text and recipe.digest(checkpoint.text),
        "config": checkpoint.config["vision"],
        "text_config": checkpoint.text and checkpoint.config["text"],
        "from_base": list(checkpoint.from_base),
    }


def _image_facts(source):
    """Says how many images there are, and by what they are known again."""
    return {"number": len(source), "fingerprint": sources.fingerprint(source)}


def _head_facts(config, task):
    """Says what a head is made from."""
    if task.head is not None:
        arrays = {"weight": task.head.weight, "bias": task.head.bias}
        return {"sha256": recipe.digest(tree.without_none(arrays))}
    if task.wording is None:
        return None
    wording = {name: list(value) for name, value in task.wording._asdict().items()}
    return {"profile": config.prompts, **wording}


def _sizes(config, base):
    """Returns the sizes of the image tower, also of a base that is not here yet."""
    if base is not None:
        fields = base.config["vision"] | {"qkv": config.qkv}
        return clip_vision.ClipVisionConfig(**fields)
    if config.base in _KNOWN:
        known = clip_vision.variant(_KNOWN[config.base])
        return dataclasses.replace(known, qkv=config.qkv)
    return None


def _shapes(sizes):
    """Returns the shapes of the image tower."""
    if sizes is None:
        return None
    side = sizes.image_size
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    model = clip_vision.ClipVision(sizes)
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


def _num_images(config, name, task):
    """Counts the images of a task, or says how many the data set is known to have."""
    if task.source is not None:
        return len(task.source)
    dataset = config.experts[name].data.dataset
    try:
        return registry.get(dataset or "", config.prompts).test_sizes[0]
    except (KeyError, ValueError):
        return 0


def _build(
    config: ImageMergeConfig, found: ClipInputs | None, folder: RunFolder
) -> Suite:
    """Builds heads, once, and puts the suite together."""
    if found is None:
        raise ValueError("the inputs have problems; `check` lists them.")
    base, tasks = found.base, found.tasks
    for task in tasks.values():
        sources.prepare(task.source)
    experts = [task.expert for task in tasks.values() if task.expert is not None]
    model = clip_vision.ClipVision(
        clip_vision.ClipVisionConfig(**base.config["vision"] | {"qkv": config.qkv})
    )
    return Suite(
        name="clip",
        tasks=config.task_names,
        encode=lambda params, images: model.apply({"params": params}, images),
        classify=heads.cosine_logits,
        is_decomposed=clip_vision.is_decomposed,
        pretrained=base.vision,
        finetuned=[expert.vision for expert in experts],
        heads=_heads(config, found, folder.path / "heads"),
        inputs=[_ready(task.source, found.transform) for task in tasks.values()],
        labels=[task.labels for task in tasks.values()],
        base=base,
        sources=[hub.pin(each.source, each.revision) for each in (base, *experts)],
        class_names=[task_heads.class_names(t.head, t.wording) for t in tasks.values()],
        metrics=["accuracy"] * len(tasks),
    )


def _ready(source, transform):
    """Transforms the images of a source, unless they are what the tower takes."""
    is_ready = task_images.is_preprocessed(source)
    return Transformed(source, np.asarray if is_ready else transform)


def _heads(config, found, cache):
    """Takes imported heads, and builds the others with the text tower."""
    base, made, embed = found.base, [], None
    for name, task in found.tasks.items():
        if task.head is not None:
            made.append(heads.head_from_weight(task.head.weight, task.head.bias))
            continue
        if embed is None:
            embed = clip_parts.embedder(base, found.folder)
        weight = zero_shot.cached_head(
            cache,
            *embed,
            task.wording.class_names,
            task.wording.templates,
            base.logit_scale,
            extra={"task": name, "profile": config.prompts},
        )
        made.append(heads.head_from_weight(weight))
    return made


_KNOWN = {
    "openai/clip-vit-base-patch32": "vit-b-32",
    "openai/clip-vit-base-patch16": "vit-b-16",
    "openai/clip-vit-large-patch14": "vit-l-14",
}
"""Sizes that a plan can tell before anything is fetched."""
