"""From a finished run to a folder that others load, with card and recipe."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.checkpoints import export
from adarank_jax.checkpoints.export import TaskHead
from adarank_jax.core.merge import Variables
from adarank_jax.models.heads import Head
from adarank_jax.tree import Tree
from experiments import card, export_parts
from experiments.card import Card, CardHead
from experiments.image_config import EMBEDDED, ImageMergeConfig
from experiments.merge_config import EXPORT_FOLDER
from experiments.suite import Suite


def write(
    suite: Suite,
    config: ImageMergeConfig,
    folder: RunFolder,
    merged: Tree,
    variables: Variables | None,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Writes `export/` of a run.

    Args:
        suite: what was merged.
        config: how.
        folder: of the run.
        merged: parameters of the image tower.
        variables: masks, if there are any, and coefficients, for a recipe; None if the
            method trains nothing.
        rows: of the table.

    Raises:
        OSError: the disk has no room.
        ValueError: `export/` holds something else.
    """
    heads = [
        TaskHead(task, weight(head), bias(head), names, {"prompts": config.prompts})
        for task, head, names in zip(
            suite.tasks, suite.heads, suite.class_names, strict=True
        )
    ]
    added = {}
    tensors = export.weights(suite.base, merged, config.export.dtype)
    if variables is not None:
        digest = export.digest_tensors(tensors)
        options = {"qkv": config.qkv, "open_clip": config.export.open_clip}
        added["recipe.safetensors"] = export_parts.packed_recipe(
            *(suite, config, merged, variables, digest, "clip", options)
        )
    stored = export.stored_vision(tensors, config.qkv)
    text = _card(suite, config, heads, merged, stored, rows, bool(added))
    added["README.md"] = text.encode()
    added["merge.yaml"] = _yaml(suite, config).encode()
    export.write_model(
        folder.path / EXPORT_FOLDER,
        suite.base,
        merged,
        heads,
        with_open_clip=config.export.open_clip,
        dtype=config.export.dtype,
        max_shard_size=config.export.max_shard_size,
        files=added,
        record={"manifest": folder.read_json("manifest.json", {})},
    )


def weight(head: Head) -> np.ndarray:
    """Returns the rows of a linear layer on unit embeddings, `(classes, features)`."""
    return np.asarray(head.logit_scale * head.directions.T, np.float32)


def bias(head: Head) -> np.ndarray | None:
    """Returns the bias of a head, None if it is zero."""
    found = np.asarray(head.bias, np.float32)
    return found if found.any() else None


def _card(suite, config, heads, merged, stored, rows, has_recipe):
    """Writes the model card."""
    files = export.slugs(suite.tasks)
    return card.render(
        Card(
            title=f"{len(suite.tasks)} tasks in one CLIP image tower",
            heads=[
                CardHead(head.task, file, len(head.weight))
                for head, file in zip(heads, files, strict=True)
            ],
            command=shlex.join(["python", "-m", "experiments.run_vit", "merge.yaml"]),
            config=_yaml(suite, config),
            has_text_tower=suite.base.layout.text_layers is not None,
            has_open_clip=config.export.open_clip,
            has_recipe=has_recipe,
            **export_parts.about_run(suite, config, merged, stored, rows, "images"),
        )
    )


def _yaml(suite, config):
    """Writes a configuration so that `run_vit` reads it back, with known commits."""
    return export_parts.to_yaml(suite, config, config.base != EMBEDDED)
