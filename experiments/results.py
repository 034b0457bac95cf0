"""Rows of a comparison: made, measured and written one by one."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from adarank_jax import faults
from adarank_jax.adaptation import evaluate, metrics
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.tree import Tree
from experiments.merge_config import Method, Published
from experiments.messages import printable
from experiments.suite import Suite


class Comparison:
    """The rows of a run, written to `results.json` as soon as each is known.

    Args:
        suite: what is merged and judged.
        folder: of the run; rows that it already holds are not made again.
        facts: plain values that are written beside the rows.
        console: for progress.
    """

    def __init__(
        self,
        suite: Suite,
        folder: RunFolder,
        facts: Mapping[str, Any],
        console: Console,
    ):
        """Reads the rows of an earlier start of the same run."""
        self._suite, self._folder, self._facts = suite, folder, facts
        self.console = console
        self._predictor = evaluate.Predictor(
            suite.encode, suite.classify, collate=suite.collate
        )
        self.rows: list[dict[str, Any]] = folder.read_json("results.json", {}).get(
            "rows", []
        )

    def add(
        self,
        method: Method,
        make: Callable[[], Tree | Sequence[Tree]],
        uses: str,
        name: str | None = None,
    ) -> None:
        """Makes parameters, measures them and writes the row.

        `agreement` is the share of predictions that are the same as those of the task's
        own expert, `per_task_agreement` that of each task; they need no labels. A task
        without labels has no score, and a mean is given only if every task has one.

        Args:
            method: what is measured.
            make: returns the parameters, or one set of them for each task.
            uses: what the method needs beyond the weights.
            name: shown instead of the method's.
        """
        found = names(method, name)
        if self.holds(method, name):
            return
        self.console.print(f"Making and measuring: {label(found)}.")
        started = time.perf_counter()
        made = jax.block_until_ready(make())
        seconds = time.perf_counter() - started
        if made is self._suite.finetuned:
            predictions = self.expert_labels
        else:
            is_one = isinstance(made, Mapping)
            models = [made] * len(self._suite.tasks) if is_one else made
            predictions = self._predict(models)
        faults.point("measured")
        counts = map(evaluate.count, predictions, self.expert_labels)
        agreements = [float(each.share) for each in counts]
        self.rows.append(
            found
            | self._scores(predictions)
            | {
                "agreement": float(np.mean(agreements)),
                "per_task_agreement": dict(
                    zip(self._suite.tasks, agreements, strict=True)
                ),
                "seconds": round(seconds, 2),
                "uses": uses,
            }
        )
        self._folder.write_json(
            "results.json",
            {
                "suite": self._suite.name,
                "tasks": list(self._suite.tasks),
                "metrics": dict(
                    zip(self._suite.tasks, self._suite.metrics, strict=True)
                ),
                **self._facts,
                "rows": self.rows,
            },
        )

    def holds(self, method: Method, name: str | None = None) -> bool:
        """Tells whether a row was made already.

        Args:
            method: what is measured.
            name: shown instead of the method's.
        """
        found = names(method, name)
        return any(found.items() <= row.items() for row in self.rows)

    def tell(self, text: str) -> None:
        """Says what is begun that may take minutes.

        Args:
            text: one line.
        """
        self.console.print(printable(text), soft_wrap=True)

    def _scores(self, predictions):
        """Compares predictions with labels, where there are labels."""
        found = self._judge(predictions)
        tasks = self._suite.tasks
        summary: dict[str, Any] = {
            name: {
                task: None if score is None else getattr(score, field)
                for task, score in zip(tasks, found, strict=True)
            }
            for name, field in _PER_TASK.items()
        }
        summary |= dict.fromkeys(_MEANS)
        known = [score for score in found if score is not None]
        if len(known) == len(found):
            errors = [score.standard_error for score in known]
            bounds = [np.nan if each is None else each.value for each in self._bounds]
            ratios = [
                score.value / bound if bound > 0 else np.nan
                for score, bound in zip(known, bounds, strict=True)
            ]
            summary["mean"] = float(np.mean([score.value for score in known]))
            summary["standard_error"] = float(np.linalg.norm(errors) / len(errors))
            if np.isfinite(ratios).all():
                summary["normalized"] = float(np.mean(ratios))
        return summary

    @functools.cached_property
    def _bounds(self):
        """Scores of every task's own expert, computed once."""
        return self._judge(self.expert_labels)

    def _judge(self, predictions):
        """Scores the predictions of each task by its metric; None without labels."""
        columns = (predictions, self._suite.labels, self._suite.metrics)
        return [
            None if labels is None else metrics.METRICS[metric](predicted, labels)
            for predicted, labels, metric in zip(*columns, strict=True)
        ]

    @functools.cached_property
    def expert_labels(self) -> list[np.ndarray]:
        """What each expert predicts for its own examples, computed once."""
        tasks, found = self._suite.tasks, []
        for number, expert in enumerate(self._suite.finetuned):
            place = f"{number + 1} of {len(tasks)} ({tasks[number]})"
            self.tell(f"Asking expert {place} …")
            found.append(self._predict_task(expert, number))
        return found

    def _predict(self, models):
        """Predicts the classes of every task's test examples with its model."""
        return [self._predict_task(model, i) for i, model in enumerate(models)]

    def _predict_task(self, model, number):
        """Predicts the classes of one task's test examples."""
        suite = self._suite
        return self._predictor.predict(model, suite.heads[number], suite.inputs[number])


def names(method: Method, name: str | None = None) -> dict[str, Any]:
    """Returns what tells a row from all others.

    Args:
        method: what is measured.
        name: shown instead of the method's.
    """
    return method.model_dump(exclude={"name"}) | {"method": name or method.name}


def slug(method: Method) -> str:
    """Names an adaptation in the run folder, for example ``adarank-cart-entropy``."""
    parts = [method.name, method.origin, method.objective]
    if method.coefficient is not None:
        parts.append(f"coefficient{method.coefficient!r}")
    if method.rank_ratio is not None:
        parts.append(f"rank{method.rank_ratio!r}")
    return "-".join(parts)


def label(entry: Mapping[str, Any]) -> str:
    """Names a row in one line, for example ``adarank · cart · entropy``."""
    parts = [entry["method"], entry["origin"]]
    if entry["coefficient"] is not None:
        parts.append(f"λ {entry['coefficient']!r}")
    if entry["rank_ratio"] is not None:
        parts.append(f"rank {entry['rank_ratio']!r}")
    parts.append(entry["objective"])
    return " · ".join(part.replace("_", " ") for part in parts if part)


def labelled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Adds the one-line name to every row."""
    return [{**row, "label": label(row)} for row in rows]


def table_console() -> Console:
    """Writes to standard output: as wide as the terminal, or wide enough in a file."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_WIDTH)


def show_published(published: Published | None, console: Console) -> None:
    """Prints what a paper says about this run, apart from what was measured."""
    if published is None:
        return
    number = "no number" if published.mean is None else f"mean {published.mean:.1f} %"
    source = f" ({published.source})" if published.source else ""
    console.print(
        f"Published, league {published.league}: {number}{source}; not reproduced here "
        "until a table of this project says so.",
        highlight=False,
        markup=False,
    )


def show_presets(presets: Mapping[str, Any], console: Console) -> None:
    """Prints the name and one line of every preset."""
    table = Table("preset", "what it is", box=None)
    for name, preset in presets.items():
        table.add_row(name, preset.summary)
    console.print(table)


_FILE_WIDTH = 200
_MEANS = ("mean", "standard_error", "normalized")
_PER_TASK = {"per_task": "value", "per_task_standard_error": "standard_error"}
