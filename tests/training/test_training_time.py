"""training_time.json: the seconds that a training has taken, over all its interruptions."""

import json
import shutil
from types import SimpleNamespace

import pytest

from kvae import training
from kvae.training import callbacks, train_resume
from kvae.training.runs import Run


def lengthened(run: Run) -> Run:
    """The run, trained for one more epoch."""
    config = run.config
    epochs = config.training.model_copy(update={"epochs": config.training.epochs + 1})
    return training.resume(run.folder, config.model_copy(update={"training": epochs}), verbose=0)


@pytest.fixture
def run(tiny_run, tmp_path) -> Run:
    return Run.open(shutil.copytree(tiny_run, tmp_path / "run"))


def test_the_time_is_written_after_the_first_epoch_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(callbacks.time, "process_time", lambda: 2 * clock.now)
    run = Run(tmp_path, None)
    callback = callbacks.TrainingTime(run.time_file, before=7.0, processor_before=11.0, seconds=5.0)
    callback.on_train_begin()
    written = []
    for epoch, now in enumerate((103.0, 106.0, 108.0)):
        clock.now = now
        callback.on_epoch_end(epoch)
        written.append(run.training_seconds())
    clock.now = 109.0
    callback.on_train_end()
    assert [*written, run.training_seconds()] == [10.0, 10.0, 15.0, 16.0]
    assert run.processor_seconds() == 11.0 + 2 * 9.0


@pytest.mark.parametrize("processor", [{}, {"processor_seconds": 3000}])
def test_a_training_that_begins_again_counts_both_times_on(run, processor):
    run.time_file.write_text(json.dumps({"seconds": 1000, **processor}))
    session = train_resume._Session(run, None, None, None, 0, (), True)  # there is no checkpoint yet
    (timer,) = train_resume._output_callbacks(session)
    assert (timer.before, timer.processor_before) == (1000, processor.get("processor_seconds"))


@pytest.mark.slow
def test_a_resumed_training_goes_on_counting(run):
    assert 0 < run.training_seconds() < 600
    run.time_file.write_text('{"seconds": 1000, "processor_seconds": 3000}')
    longer = lengthened(run)
    assert 1000 < longer.training_seconds() < 1600
    assert 3000 < longer.processor_seconds() < 3600


@pytest.mark.slow
def test_a_training_whose_beginning_had_no_processor_seconds_has_none(run):
    run.time_file.write_text('{"seconds": 1000}')
    longer = lengthened(run)
    assert 1000 < longer.training_seconds() < 1600
    assert longer.processor_seconds() is None


@pytest.mark.slow
def test_a_training_whose_beginning_was_not_timed_has_no_time(run):
    run.time_file.unlink()
    assert lengthened(run).training_seconds() is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"seconds": "1"}', '{"seconds": -1}', '{"seconds": NaN}'])
def test_a_time_that_cannot_be_read_is_not_known(run, content):
    run.time_file.write_text(content)
    assert run.training_seconds() is None
