"""The benchmarks over tasks and of memory: their options, and small real runs."""

import pytest

from benchmarks import memory, scaling, step


def test_parse_begins_with_the_paper():
    options = scaling.parse([])
    assert (options.shapes, options.batch) == ("vit-b-32", 16)
    assert tuple(options.tasks) == (2, 4, 8, 16)


def test_parse_says_what_is_wrong(capsys):
    with pytest.raises(SystemExit):
        scaling.parse(["--tasks", "2", "0"])
    assert "argument --tasks: must be at least 1, got '0'" in capsys.readouterr().err


@pytest.mark.slow
def test_measure_divides_by_the_tasks():
    words = "--tasks 1 2 --layers 1 --batch 8 --repeats 1".split()
    found = scaling.measure(scaling.parse(words))
    assert scaling.parse(found["command"].split()[3:]) == scaling.parse(words)
    seconds = {n: rows[0] for n, rows in found["seconds"].items()}
    assert found["seconds_a_task"] == {"1": seconds["1"], "2": seconds["2"] / 2}
    assert found["spread"] >= 0


@pytest.mark.slow
def test_memory_of_both_sides_holds_the_factors():
    pytest.importorskip("torch")
    words = "--layers 1 --tasks 2 --batch 2".split()
    found = memory.measure(step.parse(words))
    factors = 4 * 2 * (768 * 768 * 2 + 768 * (768 + 2304) + 2 * 768 * (768 + 3072))
    for side in memory.SIDES:
        assert found["bytes"][side]["peak"] >= found["bytes"][side]["between"] > factors
