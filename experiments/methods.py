"""The rows of a table: how the model of each method is made, and what is kept of it."""

import functools
import pathlib

import jax
import numpy as np

from adarank_jax import tree
from adarank_jax.adaptation import canaries, hosts
from adarank_jax.adaptation.loop import Problem, adapt
from adarank_jax.adaptation.objectives import OBJECTIVES
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.adaptation.step import Batch
from adarank_jax.checkpoints import files
from adarank_jax.core import masks, merge
from adarank_jax.core.merge import Variables
from adarank_jax.data.batches import TaskBatches
from adarank_jax.tree import Tree
from experiments import results, sizes, starts
from experiments import suite as suites
from experiments.merge_config import MergeConfig, Method
from experiments.results import Comparison
from experiments.suite import Suite
from experiments.svd_progress import SvdProgress


def add(
    comparison: Comparison,
    suite: Suite,
    folder: RunFolder,
    config: MergeConfig,
    method: Method,
    cache: pathlib.Path | None,
) -> None:
    """Adds the rows of one method to the table, and keeps the model that it makes.

    Of several processes all train together, and process 0 does everything else.

    Args:
        comparison: gets the rows.
        suite: what is merged and judged.
        folder: of the run.
        config: of the run.
        method: one of the run's.
        cache: folder of factors; None where only another process can read it.
    """
    if method.is_adapted:
        _add_adapted(comparison, suite, folder, config, method, cache)
    elif not hosts.is_lead():
        return  # one process is enough where nothing is trained
    elif method.name == "individual":
        comparison.add(method, lambda: suite.finetuned, "one model a task")
    elif method.name == "pretrained":
        comparison.add(method, lambda: suite.pretrained, "nothing")
    else:
        hyper = method.model_dump(
            include={"coefficient", "rank_ratio"}, exclude_none=True
        )

        def made():
            models = (suite.pretrained, suite.finetuned, suite.is_decomposed)
            if method.name in starts.DECOMPOSING:
                comparison.tell(_splitting(suite))
            with SvdProgress(comparison.console) as progress:
                chosen = (suite.is_merged, config.svd_backend, progress)
                merged = starts.merge_static(method.name, *models, *chosen, **hyper)
            if method == config.method:
                files.write(folder.path / _MERGED, merged)
            return merged

        comparison.add(method, made, "nothing")


def _add_adapted(comparison, suite, folder, config, method, cache):
    """Adds the static start of an adaptation, and what it becomes."""
    if hosts.from_lead(np.int32(comparison.holds(method))):
        return
    start = starts.get(method)
    origin, factors = _start(comparison, suite, config, method, start, cache)
    if method.name == "adarank" and hosts.is_lead():
        static = (origin, factors, start.coefficient, start.rank_ratio)
        make = functools.partial(merge.static_params, *static)
        at_start = method.model_copy(update={"objective": None})
        comparison.add(at_start, make, "nothing", "adarank at step 0")

    def adapted():
        merged = _adapt(comparison, suite, folder, config, method, origin, factors)
        if method == config.method:
            files.write(folder.path / _MERGED, merged)
        return merged

    if not hosts.is_lead():
        _adapt(comparison, suite, folder, config, method, origin, factors)
        return
    uses = f"unlabelled test {suite.unit}"
    if method.objective == "expert_labels":
        uses += ", experts' predictions on them"
    comparison.add(method, adapted, uses)


def _start(comparison, suite, config, method, start, cache):
    """Builds origin and factors, first in process 0 where others can read its cache."""
    build = starts.build if method.name == "adarank" else starts.build_dense
    make = functools.partial(
        build,
        start,
        suite.pretrained,
        suite.finetuned,
        suite.is_decomposed,
        cache,
        suite.is_merged,
        config.svd_backend,
    )
    waits = not hosts.is_lead() and cache is not None
    if waits:
        hosts.wait()
    if config.svd_backend == "device":
        canaries.check(jax.local_devices()[0], decomposes=True)
    if sizes.is_decomposing(method):
        comparison.tell(_splitting(suite, ", or reading them from the run folder"))
    with SvdProgress(comparison.console) as progress:
        origin, factors = make(report=progress)
    if not waits:
        hosts.wait()
    # One row of u has a number of every direction: another SVD would show in it.
    leaves = jax.tree.leaves(tree.flatten(factors))
    hosts.check_same(
        "the factors, which depend on cores and BLAS; put the run folder on a disk "
        "that all machines share, and they are read from there",
        b"".join(np.ascontiguousarray(leaf[:1]).tobytes() for leaf in leaves),
    )
    return origin, factors


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
        labels = [np.zeros(len(inputs), np.int32) for inputs in suite.inputs]
        labels = comparison.expert_labels if hosts.is_lead() else labels
        columns.append(hosts.from_lead(labels))
    examples = list(zip(*columns, strict=True))
    batches = _batches(suite, examples, config)
    start = starts.get(method)
    what = "masks and coefficients" if method.name == "adarank" else "coefficients"
    comparison.tell(f"Adapting {what} on {suite.unit}; the first step is compiled …")
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
        batches,
        settings,
        folder,
        results.slug(method),
    )
    if not hosts.is_lead():
        return None
    # What is measured and exported is what the host merges from bits, so that anybody
    # can make the same weights again.
    files.write(
        _merge_folder(folder, method) / _VARIABLES,
        tree.without_none(variables._asdict()),
    )
    kept = merge.kept_directions(variables.mask_logits, settings.temperature)
    return merge.hard_merged_params(origin, factors, variables.coefficients, kept)


def _batches(suite, examples, config):
    """Returns a function that yields this process's part of every batch from a step on.

    The longest text of a whole batch decides how long all of it is, so texts, which are
    in memory anyway, are shared after they were collated.
    """
    part, num_parts = jax.process_index(), jax.process_count()
    is_collated = suite.collate is not suites.identity
    batches = TaskBatches(
        examples,
        config.adaptation.batch_size,
        config.seed,
        config.shuffle,
        *((0, 1) if is_collated else (part, num_parts)),
    )

    def from_step(first):
        for inputs, *labels in batches.stream(first):
            batch = Batch(suite.collate(inputs), *labels)
            if is_collated:
                batch = jax.tree.map(
                    lambda leaf: np.split(leaf, num_parts, axis=1)[part], batch
                )
            yield batch

    return from_step


def read_variables(folder: RunFolder, method: Method) -> Variables:
    """Reads what an adaptation trained.

    Args:
        folder: of the run.
        method: that was adapted.
    """
    held = files.read(_merge_folder(folder, method) / _VARIABLES)
    return Variables(held["coefficients"], held.get("mask_logits", {}))


def read_merged(folder: RunFolder) -> Tree:
    """Reads the weights of the run's method.

    Args:
        folder: of the run.
    """
    return files.read(folder.path / _MERGED)


def _merge_folder(folder, method):
    """Names the folder of one adaptation."""
    return folder.path / "adapted" / results.slug(method)


_MERGED = "merged.safetensors"
_VARIABLES = "variables.safetensors"
