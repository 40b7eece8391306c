"""`kvae.training.comparison`: which runs may be ranked, in which order, and what the files say."""

import csv
import math
import shutil
from pathlib import Path

import pytest
from PIL import Image

from kvae.internal import files, sealed
from kvae.internal.errors import UserError
from kvae.training import comparison, wording
from kvae.training.runs import Run


@pytest.fixture
def make(tiny_run, tmp_path):
    """Makes a copy of a run with other numbers in its evaluation."""

    def make(name: str, elbo: float | None = -10.0, error: float | None = 0.3, protocol=(), **changes: object) -> Path:
        folder = Path(shutil.copytree(tiny_run, tmp_path / name))
        content = {**sealed.read(folder / "evaluation.json"), "elbo": elbo, "elbo_standard_error": error, **changes}
        content["protocol"] = {**content["protocol"], **dict(protocol)}
        kept = {key: value for key, value in content.items() if value is not None}
        sealed.write(folder / "evaluation.json", kept)
        return folder

    return make


def names(compared: comparison.Comparison) -> list[str]:
    return [run.name for run in compared.runs]


def test_runs_of_one_protocol_are_ranked_by_their_elbo(make):
    compared = comparison.compare([make("low", -12.0), make("high", -8.0), make("middle", -9.5)])
    assert compared.ranked
    assert names(compared) == ["high", "middle", "low"]
    assert [row["rank"] for row in comparison.rows(compared)] == [1, 2, 3]
    assert "high is better than all others by more than two standard errors." in compared.notes()


def test_a_difference_has_the_standard_error_of_independent_sets(make):
    compared = comparison.compare([make("a", -8.0, 0.3), make("b", -9.5, 0.4)])
    difference, error = compared.difference(compared.runs[1])
    assert difference == -1.5
    assert math.isclose(error, 0.5)
    assert compared.difference(compared.runs[0]) is None


@pytest.mark.parametrize(("elbo", "close"), [(-8.99, ["b"]), (-9.01, [])])
def test_a_run_within_two_standard_errors_is_named(make, elbo, close):
    """The standard error of the difference is 0.5, from 0.3 and 0.4."""
    compared = comparison.compare([make("a", -8.0, 0.3), make("b", elbo, 0.4)])
    assert compared.close == close
    assert any("Not clearly worse than a" in note and note.endswith(": b.") for note in compared.notes()) == bool(close)
    assert any("unpaired" in note for note in compared.notes())


def test_a_run_without_a_standard_error_is_neither_close_nor_clearly_worse(make):
    compared = comparison.compare([make("a", -8.0, 0.3), make("b", -8.1, None)])
    assert compared.close == []
    assert not any("better than all others" in note for note in compared.notes())


@pytest.mark.parametrize(
    "key", ["dataset", "split", "binarization", "evaluation_binarization", "seed", "elbo_draws", "likelihood", "notes"]
)
def test_another_protocol_is_marked_and_not_ranked(make, key):
    compared = comparison.compare([make("a", -12.0), make("b", -8.0, protocol={key: "other"}), make("c", -9.0)])
    assert not compared.ranked
    assert list(compared.differing) == [key]
    assert compared.letters == ["A", "B", "A"]
    assert names(compared) == ["a", "b", "c"]
    assert f"{wording.in_words(key)} (" in compared.differences()
    assert "'other' for b" in compared.differences()
    assert [row["rank"] for row in comparison.rows(compared)] == [None] * 3


def test_other_protocols_are_ranked_on_demand_with_a_warning(make):
    folders = [make("a", -12.0), make("b", -8.0, protocol={"dataset": "other"})]
    compared = comparison.compare(folders, any_protocol=True)
    assert names(compared) == ["b", "a"]
    assert compared.letters == ["A", "B"]
    assert any("may mean nothing: dataset" in note for note in compared.notes())
    assert not any("better than" in note or "worse than" in note for note in compared.notes())
    assert "best" not in comparison.key(compared)


