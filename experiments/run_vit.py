"""Merges experts of one CLIP model by AdaRank, compares, and exports the result.

    python -m experiments.run_vit                                # embedded suite
    python -m experiments.run_vit --preset vit-b32-8-cart-adarank    # a table row
    python -m experiments.run_vit my_merge.yaml                  # your own experts
    python -m experiments.run_vit my_merge.yaml --plan           # check, change nothing

Single values are changed behind the file or preset: `adaptation.num_steps=1000`.
Labels of the test images, where there are any, are used for the table only. The same
command on the same run folder resumes where it stopped.
"""

import dataclasses
import functools
import itertools
import pathlib
import sys
from typing import Annotated

import jax
import tyro
from rich.console import Console

import adarank_jax
from adarank_jax import mergers, tree
from adarank_jax.adaptation import parallel, run_folder
from adarank_jax.adaptation.loop import Problem, adapt
from adarank_jax.adaptation.objectives import OBJECTIVES
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.adaptation.step import Batch
from adarank_jax.analysis import figures, ranks
from adarank_jax.checkpoints import export, files
from adarank_jax.core import masks, merge
from adarank_jax.core.merge import Variables
from adarank_jax.data.batches import TaskBatches
from experiments import (
    cli,
    clip_suite,
    embedded_suite,
    exporting,
    manifest,
    plan,
    presets,
    results,
    starts,
    yaml_config,
)
from experiments import suite as suites
from experiments.merge_config import EMBEDDED
from experiments.messages import printable


@dataclasses.dataclass(frozen=True)
class Options:
    """Merges experts by AdaRank; writes table, metrics, figures and the model."""

    what: tyro.conf.Positional[tuple[str, ...]] = ()
    """A configuration in YAML, and single values of it: `my_merge.yaml seed=1`."""

    preset: str = "embedded"
    """A run by name, if no file is given: `vit-b32-8-cart-adarank`, say."""

    plan: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Check everything, show every problem, shapes, memory, disk and time, and change
    nothing."""

    run_dir: pathlib.Path | None = None
    """Folder of the run; `runs/NAME` by default. A second start resumes it."""

    restart: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Throw away an earlier run in the run folder."""

    offline: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Use only what is on disk already."""

    list_presets: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show every preset and stop."""


def main(options: Options) -> None:
    """Runs one configuration from top to bottom."""
    if options.list_presets:
        results.show_presets(presets.all_presets(), results.table_console())
        return
    with cli.usage():
        config, run_dir = _configuration(options)
        run_folder.check_folder(run_dir)
        export.check_target(run_dir / exporting.FOLDER)

    console = Console(stderr=True, highlight=False, markup=False)
    console.print("Checking base, experts, heads and images.")

    # Everything that can be refused is refused here, before anything is written.
    inputs = _check(config, may_fetch=not options.plan)
    if options.plan:
        if not inputs.problems:
            found = run_folder.differences(run_dir, _decisive(config, inputs))
            if found and not options.restart:
                inputs = inputs._replace(problems=[found])
        plan.show(plan.describe(config, inputs, run_dir), results.table_console())
        raise SystemExit(_REFUSED if inputs.problems else 0)
    suites.refuse(inputs.problems)
    for warning in inputs.warnings:
        console.print(f"warning: {printable(warning)}", soft_wrap=True)
    with cli.usage():
        folder = RunFolder(run_dir, _decisive(config, inputs), options.restart)
    folder.write_json("manifest.json", manifest.describe() | inputs.facts)

    # The table: bounds, static merges, adapted merges, in the order of the file.
    suite = inputs.build(folder)
    facts = {"qkv": config.qkv, "prompts": config.prompts}
    if config.published is not None:
        facts["published"] = config.published.model_dump()
    comparison = results.Comparison(suite, folder, facts, console)
    for method in dict.fromkeys([*config.compare, config.method]):
        _add(comparison, suite, folder, config, method)

    # Figures, and the model for others to load.
    rows = results.labelled(comparison.rows)
    if suite.is_labelled:
        figures.task_bars(rows, suite.tasks, folder.path / "figures")
    variables = None
    if config.method.is_adapted:
        held = files.read(_merge_folder(folder, config.method) / _VARIABLES)
        variables = Variables(held["coefficients"], held.get("mask_logits", {}))
    if variables is not None and config.method.name == "adarank":
        kept = ranks.kept_rank_shares(variables.mask_logits)
        figures.rank_map(kept, suite.tasks, folder.path / "figures")
    if config.export.enabled:
        merged = files.read(folder.path / _MERGED)
        exporting.write(suite, config, folder, merged, variables, comparison.rows)
    results.show(rows, suite.tasks, results.table_console())
    results.show_published(config.published, results.table_console())
    console.print(f"Everything is in {printable(str(folder.path))}.")


