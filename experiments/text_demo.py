"""The text demo: a pretrained MiniLM, texts out of packages, experts made on first use.

    python -m experiments.text_demo                      # make base, data and experts
    python -m experiments.run_glue --preset text-demo    # ... and merge them

What it makes is an ordinary text run: a base and experts as transformers saves them,
and JSON lines. docs/text_demo.md lists where each text comes from and its licence.
"""

import dataclasses
import functools
import json
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rich.console import Console

from adarank_jax.checkpoints import language
from experiments import cli
from experiments import text_demo_archives as archives
from experiments import text_demo_cache as places
from experiments import text_demo_data as data
from experiments import text_demo_experts as making
from experiments.text_demo_archives import Archive
from experiments.text_demo_data import Example, Split
from experiments.text_demo_tasks import BUCKETS, MAX_LENGTH, RECIPES, SEED, TASKS, Task
from experiments.text_training import Recipe


class Missing(NamedTuple):
    """What is not in the cache yet.

    Attributes:
        archives: to download.
        experts: to train.
    """

    archives: tuple[Archive, ...]
    experts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Options:
    """Makes base, texts and experts of the text demo; a second start goes on."""

    cache: pathlib.Path | None = None
    """Folder to keep them in; a folder of the user's caches by default."""


def main(options: Options) -> None:
    """Prepares everything and says where it is."""
    console = Console(stderr=True, highlight=False, markup=False)
    values = prepare(options.cache or places.default(), console)
    console.print(f"Everything is in {pathlib.Path(values['base']).parents[1]}.")


def values(
    cache: pathlib.Path,
    tasks: Mapping[str, Task] | None = None,
    recipes: Mapping[str, Recipe] | None = None,
) -> dict[str, Any]:
    """Lists the fields of the run's configuration; makes nothing.

    Args:
        cache: as for `prepare`.
        tasks: those of the demo by default.
        recipes: how each expert is trained.

    Returns:
        Plain values; an expert is where it will be only if base and texts are made.
    """
    tasks, recipes = tasks or TASKS, recipes or RECIPES
    base, experts = places.base_folder(cache), {}
    for name, task in tasks.items():
        texts = places.data_folder(cache, name, task)
        expert = places.expert_folder(cache, name, recipes[name], base, texts)
        source = {"jsonl": str(texts / "test.jsonl"), "columns": ["text"]}
        experts[name] = {
            "model": str(expert),
            "data": source | {"label_column": "label"},
        }
    return {
        "base": str(base),
        "experts": experts,
        "max_length": MAX_LENGTH,
        "buckets": list(BUCKETS),
        "method": METHOD,
        "compare": COMPARE,
        "adaptation": ADAPTATION,
    }


def missing(
    cache: pathlib.Path,
    tasks: Mapping[str, Task] | None = None,
    recipes: Mapping[str, Recipe] | None = None,
) -> Missing:
    """Lists what `prepare` would download and train; changes nothing.

    Args:
        cache: as for `prepare`.
        tasks: those of the demo by default.
        recipes: how each expert is trained.

    Raises:
        DamageError: a folder in the cache is damaged.
    """
    tasks, recipes = tasks or TASKS, recipes or RECIPES
    base = places.base_folder(cache)
    needed = [] if places.is_made(base) else [archives.BASE]
    experts = []
    for name, task in tasks.items():
        texts = places.data_folder(cache, name, task)
        if not places.is_made(texts):
            needed.append(task.archive)
        expert = places.expert_folder(cache, name, recipes[name], base, texts)
        if not places.is_made(expert):
            experts.append(name)
    there = cache / "archives"
    absent = [each for each in needed if not (there / each.filename).exists()]
    return Missing(tuple(dict.fromkeys(absent)), tuple(experts))


def lines(cache: pathlib.Path, found: Missing) -> list[tuple[str, str]]:
    """Says what has to be made before the first run, for a plan.

    Args:
        cache: as for `prepare`.
        found: what is missing.

    Returns:
        Pairs of a heading and a text.
    """
    described = [("cache", str(cache))]
    if found.archives:
        each = ", ".join(
            f"{a.package} {a.version} ({a.num_bytes / 1e6:.0f} MB)"
            for a in found.archives
        )
        total = sum(archive.num_bytes for archive in found.archives) / 1e6
        described.append(("fetch", f"with pip's settings: {each}; {total:.0f} MB"))
    if found.experts:
        minutes = _MINUTES * len(found.experts)
        described.append(
            (
                "train",
                f"{len(found.experts)} experts ({', '.join(found.experts)}), once; "
                f"about {minutes:.0f} min on two cores of a CPU",
            )
        )
    return described


