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

from adarank_jax.adaptation import evaluate
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.tree import Tree
from experiments.merge_config import Method, Published
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
        self._console = console
        self._predictor = evaluate.Predictor(suite.encode, suite.classify)
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
        own expert; it needs no labels. A task without labels has no accuracy, and a
        mean is given only if every task has one.

        Args:
            method: what is measured.
            make: returns the parameters, or one set of them for each task.
            uses: what the method needs beyond the weights.
            name: shown instead of the method's.
        """
        found = names(method, name)
        if any(found.items() <= row.items() for row in self.rows):
            return
        self._console.print(f"Making and measuring: {label(found)}.")
        started = time.perf_counter()
        made = jax.block_until_ready(make())
        seconds = time.perf_counter() - started
        is_one = isinstance(made, Mapping)
        models = [made] * len(self._suite.tasks) if is_one else made
        predictions = self._predict(models)
        agreements = [*map(evaluate.count, predictions, self.expert_labels)]
        self.rows.append(
            found
            | self._accuracies(predictions)
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
                **self._facts,
                "rows": self.rows,
            },
        )

    def _accuracies(self, predictions):
        """Compares predictions with labels, where there are labels."""
        labels = self._suite.labels
        found = [
            None if these is None else evaluate.count(those, these)
            for those, these in zip(predictions, labels, strict=True)
        ]
        shares = {
            task: None if each is None else each.share
            for task, each in zip(self._suite.tasks, found, strict=True)
        }
        summary = {"per_task": shares} | dict.fromkeys(_MEANS)
        known = [each for each in found if each is not None]
        if len(known) == len(found):
            experts = [*map(evaluate.count, self.expert_labels, labels)]
            errors = [each.standard_error for each in known]
            ratios = [
                each.share / bound.share if bound.share else np.nan
                for each, bound in zip(known, experts, strict=True)
            ]
            summary["mean"] = float(np.mean([each.share for each in known]))
            summary["standard_error"] = float(np.linalg.norm(errors) / len(errors))
            if np.isfinite(ratios).all():
                summary["normalized"] = float(np.mean(ratios))
        return summary

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


def show(
    rows: Sequence[Mapping[str, Any]], tasks: Sequence[str], console: Console
) -> None:
    """Prints the rows, worst first, in percent; one column a task if there is room.

    Without labels there are no accuracies: then rows are in the order of agreement with
    the experts.
    """
    is_labelled = all(row["mean"] is not None for row in rows)
    table = Table(
        title="Accuracy on the test images, %, with binomial standard errors",
        caption="normalized: mean over tasks of accuracy / accuracy of the task's own "
        "expert; agreement: share of predictions that are the expert's own; seconds: "
        "to make the model. Labels were used for this table only.",
    )
    if not is_labelled:
        table.title = "Agreement with each task's own expert, %"
        table.caption = "No labels, so no accuracies for all tasks."
    table.add_column("method", no_wrap=True)
    needed = 110 + sum(max(len(task), 5) + 3 for task in tasks)
    if console.is_terminal and console.width < needed:
        table.caption = f"{table.caption} Accuracies by task are in results.json."
        tasks = []
    for task in tasks:
        table.add_column(escape(task), justify="right")
    for name in ("mean", "normalized", "agreement", "seconds"):
        if is_labelled or name in ("agreement", "seconds"):
            table.add_column(name, justify="right", no_wrap=True)
    table.add_column("uses")
    key = "mean" if is_labelled else "agreement"
    for entry in sorted(rows, key=lambda entry: entry[key]):
        cells = [_percent(entry["per_task"][task], 1) for task in tasks]
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


def _percent(share, digits):
    """Shows a share in percent, or a dash if it is not known."""
    return "–" if share is None else f"{100 * share:.{digits}f}"


_FILE_WIDTH = 200
_MEANS = ("mean", "standard_error", "normalized")
