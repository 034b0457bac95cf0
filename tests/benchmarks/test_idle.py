"""The share of waiting of a run folder."""

import json

import pytest

from benchmarks import idle


def write(folder, rows):
    lines = [json.dumps(row) for row in rows]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def row(run, seconds, waited, saving=0.0):
    spent = {"seconds": seconds, "waited": waited, "saving": saving}
    return {"run": run, "step": 0} | spent


def test_idle_prints_a_share_a_run_without_its_first_step(tmp_path, capsys):
    rows = [row("a", 99.0, 99.0), row("a", 3.0, 0.5, 0.4), row("a", 1.0, 0.5)]
    write(tmp_path, [*rows, row("b", 50.0, 0.0), row("b", 2.0, 0.0)])
    idle.main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [
        "a: 2 steps, waited 25.0%, saved states 10.0%",
        "b: 1 steps, waited 0.0%, saved states 0.0%",
    ]


def test_idle_leaves_out_half_a_row_that_is_being_written(tmp_path, capsys):
    write(tmp_path, [row("a", 99.0, 99.0), row("a", 4.0, 1.0)])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"run": "a", "sec')
    idle.main([str(tmp_path)])
    assert capsys.readouterr().out == "a: 1 steps, waited 25.0%, saved states 0.0%\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("a", 1.0, 0.5)], "has more than one step yet"),
        ([{"run": "a", "step": 0}], "has no times; start its run with --restart"),
    ],
)
def test_idle_says_what_it_cannot_use(tmp_path, rows, message):
    write(tmp_path, rows)
    with pytest.raises(SystemExit, match=message):
        idle.main([str(tmp_path)])


def test_idle_says_what_is_missing(tmp_path):
    with pytest.raises(SystemExit, match="metrics.jsonl is missing; is .* the folder"):
        idle.main([str(tmp_path)])
