"""A model with NaN or infinity in any of its weights is refused by whatever would compute with it."""

import keras
import numpy as np
import own_parts
import pytest
from small_models import SHAPE, tiny_built

import kvae
from kvae import completion, evaluation, export
from kvae.evaluation import evidence
from kvae.internal import finite
from kvae.internal.errors import UserError

pytestmark = pytest.mark.usefixtures("without_xla")


def normalizing():
    """A model whose encoder has batch normalization."""
    image = keras.Input(SHAPE)
    h = keras.layers.BatchNormalization()(keras.layers.Dense(9)(keras.layers.Flatten()(image)))
    encoder = keras.Model(image, (keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)))
    vae = kvae.VAE(encoder=encoder, decoder=kvae.networks.MLPDecoder(SHAPE, (8,), activation="tanh"), seed=0)
    vae.build((None, *SHAPE))
    return vae


def frozen():
    vae = tiny_built()
    vae.decoder.trainable = False
    return vae


MODELS = {
    "encoder": (tiny_built, "_encoder"),
    "decoder": (tiny_built, "logits/bias"),
    "a frozen decoder": (frozen, "logits/bias"),
    "prior": (lambda: tiny_built(prior=own_parts.Mixture()), "centres"),
    "likelihood": (lambda: tiny_built(likelihood=kvae.likelihoods.Gaussian("learned")), "log_variance"),
    "batch normalization": (normalizing, "moving_variance"),
}


def spoil(vae, name, value=np.nan):
    """Sets the last number of the first weight with this name in its path."""
    weight = next(weight for weight in vae.weights if name in weight.path)
    numbers = np.array(weight.numpy())
    numbers[tuple(side - 1 for side in numbers.shape)] = value
    weight.assign(numbers)
    return vae


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("case", MODELS)
def test_a_single_number_that_is_not_finite_is_found(case, value):
    make, name = MODELS[case]
    vae = make()
    finite.check_weights(vae)
    with pytest.raises(UserError, match=rf"^Expected weights that are finite.* in \S*{name}\S*, 1 of \d+ weights"):
        finite.check_weights(spoil(vae, name, value))


def test_a_message_names_few_weights():
    vae = tiny_built()
    vae.set_weights([weight * np.nan for weight in vae.get_weights()])
    with pytest.raises(UserError) as error:
        finite.check_weights(vae)
    assert str(error.value).count("/") < 12
    assert "..., 10 of 10 weights" in str(error.value)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_type_of_number_is_looked_at(dtype):
    whole = keras.Variable([1, 2], dtype="int8", name="whole")
    assert finite.not_finite([whole, keras.Variable([1.0, 2.0], dtype=dtype, name="good")]) == []
    assert finite.not_finite([whole, keras.Variable([1.0, np.inf], dtype=dtype, name="bad")]) == ["bad"]


X = np.zeros((3, *SHAPE), np.float32)
USES = {
    "evaluation.evaluate": lambda vae, folder: evaluation.evaluate(vae, X),
    "evaluation.elbo": lambda vae, folder: evaluation.elbo(vae, X),
    "evaluation.log_likelihood": lambda vae, folder: evaluation.log_likelihood(vae, X, samples=2),
    "evidence.log_evidence": lambda vae, folder: evidence.log_evidence(vae, X),
    "completion.complete": lambda vae, folder: completion.complete(vae, X, "top"),
    "completion.infer": lambda vae, folder: completion.infer(vae, X, "top"),
    "export of Keras": lambda vae, folder: vae.export(folder / "out"),
    "export.saved_model": lambda vae, folder: export.saved_model(vae, folder / "out"),
    "export.bundle": lambda vae, folder: export.bundle(vae, folder / "out", formats=["tflite"]),
    "export.convert": lambda vae, folder: export.convert(vae),
}


@pytest.mark.parametrize("use", USES)
def test_a_model_in_memory_is_refused_and_nothing_is_written(use, tmp_path):
    with pytest.raises(UserError, match=r"Expected weights that are finite numbers\. The model has NaN"):
        USES[use](spoil(tiny_built(), "_encoder"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_is_refused_by_its_name_except_by_keras_itself(tmp_path):
    spoil(tiny_built(), "logits/bias").save(tmp_path / "bad.keras")
    with pytest.raises(UserError, match=r"finite numbers\. \S*bad\.keras has NaN or infinity in \S*bias"):
        kvae.load(tmp_path / "bad.keras")
    assert keras.saving.load_model(tmp_path / "bad.keras").built
