"""Rows of a comparison, and the table that shows them."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adarank_jax.adaptation import evaluate, metrics
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.tree import Tree
from experiments.merge_config import Method, Published
from experiments.suite import Metric, Suite, judged_by


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
        own expert; it needs no labels. A task without labels has no score, and a mean
        is given only if every task has one.

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
        agreements = [*map(evaluate.count, predictions, self.expert_labels)]
        self.rows.append(
            found
            | self._scores(predictions)
            | {
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
        return self._predict(self._suite.finetuned)

    def _predict(self, models):
        """Predicts the classes of every task's test examples with its model."""
        suite = self._suite
        return [
            self._predictor.predict(*example)
            for example in zip(models, suite.heads, suite.inputs, strict=True)
        ]


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


def axis(metrics: Sequence[Metric], unit: str) -> str:
    """Names what a figure of the scores shows, for example ``accuracy on …, %``.

    Args:
        metrics: of each task.
        unit: what the examples are.

    Examples:
        >>> axis(["accuracy", "matthews"], "texts")
        'accuracy or Matthews correlation on test texts, %'
    """
    return f"{_score(metrics)} on test {unit}, %"


def title(tasks: Sequence[str], metrics: Sequence[Metric], unit: str) -> str:
    """Says what the scores of a table are, and which task has which metric.

    Args:
        tasks: names.
        metrics: of each task.
        unit: what the examples are.

    Examples:
        >>> title(["mnist"], ["accuracy"], "images")
        'Accuracy on the test images, %, with binomial standard errors'
    """
    if {*metrics} == {"accuracy"}:
        return f"Accuracy on the test {unit}, %, with binomial standard errors"
    judged = judged_by(tasks, metrics)
    return f"Scores on the test {unit} x 100, with standard errors: {judged}"


def show(rows: Sequence[Mapping[str, Any]], suite: Suite, console: Console) -> None:
    """Prints the rows, worst first, in percent; one column a task if there is room.

    Without labels there are no scores: then rows are in the order of agreement with
    the experts.
    """
    is_labelled = all(row["mean"] is not None for row in rows)
    table = Table(
        title=escape(title(suite.tasks, suite.metrics, suite.unit)),
        caption=f"normalized: mean over tasks of {_score(suite.metrics)} / that of the "
        "task's own expert; agreement: share of predictions that are the expert's own; "
        "seconds: to make the model. Labels were used for this table only.",
    )
    if not is_labelled:
        table.title = "Agreement with each task's own expert, %"
        table.caption = "No labels, so no scores for all tasks."
    table.add_column("method", no_wrap=True)
    columns = dict(zip(suite.tasks, suite.metrics, strict=True))
    needed = 110 + sum(max(len(task), 5) + 3 for task in columns)
    if console.is_terminal and console.width < needed:
        table.caption = f"{table.caption} Scores by task are in results.json."
        columns = {}
    for task, metric in columns.items():
        shown = task if metric == "accuracy" else f"{task} (Matthews)"
        table.add_column(escape(shown), justify="right")
    for name in ("mean", "normalized", "agreement", "seconds"):
        if is_labelled or name in ("agreement", "seconds"):
            table.add_column(name, justify="right", no_wrap=True)
    table.add_column("uses")
    key = "mean" if is_labelled else "agreement"
    for entry in sorted(rows, key=lambda entry: entry[key]):
        cells = [_percent(entry["per_task"][task], 1) for task in columns]
        if is_labelled:
            error = _percent(entry["standard_error"], 2)
            cells += [f"{_percent(entry['mean'], 2)} ± {error}"]
            cells += [_percent(entry["normalized"], 1)]
        cells += [_percent(entry["agreement"], 1), f"{entry['seconds']:.1f}"]
        table.add_row(escape(entry["label"]), *cells, entry["uses"])
    console.print(table)


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


def _score(metrics):
    """Names what the tasks are judged by."""
    return " or ".join(_NAMES[each] for each in sorted({*metrics}))


def _percent(share, digits):
    """Shows a share in percent, or a dash if it is not known."""
    return "–" if share is None else f"{100 * share:.{digits}f}"


_FILE_WIDTH = 200
_MEANS = ("mean", "standard_error", "normalized")
_NAMES = {"accuracy": "accuracy", "matthews": "Matthews correlation"}
_PER_TASK = {"per_task": "value", "per_task_standard_error": "standard_error"}
