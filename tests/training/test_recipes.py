"""The recipes that ship and TOML files of the user's: what they hold, and the settings of published experiments."""

import pytest

from kvae.internal.errors import UserError
from kvae.training.build import resolved
from kvae.training.config import RunConfig, load_values, recipes


def test_an_unknown_recipe_names_the_nearest_match():
    with pytest.raises(UserError, match=r"Unknown recipe 'digits2d'\. Did you mean 'digits_2d'"):
        load_values("digits2d")


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_named_after_its_file(name):
    assert RunConfig.from_dict(load_values(name)).name == name


# What each write-up says of its experiment. Where it says nothing of a setting, its framework's default stands here:
# Glorot initialization and Adam at 1e-3 in all of them.
WRITE_UPS = {
    # FluxML/model-zoo, vae_mnist.jl: Dz, Dh = 5, 500; M = 100; images .> 0.5; 0.01 of the decoder's squares; 20 epochs.
    "flux_vae": {
        "model.latent_dim": 5,
        "model.hidden_units": [500],
        "model.activation": "tanh",
        "model.beta": 1.0,
        "model.decoder_l2": 0.01,
        "model.likelihood": "bernoulli",
        "model.kl": "analytic",
        "data.source": "mnist",
        "data.train": "train",
        "data.binarize": "threshold",
        "data.batch_size": 100,
        "training.epochs": 20,
        "training.show_batch_seconds": 30.0,
    },
    # The same script with 1.5 in front of the KL term, for 10 epochs.
    "flux_beta": {
        "model.latent_dim": 5,
        "model.hidden_units": [500],
        "model.activation": "tanh",
        "model.beta": 1.5,
        "model.decoder_l2": 0.01,
        "model.likelihood": "bernoulli",
        "model.kl": "analytic",
        "data.source": "mnist",
        "data.train": "train",
        "data.binarize": "threshold",
        "data.batch_size": 100,
        "training.epochs": 10,
        "training.show_batch_seconds": 30.0,
    },
    # A course assignment: the simple Monte-Carlo ELBO log p(x|z) + log p(z) - log q(z|x), batches of 200.
    "assignment_2d": {
        "model.latent_dim": 2,
        "model.hidden_units": [500],
        "model.activation": "tanh",
        "model.beta": 1.0,
        "model.decoder_l2": 0.0,
        "model.likelihood": "bernoulli",
        "model.kl": "sampled",
        "data.source": "mnist",
        "data.train": "train",
        "data.binarize": "threshold",
        "data.batch_size": 200,
        "training.epochs": 100,
    },
    # An article: the first 10,000 digits, batches of 100.
    "article_2d": {
        "model.latent_dim": 2,
        "model.hidden_units": [500],
        "model.activation": "tanh",
        "model.beta": 1.0,
        "model.decoder_l2": 0.0,
        "model.likelihood": "bernoulli",
        "data.source": "mnist",
        "data.train": "train[:10000]",
        "data.binarize": "threshold",
        "data.batch_size": 100,
        "training.epochs": 100,
    },
    # ReNom's tutorial: 784-400-200-100-20-2 ReLU, half the squared error of grey pixels, batches of 200.
    "fashion_mlp": {
        "model.latent_dim": 2,
        "model.hidden_units": [400, 200, 100, 20],
        "model.activation": "relu",
        "model.beta": 1.0,
        "model.decoder_l2": 0.0,
        "model.likelihood": "squared_error",
        "data.source": "fashion_mnist",
        "data.train": "train",
        "data.binarize": "none",
        "data.batch_size": 200,
        "training.epochs": 60,
    },
}
OF_ALL = {
    "model.network": "mlp",
    "model.initialization": "glorot",
    "model.output_bias": "zero",
    "model.encoder_l2": 0.0,
    "model.samples": 1,
    "data.threshold": 0.5,
    "data.validation": None,
    "data.test": "test",
    "training.optimizer": "adam",
    "training.learning_rate": 1e-3,
    "training.schedule": "constant",
    "training.warmup_epochs": 0.0,
    "training.beta_warmup_epochs": 0.0,
    "training.early_stopping": None,
}


def settings_of(name: str) -> dict[str, object]:
    """Every setting of a recipe by its dotted key."""
    sections = resolved(RunConfig.from_dict(load_values(name))).to_dict()
    found = {f"{part}.{key}": value for part in ("data", "training") for key, value in sections[part].items()}
    found["model.latent_dim"] = sections["model"].pop("latent_dim")
    for part, table in sections["model"].items():
        found |= {f"model.{part}" if key == "kind" else f"model.{key}": value for key, value in table.items()}
    return found


@pytest.mark.parametrize("name", WRITE_UPS)
def test_a_published_experiment_has_the_settings_of_its_write_up(name):
    settings, expected = settings_of(name), OF_ALL | WRITE_UPS[name]
    assert {key: settings.get(key) for key in expected} == expected


@pytest.mark.parametrize("name", ["article_2d", "fashion_mlp"])
def test_a_tuned_recipe_keeps_network_data_and_epochs(name):
    plain, tuned = settings_of(name), settings_of(f"{name}_tuned")
    kept = [key for key in plain if key.startswith("data.")]
    kept += ["model.latent_dim", "model.network", "model.hidden_units", "model.activation", "model.likelihood"]
    kept += ["model.beta", "training.epochs"]
    assert {key: tuned[key] for key in kept} == {key: plain[key] for key in kept}
    assert tuned != plain


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_says_in_one_line_what_it_is(name):
    description = RunConfig.from_dict(load_values(name)).description
    assert description.endswith(".")
    assert "\n" not in description


def test_a_file_of_the_users_own_is_read(tmp_path):
    (tmp_path / "mine.toml").write_text("seed = 3\n[model]\nbeta = 4.0\n")
    assert load_values(str(tmp_path / "mine.toml")) == {"name": "mine", "seed": 3, "model": {"beta": 4.0}}


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Could not read .*mine\.toml"):
        load_values(str(tmp_path / "mine.toml"))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"Could not read .*mine\.toml"):
        load_values(str(tmp_path / "mine.toml"))


def test_a_toml_syntax_error_names_the_file_and_the_line(tmp_path):
    (tmp_path / "mine.toml").write_text("seed = 3\n[model]\nbeta = = 4\n")
    with pytest.raises(UserError, match=r"mine\.toml is not valid TOML: .*line 3"):
        load_values(str(tmp_path / "mine.toml"))
