"""The results of single images: `kvae.evaluation.measure`, and the file of `kvae evaluate --per-image`."""

import csv
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from small_models import tiny

from kvae import evaluation
from kvae.cli.commands import main
from kvae.internal.errors import KvaeWarning, UserError
from kvae.training import results
from kvae.training.runs import Run
from kvae.training.train_resume import load_data

pytestmark = pytest.mark.usefixtures("without_xla")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_estimate_is_a_column(rng):
    vae = tiny()
    vae.build((None, 2, 2, 1))
    x = rng.integers(0, 2, (7, 2, 2, 1)).astype(np.float32)
    found = evaluation.measure(vae, x, only=["elbo", "bounds"], seed=4)
    columns = found.per_image()
    sizes = found.protocol["bound_sizes"]
    for number, size in enumerate(sizes[:3]):
        expected = evaluation.log_likelihood(vae, x, samples=size, seed=4).per_example
        np.testing.assert_allclose(columns[f"bounds_{number}"], expected, rtol=0, atol=1e-5)
    assert set(columns) >= {"elbo", "reconstruction", "kl", "effective_samples"}
    assert {column.shape for column in columns.values()} == {(7,)}
    summed = found.as_json()
    assert summed["elbo"] == pytest.approx(columns["elbo"].mean())
    assert summed == evaluation.evaluate(vae, x, only=["elbo", "bounds"], seed=4)


def test_the_file_has_a_line_per_image_in_their_order(tiny_run, tmp_path):
    run, path = Run.open(tiny_run), tmp_path / "scores.csv"
    result = results.evaluate(run, only=["elbo"], seed=1, per_image=path)
    rows = rows_of(path)
    assert [row["index"] for row in rows] == [str(number) for number in range(20)]
    assert "class" not in rows[0]
    np.testing.assert_allclose(np.mean([float(row["elbo"]) for row in rows]), result["elbo"], rtol=1e-6)
    elbo, reconstruction, kl = ([float(row[name]) for row in rows] for name in ("elbo", "reconstruction", "kl"))
    np.testing.assert_allclose(elbo, -np.add(reconstruction, kl), rtol=1e-6)


@pytest.mark.slow
def test_alone_it_computes_the_estimate_that_can_be_trusted_most(tiny_run, tmp_path):
    found = results.evaluate(Run.open(tiny_run), per_image=tmp_path / "scores.csv")
    assert found["protocol"]["evaluations"] == ["elbo", "quadrature"]  # of 3 latent dimensions
    exact = [float(row["quadrature"]) for row in rows_of(tmp_path / "scores.csv")]
    assert np.mean(exact) == pytest.approx(found["quadrature"], rel=1e-6)


def test_an_evaluation_of_the_first_images_has_no_entry_for_the_others(tiny_run, tmp_path):
    data = load_data(Run.open(tiny_run).config)
    results._write_per_image(tmp_path / "scores.csv", data, {"ais": np.arange(3.0), "elbo": np.arange(20.0)})
    rows = rows_of(tmp_path / "scores.csv")
    assert [row["elbo"] for row in rows] == [str(number) for number in range(20)]
    assert [row["ais"] for row in rows] == ["0", "1", "2"] + [""] * 17


def test_evaluations_without_results_of_single_images_are_refused_before_they_are_computed(tiny_run, tmp_path):
    before = (tiny_run / "evaluation.json").read_bytes()
    with pytest.raises(UserError, match=r"evaluation of single images, such as elbo\. sample_quality"):
        results.evaluate(Run.open(tiny_run), only=["sample_quality"], per_image=tmp_path / "scores.csv")
    assert (tiny_run / "evaluation.json").read_bytes() == before
    assert not (tmp_path / "scores.csv").exists()


def test_an_evaluation_that_leaves_earlier_ones_out_says_which_results_the_file_loses(tiny_run):
    run = Run.open(tiny_run)
    with warnings.catch_warnings():
        warnings.simplefilter("error", KvaeWarning)
        results.evaluate(run, samples=2)
    with pytest.warns(KvaeWarning, match=r"lose the results of log_likelihood\. To have all.*log_likelihood,elbo"):
        results.evaluate(run)
    with pytest.warns(KvaeWarning, match="lose the results of elbo"):
        results.evaluate(run, only=["log_likelihood"], samples=3)


def test_images_with_files_and_classes_are_named(call, tiny_run, tmp_path, rng):
    from PIL import Image

    for number, name in enumerate(["dog", "cat", "cat"]):
        folder = tmp_path / "pets" / "test" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 5), np.uint8)).save(folder / f"{number}.png")
        (tmp_path / "pets" / "train" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 5), np.uint8)).save(
            tmp_path / "pets" / "train" / name / f"{number}.png"
        )
    status, out, err = call(
        *("evaluate", tiny_run, "--dataset", f"images:{tmp_path / 'pets'}"),
        *("--only", "elbo", "--per-image", "scores.csv", "--json"),
    )
    assert (status, err) == (0, "")
    rows = rows_of(tmp_path / "scores.csv")
    assert sorted(row["class"] for row in rows) == ["cat", "cat", "dog"]
    assert all(row["file"].endswith(".png") and row["class"] in row["file"] for row in rows)
    assert json.loads(out)["elbo"] == pytest.approx(np.mean([float(row["elbo"]) for row in rows]), rel=1e-6)


def test_a_file_that_cannot_be_written_is_refused_before_the_evaluation(call, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "measure", None)  # would fail if it were called
    (tmp_path / "file").touch()
    status, out, err = call("evaluate", tiny_run, "--per-image", tmp_path / "file" / "scores.csv", "--quiet")
    assert (status, out) == (2, "")
    assert "Could not write" in err


def test_the_command_and_the_page_name_every_evaluation():
    page = (Path(__file__).parents[2] / "docs" / "EVALUATION.md").read_text(encoding="utf-8")
    (only,) = (each for each in main.commands["evaluate"].params if each.name == "only")
    for name in evaluation.EVALUATIONS:
        assert re.search(rf"\b{name}\b", only.help)
        assert f"`{name}`" in page
