"""Defaults that follow the data: which they are, and that settings of the user win."""

import numpy as np
import pytest
from source_files import greys, save_pictures

from kvae import training
from kvae.data import open_source
from kvae.internal.errors import UserError
from kvae.training.build import make_parts, resolved
from kvae.training.config import RunConfig, override
from kvae.training.data_defaults import Facts, completed, defaults_for, explanation, facts_of, follow
from kvae.training.runs import Run

COLOUR = Facts(48, 64, 3, False, 1080)
GREY = Facts(28, 28, 1, False, 60_000)
BINARY = Facts(8, 8, 1, True, 500)
PIXELS = np.arange(0, 256, dtype=np.uint8)


def configured(facts, **settings):
    """The configuration that follows from the facts and settings; a dot is written as two underscores."""
    values = override({}, {key.replace("__", "."): value for key, value in settings.items()})
    return resolved(RunConfig.from_dict(completed(values, facts)[0]))


# --- what is found in the data


@pytest.mark.parametrize(
    ("shape", "pixels", "expected"),
    [
        ((20, 6, 5), (0, 255), "20 black-and-white images of 5 x 6"),
        ((20, 6, 5), (0, 1), "20 black-and-white images of 5 x 6"),
        ((20, 6, 5), (0, 254), "20 grey images of 5 x 6"),
        ((20, 6, 5, 3), (0, 1, 7), "20 colour images of 5 x 6"),
    ],
)
def test_the_pixels_decide_what_kind_the_images_are(shape, pixels, expected, rng, tmp_path):
    images = rng.choice(np.uint8(pixels), shape)
    np.savez(tmp_path / "a.npz", x_train=images, x_test=images[:2])
    assert str(facts_of(open_source(f"npz:{tmp_path / 'a.npz'}"))) == expected


def test_one_grey_pixel_makes_images_grey(tmp_path):
    images = np.zeros((2100, 2, 2), np.uint8)
    images[-1, -1, -1] = 255
    images[-2, 0, 0] = 7
    np.savez(tmp_path / "a.npz", x_train=images, x_test=images[:2])
    source = open_source(f"npz:{tmp_path / 'a.npz'}")
    assert not facts_of(source).binary
    assert facts_of(source, "train[:2000]") == Facts(2, 2, 1, True, 2000)


@pytest.mark.parametrize("binary", [True, False])
def test_streamed_pictures_are_looked_at_too(binary, tmp_path):
    for part in ("train", "test"):
        save_pictures(tmp_path / part, np.where(greys() > 127, 255, 0).astype(np.uint8) if binary else greys())
    assert facts_of(open_source(f"images:{tmp_path}", streaming=True)) == Facts(4, 4, 1, binary, 20)


# --- what is chosen


@pytest.mark.parametrize(
    ("facts", "binarize", "likelihood", "network"),
    [
        (COLOUR, "none", "gaussian", "conv"),
        (GREY, "none", "gaussian", "conv"),
        (BINARY, "threshold", "bernoulli", "mlp"),
        (Facts(15, 300, 1, False, 100), "none", "gaussian", "mlp"),
    ],
)
def test_the_kind_of_images_decides_likelihood_and_network(facts, binarize, likelihood, network):
    config = configured(facts)
    assert (config.data.binarize, config.model.likelihood.kind, config.model.network.kind) == (
        binarize,
        likelihood,
        network,
    )
    make_parts(config)


@pytest.mark.parametrize(("side", "filters"), [(16, 1), (28, 2), (48, 3), (64, 3), (100, 4), (256, 5)])
def test_convolutions_halve_the_image_to_a_small_map(side, filters):
    assert len(configured(Facts(side, 300, 3, False, 100)).model.network.options["filters"]) == filters


@pytest.mark.parametrize("images", [2, 20, 300, 1080, 60_000, 10**7])
def test_every_number_of_images_can_be_trained_on(images):
    chosen = defaults_for(COLOUR._replace(images=images))
    assert 1 <= chosen["data.batch_size"] <= images
    assert 10 <= chosen["training.epochs"] <= 100


def test_what_is_chosen_is_stated_in_keys_that_can_be_set():
    values, added = completed({}, COLOUR)
    header, first, others = explanation(COLOUR, added).splitlines()
    assert header == "Chosen for 1,080 colour images of 64 x 48 (change any with --set KEY=VALUE):"
    assert first == "  model.network=conv model.likelihood=gaussian model.latent_dim=16 training.epochs=37"
    settings = dict(map(training.config.parse_setting, f"{first} {others}".split()))
    assert RunConfig.from_dict(override({}, settings)) == RunConfig.from_dict(values)


