"""A model is made of the tables of its configuration; each part checks its own options, before the data are read."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvae
from kvae import training
from kvae.internal import user_files
from kvae.internal.errors import UserError
from kvae.model.likelihoods import name_of as likelihood_name
from kvae.training.build import build_model, make_parts, options_of, resolved
from kvae.training.config import RunConfig, load_values, recipes
from kvae.training.runs import Run

OWN = """
import keras
import kvae
from kvae.model.priors import Prior, StandardNormal
from kvae.model.networks import MLPEncoder

@keras.saving.register_keras_serializable("parts_of_the_build_test")
class Shifted(StandardNormal):
    def __init__(self, by=1.0, **kwargs):
        super().__init__(**kwargs)
        if by < 0:
            raise kvae.UserError(f"Expected by to be at least 0. Received {by}.")
        self.by = by
    def get_config(self):
        return {**super().get_config(), "by": self.by}

class NotRegistered(StandardNormal):
    pass

@keras.saving.register_keras_serializable("parts_of_the_build_test")
class WithoutMirror(keras.Model):
    def __init__(self, latent_dim, **kwargs):
        super().__init__(**kwargs)

class Narrow(MLPEncoder):
    pass

value = 3
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> str:
    """The name of a module with parts of a user's, imported as --import does."""
    path = tmp_path_factory.mktemp("own") / "parts_of_the_build_test.py"
    path.write_text(OWN)
    return user_files.import_file(path).__name__


def configured(**model) -> RunConfig:
    return RunConfig.from_dict({"model": {"hidden_units": [4], **model}, "data": {"train": "train[:200]"}})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"likelihood": "foo"}, r"Unknown model\.likelihood 'foo'.*MODULE:CLASS and give its file with --import"),
        ({"likelihood": "gausian"}, "Did you mean 'gaussian'"),
        ({"prior": "standardnormal"}, "Did you mean 'standard_normal'"),
        ({"posterior": {"kind": "diagonal"}}, r"Unknown model\.posterior"),
        ({"objective": "iwea"}, r"Unknown model\.objective"),
        ({"network": "transformer"}, r"Unknown model\.network"),
        ({"network": {"hiden_units": [3]}}, "Did you mean 'hidden_units'"),
        ({"network": {"latent_dim": 3}}, "Unknown option of model.network 'mlp'"),
        ({"network": {"seed": 3}}, "Unknown option of model.network 'mlp'"),
        ({"hidden_units": 500}, r"^model\.network: Expected hidden_units"),
        ({"hidden_units": [500, 0]}, r"^model\.network: Expected hidden_units"),
        ({"activation": "tahn"}, r"^model\.network: .*tahn"),
        ({"activation": " "}, r"^model\.network: Unknown activation ' '"),
        ({"activation": "rellu"}, r"^model\.network: Unknown activation 'rellu'\. Did you mean 'relu'"),
        ({"activation": "Dense"}, r"^model\.network: Unknown activation 'Dense'"),
        ({"activation": "mse"}, r"^model\.network: Unknown activation 'mse'"),
        ({"activation": "get"}, r"^model\.network: Unknown activation 'get'"),
        ({"activation": 5}, "Expected model.network.activation to be a name such as 'relu'. Received 5"),
        ({"activation": True}, "Expected model.network.activation to be a name"),
        ({"activation": ["relu"]}, "Expected model.network.activation to be a name"),
        ({"activation": {"class_name": "Dense", "config": {"units": 3}}}, "Expected model.network.activation to be a"),
        ({"hidden_units": "abc"}, r"^model\.network: Expected hidden_units"),
        ({"hidden_units": [1.5]}, r"^model\.network: Expected hidden_units"),
        ({"hidden_units": {"a": 1}}, r"^model\.network: Expected hidden_units"),
        ({"initialization": "he"}, r"^model\.network: .*initialization"),
        ({"scale": "sigma"}, r"^model\.network: .*scale"),
        ({"output_bias": "dat"}, "Did you mean 'data'"),
        ({"encoder_l2": -1.0}, "Expected model.network.encoder_l2 to be a number of at least 0"),
        ({"decoder_l2": True}, "Expected model.network.decoder_l2 to be a number of at least 0"),
        (
            {"likelihood": {"kind": "bernoulli", "variance": 1.0}},
            "Expected no options for model.likelihood 'bernoulli'",
        ),
        ({"variance": 2.0}, r"Expected no options for model\.likelihood 'bernoulli'\. Received 'variance'"),
        ({"filters": [8]}, r"Unknown option of model\.network 'mlp': 'filters'"),
        ({"likelihood": "gaussian", "variance": 0}, r"^model\.likelihood: Expected a positive variance"),
        ({"likelihood": "gaussian", "variance": "learnt"}, r"^model\.likelihood: Expected a positive variance"),
        ({"beta": -1}, r"^model\.objective: Expected beta"),
        ({"beta": "one"}, r"^model\.objective: Expected beta"),
        ({"samples": 0}, r"^model\.objective: Expected samples"),
        ({"kl": "exact"}, r"^model\.objective: "),
        ({"prior": "nowhere:Prior"}, "was not imported. Add --import nowhere.py"),
        ({"prior": "subprocess:Popen"}, "was not imported"),
    ],
)
def test_a_part_refuses_what_it_cannot_be(model, message):
    with pytest.raises(UserError, match=message):
        make_parts(configured(**model))


