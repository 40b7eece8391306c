"""Every batch that reaches a step has pixels that the likelihood can have, on every path."""

import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow
from stock_keras import Batches, Loader

import kvae
from kvae.internal.errors import KvaeWarning, UserError

SHAPE = (4, 4, 1)
pytestmark = pytest.mark.usefixtures("without_xla")  # where nothing else is asked for


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (40, *SHAPE)).astype(np.float32)


def small(likelihood="bernoulli", **options):
    vae = kvae.VAE(2, hidden_units=(4,), likelihood=likelihood, seed=0)
    vae.compile(**options)
    return vae


SOURCES = {
    "array": lambda x: x,
    "list with an array": lambda x: [x],
    "list of images": list,
    "tuple of arrays": lambda x: (x, np.zeros(len(x))),
    "tensor": tf.constant,
    "dataset": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(10),
    "dataset of pairs": lambda x: tf.data.Dataset.from_tensor_slices((x, x)).batch(10),
    "generator": lambda x: (x[start : start + 10] for start in range(0, len(x), 10)),
    "PyDataset": lambda x: Batches(x, 10),
    "loader": lambda x: Loader(x, 10),
}
FAULTS = {"up to 255": 255.0, "NaN": np.nan, "negative": -0.5, "infinite": np.inf}


def with_fault(x, fault, place=-1):
    """The images with one impossible pixel, by default in the last batch."""
    x = x.copy()
    x[place, 1, 2, 0] = FAULTS[fault]
    return x


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("fault", ["NaN", *slow("up to 255")])
def test_fit_refuses_a_last_batch_with_an_impossible_pixel(source, fault, x):
    vae = small()
    with pytest.raises(UserError, match=r"Expected pixels in \[0, 1\]\. Received values from"):
        vae.fit(SOURCES[source](with_fault(x, fault)), epochs=1, verbose=0)
    assert int(vae.steps) < 4  # The step of that batch did not run.


@pytest.mark.parametrize("source", ["dataset", *slow("generator", "PyDataset", "loader")])
def test_no_weight_has_seen_the_batch_that_is_refused(source, x):
    vae = small(jit_compile=True)
    vae.build((None, *SHAPE))
    before = vae.get_weights()
    with pytest.raises(UserError, match="Received values from nan to nan"):
        vae.fit(SOURCES[source](with_fault(x, "NaN", place=slice(None))), verbose=0)
    for one, other in zip(before, vae.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["up to 255", *slow("NaN", "negative", "infinite")])
@pytest.mark.parametrize("source", ["array", "dataset", "PyDataset", "loader"])
def test_evaluation_and_validation_refuse_it_as_well(source, fault, x):
    vae = small()
    vae.build((None, *SHAPE))
    with pytest.raises(UserError, match="Expected pixels in"):
        vae.evaluate(SOURCES[source](with_fault(x, fault)), verbose=0)
    with pytest.raises(UserError, match="Expected pixels in"):
        vae.fit(x, validation_data=SOURCES[source](with_fault(x, fault)), verbose=0)


@pytest.mark.parametrize("channels", [True, False])
def test_other_images_as_y_of_a_dataset_are_refused_and_the_same_ones_are_not(channels, x):
    vae = small()
    y = x if channels else x[..., 0]
    vae.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(10), verbose=0)
    vae.fit(tf.data.Dataset.from_tensor_slices((x, np.arange(40.0))).batch(10), verbose=0)
    noisy = tf.data.Dataset.from_tensor_slices((x, 1 - y)).batch(10)
    for use in (lambda: vae.fit(noisy, verbose=0), lambda: vae.evaluate(noisy, verbose=0)):
        with pytest.raises(UserError, match=r"Expected no images as y.* dataset\.map"):
            use()


@pytest.mark.parametrize("source", ["array", "dataset", "generator", "PyDataset", "loader"])
def test_predictions_refuse_it(source, x):
    vae = small(run_eagerly=True)
    vae.build((None, *SHAPE))
    vae.predict(SOURCES[source](x), verbose=0)
    with pytest.raises(UserError, match="Expected pixels in"):
        vae.predict(SOURCES[source](with_fault(x, "up to 255")), verbose=0)
    with pytest.raises(UserError, match="Expected pixels in"):
        vae.predict_on_batch(with_fault(x, "up to 255"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, *slow({"run_eagerly": True}, {"steps_per_execution": 1})])
def test_single_batches_and_other_ways_of_compiling_refuse_it(options, x):
    vae = small(**options)
    for call in (vae.train_on_batch, vae.test_on_batch, vae.predict):
        with pytest.raises(UserError, match="Expected pixels in"):
            call(with_fault(x, "up to 255"))
    with pytest.raises(UserError, match="Expected pixels in"):
        vae.fit(SOURCES["dataset"](with_fault(x, "up to 255")), verbose=0)
    assert int(vae.steps) == 3


@pytest.mark.slow
@pytest.mark.parametrize("source", ["array", "dataset", "generator"])
def test_a_strategy_refuses_it(source, x):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        vae = small()
    with pytest.raises(UserError, match="Expected pixels in"):
        vae.fit(SOURCES[source](with_fault(x, "up to 255")), verbose=0)


def test_methods_that_return_an_elbo_refuse_it(x):
    vae = small()
    vae.build((None, *SHAPE))
    for call in (vae.elbo, vae.elbo_terms, lambda x: kvae.evaluation.elbo(vae, SOURCES["dataset"](x))):
        with pytest.raises(UserError, match="Expected pixels in"):
            call(with_fault(x, "up to 255"))


@pytest.mark.slow
def test_the_range_is_that_of_the_likelihood(x):
    class Unbounded(kvae.likelihoods.Gaussian):
        support = (-np.inf, np.inf, False)

    dataset = SOURCES["dataset"](100 * x - 3)
    assert np.isfinite(small(Unbounded()).fit(dataset, verbose=0).history["loss"]).all()
    with pytest.raises(UserError, match=r"Expected pixels in \[0, 1\]\. Received values from -3 to 97"):
        small("continuous_bernoulli").fit(dataset, verbose=0)
    with pytest.raises(UserError, match=r"Expected pixels in \[-inf, inf\]"):
        small(Unbounded()).fit(SOURCES["dataset"](with_fault(x, "infinite")), verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["array", "dataset", "generator", "PyDataset"])
def test_grey_pixels_are_warned_of_once_where_fit_is_called(source, x):
    with pytest.warns(KvaeWarning, match="Grey pixels") as given:
        small().fit(SOURCES[source](x / 2), epochs=1, verbose=0)
    grey = [warning for warning in given if "Grey pixels" in str(warning.message)]
    assert [warning.filename for warning in grey] == [__file__]


@pytest.mark.slow
def test_no_batch_is_drawn_only_to_look_at_it(x):
    drawn = []

    def batches():
        for start in range(0, 40, 10):
            drawn.append(start)
            yield x[start : start + 10]

    spec = tf.TensorSpec((None, *SHAPE), tf.float32)
    vae = small()
    vae.fit(tf.data.Dataset.from_generator(batches, output_signature=spec), epochs=2, verbose=0)
    assert drawn == [0, 10, 20, 30] * 2
