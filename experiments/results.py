"""Rows of a comparison, and the table that shows them."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from adarank_jax.adaptation import evaluate
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.tree import Tree
from experiments.suite import Suite


class Comparison:
    """The rows of a run, written to `results.json` as soon as each is known.

    Args:
        suite: what is merged and judged.
        folder: of the run; rows that it already holds are not made again.
    """

    def __init__(self, suite: Suite, folder: RunFolder):
        """Reads the rows of an earlier start of the same run."""
        self._suite, self._folder = suite, folder
        self._predictor = evaluate.Predictor(suite.encode, suite.classify)
        self.rows: list[dict[str, Any]] = folder.read_json("results.json", {}).get(
            "rows", []
        )

    def add(
        self,
        method: str,
        make: Callable[[], Tree | Sequence[Tree]],
        uses: str,
        origin: str | None = None,
        objective: str | None = None,
    ) -> None:
        """Makes parameters, measures them and writes the row.

        `agreement` is the share of predictions that are the same as those of the task's
        own expert; it needs no labels.

        Args:
            method: name of the merge.
            make: returns the parameters, or one set of them for each task.
            uses: what the method needs beyond the weights.
            origin: that adaptation started from.
            objective: that adaptation minimised.
        """
        names = {"method": method, "origin": origin, "objective": objective}
        if any(names.items() <= row.items() for row in self.rows):
            return
        started = time.perf_counter()
        made = jax.block_until_ready(make())
        seconds = time.perf_counter() - started
        is_one = isinstance(made, Mapping)
        models = [made] * len(self._suite.tasks) if is_one else made
        predictions, labels = self._predict(models), self._suite.labels
        accuracies = [*map(evaluate.count, predictions, labels)]
        experts = [*map(evaluate.count, self.expert_labels, labels)]
        agreements = [*map(evaluate.count, predictions, self.expert_labels)]
        shares = [each.share for each in accuracies]
        errors = [each.standard_error for each in accuracies]
        bounds = [each.share for each in experts]
        self.rows.append(
            names
            | {
                "per_task": dict(zip(self._suite.tasks, shares, strict=True)),
                "mean": float(np.mean(shares)),
                "standard_error": float(np.linalg.norm(errors) / len(errors)),
                "normalized": float(np.mean(np.divide(shares, bounds))),
                "agreement": float(np.mean([each.share for each in agreements])),
                "seconds": round(seconds, 2),
                "uses": uses,
            }
        )
        self._folder.write_json(
            "results.json",
            {
                "suite": self._suite.name,
                "tasks": list(self._suite.tasks),
                "rows": self.rows,
            },
        )

    @functools.cached_property
    def expert_labels(self) -> list[np.ndarray]:
        """What each expert predicts for its own images, computed once."""
        return self._predict(self._suite.finetuned)

    def _predict(self, models):
        """Predicts the classes of every task's test images with its model."""
        suite = self._suite
        return [
            self._predictor.predict(*example)
            for example in zip(models, suite.heads, suite.images, strict=True)
        ]


def slug(method: str, origin: str, objective: str) -> str:
    """Names an adaptation in the run folder, for example ``adarank-cart-entropy``."""
    return f"{method}-{origin}-{objective}"


def label(entry: Mapping[str, Any]) -> str:
    """Names a row in one line, for example ``adarank · cart · entropy``."""
    parts = (entry["method"], entry["origin"], entry["objective"])
    return " · ".join(part.replace("_", " ") for part in parts if part)


def labelled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Adds the one-line name to every row."""
    return [{**row, "label": label(row)} for row in rows]


def table_console() -> Console:
    """Writes to standard output: as wide as the terminal, or wide enough in a file."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_WIDTH)


def show(
    rows: Sequence[Mapping[str, Any]], tasks: Sequence[str], console: Console
) -> None:
    """Prints the rows, worst first, in percent; one column a task if there is room."""
    table = Table(
        title="Accuracy on the test images, %, with binomial standard errors",
        caption="normalized: mean over tasks of accuracy / accuracy of the task's own "
        "expert. Labels were used for this table only.",
    )
    table.add_column("method", no_wrap=True)
    needed = 110 + sum(max(len(task), 5) + 3 for task in tasks)
    if console.is_terminal and console.width < needed:
        table.caption = f"{table.caption} Accuracies by task are in results.json."
        tasks = []
    for task in tasks:
        table.add_column(task, justify="right")
    for name in ("mean", "normalized", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("uses")
    for entry in sorted(rows, key=lambda entry: entry["mean"]):
        table.add_row(
            entry["label"],
            *(f"{100 * entry['per_task'][task]:.1f}" for task in tasks),
            f"{100 * entry['mean']:.2f} ± {100 * entry['standard_error']:.2f}",
            f"{100 * entry['normalized']:.1f}",
            f"{entry['seconds']:.1f}",
            entry["uses"],
        )
    console.print(table)


_FILE_WIDTH = 190
