"""`kvae complete`: scores, pictures and protocol of completions."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvae import completion, training
from kvae.plotting import completion_figures
from kvae.training import results
from kvae.training.runs import Run

FEW = ["--samples", "20"]
SUBJECTS = {}  # of the runs of this module, so that their graphs are traced once


@pytest.fixture
def complete(call, monkeypatch):
    """`kvae complete` that loads a run once for all tests and draws coarse contours."""
    subject = results.subject_of

    def known_subject(trained):
        if trained.folder not in SUBJECTS:
            SUBJECTS[trained.folder] = subject(trained)
        return SUBJECTS[trained.folder]

    monkeypatch.setattr(results, "subject_of", known_subject)
    monkeypatch.setattr(completion_figures, "CONTOUR_POINTS", 41)
    return lambda *arguments: call("complete", *arguments)


@pytest.fixture
def completed(complete):
    """What `kvae complete --json` prints."""

    def completed(*arguments):
        status, out, err = complete(*arguments, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)

    return completed


@pytest.mark.slow
def test_complete_prints_scores_beside_both_baselines_with_the_protocol(call, run):
    # By itself, without the fixture.
    status, out, _ = call("complete", run, "-n", 3, *FEW)
    assert status == 0
    for words in (
        "log p(missing | observed)", "mean, nats per image", "standard error", "kvae, importance sampling",
        "baseline: encode with 0", "baseline: mean of each training pixel", "of 3 images converged",
        "dataset: mnist5k", "images: the first 3", "observed pixels: top", "inference: 100 Adam steps",
        "draws of z per image: 20",
    ):  # fmt: skip
        assert words in out
    assert "quadrature" not in out


@pytest.mark.slow
def test_one_image_has_no_standard_error_and_is_said_to_tell_little(complete, run):
    status, out, _ = complete(run, "--index", 3, *FEW)
    assert (status, "standard error" in out) == (0, False)
    assert "One image says little about the model." in out


@pytest.mark.slow
def test_complete_names_the_pictures_that_it_draws(complete, run):
    _, out, _ = complete(run, "-n", 2, *FEW)
    *pictures, scores = out.splitlines()[-3:]
    assert pictures == [str(run / "plots" / f"{name}.png") for name in ("complete", "complete_contours")]
    for picture in pictures:
        Image.open(picture).verify()
    assert scores == str(run / "plots" / "complete.json")


@pytest.mark.slow
def test_complete_writes_the_object_that_it_prints(completed, run, tmp_path):
    result = completed(run, "-n", 2, *FEW, "--out", "scores")
    files = [Path(path) for path in result.pop("files")]
    assert {path.name for path in files} == {"complete.png", "complete_contours.png", "complete.json"}
    assert json.loads(files[-1].read_text()) == result


@pytest.mark.slow
def test_complete_writes_its_pictures_to_the_given_folder(complete, run, tmp_path):
    status, _, _ = complete(run, "-n", 1, *FEW, "--out", "new/pictures")
    assert status == 0
    names = {path.name for path in (tmp_path / "new" / "pictures").iterdir()}
    assert names == {"complete.png", "complete_contours.png", "complete.json"}


@pytest.mark.slow
def test_complete_draws_contours_only_for_two_latent_dimensions(complete, odd, tmp_path):
    status, _, _ = complete(odd, *FEW, "--out", "pictures")
    assert status == 0
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"complete.png", "complete.json"}


@pytest.mark.slow
def test_complete_prints_one_json_object(completed, run):
    result = completed(run, "-n", 3, *FEW)
    assert set(result) == {"kvae", "pixel_means", "zero_filled", "converged", "protocol", "files"}
    for name in ("kvae", "pixel_means", "zero_filled"):
        assert len(result[name]["per_image"]) == 3
        assert result[name]["mean"] == pytest.approx(np.mean(result[name]["per_image"]))
        error = np.std(result[name]["per_image"], ddof=1) / 3**0.5
        assert result[name]["standard_error"] == pytest.approx(error)


@pytest.mark.slow
def test_complete_scores_as_the_library_does(completed, run):
    result = completed(run, "-n", 2, *FEW, "--seed", 4, "--observed", "left")
    trained = Run.open(run)
    x, _ = training.load_data(trained.config).examples("test", 2)
    found = completion.complete(trained.load_model(), x, "left", samples=20, seed=4)
    # On a busy machine, the threads may share a matrix product in another way, which rounds differently.
    assert result["kvae"]["per_image"] == pytest.approx(found.score.log_density.tolist(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("least", [21, 0])
def test_complete_warns_of_scores_for_which_few_draws_count(complete, run, monkeypatch, least):
    for module in (completion.completions, completion.scoring):
        monkeypatch.setattr(module, "LEAST_EFFECTIVE", least)
    status, out, _ = complete(run, "-n", 2, *FEW)
    assert status == 0
    assert ("the score of 2 of 2 images is unreliable" in out) == (least > 20)


@pytest.mark.slow
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


@pytest.mark.slow
def test_complete_takes_the_image_at_an_index(completed, run):
    result = completed(run, "--index", 5, *FEW)
    assert result["protocol"]["test_images"] == "the image with index 5, counted from 0"
    assert result["kvae"]["standard_error"] is None


def test_complete_takes_as_many_images_as_there_are(completed, odd):
    assert len(completed(odd, "-n", 99, *FEW)["kvae"]["per_image"]) == 9


@pytest.mark.slow
def test_complete_adds_the_exact_value_on_request(completed, run):
    result = completed(run, "-n", 2, "--samples", 2000, "--exact")
    for estimate, exact in zip(result["kvae"]["per_image"], result["quadrature"]["per_image"], strict=True):
        # Five Monte-Carlo standard errors of a mean over both images of much the same error each; the seed is fixed.
        assert abs(estimate - exact) < 5 * result["kvae"]["monte_carlo_standard_error"]


@pytest.mark.slow
def test_complete_takes_a_picture_as_mask(completed, run, tmp_path):
    mask = np.zeros((28, 28), np.uint8)
    mask[:14] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    by_picture, by_name = (completed(run, "-n", 2, *FEW, "--observed", name) for name in ("mask.png", "top"))
    assert by_picture["kvae"] == by_name["kvae"]


@pytest.mark.slow
def test_complete_plain_prints_the_loss_every_ten_steps(complete, run):
    status, out, _ = complete(run, "--digit", 3, *FEW, "--plain")
    assert status == 0
    losses = {int(step): float(loss) for step, loss in re.findall(r"^step +(\d+): loss ([\d.]+)$", out, re.M)}
    assert list(losses) == list(range(10, 201, 10))
    assert losses[200] < losses[10]
    assert "inference: 200 plain steps" in out


@pytest.mark.slow
def test_complete_prints_no_losses_unless_plain(complete, run):
    assert "step " not in complete(run, "-n", 1, *FEW)[1]
