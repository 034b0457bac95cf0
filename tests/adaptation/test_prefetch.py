import threading
import time

import pytest

from adarank_jax.adaptation import prefetch


def test_ahead_keeps_the_order_and_ends():
    found = prefetch.ahead(range(5), lambda number: -number)
    assert [ready.batch for ready in found] == [0, -1, -2, -3, -4]
    assert list(prefetch.ahead([], str)) == []


@pytest.mark.parametrize("depth", [1, 3])
def test_ahead_holds_at_most_depth_batches_besides_the_one_in_use(depth):
    taken = []

    def batches():
        for number in range(10):
            taken.append(number)
            yield number

    found = prefetch.ahead(batches(), lambda number: number, depth)
    next(found)
    found.close()  # waits for what was begun
    assert len(taken) <= depth + 1


def test_ahead_hands_out_a_batch_while_the_next_is_prepared():
    begun, may_end, in_time = threading.Event(), threading.Event(), []

    def place(number):
        if number == 1:
            begun.set()
            in_time.append(may_end.wait(5.0))
        return number

    found = prefetch.ahead(range(3), place)
    assert next(found).batch == 0
    assert begun.wait(5.0)  # before it is asked for
    may_end.set()
    assert [ready.batch for ready in found] == [1, 2]
    assert in_time == [True]  # the first did not wait for the second


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_error_comes_when_its_batch_is_asked_for(error):
    def batches():
        yield 0
        yield 1
        raise error

    found = prefetch.ahead(batches(), lambda number: number)
    assert next(found).batch == 0
    assert next(found).batch == 1
    with pytest.raises(error):
        next(found)


def test_closing_ends_the_thread():
    before = threading.active_count()
    found = prefetch.ahead(range(10), lambda number: number)
    next(found)
    assert threading.active_count() > before
    found.close()
    assert threading.active_count() == before


def test_waited_is_the_time_that_the_reader_waits():
    found = list(prefetch.ahead(range(4), lambda number: time.sleep(0.1)))
    assert sum(ready.waited for ready in found) > 0.2


def test_ahead_refuses_no_depth():
    with pytest.raises(ValueError, match="depth"):
        next(prefetch.ahead(range(3), str, depth=0))


def test_idle_share_is_waiting_over_all_time():
    rows = [{"seconds": 1.0, "waited": 0.5}, {"seconds": 3.0, "waited": 0.5}]
    assert prefetch.idle_share(rows) == 0.25
    with pytest.raises(ValueError, match="at least one row"):
        prefetch.idle_share([])
