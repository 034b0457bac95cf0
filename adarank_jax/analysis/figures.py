"""Figures of a run, each as PNG and SVG beside the CSV that it was drawn from."""

import csv
import io
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adarank_jax.checkpoints import files


def task_bars(
    rows: Sequence[Mapping[str, Any]],
    tasks: Sequence[str],
    folder: pathlib.Path,
    what: str = "accuracy on test images, %",
) -> None:
    """Draws the score of every method on every task as grouped bars.

    Args:
        rows: with `label`, `per_task` and `mean`, scores of at most 1.
        tasks: order of the groups.
        folder: gets ``task_bars.png``, ``.svg`` and ``.csv``.
        what: the scores are.
    """
    rows = sorted(rows, key=lambda row: row["mean"])
    groups = [*tasks, "mean"]
    values = np.array(
        [[*(row["per_task"][t] for t in tasks), row["mean"]] for row in rows]
    )
    figure, (axes,) = _axes(width=1.5 * len(groups) + 1.0, height=4.5)
    colours = _colour_map("viridis")(np.linspace(0.0, 0.95, len(rows)))
    width = 0.85 / len(rows)
    for i, (row, value, colour) in enumerate(zip(rows, values, colours, strict=True)):
        places = np.arange(len(groups)) + (i - (len(rows) - 1) / 2) * width
        axes.bar(places, 100 * value, width, color=colour, label=row["label"])
    # The name of a task may hold dollar signs, which are no formula.
    axes.set_xticks(np.arange(len(groups)), groups, parse_math=False)
    axes.set_ylim(min(0.0, 100 * values.min()), 100)
    axes.set_ylabel(what)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    _save(
        figure,
        folder / "task_bars",
        ["method", *groups],
        [[row["label"], *value] for row, value in zip(rows, values, strict=True)],
    )


def rank_map(
    kept: Mapping[str, np.ndarray], tasks: Sequence[str], folder: pathlib.Path
) -> None:
    """Draws the share of kept directions, task by layer, one panel a kind of matrix.

    Args:
        kept: shares `(tasks,)` in [0, 1] by path ``…/BLOCK_3/KIND/kernel``; a matrix
            outside of all blocks has a panel of its own.
        tasks: order of the rows.
        folder: gets ``rank_map.png``, ``.svg`` and ``.csv``.
    """
    kinds: dict[str, dict[int | None, np.ndarray]] = {}
    for path, shares in kept.items():
        kind, number = _place(path)
        kinds.setdefault(kind, {})[number] = shares
    most = max(map(len, kinds.values()))
    figure, panels = _axes(
        width=1.6 + len(kinds) * max(1.6, 0.5 * most),
        height=1.4 + 0.32 * len(tasks),
        columns=len(kinds),
    )
    for panel, (kind, blocks) in zip(panels, kinds.items(), strict=True):
        numbers = sorted(blocks, key=lambda number: -1 if number is None else number)
        shares = np.stack([blocks[number] for number in numbers], axis=1)
        image = panel.imshow(
            100 * shares, cmap="cividis", vmin=0, vmax=100, aspect="auto"
        )
        panel.set_title(kind, fontsize=9)
        names = ["" if number is None else str(number) for number in numbers]
        panel.set_xticks(range(len(numbers)), names)
        shown = tasks if panel is panels[0] else [""] * len(tasks)
        panel.set_yticks(range(len(tasks)), shown, parse_math=False)
        panel.set_xlabel("block")
        for (i, j), share in np.ndenumerate(shares):
            ink = "black" if share > 0.5 else "white"
            panel.text(j, i, f"{100 * share:.0f}", ha="center", va="center", color=ink)
    figure.colorbar(image, ax=list(panels), label="directions kept, %")
    _save(
        figure,
        folder / "rank_map",
        ["matrix", *tasks],
        [[path, *shares] for path, shares in kept.items()],
    )


def _place(path):
    """Splits a path into its kind and the number of its block, None outside of all."""
    kernel = path.removesuffix("/kernel")
    found = re.search(r"(?:^|/)[a-z]+_(\d+)/", kernel)
    return (kernel[found.end() :], int(found[1])) if found else (kernel, None)


def _axes(width, height, columns=1):
    """Makes a figure that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _colour_map(name):
    """Returns a matplotlib colour map."""
    import matplotlib

    return matplotlib.colormaps[name]


def _save(figure, stem, header, rows):
    """Writes the figure twice, and its numbers."""
    for suffix in ("png", "svg"):
        stream = io.BytesIO()
        figure.savefig(stream, format=suffix, dpi=150)
        files.write_whole(stem.with_suffix(f".{suffix}"), stream.getvalue())
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    files.write_whole(stem.with_suffix(".csv"), text.getvalue().encode())
