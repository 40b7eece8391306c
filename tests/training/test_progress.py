"""What a training shows: short lines with plain numbers, or one bar that knows the time left and both ELBOs."""

import io
import re

import numpy as np
import pytest

from kvae import training
from kvae.training import progress

LOGS = {"loss": 257.789, "elbo": -257.791, "kl": 3.0, "reconstruction": 254.8, "val_elbo": -260.123}


def line_of(capsys, logs: dict, epoch: int = 1, epochs: int = 12) -> str:
    lines = progress.Lines(epochs, "test")
    lines.on_epoch_begin(epoch)
    lines.on_epoch_end(epoch, logs)
    return capsys.readouterr().out


def test_a_line_has_plain_numbers(capsys):
    line = line_of(capsys, LOGS)
    assert re.fullmatch(r"epoch  2/12: ELBO -257\.79, test ELBO -260\.12, loss 257\.79, KL 3\.00, \d+\.\d s\n", line)


@pytest.mark.parametrize("value", [1e30, -1e30, float("nan"), -float("inf"), np.float32(123456.789)])
def test_a_line_is_shorter_than_100_columns_whatever_the_numbers(capsys, value):
    line = line_of(capsys, dict.fromkeys(LOGS, value), epoch=99_999, epochs=100_000)
    assert len(line) < 100


def test_an_epoch_without_an_evaluation_has_no_test_elbo(capsys):
    assert "test" not in line_of(capsys, {name: value for name, value in LOGS.items() if name != "val_elbo"})


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal of 120 columns receives from `rich`."""
    from rich import progress as bars
    from rich.console import Console

    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120, color_system=None)
    make = bars.Progress
    monkeypatch.setattr(bars, "Progress", lambda *columns, **options: make(*columns, console=console, **options))
    return shown


def test_one_bar_shows_epochs_time_and_both_elbos(terminal):
    with progress.shown(1, 4, 10, "test", begun=1) as (bar,):
        task = bar.bar.tasks[0]
        assert (task.completed, task.total) == (10, 40)
        for epoch in (1, 2, 3):
            bar.on_epoch_begin(epoch)
            bar.on_train_batch_end(4)
            assert task.completed == 10 * epoch + 5
            bar.on_epoch_end(epoch, LOGS if epoch == 1 else {"elbo": -200.0})
        assert task.completed == 40
    text = terminal.getvalue()
    assert "epoch 4 of 4" in text
    assert "left" in text
    assert "ELBO: training -200.00, test -260.12" in text  # the latest of each


def test_a_bar_ends_with_the_training_that_fails(terminal):
    with pytest.raises(KeyboardInterrupt), progress.shown(1, 4, 10, "test") as (bar,):
        raise KeyboardInterrupt
    assert bar.bar.finished is False
    assert terminal.getvalue().endswith("\x1b[?25h")  # the cursor is visible again


@pytest.mark.slow
@pytest.mark.usefixtures("without_xla")
def test_a_training_prints_one_line_per_epoch_and_no_more(tiny_run, tmp_path, capsys):
    values = training.Run.open(tiny_run).config.to_dict()
    values["training"].update(epochs=3, monitor_test=True)
    training.train(training.RunConfig.from_dict(values), tmp_path / "three", verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all(", test ELBO -" in line for line in lines)
