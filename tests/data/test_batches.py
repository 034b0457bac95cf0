import os
import threading
import time

import numpy as np
import pytest

from adarank_jax import errors
from adarank_jax.data import transforms
from adarank_jax.data.batches import TaskBatches, Transformed, in_order
from adarank_jax.data.sources import Arrays


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


@pytest.mark.parametrize("shuffle", [True, False])
def test_parts_of_a_batch_are_that_batch(shuffle):
    examples = [(np.arange(7), np.arange(7) * 2), (np.arange(5), np.arange(5) * 3)]
    whole = TaskBatches(examples, 6, seed=3, shuffle=shuffle)
    parts = [TaskBatches(examples, 6, 3, shuffle, i, 3) for i in range(3)]
    for step in (0, 4):
        for column in range(2):
            found = [part[step][column] for part in parts]
            assert [each.shape for each in found] == [(2, 2)] * 3
            joined = np.concatenate(found, axis=1)
            np.testing.assert_array_equal(joined, whole[step][column])


class Read:
    """Numbers that remember which of them were asked for."""

    def __init__(self, count):
        self.count, self.read = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, rows):
        self.read.extend(rows)
        return np.asarray(rows)


def test_part_reads_nothing_but_its_own_examples():
    sources = [Read(100), Read(100)]
    for part, source in enumerate(sources):
        TaskBatches([(source,)], 8, 0, True, part, 2)[5]
    assert [len(source.read) for source in sources] == [4, 4]
    assert not {*sources[0].read} & {*sources[1].read}


@pytest.mark.parametrize(("part", "num_parts"), [(0, 3), (2, 2), (-1, 2)])
def test_batches_refuse_parts_that_do_not_exist(part, num_parts):
    with pytest.raises(ValueError, match=f"{part} of {num_parts} equal parts of 8"):
        TaskBatches([(np.arange(5),)], 8, 0, True, part, num_parts)


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


def pictures(count, side=6):
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, side, side + 1, 3)).astype(np.uint8)


def lazy(pixels, **options):
    transform = transforms.ClipTransform(size=4, crop=4)
    return Transformed(Arrays(pixels), transform, **options), transform


def test_batches_of_arrays_keep_their_order():
    # Recorded from the first release: a resumed run must see the same images.
    batches = TaskBatches([(np.arange(10),), (np.arange(5),)], 4, seed=0)
    assert [batches[step][0].tolist() for step in (0, 1, 7)] == RECORDED


def test_stream_gives_the_batches_of_the_steps():
    batches = TaskBatches(arrays(12, 5), 4, seed=2)
    ahead = batches.stream(3, num_threads=3, prefetch=2)
    for step in range(3, 20):
        for one, two in zip(next(ahead), batches[step], strict=True):
            np.testing.assert_array_equal(one, two)
    ahead.close()


def test_stream_of_lazy_images_equals_arrays_of_images():
    pixels = [pictures(9), pictures(5)]
    parts = [lazy(each) for each in pixels]
    labels = [np.arange(9), np.arange(5)]
    eager = [np.stack([*map(t, p)]) for (_, t), p in zip(parts, pixels, strict=True)]
    one = TaskBatches([(s, n) for (s, _), n in zip(parts, labels, strict=True)], 8, 5)
    two = TaskBatches([*zip(eager, labels, strict=True)], 8, seed=5)
    ahead = one.stream(2)
    for step in range(2, 7):
        for made, expected in zip(next(ahead), two[step], strict=True):
            np.testing.assert_array_equal(made, expected)
            assert made.dtype == expected.dtype
    ahead.close()


def test_task_smaller_than_a_batch_is_repeated_in_other_orders():
    (rows,) = TaskBatches([(np.arange(5),)], 16, seed=0)[0]
    for start in (0, 5, 10):
        assert sorted(rows[0, start : start + 5]) == list(range(5))
    assert len({tuple(rows[0, start : start + 5]) for start in (0, 5, 10)}) > 1


def test_stream_prepares_ahead_but_not_too_far():
    seen, lock = [], threading.Lock()

    class Column:
        def __len__(self):
            return 100

        def __getitem__(self, rows):
            with lock:
                seen.append(rows)
            return np.array(rows)

    ahead = TaskBatches([(Column(),)], 2, seed=0).stream(num_threads=1, prefetch=3)
    next(ahead)
    deadline = time.monotonic() + 20
    while len(seen) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert 4 <= len(seen) <= 8
    ahead.close()


def test_bad_image_reaches_the_reader_of_the_stream():
    class Source:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            raise errors.InputError("E331", "damaged", f"`{index}.jpg`")

    images = Transformed(Source(), transforms.ClipTransform())
    with pytest.raises(errors.InputError, match=r"E331 `\d\.jpg`: damaged"):
        next(TaskBatches([(images,)], 2, seed=0).stream())
    with pytest.raises(errors.InputError, match=r"E331 `0\.jpg`: damaged"):
        next(in_order(images, 2))


