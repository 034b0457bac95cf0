"""One run from configuration to table, figures and exported model.

`run_vit` and `run_glue` are thin commands around this: what differs between kinds of
models is a `Kind`.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import tyro
from rich.console import Console

import adarank_jax
from adarank_jax import tree
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
    commands,
    manifest,
    plan,
    results,
    results_table,
    sizes,
    starts,
    yaml_config,
)
from experiments import suite as suites
from experiments.merge_config import EXPORT_FOLDER, MergeConfig
from experiments.messages import printable
from experiments.named_runs import Unmade
from experiments.suite import Inputs


@dataclasses.dataclass(frozen=True)
class Options:
    """Merges experts by AdaRank; writes table, metrics, figures and the model."""

    what: tyro.conf.Positional[tuple[str, ...]] = ()
    """A configuration in YAML, and single values of it: `my_merge.yaml seed=1`."""

    preset: str = ""
    """A run by name, if no file is given."""

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


class Kind(NamedTuple):
    """What one kind of model brings to a run.

    Attributes:
        config: class of its configuration.
        presets: lists the runs by name.
        configure: builds the configuration of a preset, with single values changed;
            fetches and makes nothing.
        check: reads and compares everything; takes the configuration and whether
            anything may be fetched.
        facts: of a configuration that are written beside the rows.
        export: writes `export/`; None where nothing can be exported.
        unit: what the examples are.
        unmade: of a preset, what it needs and what is made here before its first run;
            None if there is nothing to make.
    """

    config: type[MergeConfig]
    presets: Callable[[], Mapping[str, Any]]
    configure: Callable[[str, Sequence[str]], MergeConfig]
    check: Callable[[Any, bool], Inputs]
    facts: Callable[[Any], dict[str, Any]]
    export: Callable[..., None]
    unit: str
    unmade: Callable[[str], Unmade | None] = lambda name: None


def main(options: Options, kind: Kind) -> None:
    """Runs one configuration from top to bottom.

    Args:
        options: of the command.
        kind: of the models.

    Raises:
        SystemExit: a plan was shown.
        ValueError: inputs cannot be used; the message lists every problem.
    """
    if options.list_presets:
        results.show_presets(kind.presets(), results.table_console())
        return
    console = Console(stderr=True, highlight=False, markup=False)
    with cli.usage():
        config, run_dir = _configuration(options, kind)
        run_folder.check_folder(run_dir)
        if not options.restart:
            saved = run_folder.read_config(run_dir)
            commands.check_folder(run_dir, saved, kind.config)
        export.check_target(run_dir / EXPORT_FOLDER)
    if not _files(options) and (unmade := kind.unmade(options.preset)) is not None:
        _make(unmade, config, options, console)
        config, run_dir = _configuration(options, kind)

    console.print(f"Checking base, experts, heads and {kind.unit}.")

    # Everything that can be refused is refused here, before anything is written.
    inputs = _check(config, kind, may_fetch=not options.plan)
    if options.plan:
        if not inputs.problems:
            found = run_folder.differences(run_dir, _decisive(config, inputs))
            if found and not options.restart:
                inputs = inputs._replace(problems=[found])
        plan.show(plan.describe(config, inputs, run_dir), results.table_console())
        raise SystemExit(cli.REFUSED if inputs.problems else 0)
    suites.refuse(inputs.problems)
    for warning in inputs.warnings:
        console.print(f"warning: {printable(warning)}", soft_wrap=True)
    with cli.usage():
        folder = RunFolder(run_dir, _decisive(config, inputs), options.restart)
    folder.write_json("manifest.json", manifest.describe() | inputs.facts)

    # The table: bounds, static merges, adapted merges, in the order of the file.
    console.print("Putting models and examples together …")
    suite = inputs.build(folder)
    facts = kind.facts(config)
    if config.published is not None:
        facts["published"] = config.published.model_dump()
    comparison = results.Comparison(suite, folder, facts, console)
    for method in dict.fromkeys([*config.compare, config.method]):
        _add(comparison, suite, folder, config, method)

    # Figures, and the model for others to load.
    rows = results.labelled(comparison.rows)
    if suite.is_labelled:
        axis = results_table.axis(suite.metrics, suite.unit)
        figures.task_bars(rows, suite.tasks, folder.path / "figures", axis)
    variables = None
    if config.method.is_adapted:
        held = files.read(_merge_folder(folder, config.method) / _VARIABLES)
        variables = Variables(held["coefficients"], held.get("mask_logits", {}))
    if variables is not None and config.method.name == "adarank":
        kept = ranks.kept_rank_shares(variables.mask_logits)
        figures.rank_map(kept, suite.tasks, folder.path / "figures")
    if config.export.enabled:
        merged = files.read(folder.path / _MERGED)
        kind.export(suite, config, folder, merged, variables, comparison.rows)
    results_table.show(rows, suite, results.table_console())
    results.show_published(config.published, results.table_console())
    console.print(f"Everything is in {printable(str(folder.path))}.")


def in_order(words: Sequence[str]) -> list[str]:
    """Puts file and single values before all options, wherever they were written.

    Args:
        words: of a command line.

    Examples:
        >>> in_order(["--run-dir", "there", "my_merge.yaml", "--plan", "seed=1"])
        ['my_merge.yaml', 'seed=1', '--run-dir', 'there', '--plan']
    """
    options, plain, wants_value = [], [], False
    for word in words:
        is_option = word.startswith("-") or wants_value
        wants_value = word in ("--preset", "--run-dir")
        (options if is_option else plain).append(word)
    return plain + options


def _configuration(options, kind):
    """Reads the file or the preset, the single values behind it, and the run folder."""
    given = _files(options)
    overrides = [word for word in options.what if "=" in word]
    if options.offline:
        overrides.append("offline=true")
    if len(given) > 1:
        raise ValueError(f"One configuration at a time, got {' and '.join(given)}.")
    if given:
        file = pathlib.Path(given[0])
        name = file.stem
        commands.check_file(file, kind.config)
        config = yaml_config.read_config(kind.config, file, overrides)
    else:
        name = options.preset
        config = kind.configure(name, overrides)
    run_dir = options.run_dir or config.run_dir or pathlib.Path("runs") / name
    return config, run_dir


def _files(options):
    """Lists what is given as a file."""
    return [word for word in options.what if "=" not in word]


def _make(unmade, config, options, console):
    """Makes what a preset needs, or shows in a plan what that would be."""
    problems = [unmade.remedy] if config.offline else []
    if options.plan:
        lines = list(unmade.lines)
        if not problems:
            lines.append(("next", "the same command without --plan"))
        plan.show(plan.Plan(problems, [], lines), results.table_console())
        raise SystemExit(cli.REFUSED if problems else 0)
    suites.refuse(problems)
    unmade.make(console)


def _check(config, kind, may_fetch):
    """Checks weights, heads and examples, and what the number of devices allows."""
    inputs = kind.check(config, may_fetch)
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
    if method.name == "individual":
        comparison.add(method, lambda: suite.finetuned, "one model a task")
    elif method.name == "pretrained":
        comparison.add(method, lambda: suite.pretrained, "nothing")
    elif method.is_adapted:
        _add_adapted(comparison, suite, folder, config, method)
    else:
        hyper = method.model_dump(
            include={"coefficient", "rank_ratio"}, exclude_none=True
        )

        def made():
            models = (suite.pretrained, suite.finetuned, suite.is_decomposed)
            if sizes.is_decomposing(method):
                comparison.tell(_splitting(suite))
            merged = starts.merge_static(method.name, *models, suite.is_merged, **hyper)
            if method == config.method:
                files.write(folder.path / _MERGED, merged)
            return merged

        comparison.add(method, made, "nothing")


def _add_adapted(comparison, suite, folder, config, method):
    """Adds the static start of an adaptation, and what it becomes."""
    start = starts.get(method)
    models = (suite.pretrained, suite.finetuned, suite.is_decomposed)
    build = starts.build if method.name == "adarank" else starts.build_dense
    cache = folder.path / "factors"
    if sizes.is_decomposing(method):
        comparison.tell(_splitting(suite, ", or reading them from the run folder"))
    origin, factors = build(start, *models, cache, suite.is_merged)
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

    uses = f"unlabelled test {suite.unit}"
    if method.objective == "expert_labels":
        uses += ", experts' predictions on them"
    comparison.add(method, adapted, uses)


def _splitting(suite, instead=""):
    """Announces the longest phase before adaptation."""
    return (
        f"Splitting the task vectors of {len(suite.tasks)} experts into singular "
        f"directions{instead} …"
    )


def _adapt(comparison, suite, folder, config, method, origin, factors):
    """Trains the variables of one method; keeps them and returns merged weights."""
    objective, settings = method.objective, config.adaptation
    columns = [suite.inputs]
    if objective == "expert_labels":
        columns.append(comparison.expert_labels)
    examples = list(zip(*columns, strict=True))
    batches = TaskBatches(examples, settings.batch_size, config.seed, config.shuffle)
    start = starts.get(method)
    comparison.tell(
        f"Adapting masks and coefficients on {suite.unit}; the first step is compiled …"
        if method.name == "adarank"
        else f"Adapting coefficients on {suite.unit}; the first step is compiled …"
    )
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
        lambda first: (
            Batch(suite.collate(inputs), *labels)
            for inputs, *labels in batches.stream(first)
        ),
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


def _merge_folder(folder, method):
    """Names the folder of one adaptation."""
    return folder.path / "adapted" / results.slug(method)


_MERGED = "merged.safetensors"
_VARIABLES = "variables.safetensors"
