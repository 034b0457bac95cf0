r"""Makes merged weights again from a recipe, the base and the experts.

    python -m experiments.rebuild --recipe export/recipe.safetensors \
        --base openai/clip-vit-base-patch32 --experts mnist=… svhn=… --out rebuilt

Everything runs on the host CPU, unless the recipe says that an accelerator decomposed
the task vectors (`svd_backend: device`); the same bits then need the same kind. The
digests of base, experts, merged parameters and written tensors are compared with those
of the recipe, and the sizes of the base with its own; what is called the same bit for
bit is what was compared. Language models are made again in the same way as CLIP's image
towers.
"""

import dataclasses
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console

from adarank_jax import errors, tree
from adarank_jax.checkpoints import folders, model_folder
from adarank_jax.checkpoints import recipe as recipes
from adarank_jax.checkpoints.clip import ClipCheckpoint
from adarank_jax.checkpoints.language import LanguageCheckpoint
from adarank_jax.checkpoints.recipe import Recipe
from adarank_jax.core import merge
from adarank_jax.tree import Tree
from experiments import cli, cpuinfo, lookup, manifest, rebuild_families, starts
from experiments.starts import Start

identity = rebuild_families.identity


@dataclasses.dataclass(frozen=True)
class Config:
    """Makes merged weights again from masks, coefficients, base and experts."""

    recipe: pathlib.Path
    """File recipe.safetensors of an export."""

    base: str
    """Base that the experts were fine-tuned from: folder, file or Hub id."""

    experts: tuple[str, ...]
    """One `task=source` for every task of the recipe."""

    out: pathlib.Path
    """Folder for the model, as an export writes it, but without heads and card."""

    offline: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Never ask the Hub; sources that are not on this machine are an error."""

    accept_rounding: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write the model even if its last bits are not those that were exported."""


def main(config: Config) -> None:
    """Reads, checks, rebuilds, checks and writes."""
    recipe = recipes.read_recipe(config.recipe)
    settings = recipe.settings
    family = rebuild_families.family(settings)
    sources = match_experts(config.experts, settings.tasks)
    folders.check_target(config.out)
    base = family.read(config.base, None, config.offline)
    finetuned = [
        family.params(family.read(sources[task], base, config.offline))
        for task in settings.tasks
    ]
    check_config(recipe, base)
    pretrained = family.params(base)
    check_inputs(recipe, pretrained, finetuned)
    merged = rebuild(recipe, pretrained, finetuned)
    difference = rounding_difference(recipe, merged)
    if difference and not config.accept_rounding:
        remedy = "rebuild on a machine like the first, or add --accept-rounding"
        raise errors.NumericsError("E520", difference, remedy=remedy)
    tensors = family.weights(base, merged, settings.dtype)
    is_same = model_folder.digest_tensors(tensors) == settings.weights
    family.write(
        config.out,
        base,
        merged,
        dtype=settings.dtype,
        max_shard_size=settings.max_shard_size,
        record=environment(),
    )
    if difference:
        text = f"Rebuilt {config.out} up to rounding."
    elif is_same:
        text = f"Rebuilt {config.out}: all tensors of the model, bit for bit."
    else:
        text = (
            f"Rebuilt {config.out}: the merged {family.part} bit for bit before it "
            "was stored, but other tensors, names or dtypes than the export has; the "
            f"base is another file with the same {family.part}."
        )
    console = Console(stderr=True, soft_wrap=True)
    console.print(text, highlight=False, markup=False)


def match_experts(experts: Sequence[str], tasks: Sequence[str]) -> dict[str, str]:
    """Splits `task=source` and checks that every task of a recipe has one.

    Args:
        experts: as on the command line.
        tasks: of the recipe.

    Raises:
        UsageError: there is no `=`, the recipe has no such task (the message has the
            nearest), or a task is named twice or not at all.

    Examples:
        >>> match_experts(["mnist=a/b", "svhn=org/model@v1"], ["svhn", "mnist"])
        {'mnist': 'a/b', 'svhn': 'org/model@v1'}
    """
    sources: dict[str, str] = {}
    for entry in experts:
        known = [task for task in tasks if entry.startswith(f"{task}=")]
        name = max(known, key=len, default=entry.partition("=")[0])
        source = entry[len(name) + 1 :]
        if not source:
            raise errors.UsageError(
                "E018",
                f"`experts` must be given as task=source, got {entry!r}",
                remedy=f"write {tasks[0]}=path/to/expert, for example",
            )
        lookup.nearest("task", name, dict.fromkeys(tasks))
        if name in sources:
            found = f"`experts` must name each task once, got {name!r} twice"
            raise errors.UsageError("E302", found, remedy="drop one of the two")
        sources[name] = source
    missing = [task for task in tasks if task not in sources]
    if missing:
        found = "`experts` must have a source for every task of the recipe"
        remedy = f"{missing} have none; add them as task=source"
        raise errors.UsageError("E015", found, remedy=remedy)
    return sources