def _configuration(options):
    """Reads the file or the preset, the single values behind it, and the run folder."""
    given = [word for word in options.what if "=" not in word]
    overrides = [word for word in options.what if "=" in word]
    if options.offline:
        overrides.append("offline=true")
    if len(given) > 1:
        raise ValueError(f"One configuration at a time, got {' and '.join(given)}.")
    if given:
        name = pathlib.Path(given[0]).stem
        config = yaml_config.read_config(pathlib.Path(given[0]), overrides)
    else:
        name = options.preset
        config = presets.configure(name, overrides)
    run_dir = options.run_dir or config.run_dir or pathlib.Path("runs") / name
    return config, run_dir


def _check(config, may_fetch):
    """Checks weights, heads and images, wherever they come from."""
    if config.base == EMBEDDED:
        inputs = embedded_suite.check(config)
    else:
        inputs = clip_suite.check(config, may_fetch)
    problems = list(inputs.problems)
    warnings = [*inputs.warnings, *starts.doubts(config)]
    if any(method.is_adapted for method in (*config.compare, config.method)):
        try:
            parallel.check_batch_size(config.adaptation.batch_size, jax.local_devices())
        except ValueError as error:
            problems.append(str(error))
    return inputs._replace(problems=problems, warnings=warnings)


def _decisive(config, inputs):
    """Lists, as plain values, all that decides the numbers of a row."""
    return {
        "version": adarank_jax.__version__,
        "merge": config.decisive,
        "inputs": inputs.facts,
    }


def _add(comparison, suite, folder, config, method):
    """Adds the rows of one method to the table, and keeps the model that it makes."""
    models = (suite.pretrained, suite.finetuned, suite.is_decomposed)
    if method.name == "individual":
        comparison.add(method, lambda: suite.finetuned, "one model a task")
    elif method.name == "pretrained":
        comparison.add(method, lambda: suite.pretrained, "nothing")
    elif method.is_adapted:
        _add_adapted(comparison, suite, folder, config, method)
    else:
        merger = mergers.MERGERS[method.name]
        hyper = method.model_dump(
            include={"coefficient", "rank_ratio"}, exclude_none=True
        )

        def made():
            merged = merger(*models, **hyper)
            if method == config.method:
                files.write(folder.path / _MERGED, merged)
            return merged

        comparison.add(method, made, "nothing")


def _add_adapted(comparison, suite, folder, config, method):
    """Adds the static start of an adaptation, and what it becomes."""
    start = starts.get(method)
    models = (suite.pretrained, suite.finetuned, suite.is_decomposed)
    build = starts.build if method.name == "adarank" else starts.build_dense
    origin, factors = build(start, *models, folder.path / "factors")
    if method.name == "adarank":
        static = (origin, factors, start.coefficient, start.rank_ratio)
        make = functools.partial(merge.static_params, *static)
        at_start = method.model_copy(update={"objective": None})
        comparison.add(at_start, make, "nothing", "adarank at step 0")

    def adapted():
        merged = _adapt(comparison, suite, folder, config, method, origin, factors)
        if method == config.method:
            files.write(folder.path / _MERGED, merged)
        return merged

    uses = "unlabelled test images"
    if method.objective == "expert_labels":
        uses += ", experts' predictions on them"
    comparison.add(method, adapted, uses)


def _adapt(comparison, suite, folder, config, method, origin, factors):
    """Trains the variables of one method; keeps them and returns merged weights."""
    objective, settings = method.objective, config.adaptation
    columns = [suite.images]
    if objective == "expert_labels":
        columns.append(comparison.expert_labels)
    examples = list(zip(*columns, strict=True))
    batches = TaskBatches(examples, settings.batch_size, config.seed, config.shuffle)
    start = starts.get(method)
    variables, _ = adapt(
        Problem(
            tasks=suite.tasks,
            encode=suite.encode,
            classify=suite.classify,
            heads=suite.heads,
            origin=origin,
            factors=factors,
            mask=functools.partial(
                masks.straight_through, temperature=settings.temperature
            ),
        ),
        merge.init_variables(factors, start.coefficient, start.rank_ratio),
        OBJECTIVES[objective],
        lambda first: itertools.starmap(Batch, batches.stream(first)),
        settings,
        folder,
        results.slug(method),
    )
    # What is measured and exported is what the host merges from bits, so that anybody
    # can make the same weights again.
    files.write(
        _merge_folder(folder, method) / _VARIABLES,
        tree.without_none(variables._asdict()),
    )
    kept = merge.kept_directions(variables.mask_logits, settings.temperature)
    return merge.hard_merged_params(origin, factors, variables.coefficients, kept)


def _in_order(words):
    """Puts file and single values before all options, wherever they were written."""
    options, plain, wants_value = [], [], False
    for word in words:
        is_option = word.startswith("-") or wants_value
        wants_value = word in ("--preset", "--run-dir")
        (options if is_option else plain).append(word)
    return plain + options


def _merge_folder(folder, method):
    """Names the folder of one adaptation."""
    return folder.path / "adapted" / results.slug(method)


_MERGED = "merged.safetensors"
_REFUSED = 3
_VARIABLES = "variables.safetensors"


if __name__ == "__main__":
    cli.run(main, Options, _in_order(sys.argv[1:]))
