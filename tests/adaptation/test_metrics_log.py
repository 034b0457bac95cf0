import json

import pytest

from adarank_jax.adaptation import metrics_log
from adarank_jax.adaptation.metrics_log import MetricsLog


def write(file, name, steps, end=None):
    log = MetricsLog(file, name, end)
    ends = []
    for step in steps:
        log.append({"run": name, "step": step})
        ends.append(log.end)
    return ends


def rows(file):
    return [
        (r["run"], r["step"]) for r in map(json.loads, file.read_text().splitlines())
    ]


def test_rows_after_the_end_are_cut_and_written_again(tmp_path):
    file = tmp_path / "metrics.jsonl"
    write(file, "a", range(3))
    ends = write(file, "b", range(4))
    write(file, "b", range(2, 4), ends[1])
    assert rows(file) == [("a", i) for i in range(3)] + [("b", i) for i in range(4)]


@pytest.mark.parametrize("torn", range(1, 20, 3))
def test_torn_row_is_cut(tmp_path, torn):
    file = tmp_path / "metrics.jsonl"
    ends = write(file, "a", range(3))
    file.write_bytes(file.read_bytes()[:-torn])
    write(file, "a", range(2, 4), ends[1])
    assert rows(file) == [("a", i) for i in range(4)]


def test_torn_row_of_before_is_told_and_not_glued_to_the_next(tmp_path):
    file = tmp_path / "metrics.jsonl"
    ends = write(file, "a", range(3))
    file.write_bytes(file.read_bytes()[:-3])
    log = MetricsLog(file, "a", ends[2])
    assert "are missing" in log.doubt
    log.append({"run": "a", "step": 3})
    assert rows(file) == [("a", 0), ("a", 1), ("a", 3)]
    assert [row["step"] for row in log.rows()] == [0, 1, 3]


def test_first_start_drops_rows_of_its_own_and_torn_ones(tmp_path):
    file = tmp_path / "metrics.jsonl"
    write(file, "a", range(2))
    write(file, "b", range(2))
    with file.open("a") as stream:
        stream.write('{"run": "b", "st')
    write(file, "b", range(3))
    assert rows(file) == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2)]


def test_changed_rows_are_told_and_kept(tmp_path):
    file = tmp_path / "metrics.jsonl"
    ends = write(file, "a", range(3))
    file.write_text(file.read_text().replace("0", "7"))
    log = MetricsLog(file, "a", ends[-1])
    assert "were changed" in log.doubt
    log.append({"run": "a", "step": 3})
    assert rows(file)[-1] == ("a", 3)
    assert not MetricsLog(file, "a", log.end).doubt


def test_end_before_finds_the_first_row_of_a_step(tmp_path):
    file = tmp_path / "metrics.jsonl"
    write(file, "other", range(9))
    ends = write(file, "a", range(4))
    assert metrics_log.end_before(file, "a", 2) == ends[1]
    assert metrics_log.end_before(tmp_path / "none", "a", 2).size == 0
