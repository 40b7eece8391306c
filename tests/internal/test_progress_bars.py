"""What a long computation shows: a bar in a terminal, lines in other output, or nothing."""

import io

import pytest

from kvae.internal import progress_bars


def compute(verbose: int, total: int | None) -> None:
    with progress_bars.counted(verbose, "bound", "batches", total) as one_more:
        for _ in range(3):
            one_more()


@pytest.mark.parametrize(("total", "expected"), [(3, "3 of 3 batches"), (None, "3 batches")])
def test_a_terminal_has_one_bar(monkeypatch, total, expected):
    from rich import progress as bars
    from rich.console import Console

    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120, color_system=None)
    make = bars.Progress
    monkeypatch.setattr(bars, "Progress", lambda *columns, **options: make(*columns, console=console, **options))
    compute(1, total)
    text = shown.getvalue()
    assert text.count("\n") == 1
    assert text.rpartition("\r")[2].startswith("\x1b[2Kbound ")
    assert expected in text


@pytest.mark.parametrize(("total", "of"), [(3, " of 3"), (None, "")])
def test_other_output_has_a_line_now_and_then(monkeypatch, capsys, total, of):
    times = iter([0.0, 4.0, 10.0, 10.0, 12.0])  # at the start, at each batch, and after the line
    monkeypatch.setattr(progress_bars.time, "monotonic", lambda: next(times))
    compute(2, total)
    assert capsys.readouterr().out == f"bound: 2{of} batches\n"


def test_nothing_is_shown_without_verbose(monkeypatch, capsys):
    monkeypatch.setattr(progress_bars, "SECONDS", 0.0)
    compute(0, 3)
    assert capsys.readouterr().out == ""
