"""The table that a run ends with, as wide as it may be.

A terminal that is too narrow for all columns gets the scores of the tasks in tables of
their own, with long names folded, before the summary.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.suite import Metric, Suite, judged_by


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
        tasks: names of those that have labels.
        metrics: of each of them.
        unit: what the examples are.

    Examples:
        >>> title(["mnist"], ["accuracy"], "images")
        'Accuracy on the test images, %, with binomial standard errors'
        >>> title([], [], "images")
        "Agreement with each task's own expert, %"
    """
    if not tasks:
        return "Agreement with each task's own expert, %"
    if {*metrics} == {"accuracy"}:
        return f"Accuracy on the test {unit}, %, with binomial standard errors"
    judged = judged_by(tasks, metrics)
    return f"Scores on the test {unit} x 100, with standard errors: {judged}"


def show(rows: Sequence[Mapping[str, Any]], suite: Suite, console: Console) -> None:
    """Prints the rows, worst first, in percent.

    Where a task has no labels there is no mean: then rows are in the order of agreement
    with the experts. Where none has, the columns of the tasks show that agreement.

    Args:
        rows: with their labels.
        suite: what they are of.
        console: gets the table.
    """
    known = zip(suite.tasks, suite.metrics, suite.labels, strict=True)
    judged = {task: metric for task, metric, labels in known if labels is not None}
    has_mean = len(judged) == len(suite.tasks)
    rows = sorted(rows, key=lambda row: row["mean" if has_mean else "agreement"])
    method = _Column("method", [row["label"] for row in rows], is_text=True)
    tasks = [_task_column(task, judged, rows) for task in suite.tasks]
    summary, costs = _summary(rows, has_mean), _costs(rows)
    heading = title([*judged], [*judged.values()], suite.unit)
    caption = _caption(suite.tasks, judged, has_mean)
    if _fits([method, *tasks, *summary, *costs], console):
        _print([method, *tasks, *summary, *costs], heading, caption, console)
        return
    for number, part in enumerate(_parts(method, tasks, console)):
        _print([method, *part], heading if number == 0 else "", "", console)
    if _fits([method, *summary, *costs], console):
        summary += costs
    else:
        caption += " Seconds and data that a method uses are in results.json."
    _print([method, *summary], "", caption, console)


class _Column(NamedTuple):
    """A column: texts to the left, which may be folded, or numbers to the right."""

    name: str
    cells: list[str]
    is_text: bool = False


def _task_column(task, judged, rows):
    """Shows the scores of a task, or its agreement where no task has a score."""
    name = f"{task} (Matthews)" if judged.get(task) == "matthews" else task
    field = "per_task" if judged else "per_task_agreement"
    # Rows that an earlier version wrote have no agreement of each task.
    return _Column(name, [_percent(row.get(field, {}).get(task), 1) for row in rows])


def _summary(rows, has_mean):
    """Shows what all tasks together have."""
    columns = [_Column("agreement", [_percent(row["agreement"], 1) for row in rows])]
    if not has_mean:
        return columns
    means = [
        f"{_percent(row['mean'], 2)} ± {_percent(row['standard_error'], 2)}"
        for row in rows
    ]
    ratios = [_percent(row["normalized"], 1) for row in rows]
    return [_Column("mean", means), _Column("normalized", ratios), *columns]


def _costs(rows):
    """Shows what a row took."""
    return [
        _Column("seconds", [f"{row['seconds']:.1f}" for row in rows]),
        _Column("uses", [row["uses"] for row in rows], is_text=True),
    ]


def _caption(tasks, judged, has_mean):
    """Explains the columns, and says which tasks have no labels."""
    parts, used = [], " Labels were used for this table only."
    if not judged:
        parts, used = ["No labels, so no scores"], ""
    elif not has_mean:
        missing = ", ".join(task for task in tasks if task not in judged)
        parts.append(f"No labels for {missing}, so no score there and no mean")
    else:
        parts.append(
            f"normalized: mean over tasks of {_score(judged.values())} / that of the "
            "task's own expert"
        )
    parts.append("agreement: share of predictions that are the expert's own")
    parts.append("seconds: to make the model")
    return f"{'; '.join(parts)}.{used}"


def _fits(columns, console):
    """Tells whether columns have room: what is written to a file always has."""
    return not console.is_terminal or sum(map(_width, columns)) < console.width


def _parts(method, columns, console):
    """Yields as many columns of tasks at a time as have room beside the method."""
    part = []
    for column in columns:
        if part and not _fits([method, *part, column], console):
            yield part
            part = []
        part.append(column)
    yield part


def _width(column):
    """Counts the characters that a column needs at least, its border included."""
    if column.is_text:
        return _FOLDED_TEXT + 3
    longest = max(map(len, column.cells), default=0)
    return max(longest, min(len(column.name), _FOLDED_NAME)) + 3


def _print(columns, heading, caption, console):
    """Prints a table; texts and long names are folded where there is no room."""
    table = Table(title=escape(heading) or None, caption=escape(caption) or None)
    for column in columns:
        least = None if column.is_text else max(map(len, column.cells), default=0)
        side = "left" if column.is_text else "right"
        table.add_column(
            escape(column.name), justify=side, overflow="fold", min_width=least
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(escape, cells))
    console.print(table)


def _score(metrics):
    """Names what the tasks are judged by."""
    return " or ".join(_NAMES[each] for each in sorted({*metrics}))


def _percent(share, digits):
    """Shows a share in percent, or a dash if it is not known."""
    return "–" if share is None else f"{100 * share:.{digits}f}"


_FOLDED_NAME = 10
_FOLDED_TEXT = 24
_NAMES = {"accuracy": "accuracy", "matthews": "Matthews correlation"}
