"""Merges the experts of a vision suite by AdaRank and compares with static merges.

    python -m experiments.run_vit                       # the embedded suite, default
    python -m experiments.run_vit --compare all         # AdaRank on every origin
    python -m experiments.run_vit --preset cart --adaptation.num-steps 1000

Needs no network and no labels: labels of the test images are used for the table only.
The same command on the same run folder resumes where it stopped.
"""

import dataclasses
import functools
import pathlib
from typing import Annotated, Literal

import jax
import tyro
from rich.console import Console

import adarank_jax
from adarank_jax import mergers, tree
from adarank_jax.adaptation import parallel
from adarank_jax.adaptation.loop import AdaptationConfig, Problem, adapt
from adarank_jax.adaptation.objectives import OBJECTIVES
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.adaptation.step import Batch
from adarank_jax.analysis import figures, ranks
from adarank_jax.checkpoints import files
from adarank_jax.core import masks, merge, task_vectors
from adarank_jax.data.batches import TaskBatches
from experiments import cli, manifest, presets, results
from experiments import suite as suites


@dataclasses.dataclass(frozen=True)
class Config:
    """Merges experts by AdaRank; writes table, metrics, merged weights and figures."""

    run_dir: pathlib.Path = pathlib.Path("runs/embedded")
    """Folder of the run. A second start with the same options resumes it."""

    preset: str = "tsv_m"
    """Where AdaRank starts: task_arithmetic, cart or tsv_m, with published settings.
    The default is the start whose predictions agree most with the experts' own."""

    objective: Literal["entropy", "expert_labels"] = "entropy"
    """Which AdaRank becomes merged.safetensors and the heat map: the paper's objective,
    or cross-entropy against each expert's own predictions. Both are in the table."""

    compare: Literal["default", "all"] = "default"
    """`default`: AdaRank on the preset. `all`: AdaRank on every origin."""

    tasks: tuple[str, ...] = ()
    """Tasks of the suite to merge; all of them if none is named."""

    seed: int = 0
    """Of the order of the unlabelled images."""

    adaptation: AdaptationConfig = AdaptationConfig(
        num_steps=300, batch_size=16, checkpoint_every=100
    )
    """How masks and coefficients are trained. The paper takes 10,000 steps."""

    restart: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Throw away an earlier run in the run folder."""


def main(config: Config) -> None:
    """Runs the comparison from top to bottom."""
    # The starts of AdaRank are fixed here, before anything is measured.
    chosen = presets.get(config.preset)
    starts = presets.PRESETS.values() if config.compare == "all" else [chosen]
    tasks = suites.task_names(config.tasks)
    parallel.check_batch_size(config.adaptation.batch_size, jax.local_devices())
    folder = RunFolder(config.run_dir, _decisive(config), config.restart)
    folder.write_json("manifest.json", manifest.describe())
    suite = suites.load_embedded(tasks)
    comparison = results.Comparison(suite, folder)
    models = (suite.pretrained, suite.finetuned, suite.is_decomposed)

    # Where merging starts and what it can hope for.
    comparison.add("individual", lambda: suite.finetuned, "one model a task")
    comparison.add("pretrained", lambda: suite.pretrained, "nothing")

    # Static merges, with their published hyper-parameters.
    for name, merger in mergers.MERGERS.items():
        comparison.add(name, functools.partial(merger, *models), "nothing")

    # AdaMerging is our step with every mask held at one, so nothing is decomposed.
    arithmetic = presets.get("task_arithmetic")
    vectors = task_vectors.task_vectors(suite.pretrained, suite.finetuned)
    run = functools.partial(_compare_adapted, comparison, suite, folder, config)
    run("adamerging", arithmetic, suite.pretrained, vectors, "entropy")

    # AdaRank: masks and coefficients, on the paper's objective and on expert labels.
    for preset in starts:
        origin, factors = presets.start(preset, *models, folder.path / "factors")
        static = (origin, factors, preset.coefficient, preset.rank_ratio)
        comparison.add(
            "adarank at step 0",
            functools.partial(merge.static_params, *static),
            "nothing",
            preset.origin,
        )
        for objective in OBJECTIVES:
            run("adarank", preset, origin, factors, objective)

    # The model of the chosen preset, the table and the figures.
    name = results.slug("adarank", chosen.origin, config.objective)
    adapted = folder.path / "adapted" / name
    merged = (adapted / "merged.safetensors").read_bytes()
    files.write_whole(folder.path / "merged.safetensors", merged)
    variables = files.read(adapted / "variables.safetensors")
    kept = ranks.kept_rank_shares(variables["mask_logits"])
    rows = results.labelled(comparison.rows)
    figures.task_bars(rows, suite.tasks, folder.path / "figures")
    figures.rank_map(kept, suite.tasks, folder.path / "figures")
    results.show(rows, suite.tasks, results.table_console())
    Console(stderr=True).print(
        f"Everything is in {folder.path}.", highlight=False, markup=False
    )


def _compare_adapted(
    comparison, suite, folder, config, method, preset, origin, factors, objective
):
    """Adds the row of one adaptation, and keeps its variables and merged weights."""
    name = results.slug(method, preset.origin, objective)

    def adapted():
        labels = comparison.expert_labels if objective == "expert_labels" else None
        columns = [suite.images] if labels is None else [suite.images, labels]
        batches = TaskBatches(
            list(zip(*columns, strict=True)), config.adaptation.batch_size, config.seed
        )
        mask = functools.partial(
            masks.straight_through, temperature=config.adaptation.temperature
        )
        variables, merged = adapt(
            Problem(
                tasks=suite.tasks,
                encode=suite.encode,
                classify=suite.classify,
                heads=suite.heads,
                origin=origin,
                factors=factors,
                mask=mask,
            ),
            merge.init_variables(factors, preset.coefficient, preset.rank_ratio),
            OBJECTIVES[objective],
            lambda step: Batch(*batches[step]),
            config.adaptation,
            folder,
            name,
        )
        files.write(
            folder.path / "adapted" / name / "variables.safetensors",
            tree.without_none(variables._asdict()),
        )
        files.write(folder.path / "adapted" / name / "merged.safetensors", merged)
        return merged

    uses = "unlabelled test images"
    if objective == "expert_labels":
        uses += ", experts' predictions on them"
    comparison.add(method, adapted, uses, preset.origin, objective)


def _decisive(config):
    """Lists, as plain values, all that decides the numbers of a row."""
    return {
        "version": adarank_jax.__version__,
        "tasks": list(config.tasks),
        "seed": config.seed,
        "starts": {name: list(preset) for name, preset in presets.PRESETS.items()},
        "weights": suites.read_manifest(suites.ASSETS)["sha256"],
        **dataclasses.asdict(config.adaptation),
    }


if __name__ == "__main__":
    cli.run(main, Config)
