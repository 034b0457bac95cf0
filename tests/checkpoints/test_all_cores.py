import threading

import pytest

from adarank_jax.checkpoints import all_cores


def test_map_values_runs_as_many_at_once_as_there_are_cores(monkeypatch):
    monkeypatch.setattr(all_cores, "_num_cores", lambda: 3)
    together = threading.Barrier(3, timeout=60)  # broken if fewer come
    found = all_cores.map_values(lambda x: (together.wait(), x)[1], dict(c=1, b=2, a=3))
    assert list(found.items()) == [("c", 1), ("b", 2), ("a", 3)]


def test_map_values_of_nothing_is_nothing():
    assert all_cores.map_values(len, {}) == {}


def test_map_values_raises_what_the_function_raises():
    with pytest.raises(ZeroDivisionError):
        all_cores.map_values(lambda x: 1 // x, {"a": 1, "b": 0})
