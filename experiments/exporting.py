"""From a finished run to a folder that others load, with card and recipe."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.checkpoints import export, hub, recipe
from adarank_jax.checkpoints.export import TaskHead
from adarank_jax.core.merge import Variables
from adarank_jax.models.heads import Head
from adarank_jax.tree import Tree
from experiments import card, manifest, results, starts
from experiments.card import Card, CardHead, Parent
from experiments.merge_config import MergeConfig
from experiments.suite import Suite


def write(
    suite: Suite,
    config: MergeConfig,
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
        variables: masks and coefficients, for a recipe; None if there are none.
        rows: of the table.

    Raises:
        OSError: the disk has no room.
        ValueError: `export/` holds something else.
    """
    digests = [recipe.digest(params) for params in suite.finetuned]
    heads = [
        TaskHead(task, weight(head), bias(head), names, {"prompts": config.prompts})
        for task, head, names in zip(
            suite.tasks, suite.heads, suite.class_names, strict=True
        )
    ]
    target = folder.path / "export"
    model = export.write_model(
        target,
        suite.base,
        merged,
        heads,
        with_open_clip=config.export.open_clip,
        dtype=config.export.dtype,
        max_shard_size=config.export.max_shard_size,
        files=_files(suite, config, heads, merged, variables, rows, digests),
        record={"manifest": folder.read_json("manifest.json", {})},
    )
    assert model == target


def weight(head: Head) -> np.ndarray:
    """Returns the rows of a linear layer on unit embeddings, `(classes, features)`."""
    return np.asarray(head.logit_scale * head.directions.T, np.float32)


def bias(head: Head) -> np.ndarray | None:
    """Returns the bias of a head, None if it is zero."""
    found = np.asarray(head.bias, np.float32)
    return found if found.any() else None
