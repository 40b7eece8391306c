"""What a user sees of a model: the names that kvae adds to `keras.Model`, their docstrings and type hints."""

import copy
import inspect
import pickle
import re
import typing
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import kvae
from kvae.model import likelihoods, networks, objectives, old_names, posteriors, priors

PUBLIC = {
    # computing with a trained model
    "encode",
    "decode",
    "reconstruct",
    "generate",
    "generate_means",
    "sample",
    "draw",
    "elbo",
    "log_joint",
    "log_prior",
    "log_likelihood",
    # the parts, and what training minimises
    "encoder",
    "decoder",
    "likelihood",
    "prior",
    "posterior",
    "objective",
    "beta",
    "samples",
    "kl",
    # shapes and state
    "latent_dim",
    "image_shape",
    "condition_shape",
    "seed",
    "steps",
    # for a subclass
    "added_losses",
    "added_metrics",
    "batch_of",
}
OLD = {
    "sample_prior": ((5, 3), lambda vae, x: kvae.sampling.draw_z(vae, 5, 3)),
    "generate_batches": ((5, 3, 2), lambda vae, x: kvae.sampling.image_batches(vae, 5, 3, 2)),
    "sample_graph": ((np.int32([1, 2]),), lambda vae, x: kvae.sampling.sample_graph(vae, np.int32([1, 2]))),
    "elbo_terms": (None, lambda vae, x: kvae.sampling.elbo_draws(vae, x, 3)),
}
PARTS = [
    kvae.VAE,
    *networks.NETWORKS.values(),
    networks.MLPDecoder,
    networks.ConvDecoder,
    networks.ResidualDecoder,
    *likelihoods.LIKELIHOODS.values(),
    *priors.PRIORS.values(),
    *posteriors.POSTERIORS.values(),
    *objectives.OBJECTIVES.values(),
    objectives.LinearWarmup,
]

# Keras hands any data to a step, and so to `batch_of`.
METHODS = sorted(name for name in PUBLIC - {"batch_of"} if inspect.isfunction(getattr(kvae.VAE, name, None)))


def built():
    vae = kvae.VAE(2, hidden_units=(5,), seed=0)
    vae.build((None, 4, 3, 1))
    vae.compile(jit_compile=False)
    return vae


@pytest.fixture(scope="module")
def vae():
    return built()


@pytest.fixture
def images(rng):
    return rng.integers(0, 2, (6, 4, 3, 1)).astype(np.float32)


def test_a_model_adds_only_these_names_to_those_of_keras(vae):
    plain = keras.Sequential([keras.layers.Dense(2)])
    plain.build((None, 3))
    plain.compile()
    added = {name for name in set(dir(vae)) - set(dir(plain)) if not name.startswith("_")}
    assert added == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_public_name_is_described(name):
    found = inspect.getattr_static(kvae.VAE, name, None)
    if callable(found) or isinstance(found, property):
        assert inspect.getdoc(found)
    else:  # an attribute, which the docstring of the class describes
        assert re.search(rf"^    (\w+, )*{name}(, \w+)*: ", inspect.getdoc(kvae.VAE), re.M)


def test_old_names_are_not_shown(vae):
    assert set(old_names.MOVED) == set(OLD)
    assert not set(OLD) & set(dir(vae))


@pytest.mark.parametrize("name", sorted(OLD))
def test_old_names_warn_and_return_the_same(name, vae, images):
    arguments, new = OLD[name]
    with pytest.warns(DeprecationWarning, match=rf"VAE\.{name} has moved: use kvae\.sampling\.\w+\(vae, \w+, \.\.\.\)"):
        old = getattr(vae, name)(*(arguments or (images, 3)))
    old, new = list(old), list(new(vae, images))
    assert len(old) == len(new) > 0
    for one, other in zip(old[:3], new[:3], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_name_that_never_was_is_an_attribute_error(vae):
    assert not hasattr(vae, "sample_posterior")
    with pytest.raises(AttributeError, match="'VAE' object has no attribute 'sample_posterior'"):
        _ = vae.sample_posterior


def test_an_attribute_error_within_a_property_keeps_its_message():
    class Own(kvae.VAE):
        @property
        def broken(self):
            raise AttributeError("the real reason")

    with pytest.raises(AttributeError, match="the real reason"):
        _ = Own(2).broken


def test_copies_and_files_need_no_old_name(vae, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "VAE", DeprecationWarning)
        vae.save(tmp_path / "vae.keras")
        copies = [
            copy.deepcopy(vae),
            pickle.loads(pickle.dumps(vae)),
            keras.models.clone_model(vae),
            keras.saving.load_model(tmp_path / "vae.keras"),
        ]
    for one in (copies[0], copies[1], copies[3]):
        np.testing.assert_array_equal(one.generate(3, seed=0), vae.generate(3, seed=0))


@pytest.mark.parametrize("cls", PARTS, ids=lambda cls: cls.__name__)
def test_no_argument_of_a_constructor_may_be_anything(cls):
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    named = [each for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    assert not [each.name for each in named if each.annotation in (inspect.Parameter.empty, typing.Any, "Any")]


@pytest.mark.parametrize("name", METHODS)
def test_no_argument_of_a_method_may_be_anything(name):
    signature = inspect.signature(getattr(kvae.VAE, name))
    unknown = (inspect.Parameter.empty, typing.Any, "Any")
    assert not [each.name for each in list(signature.parameters.values())[1:] if each.annotation in unknown]
    assert signature.return_annotation not in unknown


def test_the_signature_shows_short_hints():
    parameters = inspect.signature(kvae.VAE).parameters
    assert parameters["beta"].annotation == "objectives.Beta | None"
    assert parameters["hidden_units"].annotation == "Sequence[int] | None"
    assert parameters["activation"].annotation == "Activation"
    assert str(inspect.signature(kvae.VAE.generate)) == (
        "(self, n: 'int', seed: 'int | None' = None, condition: 'Array | None' = None) -> 'tf.Tensor'"
    )


@pytest.mark.slow
def test_the_page_shows_a_training_step_that_trains(rng):
    images = np.float32(rng.random((6, 28, 28, 1)) < 0.2)  # as large as those of the pages
    page = (Path(__file__).parents[2] / "docs" / "EXTENDING.md").read_text(encoding="utf-8")
    code = re.search(r"^## Your own training step\n.*?^```python\n(.*?)^```", page, re.M | re.S)[1]
    names: dict = {}
    exec(code, names)
    vae = names["Clipped"](2, hidden_units=(5,), seed=0)
    vae.compile(jit_compile=False)
    history = vae.fit(images, batch_size=3, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0] < 1000
    assert int(vae.steps) == 6