@pytest.mark.parametrize(
    ("kind", "part", "message"),
    [
        ("value", "prior", "Expected model.prior to be a subclass of Prior"),
        ("Shifted", "likelihood", "Expected model.likelihood to be a subclass of Likelihood"),
        ("Nothing", "prior", "has no 'Nothing'"),
        ("NotRegistered", "prior", "to be registered with Keras"),
        ("WithoutMirror", "network", "to have a method mirror"),
    ],
)
def test_a_part_of_ones_own_is_checked(own, kind, part, message):
    with pytest.raises(UserError, match=message):
        make_parts(configured(**{part: {"kind": f"{own}:{kind}"}, "hidden_units": None}))


def test_a_part_of_ones_own_checks_its_options(own):
    parts = make_parts(configured(prior={"kind": f"{own}:Shifted", "by": 2.0}))
    assert (type(parts.prior).__name__, parts.prior.by) == ("Shifted", 2.0)
    with pytest.raises(UserError, match=r"^model\.prior: Expected by to be at least 0"):
        make_parts(configured(prior={"kind": f"{own}:Shifted", "by": -2.0}))
    with pytest.raises(UserError, match="Expected one of: by"):
        make_parts(configured(prior={"kind": f"{own}:Shifted", "to": 2.0}))


def test_a_wrong_option_is_found_before_the_data_are_read_and_a_folder_is_made(tmp_path):
    config = RunConfig.from_dict({"model": {"beta": -1}, "data": {"source": "npz:nowhere.npz"}})
    with pytest.raises(UserError, match="Expected beta"):
        training.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (kvae.networks.MLPEncoder, {"hidden_units": (500,), "activation": "tanh", "scale": "log_var"}),
        (kvae.likelihoods.Gaussian, {"variance": 1.0}),
        (kvae.objectives.ELBO, {"beta": 1.0, "samples": 1, "kl": "analytic"}),
        (kvae.priors.StandardNormal, {}),
        (kvae.likelihoods.SquaredError, {}),
    ],
)
def test_the_options_of_a_part_are_the_arguments_of_its_constructor(kind, expected):
    found = options_of(kind)
    assert {name: found[name] for name in expected} == expected
    assert not {"latent_dim", "seed", "dtype", "name", "trainable"} & found.keys()


@pytest.mark.parametrize("name", recipes())
def test_the_parts_of_every_recipe_are_made_of_its_resolved_configuration(name):
    make_parts(resolved(RunConfig.from_dict(load_values(name))))


@pytest.mark.parametrize("kind", kvae.likelihoods.LIKELIHOODS)
def test_every_likelihood_is_made_of_its_resolved_options(kind):
    config = resolved(configured(likelihood=kind))
    assert likelihood_name(make_parts(config).likelihood) == kind
    has_one = kind in ("gaussian", "laplace", "student_t")
    assert ("variance" in config.to_dict()["model"]["likelihood"]) == has_one


def test_a_resolved_configuration_states_every_option_and_means_the_same():
    config = configured(beta=2.0)
    full = resolved(config)
    assert full.to_dict()["model"]["network"] == {
        "kind": "mlp", "hidden_units": [4], "activation": "tanh", "scale": "log_var", "initialization": "glorot",
        "output_bias": "zero", "encoder_l2": 0.0, "decoder_l2": 0.0,
    }  # fmt: skip
    assert full.to_dict()["model"]["objective"] == {"kind": "elbo", "beta": 2.0, "samples": 1, "kl": "analytic"}
    assert resolved(full) == full
    data = training.load_data(config)
    one, other = (build_model(each, data).get_weights() for each in (config, full))
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_whole_configuration_of_version_0_2_is_read_as_it_was_meant(tmp_path):
    model = {
        "latent_dim": 2, "network": "mlp", "hidden_units": [500], "filters": [32, 64], "dense_units": 128,
        "initialization": "fan_in", "scale": "log_var", "output_bias": "zero", "encoder_l2": 0.0, "decoder_l2": 0.01,
        "likelihood": "bernoulli", "variance": 1.0, "beta": 1.5, "samples": 1, "kl": "analytic",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(
        json.dumps({"config": {"model": model}, "protocol": {}, "versions": {"kvae": "0.2.0"}})
    )
    old = Run.open(tmp_path).config
    new = RunConfig.from_dict(
        {
            "model": {
                "network": {"initialization": "fan_in", "decoder_l2": 0.01},
                "objective": {"beta": 1.5},
            }
        }
    )
    assert resolved(old) == resolved(new)


class Unconditional(keras.Model):
    """An encoder of the user's own, whose decoder is its own too or one of kvae, and whose `call` has no condition."""

    def __init__(self, latent_dim, own_decoder=True, **kwargs):
        super().__init__(**kwargs)
        self.latent_dim, self.own_decoder = latent_dim, own_decoder
        self.head = keras.layers.Dense(2 * latent_dim)

    def call(self, x):
        return tf.split(self.head(tf.reshape(x, [-1, 784])), 2, axis=-1)

    def mirror(self, image_shape, output_bias=None, **options):
        if not self.own_decoder:
            return kvae.networks.MLPDecoder(image_shape, (4,))
        return keras.Sequential([keras.layers.Dense(784), keras.layers.Reshape(image_shape)])


def test_one_network_of_a_conditional_run_must_take_the_label(monkeypatch):
    monkeypatch.setitem(kvae.networks.NETWORKS, "own", Unconditional)
    settings = {"train": "train[:200]", "condition": "label"}
    model = {"kind": "own", "own_decoder": True}
    config = RunConfig.from_dict({"model": {"network": model}, "data": settings})
    data = training.load_data(config)
    with pytest.raises(UserError, match="'own' to take the label"):
        build_model(config, data)
    config = RunConfig.from_dict({"model": {"network": {**model, "own_decoder": False}}, "data": settings})
    vae = build_model(config, data)
    assert vae.decoder.condition_shape == (10,)
