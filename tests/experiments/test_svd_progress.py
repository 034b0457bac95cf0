import io

from rich.console import Console

from experiments import svd_progress
from experiments.svd_progress import SvdProgress


def shown(is_terminal, counts):
    """Shows progress, and returns what was written."""
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=100)
    with SvdProgress(console) as report:
        for done in counts:
            report(done, 8)
    return console.file.getvalue()


def test_svd_progress_is_silent_without_a_terminal_if_short():
    assert shown(False, range(1, 9)) == ""


def test_svd_progress_writes_lines_without_a_terminal(monkeypatch):
    monkeypatch.setattr(svd_progress, "_SECONDS", 0.0)
    lines = shown(False, range(1, 9)).splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("1 of 8 matrices decomposed, ETA ")


def test_svd_progress_shows_a_bar_on_a_terminal():
    text = shown(True, (1, 8))
    assert "8/8" in text
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
