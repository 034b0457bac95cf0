import numpy as np
import pytest

from adarank_jax.data.batches import TaskBatches


def arrays(*lengths):
    return [(np.arange(n) + 100 * i, np.arange(n)) for i, n in enumerate(lengths)]


def test_batches_show_every_example_once_an_epoch():
    batches = TaskBatches(arrays(12, 6), 3, seed=0)
    seen = np.concatenate([batches[step][0] for step in range(4)], axis=1)
    assert sorted(seen[0].tolist()) == list(range(12))
    assert sorted(seen[1, :6].tolist()) == list(range(100, 106))


def test_batches_keep_the_arrays_of_a_task_together():
    images, labels = TaskBatches(arrays(12, 6), 4, seed=1)[5]
    np.testing.assert_array_equal(images[0], labels[0])
    np.testing.assert_array_equal(images[1] - 100, labels[1])


def test_batches_are_a_pure_function_of_seed_and_step():
    one, two = TaskBatches(arrays(50), 4, seed=3), TaskBatches(arrays(50), 4, seed=3)
    one[0]
    np.testing.assert_array_equal(one[9][0], two[9][0])


def test_batches_differ_between_seeds_tasks_and_epochs():
    batches = TaskBatches(arrays(50, 50), 50, seed=3)
    first, second = batches[0][1]
    assert (first != second).any()
    assert (batches[0][1] != batches[1][1]).any()
    assert (TaskBatches(arrays(50), 50, seed=4)[0][1][0] != first).any()


def test_batches_without_shuffling_are_in_the_order_of_the_examples():
    batches = TaskBatches(arrays(5, 3), 2, seed=0, shuffle=False)
    seen = np.concatenate([batches[step][0] for step in range(5)], axis=1)
    np.testing.assert_array_equal(seen[0], np.arange(10) % 5)
    np.testing.assert_array_equal(seen[1], np.arange(10) % 3 + 100)


def test_batches_without_shuffling_resume_at_any_step_of_any_seed():
    batches = TaskBatches(arrays(5, 3), 2, seed=0, shuffle=False)
    other = TaskBatches(arrays(5, 3), 2, seed=9, shuffle=False).stream(3)
    for step in (3, 4, 5):
        for one, two in zip(batches[step], next(other), strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("examples", "batch_size", "message"),
    [
        ([], 2, "at least one task"),
        ([(np.zeros(0),)], 2, "above zero"),
        ([(np.zeros(3), np.zeros(4))], 2, r"lengths \[3, 4\]"),
        ([(np.zeros(3),)], 0, "batch_size"),
    ],
)
def test_batches_refuse_bad_examples(examples, batch_size, message):
    with pytest.raises(ValueError, match=message):
        TaskBatches(examples, batch_size, seed=0)
