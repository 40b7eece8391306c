"""The models in saved_models/ load, are small, and are what their cards state."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from kvae import export, runtime

SAVED_MODELS = Path(__file__).parents[2] / "saved_models"
SHIPPED = ("mnist_2d", "fashion_2d", "mnist_10d")

pytestmark = pytest.mark.parametrize("name", SHIPPED)


def card_of(name):
    return json.loads((SAVED_MODELS / name / "bundle" / "model_card.json").read_text())


def test_it_was_trained_by_the_recipe_of_its_name(name):
    from kvae.training.build import resolved
    from kvae.training.config import RunConfig, load_values
    from kvae.training.runs import Run

    trained = resolved(Run.open(SAVED_MODELS / name).config).to_dict()  # an earlier version of kvae wrote it
    recipe = resolved(RunConfig.from_dict(load_values(name))).to_dict()
    for config in (trained, recipe):
        for how in ("jit_compile", "steps_per_execution"):  # the same training, compiled as it was the default then
            config["training"].pop(how)
        config.pop("description")  # which is no setting, and may be written better
        config["data"].pop("order")  # which changes nothing for MNIST and Fashion-MNIST
    assert trained == recipe


def test_it_draws_images_right_away(name):
    decoder = runtime.load(SAVED_MODELS / name)
    images, means, z = decoder.sample(runtime.seeds(64, 1))
    assert (images.shape, z.shape) == ((64, 28, 28, 1), (64, card_of(name)["model"]["latent_dim"]))
    # Ink: a tenth of the pixels or more, as the mean over the images of either set; and not all the same.
    assert 0.1 < means.mean() < 0.4
    assert np.std(means, axis=0).mean() > 0.1


def test_its_decoders_are_a_few_megabytes_in_all(name):
    sizes = [report["bytes"] for report in card_of(name)["variants"].values()]
    assert sum(sizes) < 5e6
    assert card_of(name)["variants"]["int8"]["bytes"] < 0.7e6


def test_its_card_has_the_published_elbo(name):
    evaluation = json.loads((SAVED_MODELS / name / "evaluation.json").read_text())
    assert card_of(name)["metrics"]["elbo"] == pytest.approx(evaluation["elbo"], rel=1e-7)  # up to rounding


def test_int8_of_convolutions_stays_within_two_hundredths(name):
    if name == "mnist_10d":
        assert card_of(name)["variants"]["int8"]["means_error_greatest"] < 0.02


@pytest.mark.slow
def test_everything_that_it_claims_holds(name):
    dataset = json.loads((SAVED_MODELS / name / "config.json").read_text())["config"]["data"]["source"]
    present = "TFDS_DATA_DIR" in os.environ and (Path(os.environ["TFDS_DATA_DIR"]) / dataset).is_dir()
    # The evaluation of one of them is computed again, which takes ten seconds.
    checks = list(export.verify(SAVED_MODELS / name, evaluate=present and name == "mnist_2d"))
    assert [check for check in checks if check.passed is False] == []
    assert len(checks) > 9
