import numpy as np
import pytest

from adarank_jax.adaptation.collapse import CollapseGuard


def told(entropy, marginal, classes=(10, 4), batch_size=16, window=5):
    """Returns the steps at which tasks were told, by task."""
    guard = CollapseGuard(["one", "two"], classes, batch_size, window)
    found = {}
    for step, row in enumerate(zip(entropy, marginal, strict=True)):
        for task in guard.update(*(np.asarray(each) for each in row)):
            found.setdefault(task, []).append(step)
    return found


FALLING = np.linspace(2.0, 0.01, 20)
HIGH = np.full(20, 1.3)


def test_collapse_of_one_task_is_told_once_with_its_window():
    entropy = np.stack([FALLING, FALLING], 1)
    marginal = np.stack([FALLING, HIGH], 1)
    assert told(entropy, marginal) == {"one": [19]}


def test_collapse_within_two_windows_is_told_at_the_end_of_the_second():
    steps = np.array([2.0] * 5 + [0.0] * 15)
    both = np.stack([steps, HIGH], 1)
    assert told(both, both) == {"one": [9]}


@pytest.mark.parametrize(
    ("entropy", "marginal"),
    [
        (FALLING, HIGH),  # certain, and of many classes: what is wanted
        (HIGH, np.full(20, 0.05)),  # examples come class by class
        (FALLING, np.full(20, 0.05)),
        (FALLING[::-1], FALLING),
    ],
)
def test_guard_is_silent_where_nothing_collapsed(entropy, marginal):
    assert not told(np.stack([entropy, HIGH], 1), np.stack([marginal, HIGH], 1))


def test_bound_is_that_of_as_many_classes_as_there_are_examples():
    marginal = np.array([1.0] * 5 + [0.1] * 5)
    both = np.stack([marginal, marginal], 1)
    assert told(both, both, (1000, 1000), 2) == {}
    assert told(both, both, (1000, 1000), 16) == {"one": [9], "two": [9]}
    assert told(both, both, (1000, 1000), 1) == {}
