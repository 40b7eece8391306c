"""The command line as a user meets it: exit status, one line on stderr, files that appear."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvae import cli, completion, training
from kvae.plotting import figures
from kvae.training.config import RunConfig
from kvae.training.runs import Run

SMALL = [
    "--set=data.train=train[:200]",
    "--set=data.test=test[:60]",
    "--set=model.hidden_units=[16]",
    "--set=training.jit_compile=false",
    "--epochs=2",
]


def kvae(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "kvae", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ},
        check=False,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A small trained run, made by the command itself in a process of its own."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    result = kvae("train", *SMALL, "--out", folder)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return folder


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    """A run of 3 latent dimensions on small pictures without labels."""
    folder, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    np.savez(
        folder / "odd.npz", x_train=rng.integers(0, 256, (20, 6, 5), np.uint8), x_test=rng.integers(0, 256, (9, 6, 5))
    )
    values = {
        "data": {"source": f"npz:{folder / 'odd.npz'}", "batch_size": 10},
        "model": {"latent_dim": 3, "hidden_units": [4]},
        "training": {"epochs": 1, "jit_compile": False},
    }
    return training.train(RunConfig.from_dict(values), folder / "run", verbose=0).folder


def test_train_leaves_a_run_and_prints_its_elbo_with_protocol(run):
    assert (run / "model.keras").is_file()
    assert (run / "evaluation.json").is_file()


def test_short_options_and_set_reach_the_configuration(call, tmp_path):
    status, _, err = call(
        "train", *SMALL, "--out", "r", "--batch-size", 50, "--latent-dim", 3, "--beta", 2, "--seed", 4,
        "--learning-rate", "0.01", "--set", "model.activation=relu",
    )  # fmt: skip
    assert status == 0, err
    config = json.loads((tmp_path / "r" / "config.json").read_text())["config"]
    assert config["data"]["batch_size"] == 50
    assert config["model"]["latent_dim"] == 3
    assert config["model"]["beta"] == 2
    assert config["model"]["activation"] == "relu"
    assert config["seed"] == 4
    assert config["training"]["learning_rate"] == 0.01


def test_evaluate_prints_one_json_object_and_writes_the_same(call, run):
    status, out, _ = call("evaluate", run, "--samples", 5, "--json")
    assert status == 0
    result = json.loads(out)
    assert result == json.loads((run / "evaluation.json").read_text())
    assert result["protocol"]["importance_samples"] == 5
    assert result["log_likelihood"] > result["elbo"]


def test_evaluate_prints_a_table_with_the_protocol(call, run):
    status, out, _ = call("evaluate", run)
    assert status == 0
    assert "standard error" in out
    assert "dataset: mnist5k" in out


def test_evaluate_on_other_data_binarizes_them_the_same_way(call, run, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "other.npz", x=rng.integers(0, 256, (40, 28, 28), np.uint8))
    status, out, _ = call("evaluate", run, "--dataset", f"npz:{tmp_path / 'other.npz'}", "--json")
    assert status == 0
    assert json.loads(out)["protocol"]["dataset"].startswith("npz:")


def test_train_on_other_data_is_named_after_them_and_takes_no_recipe(call, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=rng.integers(0, 256, (60, 6, 6), np.uint8))
    status, _, err = call("train", "--dataset", "npz:mine.npz", "--epochs", 1, "--batch-size", 20)
    assert status == 0, err
    config = json.loads((tmp_path / "saved_models" / "npz_mine_npz" / "config.json").read_text())["config"]
    assert config["model"]["beta"] == 1
    assert config["description"] == ""


def test_grey_pixels_under_a_bernoulli_are_one_line_of_warning(tmp_path):
    result = kvae("train", *SMALL, "--set=data.binarize=none", "--out", tmp_path / "grey")
    assert result.returncode == 0
    assert result.stderr.startswith("kvae: warning: Grey pixels")
    assert result.stderr.count("\n") == 1
    evaluation = json.loads((tmp_path / "grey" / "evaluation.json").read_text())
    assert "cross entropy" in evaluation["protocol"]["warning"]


# --- plot

ALL_FILES = (
    "samples", "samples_grid", "samples_strip", "reconstructions", "reconstructions_draws", "latent_scatter", "lattice",
    "interpolation", "learning_curves", "completion", "posterior_contours",
)  # fmt: skip


def test_plot_draws_every_kind(call, run):
    status, out, _ = call("plot", run)
    assert status == 0
    assert out.splitlines() == [str(run / "plots" / f"{name}.png") for name in ALL_FILES]
    for line in out.splitlines():
        Image.open(line).verify()
    assert Image.open(run / "plots" / "lattice.png").size == (560, 560)


def test_plot_leaves_out_what_does_not_suit_and_says_why(call, odd):
    status, out, _ = call("plot", odd)
    assert status == 0
    reasons = dict(line.split(": left out. ") for line in out.splitlines() if ": left out. " in line)
    assert set(reasons) == {"latent_scatter", "lattice", "interpolation", "posterior_contours"}
    assert reasons["lattice"] == "Expected 2 latent dimensions for a latent plane. This model has 3."
    assert "labels" in reasons["latent_scatter"]
    assert {Path(line).name for line in out.splitlines() if ": left out. " not in line} == {
        "samples.png", "samples_grid.png", "samples_strip.png", "reconstructions.png", "reconstructions_draws.png",
        "learning_curves.png", "completion.png",
    }  # fmt: skip


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_plot_writes_the_format_asked_for(call, run, suffix):
    status, out, _ = call("plot", run, "lattice", "-n", 5, "--format", suffix)
    assert status == 0
    assert out.splitlines() == [str(run / "plots" / f"lattice.{suffix}")]
    assert (run / "plots" / f"lattice.{suffix}").stat().st_size > 1000


def test_plot_draws_a_lattice_of_the_size_asked_for(call, run):
    assert call("plot", run, "lattice", "-n", 50)[0] == 0
    assert Image.open(run / "plots" / "lattice.png").size == (1400, 1400)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["lattice"], {"lattice": {}}),
        (["lattice", "-n", 7, "--extent", 3.5], {"lattice": {"n": 7, "extent": 3.5}}),
        (["lattice", "--quantiles"], {"lattice": {"quantiles": True}}),
        (["samples", "lattice", "-n", 7, "--seed", 3], {"samples": {"n": 7, "seed": 3}, "lattice": {"n": 7}}),
        (["reconstructions", "--seed", 0], {"reconstructions": {"seed": 0}}),
        (
            ["interpolation", "--pair", "0,5", "--pair", "cat, dog"],
            {"interpolation": {"pairs": [("0", "5"), ("cat", "dog")]}},
        ),
        (
            ["interpolation", "--between", "3,17", "--steps", 4, "--spherical"],
            {"interpolation": {"between": [(3, 17)], "steps": 4, "spherical": True}},
        ),
        (
            ["completion", "--observed", "left", "--index", 3, "--index", 4, "--plain"],
            {"completion": {"observed": "left", "places": (3, 4), "plain": True}},
        ),
        (["posterior_contours", "--index", 0], {"posterior_contours": {"places": (0,)}}),
        (["--extent", 3], {kind: {"extent": 3.0} if kind == "lattice" else {} for kind in figures.KINDS}),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_options_reach_the_kinds_that_take_them_and_no_other(call, run, monkeypatch, arguments, expected):
    asked = {}
    monkeypatch.setattr(figures, "draw", lambda kind, *_, suffix, **options: asked.update({kind: options}) or [])
    status, _, err = call("plot", run, *arguments)
    assert (status, err) == (0, "")
    assert asked == expected


def test_help_of_plot_names_every_kind(call):
    _, out, _ = call("plot", "--help")
    for kind in figures.KINDS:
        assert kind in out


# --- complete

FEW = ["--samples", "20"]
SUBJECTS = {}  # of the runs of this module, so that their graphs are traced once


@pytest.fixture
def complete(call, monkeypatch):
    """`kvae complete` that loads a run once for all tests and draws coarse contours."""
    subject = cli.results.subject_of

    def known_subject(trained):
        if trained.folder not in SUBJECTS:
            SUBJECTS[trained.folder] = subject(trained)
        return SUBJECTS[trained.folder]

    monkeypatch.setattr(cli.results, "subject_of", known_subject)
    monkeypatch.setattr(figures, "CONTOUR_POINTS", 41)
    return lambda *arguments: call("complete", *arguments)


@pytest.fixture
def completed(complete):
    """What `kvae complete --json` prints."""

    def completed(*arguments):
        status, out, err = complete(*arguments, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)

    return completed


def test_complete_prints_scores_beside_both_baselines_with_the_protocol(call, run):
    # By itself, without the fixture.
    status, out, _ = call("complete", run, "-n", 3, *FEW)
    assert status == 0
    for words in (
        "log p(missing | observed), nats per image", "standard error", "kvae, importance sampling",
        "baseline: encoding the image with zeros", "baseline: independent pixel means", "of 3 converged",
        "dataset: mnist5k", "test_images: the first 3", "observed: top", "inference: 100 Adam steps",
        "latent_samples: 20",
    ):  # fmt: skip
        assert words in out
    assert "quadrature" not in out


def test_complete_names_the_pictures_that_it_draws(complete, run):
    _, out, _ = complete(run, "-n", 2, *FEW)
    *pictures, scores = out.splitlines()[-3:]
    assert pictures == [str(run / "plots" / f"{name}.png") for name in ("complete", "complete_contours")]
    for picture in pictures:
        Image.open(picture).verify()
    assert scores == str(run / "plots" / "complete.json")


def test_complete_writes_the_object_that_it_prints(completed, run, tmp_path):
    result = completed(run, "-n", 2, *FEW, "--out", "scores")
    assert json.loads((tmp_path / "scores" / "complete.json").read_text()) == result


def test_complete_writes_its_pictures_to_the_given_folder(complete, run, tmp_path):
    status, _, _ = complete(run, "-n", 1, *FEW, "--out", "new/pictures")
    assert status == 0
    names = {path.name for path in (tmp_path / "new" / "pictures").iterdir()}
    assert names == {"complete.png", "complete_contours.png", "complete.json"}


def test_complete_draws_contours_only_for_two_latent_dimensions(complete, odd, tmp_path):
    status, _, _ = complete(odd, *FEW, "--out", "pictures")
    assert status == 0
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"complete.png", "complete.json"}


def test_complete_prints_one_json_object(completed, run):
    result = completed(run, "-n", 3, *FEW)
    assert set(result) == {"kvae", "pixel_means", "zero_filled", "converged", "protocol"}
    for name in ("kvae", "pixel_means", "zero_filled"):
        assert len(result[name]["per_image"]) == 3
        assert result[name]["mean"] == pytest.approx(np.mean(result[name]["per_image"]))
        error = np.std(result[name]["per_image"], ddof=1) / 3**0.5
        assert result[name]["standard_error"] == pytest.approx(error)


def test_complete_scores_as_the_library_does(completed, run):
    result = completed(run, "-n", 2, *FEW, "--seed", 4, "--observed", "left")
    trained = Run.open(run)
    x, _ = training.load_data(trained.config).examples("test", 2)
    found = completion.complete(trained.load_model(), x, "left", samples=20, seed=4)
    assert result["kvae"]["per_image"] == found.score.log_density.tolist()


def test_complete_states_its_protocol(completed, run):
    protocol = completed(run, "-n", 2, *FEW, "--seed", 4, "--observed", "left")["protocol"]
    expected = {
        "dataset": "mnist5k", "split": "test", "observed": "left", "inference": "100 Adam steps", "latent_samples": 20,
        "seed": 4, "units": "nats per image", "test_images": "the first 2",
    }  # fmt: skip
    assert {name: protocol[name] for name in expected} == expected


@pytest.mark.parametrize(("more", "count"), [([], 1), (["-n", "3"], 3)])
def test_complete_takes_the_first_images_of_a_digit(completed, run, more, count):
    result = completed(run, "--digit", 7, *more, *FEW)
    assert result["protocol"]["test_images"] == f"the first {count} of class 7"


def test_complete_takes_the_image_at_an_index(completed, run):
    result = completed(run, "--index", 5, *FEW)
    assert result["protocol"]["test_images"] == "the one at place 5, from 0"
    assert result["kvae"]["standard_error"] is None


def test_complete_takes_as_many_images_as_there_are(completed, odd):
    assert len(completed(odd, "-n", 99, *FEW)["kvae"]["per_image"]) == 9


def test_complete_adds_the_exact_value_on_request(completed, run):
    result = completed(run, "-n", 2, "--samples", 2000, "--exact")
    for estimate, exact in zip(result["kvae"]["per_image"], result["quadrature"]["per_image"], strict=True):
        # Five Monte-Carlo standard errors of a mean over both images of much the same error each; the seed is fixed.
        assert abs(estimate - exact) < 5 * result["kvae"]["monte_carlo_standard_error"]


def test_complete_takes_a_picture_as_mask(completed, run, tmp_path):
    mask = np.zeros((28, 28), np.uint8)
    mask[:14] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    by_picture, by_name = (completed(run, "-n", 2, *FEW, "--observed", name) for name in ("mask.png", "top"))
    assert by_picture["kvae"] == by_name["kvae"]


def test_complete_plain_prints_the_loss_every_ten_steps(complete, run):
    status, out, _ = complete(run, "--digit", 3, *FEW, "--plain")
    assert status == 0
    losses = {int(step): float(loss) for step, loss in re.findall(r"^step +(\d+): loss ([\d.]+)$", out, re.M)}
    assert list(losses) == list(range(10, 201, 10))
    assert losses[200] < losses[10]
    assert "inference: 200 plain steps" in out


def test_complete_prints_no_losses_unless_plain(complete, run):
    assert "step " not in complete(run, "-n", 1, *FEW)[1]


# --- sample, recipes, demo


def test_sample_draws_means_above_binary_draws(call, run, tmp_path):
    status, out, _ = call("sample", run, "-n", 10, "-o", "new/samples.png")
    assert status == 0
    assert out.strip() == "new/samples.png"
    picture = np.asarray(Image.open(tmp_path / "new" / "samples.png"))
    lower = picture[picture.shape[0] // 2 + 8 :]
    assert set(np.unique(lower)) <= {0, 255}
    assert len(np.unique(picture[: picture.shape[0] // 2 - 8])) > 10


def test_sample_is_the_same_for_the_same_seed(call, run, tmp_path):
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        call("sample", run, "--seed", seed, "-o", name, "--means")
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert a == b != c


def test_recipes_lists_every_recipe(call):
    status, out, _ = call("recipes")
    assert status == 0
    shipped = sorted(path.stem for path in (Path(cli.__file__).parent.parent / "training" / "recipes").glob("*.toml"))
    assert [line.split()[0] for line in out.splitlines()] == shipped


@pytest.mark.slow
def test_demo_does_the_main_job(tmp_path):
    result = kvae("demo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    demo = tmp_path / "saved_models" / "demo"
    assert json.loads((demo / "evaluation.json").read_text())["elbo"] > -160  # it ended at -153 where it was made
    assert {path.stem for path in (demo / "plots").iterdir()} == set(ALL_FILES)
    assert (demo / "samples.png").is_file()


def full(path: Path) -> Path:
    path.mkdir()
    (path / "file").touch()
    return path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--recipe", "digit_2d"], "Did you mean 'digits_2d'"),
        (["train", "--recipe", "nowhere.toml"], "nowhere.toml"),
        (["train", "--dataset", "idx:nowhere"], "not a folder"),
        (["train", "--dataset", "csv:nowhere.csv"], "nowhere.csv"),
        (["train", "--dataset", "npz:nowhere.npz"], "nowhere.npz"),
        (["train", "--dataset", "images:nowhere"], "not a folder"),
        (["train", "--set", "model.latent=3"], "Did you mean 'model.latent_dim'"),
        (["train", "--set", "model.latent_dim"], "key=value"),
        (["train", "--latent-dim", "0"], "latent_dim"),
        (["train", "--beta", "-1"], "beta"),
        (["train", "--epochs", "two"], "two"),
        (["train", "--batch-size", "9999"], "batch_size"),
        (["train", "--resume"], "--out"),
        (["train", "--resume", "--out", "nowhere"], "nowhere"),
        (["train", "--resume", "--overwrite", "--out", "x"], "Received both"),
        (["train", "--out", "full"], "--overwrite"),
        (["train", "--out", "full", "--overwrite"], "not a run"),
        (["evaluate", "nowhere"], "config.json"),
        (["evaluate", "{run}", "--samples", "0"], "--samples"),
        (["evaluate", "{run}", "--dataset", "npz:nowhere.npz"], "nowhere.npz"),
        (["plot", "{run}", "latice"], "Did you mean 'lattice'"),
        (
            ["plot", "{run}", "samples", "--pair", "0,5"],
            "None of samples takes that option: it belongs to interpolation",
        ),
        (["plot", "{run}", "lattice", "--observed", "top"], "it belongs to completion, posterior_contours"),
        (["plot", "{run}", "interpolation", "--pair", "0"], "Expected two classes, e.g. 0,5. Received '0'"),
        (["plot", "{run}", "interpolation", "--between", "3,x"], "Expected two places, e.g. 3,17. Received '3,x'"),
        (["plot", "{run}", "interpolation", "--between", "0,60"], "among the 60 test images, from 0. Received 60"),
        (["plot", "{run}", "interpolation", "--pair", "0,11"], "Unknown class of the test images '11'"),
        (["plot", "{run}", "interpolation", "--steps", "1"], "at least 2 steps"),
        (["plot", "{run}", "completion", "--index", "60"], "among the 60 test images"),
        (["plot", "{run}", "completion", "--observed", "topp"], "Did you mean 'top'"),
        (["plot", "{run}", "lattice", "-n", "0"], "n to be a whole number of at least 1"),
        (["plot", "{run}", "lattice", "--extent", "-1"], "a positive, finite extent"),
        (["plot", "{run}", "samples", "--seed", "-1"], "seed"),
        (["plot", "{run}", "lattice", "--format", "gif"], "gif"),
        (["plot", "{odd}", "lattice"], "Expected 2 latent dimensions for a latent plane. This model has 3"),
        (["plot", "{odd}", "posterior_contours"], "This model has 3"),
        (["plot", "{odd}", "latent_scatter"], "Expected labels to colour the latent space by"),
        (["complete", "nowhere"], "config.json"),
        (["complete", "{run}", "--observed", "mask.png"], "Expected a mask of 28 x 28 pixels. mask.png has 5 x 4"),
        (["complete", "{run}", "--observed", "nowhere.png"], "Could not read the mask nowhere.png"),
        (["complete", "{run}", "--observed", "topp"], "Unknown mask 'topp'. Did you mean 'top'"),
        (["complete", "{run}", "--observed", "random:2"], "a fraction between 0 and 1. Received '2'"),
        (["complete", "{run}", "--digit", "11"], "Unknown class of the test images '11'"),
        (["complete", "{odd}", "--digit", "1"], "The test images have none; choose by place"),
        (["complete", "{run}", "--index", "60"], "among the 60 test images, from 0. Received 60"),
        (["complete", "{run}", "--index", "-1"], "Received -1"),
        (["complete", "{run}", "--index", "1", "--digit", "3"], "Expected --index alone"),
        (["complete", "{run}", "--index", "1", "-n", "3"], "Expected --index alone"),
        (["complete", "{run}", "-n", "0"], "Expected -n to be a whole number of at least 1"),
        (["complete", "{run}", "--samples", "1"], "Expected --samples to be a whole number of at least 3"),
        (["complete", "{run}", "--seed", "-1"], "--seed"),
        (["complete", "{odd}", "--plain"], "This model has 3"),
        (["complete", "{odd}", "-n", "1", "--samples", "3", "--exact"], "This model has 3"),
        (["complete", "{odd}", "-n", "1", "--samples", "3", "--out", "full/file"], "Could not write full/file"),
        (["train", "--set", "model.beta=1\nmodel.samples=2"], "several lines"),
        (["demo", "--out", "full"], "full"),
        (["evaluate", "{run}", "--seed", "-5"], "--seed"),
        (["sample", "{run}", "-n", "0"], "-n"),
        (["sample", "{run}", "--seed", "-1"], "--seed"),
        (["sample", "{run}", "-o", "samples.xyz"], "samples.xyz"),
        (["sample", "{run}", "-o", "full/file/samples.png"], "full"),
        (["trian"], "trian"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_users_mistake_ends_in_status_2_and_words(arguments, expected, call, run, odd, tmp_path):
    full(tmp_path / "full")
    Image.fromarray(np.zeros((5, 4), np.uint8)).save(tmp_path / "mask.png")
    places = {"{run}": str(run), "{odd}": str(odd)}
    status, out, err = call(*[places.get(argument, argument) for argument in arguments])
    assert status == 2
    assert expected in err
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "saved_models").exists()


def test_a_mistake_is_one_line_on_stderr_also_where_tensorflow_was_loaded(tmp_path):
    result = kvae("train", "--batch-size", "9999", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("kvae: ")
    assert result.stderr.count("\n") == 1


def test_an_unfinished_run_says_how_to_finish_it(call, run, tmp_path):
    folder = tmp_path / "unfinished"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "config.json").write_text((run / "config.json").read_text())
    status, _, err = call("sample", folder)
    assert status == 2
    assert "kvae train --resume --out" in err


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    result = kvae("evaluate", "nowhere", "--debug", cwd=tmp_path)
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_another_failure_ends_in_status_1(monkeypatch, call, run):
    monkeypatch.setattr(cli.exports, "write_samples", lambda *_: 1 / 0)
    status, _, err = call("sample", run)
    assert status == 1
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err
