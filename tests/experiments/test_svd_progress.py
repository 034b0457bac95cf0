import functools
import io

import pytest
from rich.console import Console

from adarank_jax.adaptation import pace
from experiments import svd_progress
from experiments.svd_progress import SvdProgress


def shown(is_terminal, counts):
    """Shows progress, and returns what was written."""
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=100)
    with SvdProgress(console) as report:
        for done in counts:
            report(done, 8)
    return console.file.getvalue()


@pytest.fixture
def timed(monkeypatch):
    """Sets the clock: two looks before the first matrix, and one at each."""

    def at(*seconds):
        times = iter((0.0, 0.0, *seconds))
        made = functools.partial(pace.Pace, lambda: next(times))
        monkeypatch.setattr(svd_progress, "Pace", made)

    return at


def test_svd_progress_is_silent_without_a_terminal_if_short(timed):
    timed(*range(1, 9))
    assert shown(False, range(1, 9)) == ""


def test_svd_progress_writes_lines_without_a_terminal(timed):
    timed(*range(20, 180, 20))
    lines = shown(False, range(1, 9)).splitlines()
    assert len(lines) == 7
    assert lines[0] == "1 of 8 matrices decomposed"  # nothing to tell a time from
    assert lines[1].startswith("2 of 8 matrices decomposed, ETA 0:02:00")


def test_svd_progress_tells_a_time_from_matrices_not_from_what_came_before(timed):
    timed(900.0, 901.0, 931.0, 960.0)
    console = Console(file=io.StringIO(), width=100)
    with SvdProgress(console) as report:
        for done in (1, 2, 17, 20):
            report(done, 384)
    assert console.file.getvalue().splitlines() == [
        "1 of 384 matrices decomposed",
        f"17 of 384 matrices decomposed, ETA {pace.clock(367 * 31 / 16)}",
        f"20 of 384 matrices decomposed, ETA {pace.clock(364 * 60 / 19)}",
    ]


def test_svd_progress_shows_a_bar_on_a_terminal():
    text = shown(True, (1, 8))
    assert "8/8" in text and "matrices decomposed, ETA 0:00:00" in text
    assert text.endswith("\x1b[2K")  # the bar is taken away


def test_svd_progress_gives_the_cursor_back_after_an_error():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    try:
        with SvdProgress(console) as report:
            report(1, 8)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert "\x1b[?25h" in console.file.getvalue()
