"""A conditional run from the command line: every command that makes or measures images is given the label."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exports import quick_parity

import kvae
from kvae import export, runtime, training
from kvae.internal.errors import UserError
from kvae.plotting import figures
from kvae.runtime import cards
from kvae.training import results
from kvae.training.config import RunConfig
from kvae.training.runs import Run

NAMES = ["round", "square", "flat"]
pytestmark = pytest.mark.usefixtures("without_xla")


def pictures(folder: Path) -> Path:
    """Random pictures of 6 x 5 pixels in three classes of different brightness, as a folder of folders."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 6)):
        for number, name in enumerate(NAMES):
            place = folder / split / name
            place.mkdir(parents=True)
            for index in range(count):
                values = 255 * (rng.random((6, 5, 1)) < 0.15 + 0.35 * number)
                runtime.save_picture(place / f"{index}.png", values.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("conditional")
    values = {
        "name": "shapes",
        "data": {"source": f"images:{pictures(folder / 'pictures')}", "batch_size": 10, "condition": "label"},
        "model": {"hidden_units": [8], "latent_dim": 2},
        "training": {"epochs": 60, "learning_rate": 0.02, "jit_compile": False},
    }
    return training.train(RunConfig.from_dict(values), folder / "run", verbose=0)


@pytest.fixture(scope="module")
def bundled(trained, tmp_path_factory) -> Run:
    """A copy of the run with a bundle, and without its data."""
    folder = tmp_path_factory.mktemp("bundled") / "run"
    run = Run.open(shutil.copytree(trained.folder, folder))
    with quick_parity():
        export.bundle_of_run(run, formats=["tflite", "web"], variants=["float32"], quick=True)
    return run


@pytest.mark.slow
def test_a_run_names_its_classes_and_its_protocol_the_condition(trained):
    config = json.loads((trained.folder / "config.json").read_text())
    assert config["config"]["data"]["condition"] == "label"
    assert config["class_names"] == sorted(NAMES)
    assert trained.evaluation()["protocol"]["condition"] == "label"
    assert trained.load_model().condition_shape == (3,)


def test_the_label_changes_what_is_drawn(trained):
    """The classes of the pictures differ in nothing but their brightness: 15, 50 and 85 % of the pixels are white."""
    decoder = kvae.load(trained.folder)
    wanted = {"round": 0.15, "square": 0.5, "flat": 0.85}
    for name, share in wanted.items():
        means = decoder.sample(runtime.seeds(50, 1), decoder.label(name)).means
        assert means.mean() == pytest.approx(share, abs=0.12)
        np.testing.assert_array_equal(decoder.sample(runtime.seeds(50, 1), name).means, means)
    seeds, names = runtime.seeds(3, 1), ["flat", "Round", "2"]
    expected = decoder.decode(decoder.sample(seeds, 0).z, [decoder.label(name) for name in names])
    np.testing.assert_array_equal(decoder.decode(decoder.sample(seeds, 0).z, names).means, expected.means)
    with pytest.raises(UserError, match="Unknown class 'triangle'"):
        decoder.sample(seeds, "triangle")
    with pytest.raises(UserError, match=r"Expected a condition of shape .* Received int64 of shape \[2\]"):
        decoder.sample(seeds, ["flat", "round"])


@pytest.mark.slow
def test_commands_measure_a_conditional_run_with_its_labels(trained, call, tmp_path):
    run = shutil.copytree(trained.folder, tmp_path / "run")
    status, out, err = call("evaluate", run, "--only", "elbo,log_likelihood,classification", "--samples", 20, "--json")
    assert status == 0, err
    measured = json.loads(out)
    assert measured["elbo"] < measured["log_likelihood"]
    assert measured["accuracy"] > 0.7  # 1/3 by chance
    assert measured["protocol"]["classification_samples"] == 20
    status, out, err = call("complete", run, "-n", 2, "--samples", 5, "--json")
    assert status == 0, err
    assert np.isfinite(json.loads(out)["kvae"]["mean"])
    status, out, err = call("encode", run, "-o", tmp_path / "z.csv")
    assert status == 0, err
    status, out, err = call("verify", run, "--only", "elbo,classification")
    assert (status, err) == (0, "")
    share = f"{measured['accuracy']:.3f}"
    assert f"ok   evaluation.json: accuracy: computed {share}, stated {share}" in out
    assert "ok   evaluation.json: elbo: computed " in out
    status, out, err = call("plot", run, "samples", "reconstructions", "--quiet")
    assert status == 2
    assert (run / "plots" / "samples.png").is_file()
    assert "Expected a model without a condition for reconstructions" in err


@pytest.mark.slow
def test_other_data_must_have_the_classes_of_the_model_in_their_order(trained, call, tmp_path):
    source = f"images:{pictures(tmp_path / 'same')}"
    assert call("evaluate", trained.folder, "--dataset", source, "--quiet")[0] == 0
    for split in ("train", "test"):
        shutil.rmtree(tmp_path / "same" / split / "flat")  # so that round and square would be flat and round
    for command in (
        ["evaluate", trained.folder, "--dataset", source],
        ["encode", trained.folder, source, "-o", "z.csv"],
    ):
        status, _, err = call(*command)
        assert status == 2
        assert "in their order: flat, round, square. Received round, square" in err
        assert "so class 0 is 'round' and not 'flat'" in err


@pytest.mark.slow
def test_samples_of_a_class_come_from_the_bundle_alone(bundled, call, tmp_path):
    bundle = shutil.copytree(bundled.bundle, tmp_path / "bundle")
    assert cards.read_card(bundle)["model"]["class_names"] == sorted(NAMES)
    files = {}
    for label in ("square", "SQUARE,Round", "2", "2,1", None):
        files[label] = tmp_path / f"{label}.png"
        given = [] if label is None else ["--label", label]
        status, _, err = call("sample", bundle, *given, "-n", 6, "-o", files[label])
        assert status == 0, err
    content = {label: file.read_bytes() for label, file in files.items()}
    assert content["square"] == content["2"] != content["2,1"] == content["SQUARE,Round"]
    in_turn = kvae.load(bundle).sample(runtime.seeds(6, 0), [0, 1, 2, 0, 1, 2])
    runtime.save_picture(tmp_path / "wanted.png", runtime.sheet(in_turn.means))
    assert content[None] == (tmp_path / "wanted.png").read_bytes()


@pytest.mark.parametrize(
    ("label", "message"),
    [("sqare", "Unknown class 'sqare'. Did you mean 'square'?"), ("3", "Unknown class '3'"), (",", "a class")],
)
def test_a_label_that_the_model_does_not_have_is_refused_in_a_line(bundled, call, label, message, tmp_path):
    status, _, err = call("sample", bundled.folder, "--label", label, "-o", tmp_path / "x.png")
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_decoder_without_its_card_asks_for_labels(bundled, call, tmp_path):
    (decoder,) = (bundled.folder / "bundle").rglob("*.tflite")
    alone = shutil.copy(decoder, tmp_path / "alone.tflite")
    status, _, err = call("sample", alone, "-o", tmp_path / "x.png")
    assert (status, err.count("\n")) == (2, 1)
    assert "such as --label 0,1,2" in err
    assert call("sample", alone, "--label", "0,1,2", "-o", tmp_path / "x.png")[0] == 0


def test_a_model_without_classes_takes_no_label(tiny_run, call, tmp_path):
    status, _, err = call("sample", tiny_run, "--label", "1", "-o", tmp_path / "x.png")
    assert (status, err.count("\n")) == (2, 1)
    assert "Expected a conditional model" in err
    status, _, err = call("evaluate", tiny_run, "--only", "elbo,classification")
    assert (status, err.count("\n")) == (2, 1)
    assert "Expected a conditional model of classes" in err


def test_the_stand_alone_script_takes_labels(bundled, tmp_path):
    def draw(*arguments):
        command = [sys.executable, bundled.bundle / "sample.py", "-n", "3", "-o", tmp_path / "x.png", *arguments]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        return done.returncode, done.stderr, (tmp_path / "x.png").read_bytes() if done.returncode == 0 else b""

    status, err, every = draw()
    assert status == 0, err
    assert draw("--label", "flat,Round,2")[2] == every
    status, err, _ = draw("--label", "3")
    assert status == 2
    assert "expected --label with a class from 0 to 2 or a name" in err


def test_exports_compare_each_class_and_their_page_names_the_classes(bundled):
    card = cards.read_card(bundled.bundle)
    assert card["reference"]["conditions"] == np.eye(3).tolist()
    page, z = runtime.load(bundled.bundle / "web" / "index.html"), np.zeros((3, 2))
    assert page.class_names == tuple(sorted(NAMES))
    expected = runtime.load(bundled.bundle, "float32").decode(z, range(3))
    np.testing.assert_allclose(page.decode(z, range(3)).means, expected.means, rtol=0, atol=1e-5)


def test_a_picture_has_a_row_for_each_class(trained):
    subject = results.subject_of(trained)
    (picture,) = figures.samples(subject, n=4).values()
    texts = [text.get_text() for text in picture.axes[0].texts]
    assert [text for text in texts if text in NAMES] == sorted(NAMES)


def test_a_conditional_run_needs_labels(call, tmp_path):
    np.savez(tmp_path / "x.npz", x_train=np.zeros((30, 4, 4), np.uint8), x_test=np.zeros((30, 4, 4), np.uint8))
    status, _, err = call("train", "--dataset", f"npz:{tmp_path / 'x.npz'}", "--conditional", "--out", tmp_path / "run")
    assert (status, err.count("\n")) == (2, 1)
    assert "Expected a dataset with labels, because the label is the condition of the model" in err
    assert not (tmp_path / "run").exists()