def prepare(
    cache: pathlib.Path,
    console: Console,
    tasks: Mapping[str, Task] | None = None,
    recipes: Mapping[str, Recipe] | None = None,
    base: Callable[[pathlib.Path], dict[str, bytes]] | None = None,
) -> dict[str, Any]:
    """Makes base, texts and experts, each whole or not at all; goes on where it was.

    Args:
        cache: folder; each thing has a folder in it that is named by what makes it,
            so that a change of one task makes that task again and nothing else.
        console: for progress.
        tasks: those of the demo by default.
        recipes: how each expert is trained.
        base: reads the files of the pretrained model out of its archive's path.

    Returns:
        Fields of a configuration of a text run.

    Raises:
        UnreachableError: an archive is missing and cannot be downloaded.
        InputError: an archive is damaged.
        DamageError: a folder in the cache is damaged.
    """
    tasks, recipes = tasks or TASKS, recipes or RECIPES
    fetch = functools.partial(
        archives.fetch, folder=cache / "archives", console=console
    )
    origin = places.base_folder(cache)
    if not places.is_made(origin):
        files = (base or making.read_base)(fetch(archives.BASE))
        places.write(origin, files | {"README.md": making.base_card()})
    checkpoint = language.read_language(str(origin), offline=True)
    for name, task in tasks.items():
        texts = places.data_folder(cache, name, task)
        if not places.is_made(texts):
            path = fetch(task.archive)
            wanted = re.compile(task.wanted).fullmatch
            files = archives.read(path, wanted, task.inner)
            drawn = data.split(task.extract(files), SEED, task.num_train, task.num_test)
            places.write(texts, _as_json_lines(drawn))
    for number, (name, task) in enumerate(tasks.items(), start=1):
        recipe, texts = recipes[name], places.data_folder(cache, name, task)
        target = places.expert_folder(cache, name, recipe, origin, texts)
        if not places.is_made(target):
            label = f"expert {name} ({number} of {len(tasks)})"
            train = making.read_examples(texts / "train.jsonl")
            states = cache / "training" / target.name
            files = making.make_expert(
                checkpoint, train, recipe, label, console, states
            )
            places.write(target, files | {"README.md": making.expert_card(name, task)})
            shutil.rmtree(states, ignore_errors=True)
    return values(cache, tasks, recipes)


def _as_json_lines(drawn: Split) -> dict[str, bytes]:
    """Turns both sides of a task to files."""
    return {
        f"{side}.jsonl": "".join(map(_line, examples)).encode()
        for side, examples in drawn._asdict().items()
    }


def _line(example: Example) -> str:
    """Turns an example to a line of JSON."""
    values = {"text": example.text, "label": example.label}
    return json.dumps(values, ensure_ascii=False) + "\n"


METHOD = {"name": "adarank", "origin": "tsv_m"}
COMPARE = [
    {"name": "pretrained"},
    {"name": "individual"},
    {"name": "weight_averaging"},
    {"name": "task_arithmetic"},
    {"name": "cart", "coefficient": 1.6, "rank_ratio": 0.04},
    {"name": "tsv_m"},
    {"name": "iso_c"},
    {"name": "adamerging", "origin": "task_arithmetic"},
]
"""Those of CART are the authors' for RoBERTa; the others are those of `starts`."""

ADAPTATION = {"num_steps": 160, "batch_size": 8, "learning_rate": 1e-3}
"""A short run, so that the whole comparison takes less than ten minutes.

Batch, temperature and the starts are the authors' (of AdaRank from TSV-M there is no
code; its start is TSV-M's own). Steps and rate are ours: a short run with ten times
their rate. Theirs are ``adaptation.num_steps=5000 adaptation.learning_rate=1e-4``.
"""

_MINUTES = 2  # an expert takes, on two cores


if __name__ == "__main__":
    cli.run(main, Options)
