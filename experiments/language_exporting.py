"""From a finished run of language models to a folder that others load."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from adarank_jax import tree
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.checkpoints import language_export
from adarank_jax.checkpoints.language_export import LanguageHead
from adarank_jax.core.merge import Variables
from adarank_jax.models import sequence_heads
from adarank_jax.tree import Tree
from experiments import card, export_parts, starts
from experiments.card import Card, CardHead
from experiments.merge_config import EXPORT_FOLDER
from experiments.suite import Suite
from experiments.text_config import TextMergeConfig


def write(
    suite: Suite,
    config: TextMergeConfig,
    folder: RunFolder,
    merged: Tree,
    variables: Variables | None,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Writes `export/` of a run.

    Args:
        suite: what was merged; its base is a `LanguageCheckpoint`.
        config: how.
        folder: of the run.
        merged: parameters of the encoder.
        variables: masks, if there are any, and coefficients, for a recipe; None if the
            method trains nothing.
        rows: of the table.

    Raises:
        OSError: the disk has no room.
        ValueError: `export/` holds something else.
    """
    metrics = dict(zip(suite.tasks, suite.metrics, strict=True))
    heads = [
        LanguageHead(task, head, names, {"metric": metrics[task]})
        for task, head, names in zip(
            suite.tasks, suite.heads, suite.class_names, strict=True
        )
    ]
    tensors = language_export.weights(suite.base, merged, config.export.dtype)
    added = {"merge.yaml": export_parts.to_yaml(suite, config).encode()}
    if variables is not None:
        digest = language_export.digest_tensors(tensors)
        added["recipe.safetensors"] = export_parts.packed_recipe(
            *(suite, config, merged, variables, digest, suite.base.family, {})
        )
    stored = language_export.stored_encoder(suite.base, tensors)
    about = export_parts.about_run(suite, config, merged, stored, rows, "texts")
    files = language_export.slugs(suite.tasks)
    text = card.render(
        Card(
            title=f"{len(suite.tasks)} tasks in one {suite.base.family} encoder",
            heads=[
                CardHead(head.task, file, sequence_heads.num_classes(head.tree))
                for head, file in zip(heads, files, strict=True)
            ],
            command=shlex.join(["python", "-m", "experiments.run_glue", "merge.yaml"]),
            config=added["merge.yaml"].decode(),
            has_recipe=variables is not None,
            language=_language(suite, config, merged, metrics),
            **about,
        )
    )
    language_export.write_model(
        folder.path / EXPORT_FOLDER,
        suite.base,
        merged,
        heads,
        per_task_copies=config.export.per_task_copies,
        dtype=config.export.dtype,
        max_shard_size=config.export.max_shard_size,
        files=added | {"README.md": text.encode()},
        record={"manifest": folder.read_json("manifest.json", {})},
    )


def _language(suite, config, merged, metrics):
    """Lists what only the card of a language model tells."""
    stored = language_export.names(suite.base)
    unmerged = [
        stored[path]
        for path, leaf in tree.flatten(merged).items()
        if not suite.is_merged(path, leaf)
    ]
    return card.Language(
        family=suite.base.family,
        max_length=config.max_length,
        metrics=metrics,
        unmerged=unmerged,
        is_centred=_is_centred(config.method),
        left_out=language_export.left_out(suite.base),
        unnamed=[
            task
            for task, names in zip(suite.tasks, suite.class_names, strict=True)
            if names is None
        ],
        has_pooler=language_export.has_pooler(suite.base),
        per_task_copies=config.export.per_task_copies,
    )


def _is_centred(method):
    """Tells whether what is not merged is the average of the experts."""
    if method.is_adapted:
        return starts.get(method).is_centred
    return method.name in starts.AVERAGING
