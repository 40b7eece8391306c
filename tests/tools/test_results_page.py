"""tools/reproduce.py --page results: published likelihoods beside those of runs, which are trained once."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import reproduce_likelihoods as likelihoods
from click.testing import CliRunner
from PIL import Image
from reproduce import main

from kvae import training
from kvae.internal import files
from kvae.internal.errors import UserError

ROOT = Path(__file__).parents[2]
SHORT, LONG, LONGEST = likelihoods.BUDGETS


def measured(recipe, budget, seed, bound):
    """A run with its numbers, as if it had been trained."""
    plan = likelihoods.Plan(recipe, budget, seed, quick=False)
    result = {"log_likelihood": -bound, "log_likelihood_standard_error": 0.1, "elbo": -bound - 5, "kl": 25.0}
    result |= {"active_units": 20, "latent_dim": 50, "epochs": 400, "processor": 660.0, "clock": 330.0}
    result["machine"] = "2 cores"
    protocol = {"dataset": "mnist", "train": "60000", "test": "10000", "evaluation_binarization": "drawn once"}
    return plan, {**result, "protocol": {**protocol, "importance_samples": 5000}}


def rows(page: str) -> dict[str, list[str]]:
    """The cells of the first table by the name of the model."""
    table = next(part for part in page.split("\n\n") if part.startswith("| model")).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    return {first: rest for first, *rest in cells}


def test_the_page_has_the_mean_and_range_of_seeds_and_says_what_was_not_run():
    short = [measured("iwae_5", SHORT, seed, bound) for seed, bound in enumerate((86.1, 86.25, 86.2))]
    page = likelihoods.page([*short, measured("iwae_5", LONGEST, 0, 85.4)], quick=False)
    assert rows(page)["IWAE, 5 draws"] == [
        "`iwae_5`", "85.54", "85.18", "86.18 (86.10 to 86.25, 3 seeds)", "not run", "85.40"
    ]  # fmt: skip
    assert rows(page)["DReG, 50 draws"] == ["`dreg_50`", "", "84.32", "not run", "not run", "not run"]
    assert rows(page)["VAE, 50 draws"] == ["", "86.35", "86.06", "", "", ""]
    assert "- IWAE, 5 draws: the 85.54 of the paper is reached with the epochs of 120 minutes." in page
    assert "- IWAE, 5 draws: the 85.18 of TensorFlow 2 is not reached: 0.22 ± 0.10 nats are missing." in page
    assert "- DReG" not in page
    assert "bound with 5,000 draws" in page
    assert "| `iwae_5` | 120 | 0 | 400 | 85.40 ± 0.10 | 90.40 | 25.00 | 20 of 50 | 11.0 | 5.5 | A |" in page
    assert "Machine A: 2 cores." in page
    assert "quick" not in page


def test_the_page_of_the_documentation_is_that_of_its_records():
    recorded = likelihoods.read_records(ROOT / "docs" / likelihoods.RECORDS, quick=False)
    assert {plan.name for plan in recorded} == set(files.read_json(ROOT / "docs" / likelihoods.RECORDS))
    plans = [plan for plan in likelihoods.plans(quick=False) if plan in recorded]
    page = likelihoods.page([(plan, likelihoods.result_of(recorded[plan])) for plan in plans], quick=False)
    assert page == (ROOT / "docs" / likelihoods.PAGE).read_text(encoding="utf-8")


def test_longer_trainings_have_more_epochs_and_a_name_each():
    plans = list(likelihoods.plans(quick=False))
    assert len({plan.name for plan in plans}) == len(plans) == 4 * (3 + 1 + 1)
    epochs = {plan.budget.minutes: plan.config.training.epochs for plan in plans if plan.recipe == "iwae_vae"}
    assert epochs[60] == 6 * epochs[10]
    assert {plan.seed for plan in plans} == {plan.config.seed for plan in plans} == {0, 1, 2}
    some = list(likelihoods.plans(False, ["iwae_5"], [60]))
    assert [plan.name for plan in some] == ["iwae_5_60min_seed0"]


@pytest.mark.parametrize("recipe", likelihoods.RECIPES)
def test_the_recipes_are_the_published_model(recipe):
    config = likelihoods.Plan(recipe, SHORT, 0, quick=False).config
    network = config.model.network
    assert (network.kind, network.options["hidden_units"], network.options["activation"]) == ("mlp", [200, 200], "tanh")
    assert config.model.latent_dim == 50
    assert (config.data.source, config.data.train, config.data.test) == ("mnist", "train", "test")
    assert config.data.binarize == "stochastic"
    kind, draws = {"iwae_vae": ("elbo", 1), "iwae_5": ("iwae", 5), "iwae_50": ("iwae", 50), "dreg_50": ("dreg", 50)}[
        recipe
    ]
    assert (config.model.objective.kind, config.model.objective.options.get("samples", 1)) == (kind, draws)


def reproduce(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    words = [sys.executable, ROOT / "tools" / "reproduce.py", "--runs", "runs", "--out", "out", *arguments]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, check=False)


@pytest.mark.slow
def test_one_command_trains_what_is_missing_and_writes_the_page(tmp_path):
    arguments = ("--page", "results", "--quick", "iwae_vae", "--minutes", "60")
    result = reproduce(tmp_path, *arguments)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.splitlines()[-1] == "out/RESULTS.md"
    page = (tmp_path / "out" / "RESULTS.md").read_text(encoding="utf-8")
    assert re.fullmatch(r"\d+\.\d\d", rows(page)["VAE"][4])
    with Image.open(tmp_path / "out" / "results" / "curve.png") as image:
        image.load()
    records = files.read_json(tmp_path / "out" / "results" / "runs.json")
    assert list(records) == ["iwae_vae_60min_seed0"]
    shutil.rmtree(tmp_path / "runs")  # the records are enough
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    again = CliRunner().invoke(main, [*arguments, *folders])
    assert again.exit_code == 0, again.output
    assert not (tmp_path / "runs").exists()
    assert (tmp_path / "out" / "RESULTS.md").read_text(encoding="utf-8") == page


def test_only_the_page_of_results_has_minutes():
    result = CliRunner().invoke(main, ["--minutes", "10"])
    assert result.exit_code == 2
    assert "only with --page results" in result.output


def test_without_runs_the_page_says_so(tmp_path):
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["--page", "results", "--no-training", *folders])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "out" / "RESULTS.md").read_text(encoding="utf-8")
    assert rows(page)["VAE"] == ["`iwae_vae`", "86.76", "86.35", "not run", "not run", "not run"]
    assert "curve" not in page
    assert not (tmp_path / "runs").exists()


def test_the_run_of_a_recipe_that_has_changed_is_not_on_the_page(tmp_path, capsys):
    plan, result = measured("iwae_5", SHORT, 0, 86.1)
    config = {**plan.config.to_dict(), "description": "Other words."}
    times = {"processor_seconds": None, "seconds": 1.0}
    record = {"config": config, "evaluation": result, **times, "machine": "2 cores"}
    files.write_json(tmp_path / likelihoods.RECORDS, {plan.name: record})
    page = likelihoods.write(tmp_path / "runs", tmp_path, False, [], [], train=False).read_text(encoding="utf-8")
    assert rows(page)["IWAE, 5 draws"][3] == "86.10"
    config["training"]["learning_rate"] = 1e-5
    files.write_json(tmp_path / likelihoods.RECORDS, {plan.name: record})
    page = likelihoods.write(tmp_path / "runs", tmp_path, False, [], [], train=False).read_text(encoding="utf-8")
    assert rows(page)["IWAE, 5 draws"][3] == "not run"
    assert "iwae_5_10min_seed0: not on the page" in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupted_run_is_not_recorded_and_is_continued(tmp_path, monkeypatch):
    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    def write(quick=True):
        return likelihoods.write(tmp_path / "runs", tmp_path, quick, ["iwae_vae"], [LONG.minutes])

    with monkeypatch.context() as patch:
        patch.setattr(training.train_resume.evaluation, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            write()
    with monkeypatch.context() as patch:
        patch.setattr(likelihoods.results, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            write()
    assert not (tmp_path / likelihoods.RECORDS).exists()  # trained, but the bound is not measured
    write()
    record = files.read_json(tmp_path / likelihoods.RECORDS)["iwae_vae_60min_seed0"]
    assert record["evaluation"]["protocol"]["importance_samples"] == 50
    assert record["processor_seconds"] > 0
    (tmp_path / likelihoods.RECORDS).unlink()
    with pytest.raises(UserError, match=r"training\.epochs"):  # the folder has a run with other settings
        write(quick=False)