def test_densities_of_the_same_pixels_are_ranked(make):
    folders = [make("a", -8.0, protocol={"likelihood": "gaussian"})]
    folders.append(make("b", -12.0, protocol={"likelihood": "continuous_bernoulli"}))
    compared = comparison.compare(folders)
    assert compared.ranked
    assert any("continuous_bernoulli, gaussian" in note and "densities" in note for note in compared.notes())
    assert "likelihood: gaussian or continuous_bernoulli" in comparison.protocols(compared)["A"]


@pytest.mark.parametrize("other", ["bernoulli", "squared_error (without the constant of its density)", "mine:Own"])
def test_what_is_no_density_of_the_pixels_is_not_ranked_with_densities(make, other):
    given = ("gaussian", other, "continuous_bernoulli")
    compared = comparison.compare([make(f"run{i}", protocol={"likelihood": name}) for i, name in enumerate(given)])
    assert not compared.ranked
    assert compared.letters == ["A", "B", "A"]


@pytest.mark.parametrize("key", ["train", "validation", "prior", "posterior", "kl", "noise", "evaluations"])
def test_another_model_or_training_is_no_other_protocol(make, key):
    assert comparison.compare([make("a"), make("b", protocol={key: "other"})]).ranked


def test_only_bounds_of_different_samples_differ(make):
    first, second = make("a", protocol={"importance_samples": 50}), make("b")
    assert comparison.compare([first, second]).ranked
    third = make("c", protocol={"importance_samples": 500})
    assert list(comparison.compare([first, second, third]).differing) == ["importance_samples"]


def test_a_run_without_an_elbo_is_left_out_with_the_command_that_makes_it(make):
    interrupted, unevaluated, only_bound = make("interrupted"), make("unevaluated"), make("only_bound", None)
    Run.open(interrupted).discard_results()
    (unevaluated / "evaluation.json").unlink()
    compared = comparison.compare([make("a"), interrupted, unevaluated, only_bound])
    assert names(compared) == ["a"]
    assert compared.left_out["interrupted"].endswith(f"kvae train --resume --out {interrupted}")
    assert compared.left_out["unevaluated"].endswith(f"kvae evaluate {unevaluated}")
    assert compared.left_out["only_bound"].endswith(f"kvae evaluate {only_bound}")
    with pytest.raises(UserError, match="kvae evaluate"):
        comparison.compare([unevaluated, only_bound])


def test_fewer_than_two_runs_are_refused(make):
    run = make("a")
    with pytest.raises(UserError, match=r"Expected at least two runs to compare\. Received 1"):
        comparison.compare([run, run])


def test_no_run_is_refused(make, tmp_path):
    with pytest.raises(UserError, match="Expected the folder of a run"):
        comparison.compare([make("a"), tmp_path / "nothing"])


def test_a_folder_of_runs_stands_for_them_and_names_tell_runs_apart(make, tmp_path):
    make("grid/x", -1.0)
    make("other/x", -2.0)
    assert names(comparison.compare([tmp_path / "grid", tmp_path / "other"])) == ["grid/x", "other/x"]
    assert names(comparison.compare([tmp_path])) == ["grid/x", "other/x"]


def test_weights_are_counted_as_keras_counts_them(tiny_run):
    weights = Run.open(tiny_run).load_model().get_weights()
    expected = sum(weight.size for weight in weights if weight.dtype.kind == "f")
    assert comparison.parameters(tiny_run / "model.keras") == expected > 0


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_weights_of_a_damaged_file_are_not_counted(tmp_path, content):
    (tmp_path / "model.keras").write_bytes(content)
    assert comparison.parameters(tmp_path / "model.keras") is None


def test_the_time_of_the_training_is_that_of_its_file_or_unknown(make):
    timed, untimed = make("b"), make("c")
    for run, seconds in ((timed, 75.5), (untimed, "long")):
        files.write_json(run / "training_time.json", {"seconds": seconds})
    rows = {row["run"]: row for row in comparison.rows(comparison.compare([timed, untimed]))}
    assert rows["b"]["training_seconds"] == 75.5
    assert rows["c"]["training_seconds"] is None


