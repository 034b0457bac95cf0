"""What recipes and cards of all exports share, from a finished run."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from adarank_jax import tree
from adarank_jax.checkpoints import hub, recipe
from adarank_jax.core.merge import Variables
from adarank_jax.tree import Tree
from experiments import card, manifest, rebuild, results, starts
from experiments.card import Parent
from experiments.merge_config import MergeConfig
from experiments.suite import Suite


def packed_recipe(
    suite: Suite,
    config: MergeConfig,
    merged: Tree,
    variables: Variables,
    weights: str,
    family: str,
    options: Mapping[str, Any],
) -> bytes:
    """Packs masks and coefficients, with all that they belong to.

    Args:
        suite: what was merged.
        config: how.
        merged: parameters.
        variables: after adaptation.
        weights: digest of the tensors of the export.
        family: of the models, as `recipe.Settings` has it.
        options: what only this family has.

    Returns:
        The content of recipe.safetensors.
    """
    start = starts.get(config.method)
    coefficients = tree.flatten(tree.without_none(variables.coefficients))
    settings = recipe.Settings(
        tasks=tuple(suite.tasks),
        origin="average" if start.is_centred else "pretrained",
        is_decorrelated=start.is_decorrelated,
        temperature=config.adaptation.temperature,
        family=family,
        options=dict(options),
        base=recipe.digest(suite.pretrained),
        experts=tuple(map(recipe.digest, suite.finetuned)),
        merged=recipe.digest(merged),
        config=rebuild.identity(suite.base),
        rank_ratio=float(start.rank_ratio),
        dtype=config.export.dtype,
        max_shard_size=config.export.max_shard_size,
        weights=weights,
        environment=rebuild.environment(),
        svd_backend=config.svd_backend,
        unmerged=tuple(sorted(tree.flatten(merged).keys() - coefficients.keys())),
    )
    return recipe.pack(variables, settings)


def about_run(
    suite: Suite,
    config: MergeConfig,
    merged: Tree,
    stored: tuple[str, Tree],
    rows: Sequence[Mapping[str, Any]],
    unit: str,
) -> dict[str, Any]:
    """Lists what the card of any export tells of its run.

    Args:
        suite: what was merged.
        config: how.
        merged: parameters.
        stored: dtype and parameters as the export holds them.
        rows: of the table.
        unit: what the examples are.

    Returns:
        Fields of `card.Card`.
    """
    parents = [
        Parent(name, source, licence(source), recipe.digest(params))
        for name, source, params in zip(
            ("base", *suite.tasks),
            suite.sources,
            (suite.pretrained, *suite.finetuned),
            strict=True,
        )
    ]
    own = results.label(results.names(config.method))
    uses = f"unlabelled test {unit}" if config.method.is_adapted else "none"
    if config.method.objective == "expert_labels":
        uses += " and the experts' predictions on them"
    versions = manifest.describe()
    del versions["commit"]  # it has a line of its own
    return {
        "method": own,
        "base": parents[0],
        "experts": parents[1:],
        "uses": uses,
        "versions": versions,
        "seed": config.seed,
        "commit": manifest.commit(),
        "digest": recipe.digest(merged),
        "dtype": stored[0],
        "stored_digest": recipe.digest(stored[1]),
        "rows": results.labelled(rows),
        "result": own,
        "has_masks": config.method.name == "adarank",
    }


def licence(source: str) -> card.Licence:
    """Reads the licence of a parent from its own card, where that is on disk.

    Args:
        source: as in the configuration.
    """
    try:
        path = hub.resolve(source, offline=True).path
    except (OSError, ValueError):
        return card.Licence()
    return card.read_licence(path if path.is_dir() else path.parent)


def to_yaml(suite: Suite, config: MergeConfig, has_sources: bool = True) -> str:
    """Writes a configuration so that its command reads it back, with known commits.

    Args:
        suite: whose sources name the commits.
        config: of the run.
        has_sources: the configuration names base and experts; False if they come with
            this package.
    """
    values = config.model_dump(mode="json", exclude_none=True, exclude={"run_dir"})
    if has_sources:
        values["base"] = suite.sources[0]
        for task, source in zip(suite.tasks, suite.sources[1:], strict=True):
            values["experts"][task]["model"] = source
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
