"""Sweeps: which points a grid has, one run folder for each, and what remains after a kill or an error."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kvae import training
from kvae.cli import sweeping
from kvae.internal import sealed
from kvae.internal.errors import UserError
from kvae.plotting import rate_distortion
from kvae.training import sweeps
from kvae.training.runs import Run

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested
VALUES = {
    "data": {"source": "mnist5k", "train": "train[:60]", "test": "test[:30]", "batch_size": 20},
    "model": {"hidden_units": [4]},
    "training": {"epochs": 2},
}


def names(*settings, values=VALUES):
    return [point.name for point in sweeps.plan(values, settings)]


def test_the_grid_has_every_combination_and_the_last_key_changes_first():
    points = sweeps.plan(VALUES, ["model.beta=0.5,2", "model.latent_dim=1,3", "training.epochs=5"])
    assert [point.name for point in points] == [
        "beta=0.5,latent_dim=1", "beta=0.5,latent_dim=3", "beta=2,latent_dim=1", "beta=2,latent_dim=3",
    ]  # fmt: skip
    assert [point.config.model.latent_dim for point in points] == [1, 3, 1, 3]
    assert [point.config.model.objective.options["beta"] for point in points] == [0.5, 0.5, 2, 2]
    assert {point.config.training.epochs for point in points} == {5}
    assert points[0].settings == {"model.beta": 0.5, "model.latent_dim": 1}
    assert "beta" not in VALUES["model"]


def test_a_comma_in_brackets_or_quotes_belongs_to_its_value():
    points = sweeps.plan(VALUES, ["model.hidden_units=[4, 5],[6]", "data.source='csv:a,b'", 'data.test="test,","test"'])
    assert [point.settings["model.hidden_units"] for point in points] == [[4, 5], [4, 5], [6], [6]]
    assert {point.config.data.source for point in points} == {"csv:a,b"}
    assert [point.config.data.test for point in points][:2] == ["test,", "test"]


@pytest.mark.parametrize(
    ("kinds", "option", "part"),
    [
        ("prior=mixture,vamp", "prior.components=7", "prior"),
        ("objective=elbo,iwae", "samples=7", "objective"),
        ("likelihood=gaussian,laplace", "variance=learned", "likelihood"),
        ("network=conv,residual", "filters=[7]", "network"),
    ],
)
def test_every_kind_of_a_part_has_the_options_that_are_the_same_in_all_points(kinds, option, part):
    points = sweeps.plan({}, [f"model.{option}", f"model.{kinds}"])
    assert len({getattr(point.config.model, part).kind for point in points}) == 2
    for point in points:
        (value,) = getattr(point.config.model, part).options.values()
        assert value in (7, [7], "learned")


def test_keys_that_end_alike_are_named_whole_and_names_are_folders():
    assert names("seed=1,2", "data.evaluation_seed=1,2")[0] == "seed=1,evaluation_seed=1"
    assert sweeps.short_names(["model.prior.kind", "model.posterior.kind", "seed"]) == {
        "model.prior.kind": "model.prior.kind", "model.posterior.kind": "model.posterior.kind", "seed": "seed",
    }  # fmt: skip
    for name in names("data.source=images:a/b,images:c*"):
        assert training.names.check_name(name)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.beta=1"], "several values"),
        ([], "several values"),
        (["model.beta=1,2,1"], "Received '1' twice"),
        (["model.beta=1,2", "model.beta=3"], "one value for model.objective.beta"),
        (["model.beta"], "Expected key=value"),
        (["model.bta=1,2"], "Did you mean 'model.beta'"),
        (["training.epochs=1,0"], "training.epochs"),
        ([f"seed={','.join(map(str, range(100)))}", f"training.epochs={','.join(map(str, range(1, 12)))}"], "1,100"),
    ],
)
def test_a_grid_that_cannot_be_trained_is_refused_before_anything_is_written(settings, words):
    with pytest.raises(UserError, match=words):
        sweeps.plan(VALUES, settings)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of two points that was stopped within the second and continued."""
    folder = tmp_path_factory.mktemp("sweep") / "betas"
    sweep = sweeps.Sweep.create(folder, sweeps.plan(VALUES, ["model.beta=1,4"]))

    def stop(number, point):
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.train(verbose=0, begin=stop)
    first = (folder / "beta=1" / "model.keras").stat().st_mtime_ns
    assert not (folder / "beta=4").exists()
    again = sweeps.Sweep.open(folder)
    assert again.train(verbose=0) == {}
    assert (folder / "beta=1" / "model.keras").stat().st_mtime_ns == first
    return again


