import pytest

from adarank_jax.adaptation.pace import SECONDS_BETWEEN_LINES, Pace


class Clock:
    """Shows the time that it is set to."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def test_speed_forgets_what_came_before_the_first_report():
    clock = Clock()
    pace = Pace(clock)
    clock.seconds = 8000.0  # loading, or compiling
    assert pace.report(1, 100) is None
    clock.seconds = 8002.0
    assert pace.report(5, 100) == (2.0, 47.5)
    clock.seconds = 8006.0
    rate, left = pace.report(7, 100)
    assert rate == pytest.approx(1.0)
    assert left == pytest.approx(93.0)


def test_lines_are_due_after_some_seconds_since_the_last():
    clock = Clock()
    pace = Pace(clock)
    due = []
    for seconds in (0.1, 0.9, 1.0, 1.5, 1.9, 3.1, 4.2):
        clock.seconds = seconds * SECONDS_BETWEEN_LINES
        pace.report(1, 9)
        due.append(pace.is_line_due())
    assert due == [False, False, True, False, False, True, True]


def test_there_is_no_speed_until_more_is_done_and_then_it_is_finite():
    pace = Pace(lambda: 5.0)
    assert pace.report(0, 3) is None
    assert pace.report(0, 3) is None
    assert pace.report(1, 3).rate < float("inf")
