"""Batches that a model cannot be trained on are refused alike on every path, also under tf.distribute."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvae
from kvae.internal.errors import UserError

SHAPE = (6, 5, 1)
X = np.zeros((8, *SHAPE), np.float32)
LABELS = np.array([2, 0, 2, 1, 1, 0, 2, 1])


def one_wrong(values, wrong):
    return np.array([*values[:-1], wrong], values.dtype)


# The classes of the model, the parts of its batches, and what the message says.
REFUSED = {
    "a pixel out of range": (
        None,
        (np.concatenate([X[:7], X[:1] + 9]),),
        r"pixels in \[0, 1\]. Received values from 0",
    ),
    "a label that is no class": (3, (X, one_wrong(LABELS, 3)), r"labels in 0\.\.2.*Received 3"),
    "a negative label": (3, (X, one_wrong(LABELS, -1)), r"labels in 0\.\.2.*Received -1"),
    "no condition": (3, (X,), r"Expected batches \(x, y\)"),
    "weights": (None, (X, LABELS, np.ones(8)), "no sample_weight"),
    "weights beside a condition": (3, (X, LABELS, np.ones(8)), "no sample_weight"),
    "other images": (None, (X, X + 1), "no images as y"),
}


class Sequence(keras.utils.PyDataset):
    """Two batches."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return tuple(part[4 * index : 4 * index + 4] for part in self.parts)


FORMS = {
    "dataset": lambda parts: tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(4),
    "PyDataset": Sequence,
    "generator": lambda parts: (tuple(part[start : start + 4] for part in parts) for start in (0, 4)),
}


def model(condition, strategy):
    with strategy.scope() if strategy else contextlib.nullcontext():
        vae = kvae.VAE(2, hidden_units=(4,), condition=condition, seed=0)
        vae.compile(jit_compile=False)
    return vae


@pytest.mark.parametrize("strategy", [None, "mirrored"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", REFUSED)
def test_training_refuses_them(case, form, strategy):
    condition, parts, message = REFUSED[case]
    vae = model(condition, strategy and tf.distribute.MirroredStrategy(["CPU:0"]))
    with pytest.raises(UserError, match=message):
        vae.fit(FORMS[form](parts), epochs=1, verbose=0)


@pytest.mark.parametrize("strategy", [None, "mirrored"])
@pytest.mark.parametrize("case", REFUSED)
def test_evaluation_refuses_them(case, strategy):
    condition, parts, message = REFUSED[case]
    vae = model(condition, strategy and tf.distribute.MirroredStrategy(["CPU:0"]))
    with pytest.raises(UserError, match=message):
        vae.evaluate(FORMS["dataset"](parts), verbose=0)


def test_single_batches_refuse_weights_in_every_place():
    vae = model(None, None)
    for weights in ((np.ones(8),), (None, {0: 1.0})):
        with pytest.raises(UserError, match="no sample_weight or class_weight"):
            vae.train_on_batch(X, None, *weights)
    with pytest.raises(UserError, match="no sample_weight"):
        vae.test_on_batch(X, None, np.ones(8))
    assert set(vae.train_on_batch(X, return_dict=True)) == set(vae.test_on_batch(X, None, None, True))


@pytest.mark.parametrize("strategy", [None, "mirrored"])
def test_predict_ignores_weights_and_other_images_as_keras_does(strategy):
    vae = model(None, strategy and tf.distribute.MirroredStrategy(["CPU:0"]))
    expected = vae.predict(X, batch_size=4, verbose=0)  # the first call of the model
    for parts in ((X, LABELS, np.ones(8)), (X, X + 1)):
        np.testing.assert_array_equal(vae.predict(FORMS["dataset"](parts), verbose=0), expected)


@pytest.mark.parametrize("strategy", [None, "mirrored"])
def test_a_part_of_a_batch_may_be_none(strategy):
    vae = model(None, strategy and tf.distribute.MirroredStrategy(["CPU:0"]))
    data = FORMS["dataset"]((X, LABELS)).map(lambda x, y: (x, y, None))
    assert np.isfinite(vae.fit(data, verbose=0).history["loss"]).all()


def test_a_conditional_model_trains_under_a_strategy_on_labels_as_on_vectors():
    results = []
    for y in (LABELS, keras.utils.to_categorical(LABELS, 3)):
        vae = model(3, tf.distribute.MirroredStrategy(["CPU:0"]))
        results.append(vae.fit(FORMS["dataset"]((X, y)), epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)