def test_the_files_have_the_table_the_sentences_and_the_curves(make, tmp_path):
    compared = comparison.compare([make("low_*", -12.0), make("high", -8.0, log_likelihood=-7.0)])
    for _ in range(2):  # the second time, they replace those of the first
        written = comparison.save(compared, tmp_path / "out")
    assert [path.name for path in written] == ["comparison.csv", "comparison.md", "elbo_curves.png"]
    with written[0].open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], float(row["elbo"])) for row in rows] == [("high", -8.0), ("low_*", -12.0)]
    assert [row["log_likelihood"] for row in rows] == ["-7.0", ""]
    page = written[1].read_text(encoding="utf-8")
    assert "| high \\* | -8.00 ± 0.30 |" in page
    assert "| low\\_\\* | -12.00 ± 0.30 | -4.00 ± 0.42 |" in page
    assert "unpaired" in page
    assert "dataset: " in page
    Image.open(written[2]).verify()


FURTHER = {
    "bounds": [-9.0, -8.5],
    "bounds_standard_error": [0.2, 0.1],
    "quadrature": -8.25,
    "quadrature_standard_error": 0.125,
    "unreliable": 0.04,
}


def test_further_evaluations_of_one_run_do_not_keep_it_from_being_ranked(make):
    options = {"bound_sizes": [1, 50], "bound_images": None, "quadrature_tolerance": 1e-3}
    compared = comparison.compare([make("plain", -9.5), make("more", -9.0, protocol=options, **FURTHER)])
    assert compared.ranked
    assert names(compared) == ["more", "plain"]
    headings, rows = comparison.further_cells(compared)
    assert headings == ["further result", "more", "plain"]
    assert rows == [
        ["bounds[0]", "-9 ± 0.2", ""],
        ["bounds[1]", "-8.5 ± 0.1", ""],
        ["quadrature", "-8.25 ± 0.12", ""],
        ["unreliable", "0.04", ""],
    ]
    assert not any("different options" in note for note in compared.notes())
    assert "docs/EVALUATION.md" in comparison.key(compared)


def test_without_further_results_there_is_no_table_of_them(make):
    compared = comparison.compare([make("a"), make("b")])
    assert comparison.further_cells(compared)[1] == []
    assert "further" not in comparison.key(compared)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"ais_images": 300}, {"ais_images": 100}, "largest number of images, for annealing"),
        ({"bound_images": None}, {"bound_images": 100}, "images, for the bounds of log p(x)"),
        ({"ais_images": 300}, {"ais_images": 300}, None),
        ({"ais_images": 300}, {}, None),
    ],
)
def test_options_that_differ_are_said_where_both_runs_have_them(make, first, second, said):
    compared = comparison.compare([make("a", protocol=first), make("b", -9.0, protocol=second)])
    assert compared.ranked
    notes = [note for note in compared.notes() if "different options" in note]
    assert notes == ([f"The further results were measured with different options: {said}."] if said else [])


def test_the_files_have_the_further_results(make, tmp_path):
    compared = comparison.compare([make("a", **FURTHER), make("b")])
    comparison.save(compared, tmp_path / "out")
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert (rows["a"]["bounds[1]"], rows["a"]["quadrature_standard_error"]) == ("-8.5", "0.125")
    assert rows["b"]["quadrature"] == ""
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "| quadrature | -8.25 ± 0.12 |  |" in page


def test_every_option_of_another_evaluation_is_known_as_such():
    from kvae.evaluation import EVALUATIONS

    others = {
        key
        for name, each in EVALUATIONS.items()
        if name not in ("elbo", "log_likelihood")
        for key in each.options.values()
    }
    assert others <= set(wording.OF_FURTHER_EVALUATIONS)
    assert not set(EVALUATIONS["elbo"].options.values()) & set(wording.OF_FURTHER_EVALUATIONS)
