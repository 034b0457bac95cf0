"""One run from configuration to table, figures and exported model.

`run_vit` and `run_glue` are thin commands around this: what differs between kinds of
models is a `Kind`.
"""

import contextlib
import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro
from rich.console import Console

import adarank_jax
from adarank_jax import errors
from adarank_jax.adaptation import hosts, parallel, per_device, run_folder
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.analysis import figures, ranks
from adarank_jax.checkpoints import export
from adarank_jax.errors import Message
from experiments import (
    cli,
    commands,
    manifest,
    messages,
    methods,
    needs,
    plan,
    results,
    results_table,
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

    distributed: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Share the work with the other machines of a TPU slice, where the same command is
    started on every one; also under Slurm and Open MPI."""

    coordinator: str | None = None
    """Share the work with other processes anywhere: address of process 0 and a free
    port there, `10.0.0.1:1234`; with --num-processes and --process-id."""

    num_processes: int | None = None
    """Processes that share the work."""

    process_id: int | None = None
    """Number of this process, from 0; process 0 alone writes."""

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
        Problems: the run cannot be started; all that stops it.
    """
    if options.list_presets:
        results.show_presets(kind.presets(), results.table_console())
        return
    with cli.usage():
        _join(options)
    console = Console(
        stderr=True, highlight=False, markup=False, quiet=not hosts.is_lead()
    )
    with cli.usage():
        config, run_dir = _configuration(options, kind)
        if hosts.is_lead():
            run_folder.check_folder(run_dir, options.restart)
            if not options.restart:
                saved = run_folder.read_config(run_dir)
                commands.check_folder(run_dir, saved, kind.config)
            export.check_target(run_dir / EXPORT_FOLDER)
    if not _files(options) and (unmade := kind.unmade(options.preset)) is not None:
        _make(unmade, config, options, console)
        config, run_dir = _configuration(options, kind)

    console.print(f"Checking base, experts, heads and {kind.unit}.")

    # Everything that can be refused is refused here, before anything is written.
    inputs = _check(config, kind, run_dir, may_fetch=not options.plan)
    if options.plan:
        _plan(config, inputs, run_dir, options)
    hosts.check_none(len(inputs.problems), "problems with the inputs")
    suites.refuse(inputs.problems)
    for warning in inputs.warnings:
        console.print(messages.warning(warning), soft_wrap=True)
    decisive = _decisive(config, inputs)
    hosts.check_same(
        "configuration or inputs; start the same command with the same weights",
        json.dumps(decisive, sort_keys=True, default=str).encode(),
    )
    with contextlib.ExitStack() as stack:
        if hosts.is_lead():
            with cli.usage():
                folder = RunFolder(run_dir, decisive, options.restart)
        else:  # what only process 0 keeps
            made = tempfile.TemporaryDirectory(prefix="adarank-")
            folder = RunFolder(stack.enter_context(made), decisive, False)
        _run(config, inputs, kind, folder, run_dir, console)


def _join(options):
    """Joins the other processes, if there are any."""
    given = (options.coordinator, options.num_processes, options.process_id)
    if options.distributed or given != (None, None, None):
        hosts.start(*given)


def _plan(config, inputs, run_dir, options):
    """Shows what a run would do, and stops."""
    if hosts.is_lead():
        if not inputs.problems:
            found = run_folder.differences(run_dir, _decisive(config, inputs))
            if found and not options.restart:
                inputs = inputs._replace(problems=[found])
        plan.show(plan.describe(config, inputs, run_dir), results.table_console())
    raise SystemExit(suites.exit_code(inputs.problems) if inputs.problems else 0)


def _run(config, inputs, kind, folder, run_dir, console):
    """Makes the rows, the figures and the export of a run."""
    folder.mark(**(manifest.describe() | inputs.facts))
    cache = run_dir / "factors" if _sees_folder(run_dir) else None

    # The table: bounds, static merges, adapted merges, in the order of the file.
    console.print("Putting models and examples together …")
    suite = inputs.build(folder)
    facts = kind.facts(config)
    if config.published is not None:
        facts["published"] = config.published.model_dump()
    comparison = results.Comparison(suite, folder, facts, console)
    for method in dict.fromkeys([*config.compare, config.method]):
        methods.add(comparison, suite, folder, config, method, cache)
    if hosts.is_lead():
        _finish(comparison, suite, folder, config, kind, console)
    hosts.wait()  # until everything is written


def _sees_folder(run_dir):
    """Tells whether this process has the run folder of process 0 on a disk."""
    hosts.wait()  # until process 0 has written it
    file = run_dir / "manifest.json"
    written = file.stat().st_mtime_ns if file.is_file() else 0
    parts = np.array([written // 10**9, written % 10**9], np.uint32)
    return bool((hosts.from_lead(parts) == parts).all())


def _finish(comparison, suite, folder, config, kind, console):
    """Draws the figures, and exports the model for others to load."""
    rows = results.labelled(comparison.rows)
    if suite.is_labelled:
        axis = results_table.axis(suite.metrics, suite.unit)
        figures.task_bars(rows, suite.tasks, folder.path / "figures", axis)
    variables = None
    if config.method.is_adapted:
        variables = methods.read_variables(folder, config.method)
    if variables is not None and config.method.name == "adarank":
        kept = ranks.kept_rank_shares(variables.mask_logits)
        figures.rank_map(kept, suite.tasks, folder.path / "figures")
    if config.export.enabled:
        merged = methods.read_merged(folder)
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
        wants_value = word in _WITH_VALUE
        (options if is_option else plain).append(word)
    return plain + options


def _configuration(options, kind):
    """Reads the file or the preset, the single values behind it, and the run folder."""
    given = _files(options)
    overrides = [word for word in options.what if "=" in word]
    if options.offline:
        overrides.append("offline=true")
    if len(given) > 1:
        raise errors.UsageError(
            "E018", " and ".join(given), expected="one configuration at a time"
        )
    if given:
        file = pathlib.Path(given[0])
        name = file.stem
        commands.check_file(file, kind.config)
        config = yaml_config.read_config(kind.config, file, overrides)
    else:
        name = options.preset
        config = kind.configure(name, overrides)
    run_dir = options.run_dir or config.run_dir or pathlib.Path("runs") / name
    return config, run_dir.expanduser()


def _files(options):
    """Lists what is given as a file."""
    return [word for word in options.what if "=" not in word]


def _make(unmade, config, options, console):
    """Makes what a preset needs, or shows in a plan what that would be."""
    # Training here is not made for several processes.
    is_refused = config.offline or jax.process_count() > 1
    problems = [unmade.problem] if is_refused else []
    if options.plan:
        lines = list(unmade.lines)
        if not problems:
            lines.append(("next", "the same command without --plan"))
        plan.show(plan.Plan(problems, [], lines), results.table_console())
        raise SystemExit(suites.exit_code(problems) if problems else 0)
    suites.refuse(problems)
    unmade.make(console)


def _check(config, kind, run_dir, may_fetch):
    """Checks weights, heads, examples, and what devices, memory and disk allow."""
    inputs = kind.check(config, may_fetch)
    found = [*needs.shortages(config, inputs, run_dir), *needs.idle_devices()]
    if not hosts.is_lead():  # it writes nothing
        found = [each for each in found if each.code != "E401"]
    problems = [*inputs.problems, *(each for each in found if each.code[0] == "E")]
    warnings = [*inputs.warnings, *starts.doubts(config)]
    warnings += [each for each in found if each.code[0] == "W"]
    if any(method.is_adapted for method in (*config.compare, config.method)):
        try:
            parallel.check_batch_size(config.adaptation.batch_size, hosts.devices())
            per_device.choose(config.adaptation.parallel)
        except errors.AdaRankError as error:
            problems += messages.of_error(error)
        except ValueError as error:
            problems.append(Message("E013", str(error)))
    return inputs._replace(problems=problems, warnings=warnings)


def _decisive(config, inputs):
    """Lists, as plain values, all that decides the numbers of a row."""
    return {
        "version": adarank_jax.__version__,
        "merge": config.decisive,
        "inputs": inputs.facts,
    }


_WITH_VALUE = (
    *("--preset", "--run-dir"),
    *("--coordinator", "--num-processes", "--process-id"),
)