# --- settings of the user


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model__latent_dim": 3}, {"latent_dim": 3, "likelihood.kind": "gaussian"}),
        ({"model__likelihood": "continuous_bernoulli"}, {"likelihood": {"kind": "continuous_bernoulli"}}),
        (
            {"model__variance": 0.5},
            {"likelihood.kind": "gaussian", "likelihood.variance": 0.5, "likelihood.start": 0.1},
        ),
        ({"model__network": "conv"}, {"network.filters": [16, 32, 64]}),
        ({"model__network": "residual"}, {"network.filters": [16, 32, 64], "network.output_bias": "data"}),
        ({"model__filters": [8]}, {"network.kind": "conv", "network.filters": [8], "network.dense_units": 256}),
        ({"model__network": "mlp"}, {"network.kind": "mlp", "network.output_bias": "zero"}),
        ({"model__hidden_units": [9]}, {"network.kind": "mlp", "network.hidden_units": [9]}),
        ({"model__output_bias": "zero"}, {"network.kind": "conv", "network.output_bias": "zero"}),
        ({"model__beta": 2.0}, {"objective.beta": 2.0, "network.kind": "conv"}),
    ],
)
def test_parts_that_the_user_sets_win(settings, expected):
    model = configured(COLOUR, **settings).to_dict()["model"]
    for key, value in expected.items():
        found = model
        for name in key.split("."):
            found = found[name]
        assert found == value


def test_binarized_pixels_and_a_bernoulli_belong_together():
    assert configured(COLOUR, data__binarize="stochastic").model.likelihood.kind == "bernoulli"
    assert configured(COLOUR, model__likelihood="bernoulli").data.binarize == "threshold"
    both = configured(COLOUR, model__likelihood="bernoulli", data__binarize="none")
    assert (both.data.binarize, both.model.likelihood.kind) == ("none", "bernoulli")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 3}, {"epochs": 3, "schedule": "cosine"}),
        ({"schedule": "constant"}, {"schedule": "constant", "warmup_epochs": 0, "learning_rate": 2e-3}),
        ({"schedule": "exponential", "final_learning_rate": 1e-4}, {"schedule": "exponential", "warmup_epochs": 0}),
        ({"optimizer": "sgd"}, {"optimizer": "sgd", "learning_rate": 1e-3}),
        ({"monitor_test": False}, {"monitor_test": False}),
    ],
)
def test_settings_of_the_training_win(settings, expected):
    found = configured(COLOUR, **{f"training__{name}": value for name, value in settings.items()}).training
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_validation_set_is_watched_in_place_of_the_test_set():
    config = configured(COLOUR, data__validation="train[90%:]", training__early_stopping=3)
    assert not config.training.monitor_test


# --- a run


def values_of(source, **settings):
    return override({"name": "run"}, {"data.source": source} | settings)


@pytest.fixture
def pictures(tmp_path):
    """The source of 40 grey pictures."""
    save_pictures(tmp_path / "pictures", greys(40, side=6))
    return f"images:{tmp_path / 'pictures'}"


@pytest.mark.slow
def test_a_run_states_what_was_chosen_and_keeps_it_when_resumed(pictures, tmp_path, capsys):
    small = {"training.epochs": 1, "training.schedule": "constant", "model.hidden_units": [4]}
    values = values_of(pictures, **small)
    run = training.train(values, tmp_path / "run", verbose=2)
    assert capsys.readouterr().out.startswith("Chosen for 36 grey images of 6 x 6 (change ")
    config = Run.open(run.folder).config
    assert config == resolved(config) == run.config
    assert config.model.likelihood.options == {"variance": "learned", "start": 0.1, "rate": 10.0}
    longer = override(config.to_dict(), {"training.epochs": 2})
    resumed = training.resume(run.folder, RunConfig.from_dict(longer), verbose=0)
    assert len(resumed.history()["epoch"]) == 2
    assert resumed.config.model == config.model


@pytest.mark.parametrize(
    "model",
    [
        {"network": "residual"},
        {"hidden_units": [5]},
        {"variance": 0.1},
        {"likelihood": {"kind": "laplace", "variance": "learned", "rate": 3.0}},
        {"network": {"kind": "mlp", "hidden_units": [5]}, "prior": "mixture", "latent_dim": 3},
    ],
)
def test_values_as_a_recipe_has_them_are_those_of_the_command_line(model, pictures):
    in_python = follow({"name": "run", "data": {"source": pictures}, "model": model})
    typed = follow(values_of(pictures, **{f"model.{key}": value for key, value in model.items()}))
    assert in_python.config == typed.config
    assert in_python.explanation == typed.explanation
    resolved(in_python.config)
    make_parts(in_python.config)  # each option belongs to its kind


def test_embedded_digits_keep_the_defaults_of_a_configuration():
    followed = follow({"data": {"source": "mnist5k"}})
    assert followed.explanation is None
    assert followed.config == RunConfig()


@pytest.mark.parametrize(("shape", "follows"), [((28, 28, 1), False), ((32, 32, 3), True)])
def test_only_grey_28_x_28_images_of_tfds_keep_the_defaults(shape, follows, monkeypatch):
    from kvae.data import Source, Split
    from kvae.training import data_defaults

    splits = {part: Split.from_arrays(np.resize(PIXELS, (20, *shape))) for part in ("train", "test")}
    monkeypatch.setattr(data_defaults, "open_source", lambda name, streaming: Source(name, splits))
    followed = follow({"data": {"source": "some_tfds_name"}})
    assert (followed.explanation is not None) == follows
    assert followed.config.data.binarize == ("none" if follows else "threshold")


def test_a_wrong_setting_is_refused_before_the_data_are_read():
    with pytest.raises(UserError, match=r"model\.latent_dim"):
        follow({"data": {"source": "images:nowhere"}, "model": {"latent_dim": 0}})
