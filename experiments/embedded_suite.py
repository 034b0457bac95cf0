"""The embedded suite: committed weights, images rendered on the spot."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import safetensors.numpy

from adarank_jax import errors
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.checkpoints import (
    clip,
    clip_names,
    clip_tensors,
    files,
    model_files,
)
from adarank_jax.data import transforms
from adarank_jax.data.embedded import tasks as embedded_tasks
from adarank_jax.errors import Message
from adarank_jax.models import clip_vision, heads
from adarank_jax.tree import Tree
from experiments import clip_parts, lookup
from experiments.image_config import ImageMergeConfig
from experiments.suite import Inputs, Suite

ASSETS = pathlib.Path(__file__).parent / "assets" / "embedded"


def check(config: ImageMergeConfig) -> Inputs:
    """Checks names and files of the embedded suite.

    Args:
        config: of the run.

    Raises:
        MissingError: there are no weights.
    """
    manifest, problems = read_manifest(ASSETS), []
    for name in config.task_names:
        try:
            lookup.nearest("embedded task", name, dict.fromkeys(manifest["tasks"]))
        except errors.UsageError as error:
            problems.append(error.message.within("tasks"))
    if config.qkv != "fused":
        found = "`qkv` must be fused for the embedded suite, its only layout"
        problems.append(Message("E013", found))
    if config.export.open_clip:
        found = "`export.open_clip` needs a text tower, and the embedded base has none"
        problems.append(Message("E013", found))
    model = _model(manifest)
    side = model.config.image_size
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    return Inputs(
        problems=problems,
        warnings=(),
        to_fetch=(),
        facts={"base": "embedded", "sha256": manifest["sha256"], "qkv": "fused"},
        shapes=shapes,
        tower=clip_parts.tower(model.config),
        num_examples={
            name: embedded_tasks.TASKS[name].sizes["test"]
            for name in config.task_names
            if name in embedded_tasks.TASKS
        },
        is_decomposed=clip_vision.is_decomposed,
        build=functools.partial(_build, config.task_names),
        lines=[clip_parts.layout_line(config)],
    )


def _build(names: Sequence[str], folder: RunFolder) -> Suite:
    """Loads the suite; keeps base and experts in the folder, as checkpoints."""
    return load(names, checkpoints=folder.path)


def load(
    names: Sequence[str] = (),
    assets: pathlib.Path = ASSETS,
    checkpoints: pathlib.Path | None = None,
) -> Suite:
    """Loads weights and renders test images.

    Args:
        names: of the tasks; empty for all.
        assets: folder that `experiments.make_embedded` wrote.
        checkpoints: folder that gets base and experts as transformers saves them, so
            that a merge can be exported and made again; None to write nothing.

    Raises:
        MissingError: a file of the assets is missing.
        UsageError: there is no such task; the message has the nearest.
        ValueError: a file is damaged.
    """
    manifest = read_manifest(assets)
    names = list(names) or list(manifest["tasks"])
    for name in names:
        lookup.nearest("embedded task", name, dict.fromkeys(manifest["tasks"]))

    def read(stem):
        return files.read(
            assets / f"{stem}.safetensors", manifest["sha256"][f"{stem}.safetensors"]
        )

    model = _model(manifest)
    directions, scale = read("heads"), manifest["logit_scale"]
    tests = [embedded_tasks.render(name, "test") for name in names]
    pretrained = read("pretrained")
    finetuned = [read(name) for name in names]
    base, sources = None, ["embedded", *(f"embedded/{name}" for name in names)]
    if checkpoints is not None:
        places = [checkpoints / "base", *(checkpoints / "experts" / n for n in names)]
        for place, params in zip(places, [pretrained, *finetuned], strict=True):
            write_checkpoint(place, params, manifest["model"])
        base, sources = clip.read_clip(str(places[0])), [*map(str, places)]
    return Suite(
        name="embedded",
        tasks=names,
        encode=lambda params, images: model.apply({"params": params}, images),
        classify=heads.cosine_logits,
        is_decomposed=clip_vision.is_decomposed,
        pretrained=pretrained,
        finetuned=finetuned,
        heads=[heads.make_head(directions[name], scale) for name in names],
        inputs=[transforms.normalise(images) for images, _ in tests],
        labels=[labels for _, labels in tests],
        base=base,
        sources=sources,
        class_names=[_class_names(name) for name in names],
        metrics=["accuracy"] * len(names),
    )


def write_checkpoint(
    folder: pathlib.Path, params: Tree, sizes: Mapping[str, Any]
) -> None:
    """Writes an image tower as transformers would save it, with its preprocessing.

    Args:
        folder: of the checkpoint.
        params: of the tower.
        sizes: fields of `ClipVisionConfig`.
    """
    config = dataclasses.asdict(clip_vision.ClipVisionConfig(**sizes))
    layout = clip_names.full_layout("hugging_face", config["num_layers"], 0)
    state = clip_tensors.to_state({"vision": params}, layout)
    side = config["image_size"]
    preprocessing = model_files.clip_preprocessing(side, [0.5] * 3, [0.5] * 3)
    written = {
        "config.json": model_files.to_json(
            model_files.new_config({"vision": config, "text": None})
        ),
        "preprocessor_config.json": model_files.to_json(preprocessing),
        "model.safetensors": safetensors.numpy.save(state, {"format": "pt"}),
    }
    for name, content in written.items():
        files.write_whole(folder / name, content)


def _class_names(name):
    """Shows the classes of a task as texts, each different."""
    return [str(each) for each in embedded_tasks.TASKS[name].classes]


def read_manifest(assets: pathlib.Path = ASSETS) -> dict[str, Any]:
    """Reads what `experiments.make_embedded` wrote beside the weights.

    Raises:
        MissingError: there is no manifest.
    """
    file = assets / "manifest.json"
    if not file.is_file():
        raise errors.MissingError(
            "E101",
            "there is no such file",
            f"`{file}`",
            remedy="make the weights with `python -m experiments.make_embedded`",
        )
    return json.loads(file.read_text())


def _model(manifest):
    """Builds the encoder that the weights belong to."""
    return clip_vision.ClipVision(clip_vision.ClipVisionConfig(**manifest["model"]))
