"""A training, a lengthening and a replacement that are killed at any of their operations on files."""

import shutil

import kills
import numpy as np
import pytest
from tiny_runs import tiny_run

from kvae import training
from kvae.internal import partials
from kvae.internal.errors import UserError
from kvae.internal.files import read_json
from kvae.training.runs import Run, check_free

LONG = 2  # epochs; the runs of the tests begin with one
pytestmark = [pytest.mark.usefixtures("without_xla"), pytest.mark.slow]


def with_epochs(run, epochs):
    return run.config.model_copy(update={"training": run.config.training.model_copy(update={"epochs": epochs})})


def result_of(folder):
    """All that a training leaves: weights, history and evaluation."""
    run = Run.open(folder)
    weights = [array.tobytes() for array in run.load_model().get_weights()]
    return weights, run.history_file.read_text(), (folder / "evaluation.json").read_text(), run.config.training.epochs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one epoch, and what the same run is after LONG epochs."""
    place = tmp_path_factory.mktemp("finished")
    run = tiny_run(place)
    training.train(with_epochs(run, LONG), place / "longer", verbose=0)
    return run, result_of(place / "run"), result_of(place / "longer")


def check_resumable(copies, expected):
    """Checks that every copy of the folder of a run can be resumed, and then has one of the expected results.

    Of copies that differ only in unfinished files, one is resumed.
    """
    seen = set()
    for copy in copies:
        partials.recover(copy, nested=True)
        assert not kills.unfinished(copy), copy.name
        if (state := kills.content(copy)) not in seen:
            seen.add(state)
            training.resume(copy / "run", verbose=0)
            assert result_of(copy / "run") in expected, copy.name
    assert len(seen) > 3


@pytest.mark.exhaustive  # the other two run in CI
def test_a_lengthening_killed_at_any_operation_can_be_resumed(finished, tmp_path):
    run, short, long = finished
    work = tmp_path / "work"
    shutil.copytree(run.folder, work / "run")
    with kills.copies_before_each_operation(work, tmp_path / "copies") as copies:
        training.resume(work / "run", with_epochs(run, LONG), verbose=0)
    assert result_of(work / "run") == long
    assert len(copies) > 15
    for copy in copies:
        left = Run.open(copy / "run")
        assert not left.finished or len(left.history()["epoch"]) == left.config.training.epochs, copy.name
    check_resumable(copies, [short, long])


def test_a_training_killed_at_any_operation_can_be_resumed(finished, tmp_path):
    run, _, long = finished
    work = tmp_path / "work"
    work.mkdir()
    with kills.copies_before_each_operation(work, tmp_path / "copies") as copies:
        training.train(with_epochs(run, LONG), work / "run", verbose=0)
    begun = [copy for copy in copies if (copy / "run" / "config.json").is_file()]
    check_resumable(begun, [long])
    for copy in set(copies) - set(begun):  # there is no run yet, so that it can begin
        check_free(copy / "run", overwrite=False)


def test_a_replacement_killed_at_any_operation_leaves_the_old_run_or_the_new(finished, tmp_path):
    run, short, long = finished
    work = tmp_path / "work"
    shutil.copytree(run.folder, work / "run")
    with kills.copies_before_each_operation(work, tmp_path / "copies") as copies:
        training.train(with_epochs(run, LONG), work / "run", overwrite=True, verbose=0)
    assert result_of(work / "run") == long
    check_resumable(copies, [short, long])


def test_a_finished_run_with_more_epochs_in_its_configuration_is_not_finished(finished, tmp_path):
    run, _, long = finished
    shutil.copytree(run.folder, tmp_path / "run")
    Run(tmp_path / "run", with_epochs(run, LONG), run.facts).write_config()
    training.resume(tmp_path / "run", verbose=0)
    assert result_of(tmp_path / "run") == long


def test_fewer_epochs_than_were_trained_are_refused(finished, tmp_path):
    run, _, _ = finished
    shutil.copytree(run.folder, tmp_path / "run")
    training.resume(tmp_path / "run", with_epochs(run, LONG), verbose=0)
    Run(tmp_path / "run", with_epochs(run, 1), run.facts).write_config()
    with pytest.raises(UserError, match=r"training\.epochs \(run: 2, received: 1\)"):
        training.resume(tmp_path / "run", verbose=0)


def test_a_lengthened_run_was_trained_further(finished):
    _, short, long = finished
    assert short[3] == 1
    assert long[3] == LONG
    assert not np.array_equal(short[0][0], long[0][0])
    assert read_json(finished[0].folder / "config.json")["config"]["training"]["epochs"] == 1