def check_config(recipe: Recipe, base: ClipCheckpoint | LanguageCheckpoint) -> None:
    """Checks that a base computes what the base of a recipe did.

    Args:
        recipe: as read.
        base: the pretrained checkpoint.

    Raises:
        InputError: a field of the model differs; the message lists each of them.
    """
    here, there = identity(base), recipe.settings.config
    lines = [
        f"{name}: {here.get(name)!r} here, {there.get(name)!r} in the recipe"
        for name in sorted(here.keys() | there)
        if here.get(name) != there.get(name)
    ]
    if lines:
        raise errors.InputError(
            "E215",
            "its configuration is not that of the recipe, so the same weights would "
            "mean another model:\n  " + "\n  ".join(lines),
            f"`{base.source}`",
            remedy="put the config file of the base that was merged beside it",
        )


def check_inputs(recipe: Recipe, pretrained: Tree, finetuned: Sequence[Tree]) -> None:
    """Checks that base and experts are those of a recipe.

    Args:
        recipe: as read.
        pretrained: parameters of the base.
        finetuned: parameters of every expert, in the order of the recipe.

    Raises:
        InputError: some are not; the message names each of them.
    """
    settings = recipe.settings
    expected = {"the base": settings.base}
    expected |= {
        f"the expert {task!r}": digest
        for task, digest in zip(settings.tasks, settings.experts, strict=True)
    }
    found = map(recipes.digest, (pretrained, *finetuned))
    part = rebuild_families.family(settings).part
    lines = [
        f"{name}: SHA-256 of the {part} is {ours}, the recipe has {theirs}"
        for (name, theirs), ours in zip(expected.items(), found, strict=True)
        if ours != theirs
    ]
    if lines:
        raise errors.InputError(
            "E130",
            "the recipe was made from other weights:\n  " + "\n  ".join(lines),
            remedy="name the sources (and revisions) that its model card lists",
        )


def rebuild(recipe: Recipe, pretrained: Tree, finetuned: Sequence[Tree]) -> Tree:
    """Makes the merged parameters of a recipe, on the host CPU.

    Args:
        recipe: masks, coefficients and what they belong to.
        pretrained: parameters of the base.
        finetuned: parameters of every expert, in the order of the recipe.

    Returns:
        Float32 host arrays.

    Raises:
        ValueError: the recipe, the base and the experts do not hold the same tensors.
    """
    settings = recipe.settings
    names = ("the recipe", "the base")
    tree.check_same_paths(recipe.coefficients, pretrained, names)
    kept = tree.flatten(recipe.kept)
    is_centred = settings.origin == "average"
    ratio = settings.rank_ratio
    start = Start("recipe", 0.0, ratio, is_centred, settings.is_decorrelated)
    if tree.without_none(recipe.kept):
        build = starts.build
        is_decomposed = lambda path, _: kept[path] is not None
    else:
        build = starts.build_dense
        is_decomposed = rebuild_families.family(settings).is_decomposed
    unmerged = frozenset(settings.unmerged)
    is_merged = lambda path, _: path not in unmerged
    models = (pretrained, finetuned, is_decomposed)
    chosen = {"is_merged": is_merged, "backend": settings.svd_backend}
    origin, factors = build(start, *models, **chosen)
    return merge.hard_merged_params(origin, factors, recipe.coefficients, recipe.kept)


def rounding_difference(recipe: Recipe, merged: Tree) -> str:
    """Says why rebuilt parameters are not those of a recipe; nothing if they are.

    Args:
        recipe: as read.
        merged: as `rebuild` returns.

    Returns:
        A message with all that differs between the two machines.
    """
    found = recipes.digest(merged)
    if found == recipe.settings.merged:
        return ""
    here = _flat(environment())
    there = _flat(recipe.settings.environment)
    lines = [
        f"{key}: {there.get(key, 'not recorded')} there, {here.get(key, 'none')} here"
        for key in sorted(here.keys() | there.keys())
        if here.get(key) != there.get(key)
    ]
    return (
        "Base, experts, masks and coefficients are those of the recipe, but the merged "
        f"weights have SHA-256 {found}, expected {recipe.settings.merged}: the last "
        "bits of singular vectors depend on the processor, the number of cores and the "
        "versions of LAPACK and JAX:\n  "
        + "\n  ".join(lines or ["nothing recorded differs"])
    )


def environment() -> dict[str, Any]:
    """Lists what the last bits of factors and merged weights depend on."""
    return manifest.describe() | {
        "processor": _processor(),
        "cpu_devices": len(jax.local_devices(backend="cpu")),
        "svd": "one BLAS thread a matrix",
        "variables": {
            name: os.environ[name] for name in _VARIABLES if name in os.environ
        },
    }


def _processor():
    """Names the processor as the kernel does, else as Python does."""
    name = cpuinfo.first_row("model name").partition(":")[2].strip()
    return name or platform.processor() or platform.machine()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Lists nested values by path."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = str(value)
    return flat


_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS"),
    *("JAX_ENABLE_X64", "XLA_FLAGS"),
)

if __name__ == "__main__":
    cli.run(main, Config)