@pytest.mark.slow
def test_a_point_is_the_run_that_its_configuration_trains_alone(swept, tmp_path):
    alone = training.train(swept.points[1].config, tmp_path / "alone", verbose=0)
    run = Run.open(swept.folder / "beta=4")
    assert run.config == alone.config
    for ours, theirs in zip(run.load_model().get_weights(), alone.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_table_has_what_the_evaluations_state(swept):
    with open(swept.folder / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["beta=1", "beta=4"]
    for row in rows:
        evaluation = json.loads((swept.folder / row["run"] / "evaluation.json").read_text())
        assert float(row["elbo"]) == evaluation["elbo"]
        assert float(row["kl"]) == evaluation["kl"]
        assert row["epochs"] == "2"


def test_the_curve_joins_the_runs_in_order_at_their_kl_and_reconstruction(swept):
    axes = swept.curve(swept.rows()).axes[0]
    line = axes.lines[0]
    rows = swept.rows()
    np.testing.assert_array_equal(line.get_xdata(), [row["kl"] for row in rows])
    np.testing.assert_array_equal(line.get_ydata(), [row["reconstruction"] for row in rows])
    assert {"beta=1", "beta=4"} <= {text.get_text() for text in axes.texts}
    assert "dashed lines" in axes.get_title()
    assert (swept.folder / "rate_distortion.png").stat().st_size > 10_000


def test_levels_of_the_curve_are_lines_of_one_elbo():
    axes = rate_distortion.figure({"": [rate_distortion.Run("a", 2, 150), rate_distortion.Run("b", 9, 130)]}).axes[0]
    levels = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert len(levels) >= 2
    sums = [set(np.round(line.get_xdata() + np.asarray(line.get_ydata()), 6)) for line in levels]
    assert all(len(each) == 1 for each in sums)
    assert {f"ELBO {-each.pop():g}" for each in sums} <= {text.get_text() for text in axes.texts}


def test_each_line_of_the_curve_has_its_name_and_colour_in_the_legend():
    point = rate_distortion.Run
    lines = {
        "seed=1": [point("a", 2, 150), point("b", 9, 130)],
        "seed=2": [point("a", 3, 151, least=[(1, 160), (4, 149)])],
    }
    axes = rate_distortion.figure(lines).axes[0]
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["seed=1", "seed=2"]
    drawn = {float(line.get_xdata()[0]): line.get_color() for line in axes.lines if line.get_linestyle() == ":"}
    assert [line.get_color() for line in legend.get_lines()] == [drawn[2.0], drawn[3.0]]


def test_a_run_whose_last_evaluation_had_no_elbo_is_named_and_left_out_of_the_curve(swept, tmp_path, capsys):
    folder = Path(shutil.copytree(swept.folder, tmp_path / "betas"))
    run = Run.open(folder / "beta=1")
    run.write_evaluation({"ais": -200.0, "protocol": run.evaluation()["protocol"]})
    again = sweeps.Sweep.open(folder)
    assert again.train(verbose=0) == {}
    (points,) = [line for line in again.curve(again.rows()).axes[0].lines if line.get_linestyle() == ":"]
    assert len(points.get_xdata()) == 1
    sweeping._print(again.rows(), ["model.beta"])
    assert "not in the curve: beta=1." in capsys.readouterr().out


def test_points_of_the_curve_have_bars_of_their_standard_errors():
    runs = [rate_distortion.Run("a", 2, 150, 0.5, 3), rate_distortion.Run("b", 9, 130, 0.25, 2)]
    axes = rate_distortion.figure({"": runs}).axes[0]
    horizontal, vertical = (np.array(bars.get_segments()) for bars in axes.collections)
    np.testing.assert_allclose(np.ptp(horizontal[:, :, 0], axis=1), [1, 0.5])
    np.testing.assert_allclose(np.ptp(vertical[:, :, 1], axis=1), [6, 4])
    assert axes.lines[0].get_linestyle() == ":"
    assert "standard error" in axes.get_title()


def measured(sweep, tmp_path, name="beta=1", **protocol):
    """A copy of a sweep, of which one run has more in its evaluation.json."""
    shutil.copytree(sweep.folder, tmp_path / "sweep")
    path = tmp_path / "sweep" / name / "evaluation.json"
    evaluation = sealed.read(path)
    evaluation |= {"ais_rates": [1.0, 4.0], "ais_distortions": [180.0, 150.0]}
    evaluation["protocol"] |= {"evaluations": ["elbo", "ais"], "ais_betas": [0.1, 1.0], **protocol}
    sealed.write(path, evaluation)
    return sweeps.Sweep.open(tmp_path / "sweep")


@pytest.mark.parametrize("images", [None, 300])
def test_the_curve_shows_what_annealing_found_on_the_same_images(swept, tmp_path, images):
    sweep = measured(swept, tmp_path, ais_images=images)
    axes = sweep.curve(sweep.rows()).axes[0]
    solid = [line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata())]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in solid] == [([1.0, 4.0], [180.0, 150.0])]
    assert "best that an encoder could do" in axes.get_title()
    assert "do not compare" not in axes.get_title()  # annealing does not change the ELBO


