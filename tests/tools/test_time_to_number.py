"""tools/time_to_number.py: what it counts, and the tool at work on embedded digits."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import time_to_number
from benchmark import Size, load_images, prepare
from contenders.processes import CONTENDERS, ContenderError, Worker
from time_to_number import GOALS, PUBLISHED, Goal, bounds, measure, seconds_to, table

import kvae
from kvae.training.config import RunConfig, load_values

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("number", "seconds"), [(-170.0, 5.0), (-150.0, 9.0), (-149.0, None)])
def test_a_number_is_reached_at_the_end_of_the_first_epoch_that_passes_it(number, seconds):
    assert seconds_to(number, [5.0, 7.0, 9.0], {1: -160.0, 3: -150.0}) == seconds


def test_the_table_has_medians_and_says_what_was_not_reached():
    goal = GOALS["elbo"]

    def ours(number, seconds, value):
        return {"number": number, "epochs": goal.epochs[number], "seconds": seconds, "value": value}

    kvae = [ours(number, 10.0 + place, -146.0) for number in goal.numbers[:2] for place in range(3)]
    kvae += [ours(goal.numbers[2], 20.0, value) for value in (-146.0, -147.5, -146.0)]
    others = {"pythae": [{"seconds": [30.0, 40.0], "values": {1: -156.0, 2: -154.9}}] * 3}
    columns = table(goal, {"kvae": kvae, "others": others}).columns
    rows = list(zip(*(list(column.cells) for column in columns), strict=True))
    assert rows[0][:4] == ("kvae", "11", "11", "not reached")
    assert rows[1] == ("pythae", "40", "not reached", "not reached", "2", "-154.9")


def test_settings_are_published_by_what_the_benchmark_runs():
    assert all(published.contender in CONTENDERS for published in PUBLISHED.values())


@pytest.mark.parametrize("kind", GOALS)
def test_the_others_train_the_network_of_the_recipe(kind):
    goal = GOALS[kind]
    assert list(goal.numbers) == sorted(goal.numbers)
    model = RunConfig.from_dict(load_values(goal.recipe)).to_dict()["model"]
    assert model["latent_dim"] == goal.size.latent
    assert model["network"]["hidden_units"] == [goal.size.width] * goal.size.layers
    assert model["network"].get("activation", "tanh") == "tanh"  # the default


def test_the_first_epoch_that_passes_a_bound_is_found_without_measuring_all(tmp_path, monkeypatch, digits):
    images = np.rint(255 * digits[:40, ..., 0]).astype(np.uint8)
    size = Size(latent=2, width=3, layers=2)
    settings = prepare(size, {"train": images, "test": images[:20]}, tmp_path, seed=0)
    measured = []

    def log_likelihood(vae, data, samples):
        measured.append(vae.decoder.get_weights()[-1][0])  # a bias, in which the weights below have their epoch
        return kvae.evaluation.Estimate(np.array([measured[-1] - 100]))

    monkeypatch.setattr(kvae.evaluation, "log_likelihood", log_likelihood)
    weights = [{**settings.initial(), "decoder/logits/bias": np.full(784, epoch, np.float32)} for epoch in range(1, 65)]
    goal = Goal("log_likelihood", size, "threshold", "", {-80.5: 1, -60.0: 1, -30.0: 1})
    values = bounds(goal, settings, weights)
    assert values == {epoch: epoch - 100 for epoch in values}
    seconds = list(range(1, 65))
    assert [seconds_to(number, seconds, values) for number in goal.numbers] == [20, 40, None]
    assert len(measured) == len(values) <= 1 + 3 * 7


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_kvae_measures_the_weights_that_a_contender_has(name, tmp_path, monkeypatch, digits):
    contender = CONTENDERS[PUBLISHED[name].contender]
    try:
        contender.environment.versions(300)
    except ContenderError as error:
        pytest.skip(f"not installed: {error}")
    images = np.rint(255 * digits[..., 0]).astype(np.uint8)
    size = Size(batch=10, latent=2, width=16, layers=2)
    settings = replace(prepare(size, {"train": images, "test": images}, tmp_path, seed=0), learning_rate=3e-3)
    worker = Worker(contender, settings, tmp_path, timeout=300)
    try:
        worker.hear()
        before = worker.ask("elbo")["elbo"]
        for _ in range(9):
            worker.ask("epoch")
        elbo, path = worker.ask("elbo")["elbo"], worker.ask("weights")["path"]
    finally:
        worker.close()
    assert elbo > before + 10
    monkeypatch.setattr(time_to_number, "DRAWS", 1)  # the bound with one draw is the ELBO
    with np.load(path) as archive:
        values = bounds(GOALS["elbo"], settings, [dict(archive)])
    assert values == {1: pytest.approx(elbo, abs=2)}  # each has one draw for each of 200 images


@pytest.mark.exhaustive
def test_the_tool_prints_a_table_and_writes_what_it_measured(tmp_path):
    goal, command = GOALS["elbo"], [sys.executable, ROOT / "tools" / "time_to_number.py"]
    command += ["--goals", "elbo", "--others", "keras.io", "--dataset", "mnist5k", "--images", "300", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "time_to_elbo.json").read_text())
    assert [run["epochs"] for run in report["kvae"]] == list(goal.epochs.values())
    (run,) = report["others"]["keras.io"]
    assert len(run["seconds"]) == len(run["values"]) == PUBLISHED["keras.io"].epochs
    assert run["seconds"] == sorted(run["seconds"])
    assert max(run["values"].values()) < max(goal.numbers)
    assert "not reached" in done.stdout  # with so few images


@pytest.mark.exhaustive
def test_a_likelihood_is_measured_after_the_training(monkeypatch):
    monkeypatch.setattr(time_to_number, "DRAWS", 5)
    monkeypatch.setitem(PUBLISHED, "keras.io", replace(PUBLISHED["keras.io"], epochs=3))
    goal = replace(GOALS["likelihood"], epochs={-600.0: 1, -1.0: 2})
    images = load_images("mnist5k", 2000, goal.kept)  # the recipe has batches of 2,000
    images["test"] = images["test"][:50]
    report = measure(goal, ["keras.io"], 1, images, timeout=300)
    assert [(run["number"], run["epochs"]) for run in report["kvae"]] == [(-600, 1), (-1, 2)]
    assert all(-784 < run["value"] < -100 for run in report["kvae"])
    (run,) = report["others"]["keras.io"]
    assert len(run["seconds"]) == 3
    assert run["seconds"] == sorted(run["seconds"])
    assert set(run["values"]) >= {1, 3}
    assert run["values"][1] < run["values"][3] < -100
