"""`kvae.training.run_list`: which folders are runs, and what their files tell."""

import shutil
from pathlib import Path

import pytest

from kvae.internal import locks
from kvae.internal.errors import UserError
from kvae.training import run_list
from kvae.training.runs import Run


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(tiny_run, tmp_path / "runs" / "one"))


def described(folder: Path) -> run_list.RunFacts:
    return run_list.describe(folder, folder.name)


def test_runs_are_found_on_three_levels_and_no_deeper(tmp_path):
    for name in ("b", "group/c", "group/sub/d", "group/sub/deep/e", "a"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").touch()
    for name in ("notes", "group/pictures", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").touch()
    runs, others = run_list.find(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in runs] == ["a", "b", "group/c", "group/sub/d"]
    assert [path.relative_to(tmp_path).as_posix() for path in others] == ["group/pictures", "group/sub/deep", "notes"]


def test_a_run_is_a_folder_of_one_run(run):
    assert run_list.find(run) == ([run], [])


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match="Expected a folder with runs"):
        run_list.find(tmp_path / "nothing")


def test_a_finished_run_has_the_numbers_of_its_files(run):
    facts = described(run)
    assert (facts.state, facts.remark, facts.epochs, facts.planned_epochs) == ("finished", "", 1, 1)
    evaluation = Run.open(run).evaluation()
    assert (facts.elbo, facts.elbo_standard_error) == (evaluation["elbo"], evaluation["elbo_standard_error"])
    assert facts.recipe == "run"
    assert facts.dataset.endswith("odd.npz")
    assert facts.bytes == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    assert not facts.bundle


def test_a_bundle_is_seen(run):
    (run / "bundle").mkdir()
    (run / "bundle" / "model_card.json").touch()
    assert described(run).bundle


def test_a_run_without_its_model_is_interrupted_and_the_command_is_named(run):
    Run.open(run).discard_results()
    facts = described(run)
    assert facts.state == "interrupted"
    assert facts.remark == f"Interrupted at epoch 1 of 1. To continue: kvae train --resume --out {run}"


def test_a_run_whose_folder_is_locked_is_training_until_the_lock_ends(run):
    Run.open(run).discard_results()
    with locks.locked(run):
        facts = described(run)
    assert facts.state == "training"
    assert "Training now, at epoch 1 of 1, by process" in facts.remark
    assert described(run).state == "interrupted"


def test_a_run_without_an_evaluation_says_how_to_make_it(run):
    (run / "evaluation.json").unlink()
    facts = described(run)
    assert facts.state == "not evaluated"
    assert facts.remark.endswith(f"kvae evaluate {run}")


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("config.json", "{}", "is not the configuration of a run"),
        ("config.json", None, "it has no config.json"),
        ("evaluation.json", "{", "is not valid JSON"),
        ("history.csv", "epoch\n3\n", "is not the history.csv of a run"),
    ],
)
def test_a_damaged_file_makes_a_damaged_run_with_a_reason(run, file, content, reason):
    (run / file).unlink()
    if content is not None:
        (run / file).write_text(content)
    facts = described(run)
    assert facts.state == "damaged"
    assert reason in facts.reason
    assert facts.bytes > 0