def test_the_curve_does_not_show_what_annealing_found_on_fewer_images(swept, tmp_path):
    sweep = measured(swept, tmp_path, ais_images=2)
    assert "encoder" not in sweep.curve(sweep.rows()).axes[0].get_title()


@pytest.mark.slow
def test_runs_that_were_measured_by_different_protocols_are_said_to_be_so(tmp_path):
    values = {**VALUES, "training": {"epochs": 1}}
    sweep = sweeps.Sweep.create(tmp_path / "tests", sweeps.plan(values, ["data.test=test[:20],test[:30]"]))
    sweep.train(verbose=0)
    assert "do not compare" in sweep.curve(sweep.rows()).axes[0].get_title()


@pytest.mark.slow
def test_a_training_that_fails_does_not_end_the_sweep(tmp_path):
    values = {**VALUES, "training": {"epochs": 1, "optimizer": "sgd"}}
    points = sweeps.plan(values, ["training.learning_rate=1e30,1e-3"])
    errors = sweeps.Sweep.create(tmp_path / "rates", points).train(verbose=0)
    assert list(errors) == ["learning_rate=1e+30"]
    assert "diverged" in str(errors["learning_rate=1e+30"])
    assert [row["run"] for row in sweeps.Sweep.open(tmp_path / "rates").rows()] == ["learning_rate=0.001"]


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="exists"):
        sweeps.Sweep.create(tmp_path, sweeps.plan(VALUES, ["model.beta=1,4"]))
    with pytest.raises(UserError, match="is not a sweep: it has no sweep"):
        sweeps.Sweep.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_description_is_refused(swept, tmp_path):
    content = (swept.folder / "sweep.json").read_text()
    (tmp_path / "sweep.json").write_text(content.replace('"model.beta": 4', '"model.beta": 5'))
    with pytest.raises(UserError, match="damaged or changed"):
        sweeps.Sweep.open(tmp_path)


@pytest.mark.slow
def test_the_command_trains_prints_and_names_its_files(call, tmp_path):
    settings = ["data.train=train[:60]", "data.test=test[:30]", "data.batch_size=20", "training.epochs=1"]
    fixed = [f"--set={text}" for text in (*settings, "model.hidden_units=[4]", "training.plots=[]")]
    status, out, err = call("sweep", "--recipe", "digits_2d", "--set", "model.beta=1,2", *fixed, "--out", "betas")
    assert (status, err) == (0, "")
    for words in ("1 of 2: beta=1", "2 of 2: beta=2", "reconstruction"):
        assert words in out
    assert {path.name for path in (tmp_path / "betas").iterdir()} == {
        "beta=1", "beta=2", "sweep.json", "sweep.csv", "rate_distortion.png", ".lock",
    }  # fmt: skip
    status, out, _ = call("sweep", "--resume", "--out", "betas")
    assert (status, "reconstruction" in out) == (0, True)
    status, _, err = call("sweep", "--resume", "--out", "betas", "--set", "model.beta=1,2,3")
    assert (status, "and nothing else" in err) == (2, True)


@pytest.mark.slow
def test_settings_that_are_not_given_follow_own_data(call, tmp_path, rng):
    np.savez(tmp_path / "grey.npz", x_train=rng.integers(0, 256, (40, 8, 8), dtype=np.uint8))
    options = ["--set", "model.latent_dim=2,3", "--set", "training.epochs=1", "--set", "model.hidden_units=[4]"]
    status, out, _ = call("sweep", "--dataset", "npz:grey.npz", *options, "--out", "grey")
    assert status == 0
    assert out.count("Chosen for 36 grey images of 8 x 8") == 1
    for point in sweeps.Sweep.open(tmp_path / "grey").points:
        assert (point.config.data.binarize, point.config.model.likelihood.kind) == ("none", "gaussian")


def test_the_folder_of_own_data_may_have_any_letter(call, tmp_path, rng):
    np.savez(tmp_path / "grey \U0001f600, 1.npz", x=rng.random((40, 8, 8)))
    options = ["--set", "model.latent_dim=2,3", "--set", "training.epochs=1", "--set", "model.hidden_units=[4]"]
    status, _, err = call("sweep", "--dataset", "npz:grey \U0001f600, 1.npz", *options, "--out", "grey")
    assert status == 0, err
    status, _, err = call("sweep", "--dataset", "npz:is not read", *options, "--out", "grey")
    assert status == 2
    assert "exists" in err


def test_a_standard_error_that_is_not_known_is_a_hyphen(capsys):
    row = {"model.beta": 1, "elbo": -3.0, "elbo_standard_error": None, "reconstruction": 2.0, "kl": 1.0}
    sweeping._print([{**row, "active_units": 1, "latent_dim": 2, "epochs": 3}], ["model.beta"])
    assert " - " in capsys.readouterr().out
