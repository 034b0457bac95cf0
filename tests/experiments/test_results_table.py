"""The table of a run: what it says without labels, and on a narrow terminal."""

import io
import types

import numpy as np
import pytest
from rich.console import Console

from experiments import results, results_table
from experiments.merge_config import Method

TASKS = ("mood", "pairs", "a_kind_of_long_name")
METRICS = ("accuracy", "accuracy", "matthews")


def make(labelled=TASKS, tasks=TASKS):
    """Returns a suite and rows in which only some tasks have labels."""
    suite = types.SimpleNamespace(
        tasks=tasks,
        metrics=[METRICS[i % 3] for i in range(len(tasks))],
        labels=[np.zeros(2) if task in labelled else None for task in tasks],
        unit="texts",
    )
    rows = []
    for number, name in enumerate(("individual", "adarank", "tsv_m")):
        scores = {
            task: 0.1 * number + 0.01 * i if task in labelled else None
            for i, task in enumerate(tasks)
        }
        is_whole = set(labelled) == set(tasks)
        rows.append(
            results.names(Method(name=name))
            | {
                "per_task": scores,
                "per_task_agreement": dict.fromkeys(tasks, 0.9 - 0.1 * number),
                "mean": 0.1 * number if is_whole else None,
                "standard_error": 0.01 if is_whole else None,
                "normalized": 0.5 if is_whole else None,
                "agreement": 0.9 - 0.1 * number,
                "seconds": 1.5,
                "uses": "unlabelled test texts, experts' predictions on them",
            }
        )
    return results.labelled(rows), suite


def shown(rows, suite, width=None):
    """Prints the table to a file, or to a terminal of a width; returns its lines."""
    stream = io.StringIO()
    is_terminal = width is not None
    console = Console(
        file=stream, width=width or 200, force_terminal=is_terminal, color_system=None
    )
    results_table.show(rows, suite, console)
    return stream.getvalue().splitlines()


def joined(lines):
    return " ".join(" ".join(lines).split())


def test_tasks_without_labels_are_named_and_the_others_are_not_called_agreement():
    text = joined(shown(*make(labelled=("mood", "a_kind_of_long_name"))))
    assert "Agreement with each task's own expert" not in text
    assert "Matthews correlation for a_kind_of_long_name" in text
    assert "No labels for pairs, so no score there and no mean" in text
    assert "normalized" not in text and "Labels were used" in text


def test_without_any_labels_every_column_is_agreement():
    lines = shown(*make(labelled=()))
    text = joined(lines)
    assert "Agreement with each task's own expert, %" in text
    assert "No labels, so no scores" in text and "Labels were used" not in text
    rows = [line for line in lines if line.startswith("│")]
    assert [line.count("90.0") for line in rows] == [0, 0, 4]  # worst first


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("count", [3, 20])
def test_narrow_terminal_drops_no_task(width, count):
    tasks = tuple(f"some_task_number_{i}" for i in range(count))
    rows, suite = make(tasks, tasks)
    lines = shown(rows, suite, width)
    assert max(map(len, lines)) <= width
    text = "".join("".join(lines).replace("│", " ").split())
    for row in rows:
        for share in row["per_task"].values():
            assert f"{100 * share:.1f}" in text
    assert "mean" in text and "normalized" in text and "agreement" in text
    scores = [part for line in lines for part in line.split("│")]
    assert sum(part.strip() == "90.0" for part in scores) == 1


def test_file_gets_one_table_whatever_its_width():
    lines = shown(*make())
    assert sum("method" in line for line in lines) == 1
