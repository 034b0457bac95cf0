"""From a finished run to a folder that others load, with card and recipe."""

import shlex
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
from experiments import card, manifest, rebuild, results, starts
from experiments.card import Card, CardHead, Parent
from experiments.merge_config import EMBEDDED, MergeConfig
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
        packed = _recipe(suite, config, merged, variables, digest)
        added["recipe.safetensors"] = packed
    stored = export.stored_vision(tensors, config.qkv)
    text = _card(suite, config, heads, merged, stored, rows, bool(added))
    added["README.md"] = text.encode()
    added["merge.yaml"] = _yaml(suite, config).encode()
    export.write_model(
        folder.path / FOLDER,
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


def _recipe(suite, config, merged, variables, weights):
    """Packs masks and coefficients."""
    start = starts.get(config.method)
    settings = recipe.Settings(
        tasks=tuple(suite.tasks),
        origin="average" if start.is_centred else "pretrained",
        is_decorrelated=start.is_decorrelated,
        temperature=config.adaptation.temperature,
        qkv=config.qkv,
        base=recipe.digest(suite.pretrained),
        experts=tuple(map(recipe.digest, suite.finetuned)),
        merged=recipe.digest(merged),
        config=rebuild.identity(suite.base),
        rank_ratio=float(start.rank_ratio),
        dtype=config.export.dtype,
        open_clip=config.export.open_clip,
        max_shard_size=config.export.max_shard_size,
        weights=weights,
        environment=rebuild.environment(),
    )
    return recipe.pack(variables, settings)


def _card(suite, config, heads, merged, stored, rows, has_recipe):
    """Writes the model card."""
    labelled = results.labelled([row for row in rows if row["mean"] is not None])
    title = f"{len(suite.tasks)} tasks in one CLIP image tower"
    own = results.label(results.names(config.method))
    parents = [
        Parent(name, source, licence(source), recipe.digest(params))
        for name, source, params in zip(
            ("base", *suite.tasks),
            suite.sources,
            (suite.pretrained, *suite.finetuned),
            strict=True,
        )
    ]
    uses = "unlabelled test images" if config.method.is_adapted else "none"
    if config.method.objective == "expert_labels":
        uses += " and the experts' predictions on them"
    files = export.slugs(suite.tasks)
    versions = manifest.describe()
    del versions["commit"]  # it has a line of its own
    return card.render(
        Card(
            title=title,
            method=own,
            base=parents[0],
            experts=parents[1:],
            heads=[
                CardHead(head.task, file, len(head.weight))
                for head, file in zip(heads, files, strict=True)
            ],
            uses=uses,
            command=shlex.join(["python", "-m", "experiments.run_vit", "merge.yaml"]),
            config=_yaml(suite, config),
            versions=versions,
            seed=config.seed,
            commit=manifest.commit(),
            digest=recipe.digest(merged),
            dtype=stored[0],
            stored_digest=recipe.digest(stored[1]),
            rows=labelled,
            result=own,
            has_text_tower=suite.base.layout.text_layers is not None,
            has_open_clip=config.export.open_clip,
            has_recipe=has_recipe,
            has_masks=config.method.name == "adarank",
        )
    )


def licence(source: str) -> str:
    """Reads the licence of a parent from its own card, where that is on disk.

    Args:
        source: as in the configuration.
    """
    try:
        path = hub.resolve(source, offline=True).path
    except (OSError, ValueError):
        return card.UNKNOWN
    return card.read_licence(path if path.is_dir() else path.parent)


def _yaml(suite, config):
    """Writes a configuration so that `run_vit` reads it back, with known commits."""
    values = config.model_dump(mode="json", exclude_none=True, exclude={"run_dir"})
    if config.base != EMBEDDED:
        values["base"] = suite.sources[0]
        for task, source in zip(suite.tasks, suite.sources[1:], strict=True):
            values["experts"][task]["model"] = source
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


FOLDER = "export"
"""Name of the exported model in the folder of a run."""