def test_all_sources_share_the_threads_that_decode():
    before = threading.active_count()
    pixels = np.zeros((64, 2, 2, 3), np.uint8)
    for _ in range(12):
        lazy(pixels)[0][:]
    assert threading.active_count() - before <= min(16, os.cpu_count() or 1)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_transformed_is_indexed_like_an_array(num_threads):
    pixels = pictures(7)
    images, transform = lazy(pixels, num_threads=num_threads)
    eager = np.stack([*map(transform, pixels)])
    assert len(images) == 7
    assert images.ndim == eager.ndim
    for index in (0, 6, -1, slice(2, 5), slice(None), slice(5, 99), [3, 0, 3]):
        np.testing.assert_array_equal(images[index], eager[index])
    assert images[np.int64(2)].dtype == np.float32


def test_transformed_refuses_what_would_go_wrong():
    images, _ = lazy(pictures(3))
    with pytest.raises(IndexError, match="no image 3 among 3"):
        images[3]
    with pytest.raises(TypeError, match="3 images would be decoded"):
        np.asarray(images)
    mixed = [(pictures(1)[0], 0), (pictures(1, 8)[0], 0)]
    with pytest.raises(ValueError, match="E330.*one shape"):
        Transformed(mixed, np.float32)[:2]


@pytest.mark.parametrize(("count", "sizes"), [(7, [3, 3, 1]), (6, [3, 3]), (2, [2])])
def test_in_order_gives_every_example_once(count, sizes):
    for examples in (np.arange(count), lazy(pictures(count))[0]):
        found = [*in_order(examples, 3)]
        assert [len(batch) for batch in found] == sizes
        np.testing.assert_array_equal(np.concatenate(found), examples[:])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: in_order(np.arange(3), 0), "batch_size"),
        (lambda: in_order(np.arange(3), 1, num_threads=0), "num_threads"),
        (lambda: TaskBatches(arrays(3), 1, 0).stream(-1), "first_step"),
        (lambda: TaskBatches(arrays(3), 1, 0).stream(prefetch=0), "prefetch"),
    ],
)
def test_streams_refuse_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class Trees:
    """A column whose examples are trees."""

    def __init__(self, count, width=3):
        self.rows = np.arange(count * width).reshape(count, width)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {"ids": self.rows[index], "mask": self.rows[index] > 4}


def test_columns_of_trees_give_trees():
    trees = [Trees(9), Trees(5)]
    plain = [(each.rows, np.arange(len(each))) for each in trees]
    one = TaskBatches([(t, c[1]) for t, c in zip(trees, plain, strict=True)], 4, seed=5)
    two = TaskBatches(plain, 4, seed=5)
    ahead = one.stream(1)
    for step in (1, 2, 3):
        inputs, places = next(ahead)
        rows, expected = two[step]
        assert inputs["ids"].shape == (2, 4, 3)
        np.testing.assert_array_equal(inputs["ids"], rows)
        np.testing.assert_array_equal(inputs["mask"], rows > 4)
        np.testing.assert_array_equal(places, expected)
    ahead.close()


def test_tasks_of_different_shapes_are_refused_with_both():
    with pytest.raises(
        ValueError, match=r"\(2, 3\).* in task 0; .*\(2, 5\).* in task 1"
    ):
        TaskBatches([(Trees(4),), (Trees(4, 5),)], 2, seed=0)[0]
    with pytest.raises(ValueError, match=r"\(2, 3\) in task 0; \(2, 4\) in task 1"):
        TaskBatches([(np.zeros((4, 3)),), (np.zeros((4, 4)),)], 2, seed=0)[0]


def test_in_order_of_trees_and_in_another_order():
    trees = Trees(7)
    batches = [*in_order(trees, 3)]
    assert [len(batch["mask"]) for batch in batches] == [3, 3, 1]
    found = np.concatenate([batch["ids"] for batch in batches])
    np.testing.assert_array_equal(found, trees.rows)
    order = np.array([4, 0, 6, 1])
    for examples in (trees.rows, trees):
        found = [*in_order(examples, 3, order=order)]
        rows = [each["ids"] if isinstance(each, dict) else each for each in found]
        np.testing.assert_array_equal(np.concatenate(rows), trees.rows[order])


RECORDED = [
    [[0, 1, 8, 3], [1, 3, 0, 4]],
    [[2, 9, 5, 7], [2, 3, 0, 4]],
    [[9, 8, 8, 6], [2, 4, 0, 1]],
]
